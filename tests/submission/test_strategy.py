"""Which ranks do what: a strategy read off the source, its arithmetic, and those that are refused.

Most sources are parsed in this process: that of a real submission is parsed in a child, which costs a
quarter of a second; those with a `write` go that way.
"""

from pathlib import Path

import pytest

from harness.errors import Code, SubmissionError
from harness.submission import source_facts
from harness.submission.read import read
from harness.submission.source_facts import StrategyFact
from harness.submission.strategy import WHOLE_WORLD, Strategy, read_strategy
from tests.train_sources import INNER_STEPS, Write, declared, refusal, writer


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


def strategy_of(source: str) -> Strategy:
    return read_strategy(source_facts.collect(source.encode()).strategy)


def returning(literal: str) -> str:
    return f"{INNER_STEPS}def get_strategy():\n    return {literal}\n"


def refused(source: str) -> SubmissionError:
    with pytest.raises(SubmissionError) as caught:
        strategy_of(source)
    return caught.value


# --- strategies that are read -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "strategy"),
    [
        ("{}", Strategy()),
        ("{'dp_size': 2, 'tp_size': 3, 'pp_size': 5, 'cp_size': 7}", Strategy(2, 3, 1, 5, 7)),
        ("{'cp_size': 7, 'ep_size': 4}", Strategy(1, 1, 4, 1, 7)),
        ("{'dp_size': 1, 'tp_size': 1}", Strategy()),
        ("{'dp_size': 65536}", Strategy(dp_size=65_536)),
        (
            "{'dp_size': 4, 'ep_size': 2, 'ep_borrows_dp': True}",
            Strategy(dp_size=4, ep_size=2, ep_borrows_dp=True),
        ),
        # Not borrowed, so it need not divide.
        (
            "{'dp_size': 3, 'ep_size': 2, 'ep_borrows_dp': False}",
            Strategy(dp_size=3, ep_size=2, ep_borrows_dp=False),
        ),
        ("'single'", Strategy()),
        ("'ddp'", Strategy(dp_size=WHOLE_WORLD)),
        ("'fsdp'", Strategy(dp_size=WHOLE_WORLD)),
        ("'tp'", Strategy(tp_size=WHOLE_WORLD)),
        ("'ep'", Strategy(ep_size=WHOLE_WORLD)),
    ],
)
def test_a_literal_strategy_is_read(returned: str, strategy: Strategy) -> None:
    assert strategy_of(returning(returned)) == strategy


def test_an_axis_that_is_not_named_takes_one_rank() -> None:
    assert Strategy() == Strategy(1, 1, 1, 1, 1, ep_borrows_dp=False, declared=True)
    assert Strategy().world_size == 1


def test_a_docstring_an_annotation_and_a_decorator_do_not_make_a_strategy_computed() -> None:
    source = (
        f"import functools\n{INNER_STEPS}"
        "@functools.cache\ndef get_strategy() -> dict:\n    'All in dp.'\n    return {'dp_size': 3}\n"
    )
    assert strategy_of(source).dp_size == 3


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("ddp", Strategy(dp_size=4)),
        ("fsdp", Strategy(dp_size=4)),
        ("tp", Strategy(tp_size=4)),
        ("ep", Strategy(ep_size=4)),
    ],
)
def test_a_legacy_string_takes_the_whole_world(text: str, filled: Strategy) -> None:
    strategy = strategy_of(returning(repr(text)))
    assert strategy.world_size == 0
    assert strategy.check_world(4) == filled
    assert filled.world_size == 4


def test_a_whole_world_in_dp_has_rows_for_every_rank_and_in_tp_one_share_for_all() -> None:
    assert strategy_of(returning("'fsdp'")).check_world(8).dp_rank(5) == 5
    assert strategy_of(returning("'tp'")).check_world(8).dp_rank(5) == 0


def test_a_legacy_string_for_one_rank_is_no_excuse_on_more() -> None:
    with pytest.raises(SubmissionError, match=r"asks for dp_size 1 = 1 rank,.* on 2") as caught:
        strategy_of(returning("'single'")).check_world(2)
    assert caught.value.code is Code.STRATEGY_WORLD_MISMATCH


def test_no_strategy_is_one_rank_and_an_error_on_more(write: Write) -> None:
    strategy = strategy_of(INNER_STEPS)
    assert strategy == Strategy(declared=False)
    assert strategy.check_world(1).world_size == 1
    error = refusal(write(INNER_STEPS), world=2)
    assert error.code is Code.STRATEGY_WORLD_MISMATCH
    assert "no get_strategy()" in error.message and "on 2" in error.message


def test_a_submission_is_read_with_its_strategy_filled_in(write: Write) -> None:
    assert read(declared(write, "'fsdp'"), world=4).strategy == Strategy(dp_size=4)


# --- the strategy's arithmetic ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "world", "dp_ranks"),
    [
        (Strategy(dp_size=2, tp_size=2, pp_size=2), 8, [0, 0, 0, 0, 1, 1, 1, 1]),
        (Strategy(dp_size=3, cp_size=2), 6, [0, 0, 1, 1, 2, 2]),
        (Strategy(dp_size=2, ep_size=2), 4, [0, 0, 1, 1]),
        (Strategy(tp_size=3), 3, [0, 0, 0]),
        (Strategy(dp_size=3), 3, [0, 1, 2]),
        (Strategy(dp_size=4, ep_size=2, ep_borrows_dp=True), 4, [0, 1, 2, 3]),
        (Strategy(dp_size=2, tp_size=2, ep_size=2, ep_borrows_dp=True), 4, [0, 0, 1, 1]),
    ],
)
def test_ranks_are_laid_out_with_dp_outermost(
    strategy: Strategy, world: int, dp_ranks: list[int]
) -> None:
    assert strategy.world_size == world
    assert strategy.check_world(world) == strategy
    assert [strategy.dp_rank(rank) for rank in range(world)] == dp_ranks


def test_a_world_is_the_product_of_all_axes() -> None:
    assert Strategy(2, 3, 5, 7, 11).world_size == 2310
    assert Strategy(2, 3, 5, 7, 11, ep_borrows_dp=True).world_size == 462


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        (Strategy(dp_size=2, tp_size=3), "dp_size 2 x tp_size 3 = 6 ranks"),
        (
            Strategy(2, 3, 2, 4, 5),
            "dp_size 2 x tp_size 3 x ep_size 2 x pp_size 4 x cp_size 5 = 240",
        ),
        (Strategy(dp_size=8, ep_size=2, ep_borrows_dp=True), "for dp_size 8 = 8 ranks"),
        (Strategy(pp_size=2), "for pp_size 2 = 2 ranks"),
    ],
)
def test_a_wrong_product_names_the_numbers(strategy: Strategy, told: str) -> None:
    for world in (strategy.world_size - 1, strategy.world_size + 1):
        with pytest.raises(SubmissionError) as caught:
            strategy.check_world(world)
        assert caught.value.code is Code.STRATEGY_WORLD_MISMATCH
        assert told in caught.value.message and f"on {world}" in caught.value.message


def test_dp_has_to_divide_the_batch() -> None:
    for size in (1, 2, 4, 8):
        Strategy(dp_size=size).check_batch(8)
    for size in (3, 16):
        with pytest.raises(SubmissionError, match=f"8 rows .* dp_size = {size}") as caught:
            Strategy(dp_size=size).check_batch(8)
        assert caught.value.code is Code.STRATEGY_INVALID


# --- strategies that are refused --------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("{'dp_size': 0}", "dp_size = 0"),
        ("{'dp_size': -1}", "dp_size = -1"),
        ("{'dp_size': True}", "dp_size = True"),
        ("{'dp_size': 2.0}", "a float"),
        ("{'dp_size': '2'}", "a str"),
        ("{'dp_size': None}", "a NoneType"),
        ("{'dp_size': 0x" + "f" * 5000 + "}", "a int"),
        ("{'dp_size': 65537}", "65537"),
        ("{'tp_size': 0}", "tp_size = 0"),
        ("{'ep_size': 0}", "ep_size = 0"),
        ("{'pp_size': 0}", "pp_size = 0"),
        ("{'cp_size': 0}", "cp_size = 0"),
        ("{'dp_sise': 2}", '"dp_sise"'),
        ("{'ep_borrows_dp': 1}", "ep_borrows_dp = 1"),
        ("{'ep_borrows_dp': 0}", "ep_borrows_dp = 0"),
        ("{'dp_size': 3, 'ep_size': 2, 'ep_borrows_dp': True}", "must divide"),
        ("{'dp_size': 2, 'ep_size': 4, 'ep_borrows_dp': True}", "must divide"),
        ("{1: 2}", "not strings"),
        ("['ddp']", "a list"),
        ("None", "a NoneType"),
        ("'zero3'", '"zero3"'),
        ("'" + "x" * 100_000 + "'", "xxx…"),
        (r"'\x1b[2J'", '"?[2J"'),
        (r"{'\ud800': 1}", '"?"'),
    ],
)
def test_an_invalid_strategy_is_named(returned: str, told: str) -> None:
    error = refused(returning(returned))
    assert error.code is Code.STRATEGY_INVALID
    assert told in error.message
    assert len(error.message) < 500


@pytest.mark.parametrize(
    "definition",
    [
        "def get_strategy():\n    return {'dp_size': WORLD}",
        "def get_strategy():\n    return dict(dp_size=2)",
        "def get_strategy():\n    return {'dp_size': 1 + 1}",
        "def get_strategy():\n    return {**{'dp_size': 2}}",
        "def get_strategy():\n    return {[]: 2}",
        "def get_strategy():\n    return f'ddp'",
        "def get_strategy():\n    return",
        "def get_strategy():\n    pass",
        "def get_strategy():\n    'ddp'",
        "def get_strategy():\n    import os\n    return {'dp_size': 2}",
        "def get_strategy():\n    yield {'dp_size': 2}",
        "async def get_strategy():\n    return {'dp_size': 2}",
        "get_strategy = lambda: {'dp_size': 2}",
        "from elsewhere import get_strategy",
        "class get_strategy:\n    pass",
        "if True:\n    def get_strategy():\n        return 'ddp'",
        "def get_strategy():\n    return 'ddp'\ndef get_strategy():\n    return 'tp'",
        "def get_strategy():\n    return 'ddp'\nget_strategy = other",
    ],
)
def test_a_strategy_that_only_a_run_could_tell_is_refused(definition: str) -> None:
    error = refused(f"{INNER_STEPS}{definition}\n")
    assert error.code is Code.STRATEGY_NOT_LITERAL
    assert "never executed" in error.message


def test_a_refusal_says_what_is_known(write: Write) -> None:
    """And a submission is refused for it as its facts are."""
    error = refusal(declared(write, "'zero3'"))
    assert error.code is Code.STRATEGY_INVALID
    assert '"single", "ddp", "fsdp", "tp", "ep"' in error.message
    unknown = refused(returning("{'dp': 2}")).message
    assert "dp_size, tp_size, ep_size, pp_size, cp_size, ep_borrows_dp" in unknown


def test_every_wrong_entry_is_seen_not_only_the_last() -> None:
    fact = StrategyFact("entries", entries=[("dp_sise", 2), ("tp_size", 2)])
    with pytest.raises(SubmissionError, match="dp_sise"):
        read_strategy(fact)
