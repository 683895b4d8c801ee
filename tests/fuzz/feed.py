"""One target, fed by atheris until time is over or something is found: `python -m tests.fuzz.feed NAME`.

The options after the name are libFuzzer's: https://llvm.org/docs/LibFuzzer.html#options.
"""

import sys
import warnings

import atheris

with atheris.instrument_imports(include=["harness", "json", "msgspec", "ast"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    warnings.simplefilter("ignore")  # Python's parser warns of what it reads
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name].feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
