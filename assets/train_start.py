"""Reproduce trained/ and genesis-exodus.txt.gz, where `profiles/embedded-trained.json` starts.

    python assets/train_start.py [OUTPUT]

The embedded model, trained by the trusted loop on two books until it knows them well: of a trained model's
tokens some are nearly certain and some are not, which hides cheats that random weights show. Takes five
minutes of one core; another machine's kernels make other weights, about as good.
"""

import gzip
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from harness.benchmark.challenge import draw
from harness.benchmark.checkpoint import folder_sha256, model_folder
from harness.benchmark.corpus import text_sha256
from harness.benchmark.hparams import LoadedHparams, load
from harness.benchmark.model_config import load_config
from harness.benchmark.preload import preload
from harness.benchmark.problem import Steps
from harness.reference.launch import Asked, run_reference
from harness.reference.task import default_variant
from harness.sandbox import choose
from harness.tensors.boxes import Box, State
from harness.tensors.stored import as_array
from harness.timed.workspace import Workspace
from harness.verification import secret_coordinates

ASSETS = Path(__file__).resolve().parent
BOOKS, VERSES = "genesis-exodus.txt.gz", 2746
STEPS, SEED = 1000, "7261696e"
HPARAMS = {
    "optimizer": {"name": "adamw", "lr": 0.002, "warmup_steps": 100, "max_grad_norm": 1.0},
    "limits": {"run_seconds": 7_200.0},
}  # fmt: skip
PERCENTILES = (1, 10, 30, 50, 70, 90, 99)


def main() -> None:
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else ASSETS
    write_books(output / BOOKS)
    loaded = of_books(output / BOOKS)
    snapshot = preload(loaded)
    hparams = loaded.hparams
    # Twenty times as many tokens as the books have: a benchmark's own runs may not be so long.
    longer = hparams.model_copy(update={"steps": Steps(min=STEPS, max=STEPS)})
    challenge = draw(snapshot.tokens(), longer, SEED)
    rows = np.arange(0, STEPS * hparams.global_batch, STEPS // 16)
    with Workspace() as workspace:
        [trained] = run_reference(
            hparams,
            snapshot,
            [challenge],
            secret_coordinates(snapshot.layout, hparams),
            default_variant(hparams, 1),
            choose("none"),
            "cpu",
            workspace.root / "training",
            Asked([rows]),
        )
        write_model(trained.state, snapshot.model_dir, output / "trained")
    (output / "trained" / "tokenizer.json").write_bytes((ASSETS / "tokenizer.json").read_bytes())
    assert trained.token_losses is not None
    losses = trained.token_losses.reference
    found = ", ".join(f"{p} % below {np.percentile(losses, p):.3f}" for p in PERCENTILES)
    print(f"losses of tokens: {losses.mean():.3f} on average, {found}")
    print("data.sha256 ", text_sha256(output / BOOKS))
    print("model.sha256", folder_sha256(model_folder(output / "trained", random_init=False)))


def write_books(path: Path) -> None:
    """The first two books of the embedded text, a verse a line."""
    lines = gzip.decompress((ASSETS / "kjv.txt.gz").read_bytes()).decode("utf-8").splitlines()
    text = "".join(f"{line}\n" for line in lines[:VERSES])
    path.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))


def of_books(books: Path) -> LoadedHparams:
    """The embedded benchmark on those books alone, with the settings that it is trained with."""
    raw = json.loads((ASSETS.parent / "hparams.json").read_bytes())
    raw |= HPARAMS
    raw["verify"] |= {"attribution_samples": 1_000}
    raw["data"] |= {"file": str(books.resolve()), "sha256": text_sha256(books)}
    raw["model"]["tokenizer"] = str(ASSETS / "tokenizer.json")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "hparams.json")
        path.write_text(json.dumps(raw), encoding="utf-8")
        return load(path)


def write_model(state: State, config: Path, folder: Path) -> None:
    """As `save_pretrained` writes it, in bfloat16."""
    model = AutoModelForCausalLM.from_config(load_config(str(config)))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            for piece in state[name]:
                place = piece.box.within(Box((0,) * tensor.ndim, tuple(tensor.shape)))
                tensor[place] = torch.from_numpy(as_array(piece).copy())
    model.to(torch.bfloat16).save_pretrained(folder)


if __name__ == "__main__":
    main()
