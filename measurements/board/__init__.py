"""What the leaderboard costs: `python -m measurements.board --help`."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
