"""Where the project lies, for tests at any depth."""

from harness.paths import PROJECT

ROOT = PROJECT
#: Train files that fail, cheat, or are odd.
TRAIN_FILES = ROOT / "tests" / "submissions"
