"""What weight decay alone does to a weight: known to both sides, so it says nothing about gradients.

An optimizer that gets zero gradients multiplies every weight by a scalar, whatever the weight is. What a
state differs by from that is what its gradients did; compared without it, a decay that is larger than the
gradients hides them: a file that computes none at all has nearly the right weights.
"""

import numpy as np
import numpy.typing as npt

from harness.benchmark.problem import AdamW, Sgd

Floats = npt.NDArray[np.float64]


def decay_path(optimizer: Sgd | AdamW, steps: int) -> Floats:
    """The part of an initial weight that is left before the first step and after each, with zero gradients.

    AdamW: a_k+1 = a_k · (1 − lr_k · wd), https://arxiv.org/abs/1711.05101, algorithm 2. SGD, whose decay is
    part of the gradient and so of the momentum: b_k+1 = μ · b_k + wd · a_k, a_k+1 = a_k − lr_k · b_k+1, as
    torch.optim.SGD has it.

    Returns:
        float64 [steps + 1]; all 1 without weight decay.
    """
    momentum = optimizer.momentum if isinstance(optimizer, Sgd) else 0.0
    left, buffer = [1.0], 0.0
    for step in range(steps):
        buffer = momentum * buffer + optimizer.weight_decay * left[-1]
        left.append(left[-1] - optimizer.rate(step) * buffer)
    return np.array(left)


def without_decay(step_updates: Floats, initial: Floats, path: Floats) -> Floats:
    """The reference's step updates without what decay did to the initial weights.

    They add up to w_K − a_K · w0. A skipped step has, as before, a weight of 0 but for the decay of what
    earlier gradients did, which is smaller by lr · wd.

    Args:
        step_updates: float64 [K, S], change of every sampled coordinate in each step.
        initial: float64 [S], their values before the first step.
        path: float64 [K + 1], from `decay_path`.
    """
    return step_updates - np.diff(path)[:, None] * initial
