"""Where a model's routed experts are: known by their structure, whatever they are called."""

import pytest
from torch import nn

from harness.benchmark.experts import expert_modules, expert_parameters, layer_of
from tests.tiny_models import module


def listed(number: int) -> nn.Module:
    return nn.ModuleList(nn.Linear(4, 4) for _ in range(number))


def experts_of(model: nn.Module, number: int = 3) -> list[str]:
    return list(expert_modules(model, number))


def test_experts_are_known_by_structure_not_by_name() -> None:
    """A list of as many layers as experts is no expert list, and a stack needs no telling name."""
    stack = module(w=(3, 6, 4), b=(3, 6))
    unrouted = nn.Sequential(module(w=(3, 6, 4), b=(3, 6)))
    layers = [
        module(switch=module(w=(3, 4)), many=stack),
        module(switch=module(w=(3, 4)), many=listed(3)),
        unrouted,
    ]
    model = module(layers=nn.ModuleList(layers), head=module(w=(9, 4)))
    assert experts_of(model) == ["layers.0.many", "layers.1.many"]
    assert expert_modules(model, 3)["layers.0.many"] is stack
    assert experts_of(model, 4) == []


@pytest.mark.parametrize(
    ("shapes", "stacked"),
    [
        ({"w": (3, 6, 4)}, True),
        ({"w": (3, 6, 4), "scale": (3,)}, True),
        ({"b": (3, 6), "w": (3, 6, 4)}, True),
        ({"b": (3, 6)}, False),  # a matrix each, or it is a router or a bias
        ({"w": (3, 6, 4, 2)}, False),
        ({"w": (4, 3, 6)}, False),
        ({"w": (3, 6, 4), "norm": (6,)}, False),  # one parameter that is not of the experts
        ({"w": (3, 6, 4), "scale": ()}, False),
        ({}, False),
    ],
    ids=str,
)
def test_stacked_experts_have_a_matrix_each_and_nothing_else(
    shapes: dict[str, tuple[int, ...]], stacked: bool
) -> None:
    model = module(mlp=module(router=module(w=(3, 4)), experts=module(**shapes)))
    assert experts_of(model) == (["mlp.experts"] if stacked else [])


@pytest.mark.parametrize(("number", "is_list"), [(2, False), (3, True), (4, False)])
def test_listed_experts_are_as_many_as_the_config_says(number: int, is_list: bool) -> None:
    model = module(mlp=module(router=module(w=(3, 4)), experts=listed(number)))
    assert experts_of(model) == (["mlp.experts"] if is_list else [])


@pytest.mark.parametrize(
    ("router", "routes"), [((3, 4), True), ((4, 3), False), ((3,), False), ((3, 4, 1), False)]
)
def test_a_router_is_a_matrix_with_a_row_for_each_expert(
    router: tuple[int, ...], routes: bool
) -> None:
    model = module(mlp=module(router=module(w=router), experts=module(w=(3, 6, 4))))
    assert experts_of(model) == (["mlp.experts"] if routes else [])


def test_a_router_is_looked_for_beside_the_experts_and_one_level_up() -> None:
    stack = module(w=(3, 6, 4))
    router = module(w=(3, 4))
    beside = module(layer=module(router=router, experts=stack))
    above = module(layer=module(router=router, mlp=module(experts=stack)))
    too_far = module(layer=module(router=router, mlp=module(inner=module(experts=stack))))
    assert experts_of(beside) == ["layer.experts"]
    assert experts_of(above) == ["layer.mlp.experts"]
    assert experts_of(too_far) == []


def test_a_router_of_another_layer_routes_no_experts() -> None:
    """Two levels up is the list of layers, which holds all the others' routers."""
    routed = module(router=module(w=(3, 4)), experts=module(w=(3, 6, 4)))
    layers = nn.ModuleList([routed, module(experts=module(w=(3, 6, 4)))])
    assert experts_of(module(model=module(layers=layers))) == ["model.layers.0.experts"]


def test_a_matrix_of_the_experts_themselves_is_no_router() -> None:
    """Their biases, of the shape [experts, width], look like one."""
    stack = module(w=(3, 6, 4), b=(3, 6))
    assert experts_of(module(mlp=module(experts=stack))) == []


def test_what_lies_deeper_than_the_stack_is_no_expert_s() -> None:
    stack = module(w=(3, 6, 4), shared=module(w=(9, 4)))
    model = module(mlp=module(router=module(w=(3, 4)), experts=stack))
    assert list(expert_parameters(model, 3)) == ["mlp.experts.w"]


@pytest.mark.parametrize(
    ("container", "layer"),
    [
        ("model.layers.3.mlp.experts", "model.layers.3"),
        ("model.layers.3.mlp.blocks.1.experts", "model.layers.3"),
        ("model.layers.12.experts", "model.layers.12"),
        ("7", "7"),
        ("mlp.experts", "mlp.experts"),
    ],
)
def test_a_layer_is_named_up_to_its_number(container: str, layer: str) -> None:
    assert layer_of(container) == layer
