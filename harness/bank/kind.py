"""Which evaluations may take an entry: those whose challenge and reference would have been made alike."""

import hashlib
import json

from harness import machine
from harness.benchmark.hparams import Hparams
from harness.benchmark.snapshot import Snapshot
from harness.machine import Device
from harness.reference.task import default_variant


def kind_of(hparams: Hparams, snapshot: Snapshot, world_size: int, device: Device) -> str:
    """A hash of all that shapes them. Tolerances are not among it: they are looked at afterwards.

    Args:
        world_size: of the submission.
    """
    here = machine.describe(device, world_size)
    shaping = {
        "benchmark": hparams.noise_sha256(),
        "model": snapshot.manifest.model_sha256,
        "data": snapshot.manifest.data_sha256,
        "samples": hparams.verify.attribution_samples,
        "token_loss_share": hparams.verify.token_loss_share,
        "variant": default_variant(hparams, world_size).model_dump(mode="json"),
        "device": here.devices[0],
        "torch": here.torch,
        "transformers": here.transformers,
        "trainjudge": here.trainjudge,
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()
