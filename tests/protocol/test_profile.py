"""Where a recorded run went: every moment counts once."""

import msgspec
import pytest

from harness.protocol.profile import MAX_PROFILE_BYTES, Operation, RankProfile, split


def test_what_overlaps_belongs_to_the_first_part_that_has_it() -> None:
    found = split(
        (0.0, 100.0),
        {
            "communication": [(0, 50)],
            "compute": [(40, 70)],
            "optimizer": [(60, 80)],
            "data": [(0, 5)],
            "commitment": [(90, 100)],
        },
    )
    assert found == {
        "commitment": 10,
        "data": 5,
        "optimizer": 20,
        "compute": 20,  # 40 to 60: the rest of it is the optimizer's
        "communication": 35,  # 5 to 40: while nothing was computed
        "other": 10,
    }
    assert sum(found.values()) == 100


def test_spans_that_nest_or_repeat_count_once_and_none_counts_outside() -> None:
    spans = [(0, 12), (11, 12), (11, 13), (11, 13), (19, 99), (0, 5), (30, 40)]
    found = split((10.0, 20.0), {"compute": spans})
    assert found["compute"] == 4
    assert found["other"] == 6


def test_a_span_within_the_last_of_several_adds_nothing() -> None:
    found = split((0.0, 20.0), {"data": [(1, 2), (5, 9), (6, 7)]})
    assert (found["data"], found["other"]) == (5, 15)


def test_nothing_recorded_is_all_other() -> None:
    assert split((0.0, 7.0), {})["other"] == 7


@pytest.mark.parametrize(
    "wrong",
    [
        {"compute": -1.0},
        {"other": 86_400.5},
        {"operations": [{"name": "x" * 300, "calls": 1, "seconds": 0.0}]},
        {"operations": [{"name": "x", "calls": 1, "seconds": 0.0}] * 11},
        {"unknown": 1},
    ],
    ids=["negative", "too long", "name", "count", "unknown"],
)
def test_a_profile_that_is_none_is_refused(wrong: dict[str, object]) -> None:
    parts = ("seconds", "commitment", "data", "optimizer", "compute", "communication", "other")
    good: dict[str, object] = dict.fromkeys(parts, 1.0) | {"operations": []}
    assert msgspec.json.decode(msgspec.json.encode(good), type=RankProfile).operations == ()
    most = {"name": "\u2028" * 256, "calls": 2**48 - 1, "seconds": 86_400.0}
    longest = msgspec.json.encode(dict.fromkeys(parts, 86_400.0) | {"operations": [most] * 10})
    assert len(msgspec.json.decode(longest, type=RankProfile).operations) == 10
    assert len(longest) < MAX_PROFILE_BYTES == 65_536
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(good | wrong), type=RankProfile)


def test_an_operation_is_what_was_said() -> None:
    said = Operation(name="aten::mm", calls=3, seconds=0.5)
    assert msgspec.json.decode(msgspec.json.encode(said), type=Operation) == said
