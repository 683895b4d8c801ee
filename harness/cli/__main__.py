"""`python -m harness.cli`: the command `validator` where it is not installed."""

from harness.cli import main

main()
