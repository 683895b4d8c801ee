"""`rejudge` of a board: today's checks on what a worker has kept, and on nothing else."""

import shutil
from pathlib import Path

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.preload import preload
from harness.board.again import Again, rejudge
from harness.board.artefacts import Artefacts
from harness.board.history import history_of
from harness.board.organise import SeasonPlan, add_author, open_season
from harness.board.outcome import finish
from harness.board.queue import take
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.board.submit import Handed, examine, submit
from harness.board.views import result_document, submission_view
from harness.errors import Code, InputError, Verdict
from harness.evaluate import Options, evaluate
from harness.kept import RESULT, write_result
from harness.phases import Phases
from harness.result import EvaluationResult
from tests.board.examples import ELSEWHERE, HARDWARE
from tests.edited import differing
from tests.forked_ranks import ForkedRanks
from tests.project import ROOT

pytest_plugins = ("tests.judging",)

FILE = ROOT / "submissions" / "train_ep.py"
LARGE = 2**40
SUBMISSION = EVALUATION = 1


@pytest.fixture(scope="module")
def judged(
    quick: LoadedHparams, forked_ranks: ForkedRanks, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of an accepted evaluation, as a worker that keeps it leaves it."""
    folder = tmp_path_factory.mktemp("judged") / "evaluation"
    quiet = Phases(lambda name, detail: None)
    options = Options(world_size=2, runs=1, keep=folder)
    result = evaluate(FILE, quick, preload(quick), forked_ranks, options, quiet)
    write_result(folder, result)
    return folder


@pytest.fixture
def kept(judged: Path, tmp_path: Path) -> Artefacts:
    """What lies on this worker's disk."""
    artefacts = Artefacts(tmp_path / "kept", LARGE)
    place = artefacts.place(EVALUATION)
    assert place is not None
    shutil.copytree(judged, place, ignore=shutil.ignore_patterns("sockets"))
    return artefacts


@pytest.fixture
def finished(store: Store, quick: LoadedHparams, judged: Path) -> Store:
    """The board on which that evaluation stands."""
    handed_in(store, quick)
    finish_with(store, quick, result_in(judged))
    return store


def handed_in(store: Store, quick: LoadedHparams) -> None:
    plan = SeasonPlan("autumn", quick.sha256, "embedded", 2, HARDWARE, ScoringRule(pairs=0))
    open_season(store, plan)
    add_author(store, "ada")
    source = FILE.read_bytes()
    handed = Handed("ada", FILE.name, source)
    assert submit(store, handed, examine(source, world_size=2)) == SUBMISSION


def finish_with(store: Store, quick: LoadedHparams, result: EvaluationResult) -> None:
    taken = take(store, ELSEWHERE, quick.sha256)
    assert taken is not None and taken.evaluation == EVALUATION
    finish(store, taken, result, seconds=9.0)


def result_in(folder: Path) -> EvaluationResult:
    return EvaluationResult.model_validate_json((folder / RESULT).read_bytes())


def with_tolerance(quick: LoadedHparams, folder: Path, update_error: float) -> Path:
    return differing(quick, folder, {"verify.tolerances.update_error": update_error}).path


def test_todays_outcome_takes_the_place_of_the_old_one_which_stays_in_the_history(
    finished: Store, quick: LoadedHparams, kept: Artefacts, tmp_path: Path
) -> None:
    tight = Again(with_tolerance(quick, tmp_path, 1e-12), None, kept)
    before, now = rejudge(finished, SUBMISSION, tight, "calibrated anew")
    assert (before.verdict, now.verdict) == (Verdict.ACCEPTED, Verdict.REJECTED)
    with finished.read() as session:
        view = submission_view(session, SUBMISSION, finished.now())
        told = [line.kind for line in history_of(session, SUBMISSION)]
        assert result_document(session, EVALUATION) == now
    assert view.evaluations[-1].code is Code.UPDATE_MISMATCH
    assert told.count("evaluation_finished") == told.count("evaluation_rejudged") == 1

    # Once more, by the first tolerances: what it was is the last outcome, not the first.
    before, now = rejudge(finished, SUBMISSION, Again(quick.path, None, kept), "a mistake")
    assert (before.verdict, now.verdict) == (Verdict.REJECTED, Verdict.ACCEPTED)


def test_what_another_start_of_the_evaluation_left_is_not_taken_for_it(
    store: Store, quick: LoadedHparams, kept: Artefacts, judged: Path
) -> None:
    """Its worker was killed before it could write the outcome down, and another one judged it."""
    handed_in(store, quick)
    elsewhere = result_in(judged).model_copy(update={"started_at": "2026-11-24T12:00:00+00:00"})
    finish_with(store, quick, elsewhere)
    with pytest.raises(InputError, match="another outcome of evaluation 1") as caught:
        rejudge(store, SUBMISSION, Again(quick.path, None, kept), "calibrated anew")
    assert caught.value.code is Code.UNKNOWN_ID
    with store.read() as session:
        assert result_document(session, EVALUATION) == elsewhere


def test_what_is_not_judged_yet_is_not_judged_again(
    store: Store, quick: LoadedHparams, kept: Artefacts
) -> None:
    handed_in(store, quick)
    with pytest.raises(InputError, match="submission 1 is queued: wait for it"):
        rejudge(store, SUBMISSION, Again(quick.path, None, kept), "calibrated anew")


def test_what_was_not_kept_here_is_said(
    finished: Store, quick: LoadedHparams, tmp_path: Path
) -> None:
    nothing = Artefacts(tmp_path / "nothing", LARGE)
    with pytest.raises(InputError, match="evaluation 1 is not kept in"):
        rejudge(finished, SUBMISSION, Again(quick.path, None, nothing), "calibrated anew")
