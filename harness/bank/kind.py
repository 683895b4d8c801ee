"""Which evaluations may take an entry: those whose challenge and reference would have been made alike."""

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path

from harness import machine
from harness.benchmark.hparams import Hparams
from harness.benchmark.snapshot import Snapshot
from harness.machine import Device
from harness.paths import HARNESS, PROJECT
from harness.reference.task import default_variant
from harness.sandbox import Sandbox


def kind_of(
    hparams: Hparams, snapshot: Snapshot, sandbox: Sandbox, world_size: int, device: Device
) -> str:
    """A hash of all that shapes them. Tolerances are not among it: they are looked at afterwards.

    Args:
        world_size: of the submission.
    """
    here = machine.describe(device, world_size)
    image = sandbox.image
    shaping = {
        "benchmark": hparams.noise_sha256(),
        "model": snapshot.manifest.model_sha256,
        "data": snapshot.manifest.data_sha256,
        "samples": hparams.verify.attribution_samples,
        "token_loss_share": hparams.verify.token_loss_share,
        "filter_steps": hparams.filter_steps,
        "variant": default_variant(hparams, world_size).model_dump(mode="json"),
        "devices": here.devices,
        "cpu": _cpu(),
        "sandbox": (sandbox.level, None if image is None else image.digest),
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy")},
        "program": program(),
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


@cache
def program() -> str:
    """A hash of this project's own code: what it draws and trains may change with every line."""
    found = hashlib.sha256()
    for root in (HARNESS, PROJECT / "env"):
        for file in sorted(root.rglob("*.py")):
            found.update(f"{file.relative_to(root.parent)}\n".encode() + file.read_bytes())
    return found.hexdigest()


def _cpu() -> str:
    """Kernels are chosen by what a CPU can do."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    told = ("model name", "flags", "Features")
    return "\n".join(sorted({line for line in lines if line.startswith(told)}))
