"""The control chart on drawn numbers: bad nodes are found, good ones left alone as often as it says."""

import numpy as np
import pytest

from harness.fleet.chart import Outlier, Reading, Rule, limits, review

RULE = Rule()
NODES = [f"node-{number}" for number in range(6)]


def drawn(
    random: np.random.Generator,
    nodes: list[str] = NODES,
    canaries: int = 5,
    between: float = 0.003,
    within: float = 0.002,
) -> dict[str, list[Reading]]:
    """Canaries of equal nodes at 1000 tokens/s, four runs each."""
    return {
        node: [
            Reading(float(at), tuple(1000 * np.exp(level + within * random.standard_normal(4))))
            for at, level in enumerate(between * random.standard_normal(canaries), 1)
        ]
        for node in nodes
    }


def changed(reading: Reading, factor: float = 1.0, noise: float = 1.0) -> Reading:
    middle = np.exp(reading.level)
    speeds = factor * middle * (np.array(reading.speeds) / middle) ** noise
    return Reading(reading.at, tuple(speeds))


def found(readings: dict[str, list[Reading]], rule: Rule = RULE) -> list[tuple[str, str]]:
    return [(each.node, each.what) for each in review(readings, rule)]


@pytest.mark.parametrize(
    ("factor", "noise", "what"),
    [(0.96, 1.0, "slower"), (1.04, 1.0, "faster"), (1.0, 8.0, "noisier")],
)
@pytest.mark.parametrize("nodes", [3, 6])
def test_a_node_that_is_not_like_its_class_is_found_and_no_other(
    factor: float, noise: float, what: str, nodes: int
) -> None:
    random = np.random.default_rng(1)
    caught = 0
    for _ in range(50):
        readings = drawn(random, NODES[:nodes])
        readings["node-1"] = [changed(one, factor, noise) for one in readings["node-1"]]
        named = found(readings)
        assert named in ([], [("node-1", what)])
        caught += bool(named)
    assert caught >= 45


def test_several_bad_nodes_are_found() -> None:
    readings = drawn(np.random.default_rng(2))
    readings["node-1"] = [changed(one, 0.90) for one in readings["node-1"]]
    readings["node-4"] = [changed(one, noise=20.0) for one in readings["node-4"]]
    assert set(found(readings)) == {("node-1", "slower"), ("node-4", "noisier")}


def test_equal_nodes_are_taken_for_outliers_as_seldom_as_the_rule_says() -> None:
    random = np.random.default_rng(3)
    strict = Rule(slack=0.0, calm=0.0, false_alarms=0.05)
    alarms = sum(bool(review(drawn(random), strict)) for _ in range(500))
    assert 10 <= alarms <= 42, alarms  # 25 are expected, give or take 5


def test_with_slack_equal_nodes_are_left_alone() -> None:
    random = np.random.default_rng(4)
    assert not any(review(drawn(random), RULE) for _ in range(300))


def test_machines_that_differ_a_little_are_of_one_class() -> None:
    readings = drawn(np.random.default_rng(5), between=0.0005, within=0.0005)
    readings["node-1"] = [changed(one, 0.993) for one in readings["node-1"]]
    assert found(readings) == []
    assert found(readings, Rule(slack=0.0)) == [("node-1", "slower")]


def test_fewer_than_three_nodes_or_canaries_say_nothing() -> None:
    readings = drawn(np.random.default_rng(6), NODES[:2])
    readings["node-1"] = [changed(one, 0.5) for one in readings["node-1"]]
    assert found(readings) == []
    early = drawn(np.random.default_rng(6), canaries=2)
    early["node-1"] = [changed(one, 0.5) for one in early["node-1"]]
    assert found(early) == []


def test_a_node_that_became_slow_was_good_until_its_last_good_canary() -> None:
    readings = drawn(np.random.default_rng(7))
    readings["node-1"][2:] = [changed(one, 0.85) for one in readings["node-1"][2:]]
    (outlier,) = review(readings, RULE)
    assert (outlier.what, outlier.good_until) == ("slower", 2.0)


def test_a_node_that_became_noisy_was_good_until_its_last_good_canary() -> None:
    readings = drawn(np.random.default_rng(8))
    readings["node-1"][3:] = [changed(one, noise=20.0) for one in readings["node-1"][3:]]
    (outlier,) = review(readings, RULE)
    assert (outlier.what, outlier.good_until) == ("noisier", 3.0)


def test_more_nodes_are_allowed_more_and_more_canaries_less() -> None:
    few, many = limits((5,) * 3, 4, 0.001), limits((5,) * 20, 4, 0.001)
    assert few[1] > many[1] > 1
    assert limits((20,) * 3, 4, 0.001)[0] < few[0]


def test_it_is_said_in_words() -> None:
    slow = Outlier("a", "slower", -0.0412, 0.0131, 0.0)
    assert str(slow) == "it is 4.12 % slower than its class, allowed are 1.31 %"
    noisy = Outlier("a", "noisier", 0.031, 0.0052, 0.0)
    assert str(noisy) == "its runs scatter by 3.10 %, allowed are 0.52 %"
