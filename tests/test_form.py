"""Whether committed boxes are a state, who opens them, and what the author is told if they are not."""

import math
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import Code, SubmissionError
from harness.protocol.messages import Commitment, Piece
from harness.verify.form import OpeningPlan, Source, assemble, plan_opening
from harness.verify.pieces import Box, StoredPiece, TensorSpec

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
        "digest": f"{content:016x}",
    }
    return Piece.model_validate(honest | changes)


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


def test_shards_without_elements_are_no_matter() -> None:
    empty = piece("a.weight", Box((6, 0), (0, 4)))
    assert plan_opening([whole_state(), commitment(empty)], LAYOUT).orders == ((0, 1, 2), ())


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


def test_the_same_digest_with_another_sha256_is_another_content() -> None:
    hashes = [piece("a.weight", sha256=digit * 64) for digit in "12"]
    rest = [piece("b.weight"), piece("scale")]
    plan = plan_opening([commitment(hashes[0], *rest), commitment(hashes[1])], LAYOUT)
    assert [version["a.weight"] for version in plan.versions] == [(Source(0, 0),), (Source(1, 0),)]


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
    assert "'a.weight' is missing" in message and "state_dict()" in message


def test_an_unknown_name_is_shown_escaped() -> None:
    message = refused(commitment(*whole_state().pieces, piece("evil\x1b[2J\n")))
    assert "'evil\\x1b[2J\\n' is not in the model" in message


def test_a_wrong_shape_of_the_whole_tensor() -> None:
    wrong = piece("a.weight", tensor_shape=(4, 6))
    message = refused(commitment(wrong, piece("b.weight"), piece("scale")))
    assert "'a.weight' has shape (4, 6) instead of (6, 4)" in message
    assert "missing" not in message


def test_a_bfloat16_cast_of_the_masters_is_named() -> None:
    cast = commitment(*(piece(name, dtype="bfloat16") for name in LAYOUT))
    message = refused(cast)
    assert "is bfloat16 instead of float32" in message
    assert message.count("return the masters") == 1


@pytest.mark.parametrize(
    "box",
    [Box((3, 0), (4, 4)), Box((7, 0), (1, 4)), Box((0,), (24,)), Box((0, 0, 0), (6, 4, 1))],
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
        size = boxes[index].shape
        offset = tuple(draw(st.integers(0, n - s)) for n, s in zip(shape, size, strict=True))
        boxes[index] = Box(offset, size)
    return shape, boxes


@given(some_boxes())
@settings(max_examples=300, deadline=None)
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


@pytest.mark.parametrize("honest", [True, False])
def test_many_boxes_of_one_tensor_take_no_quadratic_time(honest: bool) -> None:
    """Comparing 16,384 boxes in pairs took over 6 minutes, the sum of weights 0.2 s."""
    side = 128
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
