"""An optimizer's settings in words, and how train files often get them wrong.

Each mistake is a setting that the trusted loop can train with, so that "without clipping" is a measurement
and no guess.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from harness.benchmark.problem import AdamW, Numerics, Sgd

#: What the optimizers are mostly used with; AdamW's is torch's default.
USUAL_ADAMW_LR: Final = 1e-3
USUAL_SGD_LR: Final = 0.1


@dataclass(frozen=True)
class Mistake:
    """Attributes:
    words: goes on after "a training ...".
    optimizer: what was done instead.
    """

    words: str
    optimizer: Sgd | AdamW


def in_words(optimizer: Sgd | AdamW) -> str:
    """All of its settings, what is not asked for included."""
    if isinstance(optimizer, Sgd):
        parts = [f"SGD with lr {optimizer.lr:g}", f"momentum {optimizer.momentum:g}"]
    else:
        parts = [
            f"AdamW with lr {optimizer.lr:g}",
            f"betas {optimizer.beta1:g} and {optimizer.beta2:g}",
            f"eps {optimizer.eps:g}",
        ]
    parts.append(f"weight decay {optimizer.weight_decay:g}")
    steps, norm = optimizer.warmup_steps, optimizer.max_grad_norm
    parts.append(f"linear warm-up over {steps} steps" if steps else "no warm-up")
    parts.append("no clipping" if norm is None else f"gradients clipped to norm {norm:g}")
    return ", ".join(parts)


def numerics_in_words(numerics: Numerics) -> str:
    """The lowest precision of everything that has one."""
    return (
        f"matrix products in {numerics.compute_dtype}, reductions in {numerics.reduce_dtype} and "
        f"optimizer state in {numerics.state_dtype} at least"
    )


def likely_mistakes(asked: Sgd | AdamW) -> tuple[Mistake, ...]:
    """What is done instead of `asked`, the likeliest first; each differs from it."""
    return tuple(
        Mistake(words, optimizer) for words, optimizer in _mistakes(asked) if optimizer != asked
    )


def _mistakes(asked: Sgd | AdamW) -> Iterator[tuple[str, Sgd | AdamW]]:
    yield "without clipping", asked.model_copy(update={"max_grad_norm": None})
    yield "without the warm-up", asked.model_copy(update={"warmup_steps": 0})
    yield "without weight decay", asked.model_copy(update={"weight_decay": 0.0})
    yield from _others(asked)
    if isinstance(asked, AdamW):
        yield "with torch's default betas", asked.model_copy(update={"beta1": 0.9, "beta2": 0.999})
        yield "with torch's default eps", asked.model_copy(update={"eps": 1e-8})
    elif asked.momentum:
        yield "without momentum", asked.model_copy(update={"momentum": 0.0})
    else:
        yield "with momentum 0.9", asked.model_copy(update={"momentum": 0.9})
    if asked.max_grad_norm is None:
        clipped = asked.model_copy(update={"max_grad_norm": 1.0})
        yield "with gradients clipped to norm 1", clipped


def _others(asked: Sgd | AdamW) -> Iterator[tuple[str, Sgd | AdamW]]:
    """The other of the two: set up like this one as far as that goes, and at its usual rate."""
    kept = asked.model_dump(include={"lr", "weight_decay", "warmup_steps", "max_grad_norm"})
    other, usual = (
        (AdamW(name="adamw", **kept), USUAL_ADAMW_LR)
        if isinstance(asked, Sgd)
        else (Sgd(name="sgd", **kept), USUAL_SGD_LR)
    )
    names = "AdamW", "SGD"
    one, instead = names if isinstance(asked, Sgd) else names[::-1]
    yield f"with {one} instead of {instead}", other
    if other.lr != usual:
        at_usual = other.model_copy(update={"lr": usual})
        yield f"with {one} at lr {usual:g} instead of {instead}", at_usual
