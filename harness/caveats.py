"""What a reader of a result must know before comparing it with another: its warnings."""

from harness.benchmark.hparams import Hparams
from harness.sandbox import Level
from harness.sandbox.judge_container import exposure


def caveats(
    hparams: Hparams,
    level: Level,
    world_size: int | None = None,
    runs: int | None = None,
    nodes: int | None = None,
) -> list[str]:
    """A sentence for each.

    Args:
        hparams: of the benchmark.
        level: of isolation.
        world_size, runs, nodes: that the caller asked for in place of the benchmark's.
    """
    found = []
    if hparams.verify.calibration is None:
        found.append("this benchmark is not calibrated: its tolerances were not measured")
    elif not hparams.calibrated:
        found.append(
            "the benchmark changed since it was calibrated: run `validator calibrate` again"
        )
    elif hparams.verify.token_loss_share and hparams.verify.tolerances.token_loss_shift is None:
        found.append("calibrated before tokens' losses were compared: they are not judged")
    if level is Level.NONE:
        found.append("no isolation: the train file ran as the judge's user; not for a leaderboard")
    if level in (Level.USER, Level.NONE):
        found += exposure()
    if world_size not in (None, hparams.world.size):
        found.append(f"--world {world_size} is not the benchmark's {hparams.world.size}")
    if nodes not in (None, hparams.world.nodes):
        found.append(f"on {nodes} machines where the benchmark asks for {hparams.world.nodes}")
    if runs is not None and runs < hparams.evaluation_runs:
        found.append(f"--runs {runs} is fewer than the benchmark's")
    if hparams.numerics.param_dtype == "bfloat16":
        found.append(
            "bfloat16 masters: much of an update is below one unit in the last place, so the "
            "tolerances are several times looser and real bugs can pass"
        )
    return found
