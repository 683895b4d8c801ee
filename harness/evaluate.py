"""One evaluation, from a train file to a result: the order of things, and whose fault what is.

Data flows one way: submission → challenge → sandbox → verify → score. Each room has its module; this
one only walks through them.
"""

import os
import traceback
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from harness.bank.kind import kind_of
from harness.bank.spend import Spending
from harness.bank.store import Bank
from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.snapshot import Snapshot
from harness.caveats import caveats
from harness.conclusion import conclude
from harness.errors import Code, InputError, JudgeError, SubmissionError, Verdict
from harness.host.site import Site, ThisMachine
from harness.kept import banked_place, write_kept
from harness.opening.files import check_files
from harness.partial_result import PartialResult
from harness.phases import PhaseName, Phases
from harness.protocol.text import one_line, printable
from harness.reference.task import check_rows, default_variant
from harness.result import EvaluationResult
from harness.sandbox import Sandbox
from harness.score.medians import score
from harness.submission.read import read_source, sha256_of, understood
from harness.timed.others import NOTED_SHARE
from harness.timed.run import TimedSetup, run_submission
from harness.timed.workspace import Workspace, check_room
from harness.verification import verify

MEASURED = "MFU is against a peak measured on this CPU: compare it on this machine only"


@dataclass(frozen=True)
class Options:
    """What the caller chose. None means: as the benchmark says.

    Attributes:
        world_size: ranks.
        runs: timed runs.
        keep: folder that gets everything the evaluation made; it must not exist.
        bank: challenges that may be taken; None: all are drawn afresh.
        site: where the ranks run; None: on this machine.
    """

    world_size: int | None = None
    runs: int | None = None
    keep: Path | None = None
    bank: Bank | None = None
    site: Site | None = None


def evaluate(
    file: Path,
    loaded: LoadedHparams,
    snapshot: Snapshot,
    sandbox: Sandbox,
    options: Options,
    phases: Phases,
) -> EvaluationResult:
    """Judge one train file.

    Returns:
        The result, whatever the submission does: `rejected` is its fault, `error` is ours.

    Raises:
        InputError: the caller asked for something that this benchmark or machine cannot do.
    """
    hparams = loaded.hparams
    site = options.site or ThisMachine(sandbox)
    partial = PartialResult(
        loaded=loaded,
        snapshot=snapshot,
        name=printable(os.fsencode(file.name)),
        sandbox=sandbox,
        isolation=site.level,
        world_size=options.world_size or hparams.world.size,
        phases=phases,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        warnings=caveats(hparams, site.level, options.world_size, options.runs, site.nodes),
    )
    try:
        _walk(file, partial, sandbox, site, options)
    except SubmissionError as error:
        return partial.failed(Verdict.REJECTED, error)
    except JudgeError as error:
        return partial.failed(Verdict.ERROR, error)
    except InputError:
        raise
    except OSError as error:
        failed_machine = JudgeError(
            Code.INTERNAL,
            # Copying a folder fails with an error for each file.
            f"this machine failed ({error.strerror or one_line(str(error))}); is its disk full?",
            traceback.format_exc(),
        )
        return partial.failed(Verdict.ERROR, failed_machine)
    except Exception as error:
        defect = JudgeError(
            Code.INTERNAL,
            f"a defect of the judge ({type(error).__name__}); please report it",
            traceback.format_exc(),
        )
        return partial.failed(Verdict.ERROR, defect)
    return partial.result(*conclude(partial.runs))


def _walk(
    file: Path, partial: PartialResult, sandbox: Sandbox, site: Site, options: Options
) -> None:
    """All rooms in order; fills the partial result."""
    hparams, phases, world_size = partial.loaded.hparams, partial.phases, partial.world_size
    phases.enter(PhaseName.PREPARE, "the train file")
    source = read_source(file)
    partial.sha256 = sha256_of(source)
    partial.submission = submission = understood(file, source, world_size)
    submission.strategy.check_batch(hparams.global_batch)
    check_rows(hparams, default_variant(hparams, world_size))
    device = site.device(hparams, world_size)
    partial.machine = site.machine(device, world_size)
    partial.warnings += site.warnings(device, world_size)
    setup = TimedSetup(
        submission=submission,
        hparams=hparams,
        snapshot=partial.snapshot,
        sandbox=sandbox,
        world_size=world_size,
        device=device,
        runs=options.runs or hparams.evaluation_runs,
        place=site,
    )
    shapes = {name: spec.shape for name, spec in partial.snapshot.layout.items()}
    check_files(shapes, partial.snapshot.state_bytes, world_size, setup.runs)
    check_room(site.nodes * hparams.limits.outbox_bytes + setup.runs * partial.snapshot.state_bytes)
    with site.timing(lambda: phases.enter(PhaseName.WAIT)):
        _run_and_verify(setup, partial, options, site)


def _run_and_verify(
    setup: TimedSetup, partial: PartialResult, options: Options, site: Site
) -> None:
    """All that needs the machine for itself."""
    from harness.host.known_parameters import parameters_of

    hparams, phases, world_size = setup.hparams, partial.phases, setup.world_size
    # A CPU's peak is measured, so before anything else keeps the machine busy.
    phases.enter(PhaseName.PREPARE, "the peak of this machine")
    assert partial.machine is not None
    peak = site.peak(partial.machine, hparams, world_size)
    with (
        Workspace(options.keep) as workspace,
        _spending(setup, options) as spending,
    ):
        setup = replace(setup, draw=spending.draw)
        timed_runs = run_submission(setup, workspace, phases, partial.observed)
        others = partial.observed.others or 0.0
        if others > NOTED_SHARE:
            partial.warnings.append(
                f"other programs had {others:.0%} of this machine's cores meanwhile: the times, and "
                "with them the MFU, are worse than they could be"
            )
        if peak.source == "measured":
            peak, doubts = site.settled(peak, site.peak(partial.machine, hparams, world_size))
            partial.warnings += [MEASURED, *doubts]
        if options.keep is not None:
            write_kept(workspace.private, timed_runs, peak)
        partial.warnings += spending.trouble
        place = (
            (lambda run: banked_place(workspace.root, run)) if options.keep is not None else None
        )
        with site.verifying(lambda: phases.enter(PhaseName.WAIT)):
            partial.runs = verify(setup, timed_runs, workspace, phases, spending.ahead(place))
    if conclude(partial.runs)[0] is Verdict.ACCEPTED:
        phases.enter(PhaseName.SCORE)
        parameters = parameters_of(partial.snapshot.model_dir)
        partial.score, partial.runs = score(partial.runs, hparams, parameters, peak, world_size)
        if partial.score.mfu > 1:
            partial.warnings.append(
                f"an MFU of {partial.score.mfu:.0%} cannot be: the peak is too low, or the clock was wrong"
            )


def _spending(setup: TimedSetup, options: Options) -> Spending:
    kind = ""
    if options.bank is not None:
        kind = kind_of(setup.hparams, setup.snapshot, setup.sandbox, setup.world_size, setup.device)
    return Spending(options.bank, kind, setup.hparams, setup.snapshot)
