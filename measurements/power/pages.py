"""docs/power/*.md, the table of docs/power.md and docs/power/unseen.svg, from what was measured.

    validator power --hparams profiles/embedded-bf16.json --json measurements/power/embedded-bf16.json
    python -m measurements.power.pages

The files beside this one hold what every run measured. Here they are judged by the tolerances of today, so
that a new calibration needs no new runs.
"""

import re
from pathlib import Path
from typing import Final

from harness.benchmark.hparams import load
from harness.files import write_whole
from harness.power.detection import DETECTED, Judged, Rules, judge, unseen
from harness.power.measured import read_measured
from harness.power.tables import saving, table, unseen_table
from measurements.power.plot import plot
from measurements.strategies import REGIMES, hparams_file

HERE: Final = Path(__file__).resolve().parent
DOCS: Final = HERE.parent.parent / "docs"
PAGE: Final = DOCS / "power.md"
FIGURE: Final = DOCS / "power" / "unseen.svg"
MARKED: Final = re.compile(r"(<!-- families -->\n).*?(\n<!-- /families -->)", re.S)


def measured() -> dict[str, list[Judged]]:
    """By regime, every case by the tolerances of today."""
    found = {}
    for regime in REGIMES:
        file = HERE / f"{regime}.json"
        if file.exists():
            loaded = load(hparams_file(regime))
            cases = read_measured(file, loaded).cases
            found[regime] = [judge(case, Rules.of(loaded.hparams)) for case in cases]
    return found


def documents() -> dict[Path, str]:
    """What every file that is made here has to hold."""
    known = measured()
    by_label = {REGIMES[regime]: judged for regime, judged in known.items()}
    page = PAGE.read_text(encoding="utf-8")
    made = {
        PAGE: MARKED.sub(lambda found: f"{found[1]}{families(by_label)}{found[2]}", page),
        FIGURE: plot(by_label),
    }
    for regime, judged in known.items():
        made[DOCS / "power" / f"{regime}.md"] = regime_page(regime, judged)
    return made


def families(by_label: dict[str, list[Judged]]) -> str:
    """As Markdown: a row for each family, a column for each regime."""
    columns = {
        label: (unseen(judged), unseen(judged, bound=True)) for label, judged in by_label.items()
    }
    names = dict.fromkeys(name for most, _ in columns.values() for name in most)
    lines = [
        f"| left out | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
        *(
            f"| {name} | {' | '.join(_cell(name, *column) for column in columns.values())} |"
            for name in names
        ),
    ]
    return "\n".join(lines)


def _cell(name: str, most: dict[str, Judged | None], shown: dict[str, Judged | None]) -> str:
    if name not in most:
        return ""
    estimate, bound = saving(most[name]), saving(shown[name])
    return estimate if estimate == bound else f"{estimate} ({bound})"


def regime_page(regime: str, judged: list[Judged]) -> str:
    """All that was measured of one regime."""
    runs = sorted({each.runs for each in judged})
    many = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    benchmark = "hparams.json" if regime == "hparams" else f"profiles/{regime}.json"
    return f"""# Power: {REGIMES[regime]}

`{benchmark}`, {many} runs of each cheat. How to read it: [power.md](../power.md). Made by
`python -m measurements.power.pages` from `measurements/power/{regime}.json`.

{unseen_table(judged)}

What is not shown to be found in {DETECTED:.0%} of evaluations needs more runs, or is not.

{table(judged)}
"""


def main() -> None:
    (DOCS / "power").mkdir(exist_ok=True)
    for path, text in documents().items():
        write_whole(path, text)
        print(path.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
