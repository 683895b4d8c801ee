"""The way of a sweep from training to a file that can be added to."""

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.snapshot import Snapshot
from harness.power.detection import Rules, judge
from harness.power.families import wanted
from harness.power.measured import Power, nothing_yet
from harness.power.sweep import cheated, measure
from harness.reference.cheats.families import Cheat
from harness.reference.task import Variant
from tests.forked_ranks import ForkedRanks

pytest_plugins = ("tests.judging",)


def test_less_exact_is_a_setting_of_the_loop() -> None:
    base = Variant(world_size=1, micro_batches=1, compute_dtype="float32")
    cheat = Cheat(family="state_bf16", strength=1.0)
    late = Cheat(family="top_1", strength=0.5)
    assert cheated(base, (cheat, late)) == base.model_copy(
        update={"state_dtype": "bfloat16", "cheats": (cheat, late)}
    )
    assert cheated(base, (late,)) == base.model_copy(update={"cheats": (late,)})


def test_a_crude_cheat_is_found_and_none_at_all_is_not(
    loaded: LoadedHparams,
    snapshot: Snapshot,
    forked_ranks: ForkedRanks,
) -> None:
    """The whole way, with real training on short rows."""
    raw = loaded.hparams.model_dump()
    raw |= {"sequence_length": 32, "steps": {"min": 2, "max": 2}, "global_batch": 4}
    short = loaded.model_copy(update={"hparams": type(loaded.hparams).model_validate(raw)})
    said: list[str] = []
    kept: list[Power] = []
    asked = [*wanted(["rows=0.25+stale_steps=0.5"]), (Cheat(family="learning_rate", strength=0.0),)]
    before = nothing_yet(short.hparams)
    power = measure(short, snapshot, forked_ranks, asked, 1, said.append, kept.append, before)
    assert [len(known.cases) for known in kept] == [1, 2]
    rows, honest = (judge(case, Rules.of(short.hparams)) for case in power.cases)
    assert (rows.found, honest.found) == (1, 0)
    assert rows.times > 1 > honest.times
    assert said[1:] == [
        "rows 0.25, stale_steps 0.5: found in 1 of 1 runs",
        "learning_rate 0: found in 0 of 1 runs",
    ]
