"""What a rank says of a failure of the train file."""

import pytest

from env.worker import StageError, describe
from harness.protocol.messages import Failed, Stage


def failed(deed: str) -> Failed:
    """What is said of a train file that does this."""
    try:
        exec(deed, {"optimizer": None, "model": None, "other": object()})
    except Exception as cause:
        error = StageError(Stage.TRAINING)
        error.__cause__ = cause
        return describe(error)
    raise AssertionError("nothing failed")


@pytest.mark.parametrize(
    "call", ["optimizer.zero_grad()", "optimizer.step()", "optimizer.param_groups"]
)
def test_a_file_that_uses_the_optimizer_it_is_given_is_told_that_it_is_none(call: str) -> None:
    said = failed(call)
    assert said.message.startswith("AttributeError: 'NoneType' object has no attribute")
    assert said.message.endswith("is given is None: make the benchmark's own")


@pytest.mark.parametrize("deed", ["model.forward()", "other.step()", "raise ValueError('step')"])
def test_other_failures_are_told_as_they_are(deed: str) -> None:
    assert "is given is None" not in failed(deed).message
