"""What `validator` and `local_test/` share: find the benchmark, its snapshot and a sandbox, then judge."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from harness.bank.store import Bank
from harness.benchmark.hparams import LoadedHparams, load_hparams
from harness.benchmark.snapshot import Snapshot, open_snapshot
from harness.errors import Code, InputError
from harness.evaluate import Options, evaluate
from harness.kept import write_result
from harness.machine import pick_device
from harness.phases import Phases
from harness.protocol.profile import RankProfile
from harness.report import ProgressDisplay, profile_table
from harness.result import EvaluationResult
from harness.sandbox import Level, Sandbox, choose
from harness.timed.workspace import check_free

if TYPE_CHECKING:
    from harness.calibrate.evidence import Evidence
    from harness.nodes.nodes import Nodes
    from harness.power.measured import Power

    MeasureElsewhere = Callable[[LoadedHparams, Power, Callable[[Power], None]], Power]
    CalibrateElsewhere = Callable[
        [LoadedHparams, Evidence | None, Callable[[Evidence], None]], Evidence
    ]


def ready_snapshot(
    loaded: LoadedHparams, directory: Path | None, progress: ProgressDisplay
) -> Snapshot:
    """Open the snapshot; one that needs no network is made where it is missing.

    Raises InputError(SNAPSHOT_MISSING or SNAPSHOT_CHANGED).
    """
    try:
        return open_snapshot(loaded, directory)
    except InputError as error:
        parts = (loaded.hparams.model.source, loaded.hparams.data.source)
        if error.code is not Code.SNAPSHOT_MISSING or "hub" in parts:
            raise
    from harness.benchmark.preload import preload

    return preload(loaded, directory, progress=progress.line)


def judge_file(
    file: Path,
    *,
    hparams: Path | None = None,
    world_size: int | None = None,
    runs: int | None = None,
    sandbox: str = "auto",
    image: str | None = None,
    keep: Path | None = None,
    snapshot: Path | None = None,
    bank: bool = True,
    agents: Sequence[str] = (),
    agents_key: Path | None = None,
    quiet: bool = False,
) -> EvaluationResult:
    """`validator run` as a function; arguments as its options.

    Raises:
        InputError: a bad option, hparams file or snapshot.
        JudgeError: an agent does not answer, or works for another judge.
    """
    loaded = load_hparams(hparams)
    ranks = world_size or loaded.hparams.world.size
    if not agents:
        _check_one_machine(loaded)
        pick_device(loaded.hparams.world.device, ranks)
    if keep is not None:
        check_free(keep)
    with ProgressDisplay(quiet) as progress, ExitStack() as stack:
        opened, site = None, None
        if agents:
            opened = ready_snapshot(loaded, snapshot, progress)
            site = stack.enter_context(_nodes(agents, agents_key, loaded, opened, ranks))
            sandbox = site.level if sandbox == "auto" else sandbox
        chosen = choose(sandbox, image=image, hparams_sha256=loaded.sha256)
        where = f" on {len(agents)} machines" if agents else ""
        progress.line(f"{loaded.hparams.name}: isolation level {describe_sandbox(chosen)}{where}")
        opened = opened or ready_snapshot(loaded, snapshot, progress)
        found = _bank_for(chosen) if bank else None
        options = Options(world_size, runs, keep, found, site)
        result = evaluate(file, loaded, opened, chosen, options, Phases(progress.phase))
    if keep is not None and keep.is_dir():
        write_result(keep, result)
    return result


def _check_one_machine(loaded: LoadedHparams) -> None:
    nodes = loaded.hparams.world.nodes
    if nodes > 1:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"the ranks of {loaded.hparams.name} are on {nodes} machines: name their agents with --agents "
            "(docs/multi-node.md)",
        )


def _nodes(
    agents: Sequence[str],
    key: Path | None,
    loaded: LoadedHparams,
    snapshot: Snapshot,
    world_size: int,
) -> "Nodes":
    from harness.nodes.nodes import Nodes

    if key is None:
        raise InputError(Code.BAD_ARGUMENT, "--agents needs --agents-key, the file that they share")
    return Nodes(agents, key, loaded, snapshot, world_size)


def _bank_for(sandbox: Sandbox) -> Bank | None:
    """The bank, but at level none, where a train file could read what lies in it.

    Raises InputError(BAD_ARGUMENT): it would find something.
    """
    bank = Bank()
    if sandbox.level is not Level.NONE:
        return bank
    if bank.entries():
        raise InputError(
            Code.BAD_ARGUMENT,
            "at level none a train file can read what its user can, and this machine's bank has challenges "
            "that are still to come: take another level, or `validator bank drop --all` first",
        )
    return None


def check_trace(trace: Path | None) -> None:
    """That a trace can be put there, before anything is run for it. Raises InputError(BAD_ARGUMENT)."""
    if trace is not None and not trace.absolute().parent.is_dir():
        raise InputError(Code.BAD_ARGUMENT, f"there is no folder for {trace}")


def profile_file(
    file: Path,
    trace: Path,
    *,
    hparams: Path | None = None,
    world_size: int | None = None,
    sandbox: str = "auto",
    image: str | None = None,
    snapshot: Path | None = None,
    quiet: bool = False,
) -> tuple[RankProfile, ...]:
    """Record one run of a train file in a sandbox; nothing of it is judged.

    Args:
        trace: gets the Chrome trace of rank 0, and those of the others beside it.

    Raises:
        InputError: a bad option, hparams file or snapshot.
        SubmissionError: the train file failed.
    """
    from harness.submission.read import read
    from harness.timed.profile import profile_ranks
    from harness.timed.run import TimedSetup

    check_trace(trace)
    loaded = load_hparams(hparams)
    ranks = world_size or loaded.hparams.world.size
    with ProgressDisplay(quiet) as progress:
        chosen = choose(sandbox, image=image, hparams_sha256=loaded.sha256)
        opened = ready_snapshot(loaded, snapshot, progress)
        progress.line("one more run, recorded")
        setup = TimedSetup(
            submission=read(file, ranks),
            hparams=loaded.hparams,
            snapshot=opened,
            sandbox=chosen,
            world_size=ranks,
            device=pick_device(loaded.hparams.world.device, ranks),
            runs=1,
        )
        return profile_ranks(setup, trace)


def show_profile(
    file: Path,
    trace: Path,
    result: EvaluationResult,
    *,
    hparams: Path | None = None,
    sandbox: str = "auto",
    image: str | None = None,
    snapshot: Path | None = None,
    quiet: bool = False,
) -> None:
    """`profile_file` after an evaluation, with its ranks, and the tables on stderr if it is quiet.

    Nothing where the file never ran.
    """
    from rich.console import Console

    if not result.runs:
        return
    profiles = profile_file(
        file,
        trace,
        hparams=hparams,
        world_size=result.world_size,
        sandbox=sandbox,
        image=image,
        snapshot=snapshot,
        quiet=quiet,
    )
    console = Console(stderr=quiet)
    console.print(profile_table(profiles, result.score.mfu if result.score else None))
    console.print(
        f"trace: {trace}; open it in https://ui.perfetto.dev", highlight=False, soft_wrap=True
    )


def rejudge_folder(
    folder: Path, *, hparams: Path | None = None, snapshot: Path | None = None, quiet: bool = False
) -> EvaluationResult:
    """Judge again, without training, what `validator run --keep` has kept. Raises InputError."""
    from harness.rejudge import rejudge

    loaded = load_hparams(hparams)
    with ProgressDisplay(quiet) as progress:
        opened = ready_snapshot(loaded, snapshot, progress)
        return rejudge(folder, loaded, opened, progress.line)


def describe_sandbox(sandbox: Sandbox) -> str:
    """The level, and of a container the image."""
    image = sandbox.image
    return sandbox.level if image is None else f"{sandbox.level}, image {image.name}"


def measure_power(
    hparams: Path | None,
    snapshot: Path | None,
    sandbox: str,
    image: str | None,
    families: Sequence[str],
    runs: int,
    output: Path | None,
    elsewhere: "MeasureElsewhere | None" = None,
) -> None:
    """`validator power` as a function; prints the table.

    Args:
        families: of cheats, as `power.families.wanted` reads them; none: all.
        runs: of each cheat; 0: none, judge what the file holds.
        output: JSON file that gets what was measured, after every case; what it holds already counts too.
        elsewhere: measures, given what is known and who keeps it; None: this machine does.

    Raises InputError, JudgeError.
    """
    from harness.measured_file import write_down
    from harness.power.detection import Rules, judge
    from harness.power.families import wanted
    from harness.power.measured import Power, nothing_yet, read_measured
    from harness.power.sweep import measure
    from harness.power.tables import table, unseen_table

    asked = wanted(families)
    loaded = load_hparams(hparams)
    found = nothing_yet(loaded.hparams) if output is None else read_measured(output, loaded)

    def keep(known: Power) -> None:
        if output is not None:
            write_down(output, known)

    if runs and elsewhere is not None:
        found = elsewhere(loaded, found, keep)
    elif runs:
        with ProgressDisplay() as progress:
            chosen = choose(sandbox, image=image, hparams_sha256=loaded.sha256)
            opened = ready_snapshot(loaded, snapshot, progress)
            found = measure(loaded, opened, chosen, asked, runs, progress.line, keep, found)
    judged = [judge(case, Rules.of(loaded.hparams)) for case in found.cases]
    print(table(judged), unseen_table(judged), sep="\n\n")


def fill_bank(
    hparams: Path | None,
    snapshot: Path | None,
    sandbox: str,
    image: str | None,
    world_size: int | None,
    count: int,
    limit_bytes: int,
    *,
    idle: bool,
) -> tuple[int, int]:
    """`validator bank fill` as a function: how many entries were added, and how many are unused.

    Raises InputError, JudgeError.
    """
    from harness.bank.fill import Filling, fill

    loaded = load_hparams(hparams)
    bank = Bank()
    with ProgressDisplay() as progress:
        chosen = choose(sandbox, image=image, hparams_sha256=loaded.sha256)
        if chosen.level is Level.NONE:
            raise InputError(Code.BAD_ARGUMENT, "at level none no bank is used: take another one")
        filling = Filling(
            hparams=loaded.hparams,
            snapshot=ready_snapshot(loaded, snapshot, progress),
            sandbox=chosen,
            world_size=world_size or loaded.hparams.world.size,
            limit_bytes=limit_bytes,
            idle=idle,
        )
        added = fill(bank, filling, count, progress.line)
    return added, len(bank.entries(filling.kind))


def calibrate_benchmark(
    hparams: Path | None,
    snapshot: Path | None,
    sandbox: str,
    image: str | None,
    runs: int,
    false_alarms: float,
    *,
    write: bool,
    only: str = "",
    add: bool = False,
    again: bool = False,
    output: Path | None = None,
    elsewhere: "CalibrateElsewhere | None" = None,
) -> None:
    """`validator calibrate` as a function; prints the evidence.

    Args:
        false_alarms: as for `calibrate.conclude.conclude`.
        only: as for `calibrate.measure.measure`.
        add: to what the tolerances of the benchmark rest on.
        again: measure nothing, and conclude from what is there.
        output: file that gets what was measured, after every variant; what it holds already counts too.
        elsewhere: measures, given what is known and who keeps it; None: this machine does.

    Raises InputError, JudgeError.
    """
    from rich.console import Console

    from harness.calibrate.conclude import conclude
    from harness.calibrate.conclude import write as write_tolerances
    from harness.calibrate.evidence import (
        Evidence,
        nothing_yet,
        of_calibration,
        read_evidence,
    )
    from harness.calibrate.measure import measure
    from harness.machine import pick_device
    from harness.measured_file import write_down
    from harness.report import calibration_table

    loaded = load_hparams(hparams)
    world = loaded.hparams.world
    known = None if output is None else read_evidence(output, loaded)
    if known is None and (add or again):
        known = of_calibration(loaded)

    def keep(evidence: Evidence) -> None:
        if output is not None:
            write_down(output, evidence)

    if not again and elsewhere is not None:
        known = elsewhere(loaded, known, keep)
    elif not again:
        before = known or nothing_yet(loaded, pick_device(world.device, world.size))
        with ProgressDisplay() as progress:
            chosen = choose(sandbox, image=image, hparams_sha256=loaded.sha256)
            opened = ready_snapshot(loaded, snapshot, progress)
            known = measure(loaded, opened, chosen, runs, progress.line, keep, before, only)
    assert known is not None
    tolerances, calibration = conclude(loaded, known, false_alarms)
    Console().print(calibration_table(tolerances, calibration))
    if write:
        write_tolerances(loaded.path, tolerances, calibration)
        Console().print(f"written to {loaded.path}", markup=False, highlight=False, soft_wrap=True)
