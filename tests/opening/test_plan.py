"""Whether committed boxes are a state, who opens them, and what the author is told if they are not."""

import math
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import Code, SubmissionError
from harness.opening.plan import OpeningPlan, Source, assemble, plan_opening
from harness.protocol.messages import Commitment, Piece
from harness.tensors.boxes import Box, StoredPiece, TensorSpec

LAYOUT = {
    "a.weight": TensorSpec((6, 4), "float32"),
    "b.weight": TensorSpec((8,), "float32"),
    "scale": TensorSpec((), "float32"),
}


def piece(name: str, box: Box | None = None, content: int = 0, **changes: object) -> Piece:
    """An honest piece of `name`, the whole tensor unless `box` says otherwise."""
    spec = LAYOUT.get(name, TensorSpec((3,), "float32"))
    box = box or Box((0,) * len(spec.shape), spec.shape)
    honest: dict[str, object] = {
        "name": name,
        "tensor_shape": spec.shape,
        "offset": box.offset,
        "shape": box.shape,
        "dtype": spec.dtype,
        "digest": f"{content:064x}",
    }
    return msgspec.convert(honest | changes, Piece)


def commitment(*pieces: Piece) -> Commitment:
    return Commitment(run=0, pieces=pieces)


def whole_state(content: int = 0) -> Commitment:
    return commitment(*(piece(name, content=content) for name in LAYOUT))


NOTHING = commitment()


def refused(*commitments: Commitment) -> str:
    with pytest.raises(SubmissionError) as caught:
        plan_opening(commitments, LAYOUT)
    assert caught.value.code == Code.STATE_INVALID
    return caught.value.message


# --- states that are accepted -------------------------------------------------------------------


def test_the_whole_state_on_rank_0_is_opened_by_rank_0() -> None:
    plan = plan_opening([whole_state(), NOTHING], LAYOUT)
    assert plan.orders == ((0, 1, 2), ())
    assert plan.versions == (
        {"a.weight": (Source(0, 0),), "b.weight": (Source(0, 1),), "scale": (Source(0, 2),)},
    )


def test_shards_of_every_rank_are_opened_by_their_owners() -> None:
    halves = [
        commitment(piece("a.weight", Box((3 * rank, 0), (3, 4))), piece("b.weight"), piece("scale"))
        for rank in range(2)
    ]
    plan = plan_opening(halves, LAYOUT)
    assert plan.versions[0]["a.weight"] == (Source(0, 0), Source(1, 0))
    assert len(plan.versions) == 1
    # The replicas are opened once: 32 bytes by one rank, 4 by the other.
    assert sorted(plan.orders) == [(0, 1), (0, 2)]


def test_replicas_are_shared_out_evenly_by_bytes() -> None:
    layout = {f"t{i}": TensorSpec((10 + i % 7, 16), "bfloat16") for i in range(101)}
    replica = commitment(
        *(
            piece(name, Box((0, 0), spec.shape), tensor_shape=spec.shape, dtype="bfloat16")
            for name, spec in layout.items()
        )
    )
    plan = plan_opening([replica] * 4, layout)
    sizes = [math.prod(spec.shape) for spec in layout.values()]
    loads = [sum(sizes[index] for index in order) for order in plan.orders]
    assert sorted(index for order in plan.orders for index in order) == list(range(101))
    assert max(loads) - min(loads) <= max(sizes)


Held = Mapping[str, tuple[str, int, Sequence[int]]]


def share_out(ranks: int, held: Held) -> list[list[str]]:
    """Who opens which tensor, for tensors of one dimension: name -> dtype, elements, holders."""
    layout = {name: TensorSpec((size,), dtype) for name, (dtype, size, _) in held.items()}
    names: list[list[str]] = [
        [name for name, (_, _, holders) in held.items() if rank in holders] for rank in range(ranks)
    ]
    commitments = [
        commitment(
            *(
                piece(n, Box((0,), layout[n].shape), tensor_shape=layout[n].shape, dtype=held[n][0])
                for n in of_rank
            )
        )
        for of_rank in names
    ]
    plan = plan_opening(commitments, layout)
    ordered = {(rank, index) for rank, order in enumerate(plan.orders) for index in order}
    used = {(it.rank, it.index) for sources in plan.versions[0].values() for it in sources}
    assert used == ordered
    return [[names[rank][index] for index in order] for rank, order in enumerate(plan.orders)]


@pytest.mark.parametrize(
    ("ranks", "held", "opened"),
    [
        (
            2,  # the large ones first, each to the rank with the least so far: 5 + 2 and 4 + 3
            {
                "two": ("uint8", 2, (0, 1)),
                "three": ("uint8", 3, (0, 1)),
                "four": ("uint8", 4, (0, 1)),
                "five": ("uint8", 5, (0, 1)),
            },
            [["two", "five"], ["three", "four"]],
        ),
        (
            2,  # 16 bytes, then 12, then 8: by elements the halves would come first
            {
                "halves": ("bfloat16", 6, (0, 1)),
                "singles": ("float32", 4, (0, 1)),
                "few": ("float32", 2, (0, 1)),
            },
            [["singles"], ["halves", "few"]],
        ),
        (
            2,  # what is held once is counted before what is held by both, however small
            {"both": ("uint8", 9, (0, 1)), "mine": ("uint8", 1, (0,))},
            [["mine"], ["both"]],
        ),
        (
            3,  # two holders or three is no matter, only the size
            {"by two": ("uint8", 3, (0, 1)), "by all": ("uint8", 5, (0, 1, 2))},
            [["by all"], ["by two"], []],
        ),
        (
            3,  # only who holds it can open it
            {"by two": ("uint8", 3, (1, 2)), "by one": ("uint8", 5, (1,))},
            [[], ["by one"], ["by two"]],
        ),
        (
            2,
            {"first": ("uint8", 4, (0, 1)), "second": ("uint8", 4, (0, 1))},
            [["first"], ["second"]],
        ),
    ],
    ids=["large first", "bytes", "once held first", "holders", "only holders", "ties"],
)
def test_who_opens_what(ranks: int, held: Held, opened: list[list[str]]) -> None:
    assert share_out(ranks, held) == opened


def test_the_pieces_of_a_state_are_in_order_of_their_place_not_of_their_rank() -> None:
    halves = [
        commitment(piece("scale"), piece("a.weight", Box((low, 0), (3, 4))), *rest)
        for low, rest in ((3, [piece("b.weight")]), (0, []))
    ]
    plan = plan_opening(halves, LAYOUT)
    assert plan.versions[0]["a.weight"] == (Source(1, 1), Source(0, 1))


@pytest.mark.parametrize(
    "empty", [Box((6, 0), (0, 4)), Box((2, 4), (3, 0)), Box((6, 4), (0, 0)), Box((0, 0), (0, 4))]
)
def test_shards_without_elements_are_no_matter(empty: Box) -> None:
    """Also where one rank has the same one twice."""
    nothing = [piece("a.weight", empty), piece("a.weight", empty, content=1)]
    with_it = commitment(*nothing, *whole_state().pieces)
    plan = plan_opening([commitment(*nothing), with_it], LAYOUT)
    assert plan.orders == ((), (2, 3, 4))


def test_a_tensor_without_elements_needs_no_piece() -> None:
    plan = plan_opening([NOTHING], {"empty": TensorSpec((0, 5), "float32")})
    assert plan.versions == ({"empty": ()},)


# --- replicas that differ -----------------------------------------------------------------------


def test_every_different_content_of_a_box_is_opened_and_judged() -> None:
    """Rank 2 can't hide a wrong `b.weight` behind the right one of ranks 0 and 1."""
    good, bad = whole_state(), commitment(piece("a.weight"), piece("b.weight", content=9))
    plan = plan_opening([good, good, bad], LAYOUT)
    assert len(plan.versions) == 2
    assert plan.versions[0]["b.weight"][0].rank in (0, 1)
    assert plan.versions[1]["b.weight"] == (Source(2, 1),)
    assert plan.versions[1]["scale"] == plan.versions[0]["scale"]
    assert 1 in plan.orders[2]


def test_there_are_as_many_versions_as_the_most_contents_of_one_box() -> None:
    """A box with fewer contents has its first one in the versions beyond them."""
    claims = [
        commitment(piece("a.weight", content=a), piece("b.weight", content=b), piece("scale"))
        for a, b in ((1, 1), (2, 2), (1, 3))
    ]
    versions = plan_opening(claims, LAYOUT).versions
    assert [version["b.weight"] for version in versions] == [
        (Source(0, 1),),
        (Source(1, 1),),
        (Source(2, 1),),
    ]
    first, second, third = (version["a.weight"][0].rank for version in versions)
    assert second == 1
    assert first == third and first in (0, 2)


def test_assemble_takes_the_pieces_of_each_version() -> None:
    plan = plan_opening([whole_state(1), whole_state(2)], LAYOUT)
    opened = [
        {
            index: StoredPiece(
                name, spec.shape, Box((0,), (1,)), "float32", np.zeros(rank + 1, "u1")
            )
            for index, (name, spec) in enumerate(LAYOUT.items())
        }
        for rank in range(2)
    ]
    first, second = assemble(plan, opened)
    assert all(first[name][0].data.size == 1 for name in LAYOUT)
    assert all(second[name][0].data.size == 2 for name in LAYOUT)


# --- states that are refused, and in which words ------------------------------------------------


def test_no_state_at_all() -> None:
    message = refused(NOTHING, NOTHING)
    assert message.startswith(
        "no rank returned a final_state: return the model's state dict on rank 0"
    )


def test_an_unknown_name_is_shown_escaped() -> None:
    message = refused(commitment(*whole_state().pieces, piece("evil\x1b[2J\n")))
    assert "'evil\\x1b[2J\\n' is not in the model" in message


def test_a_wrong_shape_of_the_whole_tensor() -> None:
    wrong = piece("a.weight", tensor_shape=(4, 6))
    message = refused(commitment(wrong, piece("b.weight"), piece("scale")))
    assert "'a.weight' has shape (4, 6) instead of (6, 4)" in message
    assert "missing" not in message


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_cast_of_the_masters_is_named(dtype: str) -> None:
    message = refused(commitment(*(piece(name, dtype=dtype) for name in LAYOUT)))
    assert f"'a.weight' is {dtype} instead of float32" in message
    assert message.count(f"compute in {dtype} under autocast") == 1


@pytest.mark.parametrize(
    ("expected", "dtype"),
    [("float32", "float64"), ("float32", "int32"), ("float64", "float16"), ("bfloat16", "float32")],
)
def test_another_wrong_dtype_is_no_cast_of_the_masters(expected: str, dtype: str) -> None:
    with pytest.raises(SubmissionError) as caught:
        plan_opening([commitment(piece("t", dtype=dtype))], {"t": TensorSpec((3,), expected)})
    assert f"'t' is {dtype} instead of {expected}" in caught.value.message
    assert f"Return the parameters as {expected}." in caught.value.message
    assert "masters" not in caught.value.message


@pytest.mark.parametrize("cut", [Box((5, 0), (1, 4)), Box((0, 3), (6, 1))], ids=str)
def test_a_shard_up_to_the_edge_of_its_tensor_is_inside(cut: Box) -> None:
    rest = Box((0, 0), (cut.offset[0] or 6, cut.offset[1] or 4))
    parts = [piece("a.weight", box) for box in (cut, rest)]
    plan = plan_opening([commitment(*parts, piece("b.weight"), piece("scale"))], LAYOUT)
    assert plan.versions[0]["a.weight"] == (Source(0, 1), Source(0, 0))


@pytest.mark.parametrize(
    "box",
    [
        Box((3, 0), (4, 4)),
        Box((7, 0), (1, 4)),
        Box((0, 1), (6, 4)),
        Box((0,), (24,)),
        Box((0, 0, 0), (6, 4, 1)),
        Box((0,), (6, 4)),
        Box((0, 0), (24,)),
        Box((), ()),
    ],
    ids=str,
)
def test_a_shard_outside_its_tensor(box: Box) -> None:
    assert "outside (6, 4)" in refused(commitment(piece("a.weight", box)))


def test_a_missing_shard_is_counted() -> None:
    part = commitment(piece("a.weight", Box((0, 0), (5, 4))), piece("b.weight"), piece("scale"))
    assert "'a.weight' is incomplete: 20 of 24 elements" in refused(part)


def test_overlapping_shards_that_are_not_equal() -> None:
    part = commitment(piece("a.weight", Box((0, 0), (5, 4))))
    assert "'a.weight' has overlapping shards" in refused(whole_state(), part)


def test_an_overlap_that_makes_up_for_a_gap() -> None:
    """The number of elements is right: only which ones is not."""
    boxes = [Box((0, 0), (3, 4)), Box((2, 0), (3, 4))]
    rest = [piece("b.weight"), piece("scale")]
    message = refused(*(commitment(piece("a.weight", box), *rest) for box in boxes))
    assert "'a.weight' has overlapping shards: 24 elements for 24" in message


def test_one_rank_may_not_commit_to_two_contents_of_a_box() -> None:
    twice = commitment(*whole_state().pieces, piece("a.weight", content=5))
    assert "'a.weight' is there twice on rank 0" in refused(twice)


def test_one_rank_may_not_commit_to_a_box_twice_with_one_content_either() -> None:
    twice = commitment(*whole_state().pieces, piece("a.weight"))
    assert "'a.weight' is there twice on rank 1" in refused(NOTHING, twice)


def test_a_rank_may_not_add_a_content_to_the_one_that_it_shares() -> None:
    both = commitment(*whole_state(1).pieces, piece("b.weight", content=2))
    assert "'b.weight' is there twice on rank 1" in refused(whole_state(1), both)


SEVEN = {f"t{number}": TensorSpec((2, 3), "float32") for number in range(7)}
WHOLE = Box((0, 0), (2, 3))
#: the worst first; a claim that is refused for nothing else than this
PROBLEMS: dict[str, tuple[list[tuple[Box, dict[str, Any]]], str]] = {
    "is missing": ([], "Return every tensor"),
    "has shape (3, 2) instead": ([(WHOLE, {"tensor_shape": (3, 2)})], "Return sharded tensors as"),
    "is float64 instead": ([(WHOLE, {"dtype": "float64"})], "Return the parameters as float32."),
    "has a shard of shape (2, 3) at (1, 0)": ([(Box((1, 0), (2, 3)), {})], "placements don't fit"),
    "is there twice": ([(WHOLE, {}), (WHOLE, {})], "Two names in final_state"),
    "is incomplete: 3 of 6": ([(Box((0, 0), (1, 3)), {})], "Every rank must return its own"),
    "has overlapping shards: 9 elements for 6": (
        [(WHOLE, {}), (Box((0, 0), (1, 3)), {})],
        "Shards must be either equal or disjoint",
    ),
}


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_the_worst_problems_are_listed_first_each_with_its_advice(left_out: int) -> None:
    """The last tensor of the model has the worst problem; without it the next five are seen."""
    kinds = list(PROBLEMS)[left_out : left_out + 5]
    names = list(SEVEN)[: len(kinds)]
    claims = [
        piece(name, box, **({"tensor_shape": (2, 3), "dtype": "float32"} | changes))
        for name, kind in zip(names, reversed(kinds), strict=True)
        for box, changes in PROBLEMS[kind][0]
    ]
    with pytest.raises(SubmissionError) as caught:
        plan_opening([commitment(*claims)], {name: SEVEN[name] for name in names})
    message = caught.value.message
    assert "(5 tensors)" in message and "more" not in message
    found = [message.index(kind) for kind in kinds]
    advice = [message.index(PROBLEMS[kind][1]) for kind in kinds]
    assert found == sorted(found)
    assert advice == sorted(advice)
    assert found[-1] < advice[0]


def test_an_unknown_name_is_worse_than_a_wrong_shape_and_better_than_a_missing_tensor() -> None:
    wrong = piece("a.weight", tensor_shape=(4, 6))
    message = refused(commitment(wrong, piece("new"), piece("b.weight")))
    places = [message.index(name) for name in ("'scale'", "'new'", "'a.weight'")]
    assert places == sorted(places)


@pytest.mark.parametrize(("unknown", "more"), [(5, None), (6, "; and 1 more. ")])
def test_the_problems_beyond_five_are_counted(unknown: int, more: str | None) -> None:
    message = refused(commitment(*whole_state().pieces, *(piece(f"n{i}") for i in range(unknown))))
    assert message.count("is not in the model") == 5
    assert message.count("Names must be those of") == 1
    assert more in message if more else "more" not in message


def test_at_most_five_problems_are_listed_the_worst_first() -> None:
    unknown = [piece(f"new{i}") for i in range(20)]
    message = refused(commitment(*unknown, piece("a.weight"), piece("b.weight")))
    assert message.index("'scale' is missing") < message.index("'new0'")
    assert message.count("is not in the model") == 4
    assert "and 16 more" in message
    assert len(message) < 2_000


# --- coverage, exactly ---------------------------------------------------------------------------


def element_counts(shape: tuple[int, ...], boxes: Sequence[Box]) -> np.ndarray:
    counts = np.zeros(shape, dtype=int)
    for box in boxes:
        counts[tuple(slice(o, o + s) for o, s in zip(box.offset, box.shape, strict=True))] += 1
    return counts


@st.composite
def some_boxes(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Box]]:
    """A partition by straight cuts, of which some boxes may then have been moved or lost."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    boxes = [Box((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 6))):
        box = boxes.pop(draw(st.integers(0, len(boxes) - 1)))
        axis = draw(st.integers(0, len(shape) - 1))
        cut = draw(st.integers(0, box.shape[axis]))
        for low, size in ((0, cut), (cut, box.shape[axis] - cut)):
            offset = tuple(o + low * (d == axis) for d, o in enumerate(box.offset))
            extent = tuple(size if d == axis else s for d, s in enumerate(box.shape))
            boxes.append(Box(offset, extent))
    for _ in range(draw(st.integers(0, 2))):
        index = draw(st.integers(0, len(boxes) - 1))
        kept = boxes[index].shape
        place = tuple(draw(st.integers(0, n - s)) for n, s in zip(shape, kept, strict=True))
        boxes[index] = Box(place, kept)
    return shape, boxes


@given(some_boxes())
@settings(max_examples=100, deadline=None)
def test_coverage_is_what_counting_every_element_says(
    case: tuple[tuple[int, ...], list[Box]],
) -> None:
    shape, boxes = case
    layout = {"t": TensorSpec(shape, "float32")}
    # One rank a box: equal boxes are then replicas, and count as one.
    claims = [commitment(piece("t", box, tensor_shape=shape, dtype="float32")) for box in boxes]
    distinct = list({box for box in boxes if box.numel})
    if (element_counts(shape, distinct) == 1).all():
        plan = plan_opening(claims, layout)
        opened = [boxes[source.rank] for source in plan.versions[0]["t"]]
        assert (element_counts(shape, opened) == 1).all()
        assert sum(map(len, plan.orders)) == len(distinct)
    else:
        with pytest.raises(SubmissionError):
            plan_opening(claims, layout)


def test_the_weights_that_coverage_is_told_by_are_numbers_of_a_large_field(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bound on the chance of a miss holds modulo a prime only."""
    asked: set[int] = set()

    def draw(below: int) -> int:
        asked.add(below)
        return len(asked)

    monkeypatch.setattr(secrets, "randbelow", draw)
    plan_opening([whole_state()], LAYOUT)
    assert asked == {2_305_843_009_213_693_951}  # the ninth Mersenne prime


def test_no_overlap_slips_through_in_a_thousand_attempts() -> None:
    """The weights that coverage is told by are drawn anew each time, from very many."""
    halves = [piece("t", Box((low,), (3,)), tensor_shape=(6,)) for low in (0, 2)]
    for _ in range(1_000):
        with pytest.raises(SubmissionError, match="overlapping"):
            plan_opening([commitment(*halves)], {"t": TensorSpec((6,), "float32")})


@pytest.mark.parametrize("honest", [True, False])
def test_many_boxes_of_one_tensor_take_no_quadratic_time(honest: bool) -> None:
    """Comparing 16,384 boxes in pairs took over 6 minutes, the sum of weights 0.2 s."""
    side = 96
    layout = {"t": TensorSpec((side, side), "float32")}
    offsets = [(row, column) for row in range(side) for column in range(side)]
    boxes = [Box(offset, (1, 1)) for offset in offsets]
    if not honest:
        # The last two elements are missing; one wide box covers two others again.
        boxes[-2:] = [Box((0, 0), (1, 2))]
    claims = [
        commitment(*(piece("t", box, tensor_shape=(side, side), dtype="float32") for box in boxes))
    ]
    start = time.monotonic()
    if honest:
        plan: OpeningPlan = plan_opening(claims, layout)
        assert len(plan.orders[0]) == side * side
    else:
        with pytest.raises(SubmissionError, match="overlapping"):
            plan_opening(claims, layout)
    assert time.monotonic() - start < 20
