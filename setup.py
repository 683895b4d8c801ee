"""What pyproject.toml cannot say: a wheel brings along the benchmarks, their data and the train files.

In a checkout they lie beside the packages; a wheel has them in `harness/shipped` (`harness/paths.py`).
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
SHIPPED = (
    "hparams.json",
    "profiles/*.json",
    "assets/*.gz",
    "assets/tokenizer.json",
    "assets/trained/*",
    "submissions/*",
)


class BuildWithBenchmarks(build_py):
    """Copies them where the packages are built; an editable installation uses them as they lie."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for pattern in SHIPPED:
            for file in sorted(HERE.glob(pattern)):
                if file.is_file():
                    target = Path(self.build_lib, "harness", "shipped", file.relative_to(HERE))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)


setup(cmdclass={"build_py": BuildWithBenchmarks})
