"""Boxes: how large they are, and what two of them have in common."""

import itertools

import pytest

from harness.tensors.boxes import Box, TensorKind, TensorSpec


@pytest.mark.parametrize(
    ("shape", "numel"),
    [((), 1), ((5,), 5), ((2, 3), 6), ((2, 3, 4), 24), ((2, 0, 4), 0)],
)
def test_a_box_has_the_product_of_its_sizes(shape: tuple[int, ...], numel: int) -> None:
    assert Box((7,) * len(shape), shape).numel == numel


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (Box((2,), (4,)), Box((2,), (4,)), Box((2,), (4,))),
        (Box((2,), (4,)), Box((3,), (2,)), Box((3,), (2,))),
        (Box((2,), (4,)), Box((0,), (3,)), Box((2,), (1,))),
        (Box((2,), (4,)), Box((5,), (9,)), Box((5,), (1,))),
        (Box((2,), (4,)), Box((6,), (1,)), None),
        (Box((2,), (4,)), Box((0,), (2,)), None),
        (Box((2,), (4,)), Box((9,), (1,)), None),
        (Box((2,), (4,)), Box((3,), (0,)), None),
        (Box((1, 2), (3, 4)), Box((2, 0), (5, 4)), Box((2, 2), (2, 2))),
        (Box((1, 2), (3, 4)), Box((2, 6), (5, 4)), None),
        (Box((1, 2), (3, 4)), Box((4, 3), (5, 4)), None),
        (Box((), ()), Box((), ()), Box((), ())),
    ],
    ids=str,
)
def test_the_common_part_of_two_boxes(one: Box, other: Box, common: Box | None) -> None:
    assert one.intersect(other) == common
    assert other.intersect(one) == common


def elements(box: Box) -> set[tuple[int, ...]]:
    ranges = (range(low, low + size) for low, size in zip(box.offset, box.shape, strict=True))
    return set(itertools.product(*ranges))


def test_the_common_part_has_exactly_the_common_elements() -> None:
    intervals = [((low,), (size,)) for low in range(3) for size in range(3)]
    flat = [
        Box(first_low + second_low, first_size + second_size)
        for (first_low, first_size), (second_low, second_size) in itertools.product(
            intervals, repeat=2
        )
    ]
    for one, other in itertools.product(flat, repeat=2):
        common = one.intersect(other)
        assert (elements(common) if common else set()) == elements(one) & elements(other)


@pytest.mark.parametrize(
    "other", [Box((0,), (1,)), Box((0, 0, 0), (1, 1, 1)), Box((0, 0), (1,)), Box((0,), (1, 1))]
)
def test_boxes_of_other_dimensions_are_a_defect_of_the_caller(other: Box) -> None:
    with pytest.raises(ValueError, match=r"zip\(\)"):
        Box((0, 0), (1, 1)).intersect(other)


def test_a_tensor_is_judged_as_one_unless_it_is_said_to_be_of_slices() -> None:
    assert TensorSpec((4, 2), "float32").kind is TensorKind.PLAIN
    assert TensorSpec((4, 2), "float32", TensorKind.EXPERTS).kind is TensorKind.EXPERTS


def test_equal_boxes_are_one_key() -> None:
    """Replicas are found by their boxes."""
    assert len({Box((0, 1), (2, 3)), Box((0, 1), (2, 3)), Box((0, 1), (2, 4))}) == 2


def test_a_box_of_other_dimensions_is_nowhere_within() -> None:
    with pytest.raises(ValueError, match="zip"):
        Box((0,), (1,)).within(Box((0, 0), (1, 1)))
