"""Runs of the trusted loop on fresh challenges, in whatever variant, measured as a submission is."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np

from harness import machine
from harness.benchmark import challenge as challenges
from harness.benchmark.challenge import Challenge
from harness.benchmark.hparams import Hparams
from harness.benchmark.problem import Steps
from harness.benchmark.snapshot import Snapshot
from harness.comparison import Compared, Truth, compare, compare_tokens
from harness.machine import Device
from harness.reference.launch import Asked, run_reference
from harness.reference.outcome import ReferenceRun
from harness.reference.task import Variant
from harness.sandbox import Sandbox
from harness.tensors.stored import trusted_state
from harness.timed.workspace import Workspace
from harness.verification import secret_coordinates, secret_rows, secret_steps
from harness.verify.attribution import Coordinates, Indices
from harness.verify.metrics import RunMetrics, metric_values
from harness.verify.token_losses import TokenShift


@dataclass(frozen=True)
class Measured:
    """One run beside the reference of the same challenge.

    Attributes:
        metrics: its loss is that of the row that differs most, which a rank may have alone.
        mean_loss: |difference| of the last step's mean over all rows, nats, which a rank may report too.
        seen: its final state beside the reference's.
    """

    metrics: RunMetrics
    mean_loss: float
    seen: Compared
    shifts: Sequence[TokenShift]


@dataclass(frozen=True)
class Lab:
    """Fixed challenges of a benchmark, and a folder for what is trained on them."""

    hparams: Hparams
    snapshot: Snapshot
    sandbox: Sandbox
    device: Device
    challenges: Sequence[Challenge]
    coordinates: Coordinates
    rows: Sequence[Indices]
    workspace: Workspace

    @classmethod
    @contextmanager
    def opened(
        cls, hparams: Hparams, snapshot: Snapshot, sandbox: Sandbox, runs: int
    ) -> Iterator[Self]:
        """With `runs` challenges of the greatest length."""
        longest = hparams.model_copy(
            update={"steps": Steps(min=hparams.steps.max, max=hparams.steps.max)}
        )
        corpus = snapshot.tokens()
        drawn = [challenges.draw(corpus, longest) for _ in range(runs)]
        with Workspace() as workspace:
            yield cls(
                hparams=hparams,
                snapshot=snapshot,
                sandbox=sandbox,
                device=machine.pick_device(hparams.world.device, hparams.world.size),
                challenges=drawn,
                coordinates=secret_coordinates(snapshot.layout, hparams),
                rows=secret_rows(drawn, hparams),
                workspace=workspace,
            )

    def reference(self, variant: Variant) -> list[ReferenceRun]:
        """As `run`, and the directions along which other runs are looked at."""
        return self._run("reference", variant, secret_steps(self.challenges, self.hparams))

    def run(self, name: str, variant: Variant) -> list[ReferenceRun]:
        """Train on every challenge this way; the tokens' losses under the final weights with it.

        Raises JudgeError: the reference failed.
        """
        return self._run(name, variant, [])

    def _run(
        self, name: str, variant: Variant, steps: Sequence[Sequence[int]]
    ) -> list[ReferenceRun]:
        return run_reference(
            self.hparams,
            self.snapshot,
            self.challenges,
            self.coordinates,
            variant,
            self.sandbox,
            self.device,
            self.workspace.root / name,
            Asked(self.rows, steps=steps),
        )

    def discard(self, name: str) -> None:
        """Free the disk: a dozen variants of a large model would fill it."""
        shutil.rmtree(self.workspace.root / name)

    def measure(
        self, reference: Sequence[ReferenceRun], others: Sequence[ReferenceRun]
    ) -> list[Measured]:
        """Every run of `others` beside the reference of its challenge."""
        layout = self.snapshot.layout
        initial = trusted_state(self.snapshot.state_dir, layout)
        return [
            beside(
                Truth(initial, truth, layout, drawn, self.hparams.optimizer),
                other,
            )
            for drawn, truth, other in zip(self.challenges, reference, others, strict=True)
        ]


def beside(truth: Truth, other: ReferenceRun) -> Measured:
    """How far a run is from the reference, by the functions that judge a submission."""
    # A dp rank may report the mean of its rows alone: of one row, in the extreme.
    off = other.losses[-1] - truth.reference.losses[-1]
    loss, mean_loss = float(np.abs(off).max()), abs(float(off.mean()))
    sampled, shifts = truth.reference.token_losses, list[TokenShift]()
    if sampled is not None and other.token_losses is not None:
        shifts = compare_tokens(truth.challenge, sampled, [other.token_losses.reference])
    seen = compare(truth, [other.state])
    metrics = metric_values(seen.comparisons, seen.attributions, loss, shifts, seen.alongs)
    return Measured(metrics, mean_loss, seen, shifts)
