"""Several processes run the tests (`pytest -n 2`): which tests stay together.

A file's tests do, since they share what is dear: a database, a browser, a launch of ranks. Whole
evaluations share nothing but the benchmark; they are handed out one at a time.
"""

from typing import Final

from xdist.scheduler.loadscope import LoadScopeScheduling

#: Files whose tests are whole evaluations, each on its own.
EVALUATIONS: Final = (
    "tests/test_corpus.py",
    "tests/test_strategies.py",
    "tests/test_evaluation.py",
)


class ByFile(LoadScopeScheduling):
    """Hands out files, and evaluations one at a time."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if file in EVALUATIONS else file
