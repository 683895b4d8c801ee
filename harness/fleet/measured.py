"""`calibrate`, `power` and `bank fill` with `--fleet`: the parts of all nodes become one."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from harness.benchmark.hparams import LoadedHparams
from harness.calibrate import evidence
from harness.calibrate.evidence import Evidence
from harness.errors import Code, JudgeError
from harness.fleet.offer import Needs
from harness.fleet.reports import Portion
from harness.fleet.spread import Fleet, Spread, divided, nodes_for
from harness.phases import OnProgress
from harness.power import measured
from harness.power.measured import Power


@dataclass(frozen=True)
class OnFleet:
    """Measures on a fleet what else is measured here.

    Attributes:
        fleet: where.
        hardware: the class; empty: whatever the nodes are, if they are of one.
        say: told how it goes.
    """

    fleet: Fleet
    hardware: str
    say: OnProgress

    def calibrate(
        self,
        loaded: LoadedHparams,
        before: Evidence | None,
        keep: Callable[[Evidence], None],
        runs: int,
        only: str,
    ) -> Evidence:
        """As `calibrate.measure.measure`. Raises InputError, JudgeError."""
        known = before

        def take(document: bytes) -> None:
            nonlocal known
            found = Evidence.model_validate_json(document)
            known = found if known is None else _joined(known, found)
            keep(known)

        self._spread(loaded, Portion(what="calibrate", runs=runs, only=only), take)
        assert known is not None
        return known

    def power(
        self,
        loaded: LoadedHparams,
        before: Power,
        keep: Callable[[Power], None],
        runs: int,
        families: tuple[str, ...],
    ) -> Power:
        """As `power.sweep.measure`. Raises InputError, JudgeError."""
        known = before

        def take(document: bytes) -> None:
            nonlocal known
            for case in Power.model_validate_json(document).cases:
                known = measured.pooled(known, case)
            keep(known)

        self._spread(loaded, Portion(what="power", runs=runs, families=families), take)
        return known

    def fill_banks(
        self, loaded: LoadedHparams, world_size: int | None, count: int, limit_bytes: int
    ) -> int:
        """So many unused challenges on every node; gives how many nodes there are."""
        world = world_size or loaded.hparams.world.size
        nodes = nodes_for(self.fleet, self._needs(loaded, world))
        portion = Portion(what="bank", runs=count, world_size=world_size, limit_bytes=limit_bytes)
        gpus = self._needs(loaded, world).gpus(nodes[0].offer)
        spread = Spread(self.fleet, loaded.sha256, gpus, lambda document: None, self.say)
        spread.run_on_each(nodes, portion)
        return len(nodes)

    def _spread(self, loaded: LoadedHparams, whole: Portion, take: Callable[[bytes], None]) -> None:
        needs = self._needs(loaded, loaded.hparams.world.size)
        nodes = nodes_for(self.fleet, needs)
        self.say(f"{whole.what}: {whole.runs} runs on {len(nodes)} nodes")
        spread = Spread(self.fleet, loaded.sha256, needs.gpus(nodes[0].offer), take, self.say)
        spread.run(nodes, divided(whole, len(nodes)))

    def _needs(self, loaded: LoadedHparams, world_size: int) -> Needs:
        # Calibration is no evaluation: any level will do, as for `validator calibrate`.
        levels = ("docker", "bubblewrap", "user", "none")
        device = loaded.hparams.world.device
        return Needs(
            loaded.sha256, device, world_size, self.hardware, levels, version("trainjudge")
        )


def _joined(known: Evidence, found: Evidence) -> Evidence:
    """Both measured the same, on the same kind of machine. Raises JudgeError."""
    if known.benchmark_sha256 != found.benchmark_sha256 or known.torch != found.torch:
        raise JudgeError(
            Code.INTERNAL,
            f"a node measured {found.benchmark} with torch {found.torch}, and others "
            f"{known.benchmark} with {known.torch}",
        )
    for variant in found.variants:
        known = evidence.pooled(known, variant)
    return known
