"""What may lie in the outbox, and what is said of a benchmark before it judges."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.errors import Code, InputError, SubmissionError
from harness.reference.launch import check_rows, default_variant
from harness.timed.run import opened_folder
from harness.timed.workspace import Workspace
from harness.verification import check_names

# Of a timed, only how many ranks had something to open matters here.
TRIALS: Any = [SimpleNamespace(plan=SimpleNamespace(orders=((), ())))]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Workspace() as made:
        yield made


def test_the_ranks_folders_may_lie_in_the_outbox(workspace: Workspace) -> None:
    for rank in range(2):
        opened_folder(workspace.outbox, 0, rank).mkdir()
    check_names(TRIALS, workspace.outbox)


@pytest.mark.parametrize("name", ["junk", "run0-rank2", "run1-rank0", "\x1b[2J", "\udcff"])
def test_nothing_else_may_lie_in_the_outbox(workspace: Workspace, name: str) -> None:
    (workspace.outbox / name).touch()
    with pytest.raises(SubmissionError) as caught:
        check_names(TRIALS, workspace.outbox)
    assert caught.value.code is Code.OUTBOX_INVALID
    assert caught.value.message.isprintable()
    assert caught.value.message.isascii()


def test_a_world_that_the_reference_cannot_use_is_said_before_the_work(
    loaded: LoadedHparams,
) -> None:
    hparams = loaded.hparams.model_copy(
        update={"reference": loaded.hparams.reference.model_copy(update={"world_size": None})}
    )
    check_rows(hparams, default_variant(hparams, 4))
    with pytest.raises(InputError, match="3 ranks"):
        check_rows(hparams, default_variant(hparams, 3))
