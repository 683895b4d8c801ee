"""What the benchmark asks for, as a train file can read it instead of hard-coding it.

    from env.benchmark import hparams
    sgd = torch.optim.SGD(model.parameters(), lr=hparams.optimizer.lr)

The names are those of hparams.json. The judge does not care where a train file has its numbers from.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Optimizer:
    """Settings of the optimizer; those of another one than `name` keep torch's defaults.

    Attributes:
        warmup_steps: step k = 1, 2, ... has the rate lr · min(1, k / warmup_steps); 0: constant.
        max_grad_norm: gradients of a larger global 2-norm are scaled down to it; None: never.
    """

    name: Literal["sgd", "adamw"]
    lr: float
    weight_decay: float = 0.0
    warmup_steps: int = 0
    max_grad_norm: float | None = None
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8


@dataclass(frozen=True)
class Numerics:
    """`param_dtype` of the model that is handed over, and the lowest precision that is allowed.

    Attributes:
        compute_dtype: of matrix products.
        reduce_dtype: of gradients on their way between ranks.
        state_dtype: of the optimizer's state.
    """

    param_dtype: Literal["float32", "bfloat16"]
    compute_dtype: Literal["float32", "bfloat16"]
    reduce_dtype: Literal["float32", "bfloat16"] = "float32"
    state_dtype: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class Hparams:
    """The part of hparams.json that a train file needs. `global_batch` counts rows of a step."""

    sequence_length: int
    global_batch: int
    optimizer: Optimizer
    numerics: Numerics


def load(path: Path) -> Hparams:
    """Read what the judge has put into the inbox."""
    fields = json.loads(path.read_bytes())
    return Hparams(
        sequence_length=fields["sequence_length"],
        global_batch=fields["global_batch"],
        optimizer=Optimizer(**fields["optimizer"]),
        numerics=Numerics(**fields["numerics"]),
    )


hparams = load(Path(os.environ["TRAINJUDGE_BENCHMARK"]))
