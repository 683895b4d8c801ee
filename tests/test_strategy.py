"""Which ranks do what: a strategy read off the source, its arithmetic, and those that are refused."""

from pathlib import Path

import pytest
from train_sources import INNER_STEPS, Write, declared, refusal, writer

from harness.errors import Code, SubmissionError
from harness.strategy import WHOLE_WORLD
from harness.submission import Strategy, read


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


# --- strategies that are read -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "strategy"),
    [
        ("{}", Strategy()),
        ("{'dp_size': 2, 'tp_size': 3, 'pp_size': 5, 'cp_size': 7}", Strategy(2, 3, 1, 5, 7)),
        ("{'ep_size': 4}", Strategy(ep_size=4)),
        (
            "{'dp_size': 4, 'ep_size': 2, 'ep_borrows_dp': True}",
            Strategy(dp_size=4, ep_size=2, ep_borrows_dp=True),
        ),
        ("'single'", Strategy()),
        ("'ddp'", Strategy(dp_size=WHOLE_WORLD)),
        ("'fsdp'", Strategy(dp_size=WHOLE_WORLD)),
        ("'tp'", Strategy(tp_size=WHOLE_WORLD)),
        ("'ep'", Strategy(ep_size=WHOLE_WORLD)),
    ],
)
def test_a_literal_strategy_is_read(write: Write, returned: str, strategy: Strategy) -> None:
    assert read(declared(write, returned)).strategy == strategy


def test_a_docstring_an_annotation_and_a_decorator_do_not_make_a_strategy_computed(
    write: Write,
) -> None:
    path = write(
        f"import functools\n{INNER_STEPS}"
        "@functools.cache\ndef get_strategy() -> dict:\n    'All in dp.'\n    return {'dp_size': 3}\n"
    )
    assert read(path).strategy.dp_size == 3


def test_a_legacy_string_takes_the_whole_world(write: Write) -> None:
    path = declared(write, "'fsdp'")
    assert read(path, world=4).strategy == Strategy(dp_size=4)
    assert read(path).strategy.check_world(8).dp_rank(5) == 5
    assert read(declared(write, "'tp'"), world=4).strategy == Strategy(tp_size=4)


def test_no_strategy_is_one_rank_and_an_error_on_more(write: Write) -> None:
    path = write(INNER_STEPS)
    assert read(path, world=1).strategy.world_size == 1
    error = refusal(path, world=2)
    assert error.code is Code.STRATEGY_WORLD_MISMATCH
    assert "no get_strategy()" in error.message and "on 2" in error.message


# --- the strategy's arithmetic ----------------------------------------------------------------


def test_ranks_are_laid_out_with_dp_outermost() -> None:
    strategy = Strategy(dp_size=2, tp_size=2, pp_size=2)
    assert strategy.world_size == 8
    assert [strategy.dp_rank(rank) for rank in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_borrowed_experts_do_not_enter_the_product() -> None:
    borrowed = Strategy(dp_size=4, ep_size=2, ep_borrows_dp=True)
    assert borrowed.check_world(4) is not None
    assert [borrowed.dp_rank(rank) for rank in range(4)] == [0, 1, 2, 3]
    assert Strategy(dp_size=4, ep_size=2).world_size == 8


def test_a_wrong_product_names_the_numbers(write: Write) -> None:
    path = declared(write, "{'dp_size': 2, 'tp_size': 3}")
    assert read(path, world=6).strategy.world_size == 6
    error = refusal(path, world=4)
    assert error.code is Code.STRATEGY_WORLD_MISMATCH
    assert "dp_size 2 x tp_size 3 = 6" in error.message and "on 4" in error.message


def test_dp_has_to_divide_the_batch() -> None:
    Strategy(dp_size=4).check_batch(8)
    with pytest.raises(SubmissionError, match=r"8 rows .* dp_size = 3") as caught:
        Strategy(dp_size=3).check_batch(8)
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
        ("{'dp_sise': 2}", '"dp_sise"'),
        ("{'ep_borrows_dp': 1}", "ep_borrows_dp = 1"),
        ("{'dp_size': 3, 'ep_size': 2, 'ep_borrows_dp': True}", "must divide"),
        ("{1: 2}", "not strings"),
        ("['ddp']", "a list"),
        ("None", "a NoneType"),
        ("'zero3'", '"zero3"'),
        ("'" + "x" * 100_000 + "'", "xxx…"),
        (r"'\x1b[2J'", '"?[2J"'),
        (r"{'\ud800': 1}", '"?"'),
    ],
)
def test_an_invalid_strategy_is_named(write: Write, returned: str, told: str) -> None:
    error = refusal(declared(write, returned))
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
def test_a_strategy_that_only_a_run_could_tell_is_refused(write: Write, definition: str) -> None:
    error = refusal(write(f"{INNER_STEPS}{definition}\n"))
    assert error.code is Code.STRATEGY_NOT_LITERAL
    assert "never executed" in error.message
