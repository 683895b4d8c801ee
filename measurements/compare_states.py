"""How fast states are compared, against reading the same bytes: `python measurements/compare_states.py`.

Writes three sharded float32 states (initial, reference, submission; each cut differently) into a
temporary folder and measures, in turn within every round:
    read    numpy sum over the memory-mapped files, same threads: what reading costs
    ours    harness.verify.compare.compare_states
    naive   whole tensors with torch: .float(), differences and norms
Prints the median seconds, the rate, and the median of each round's ratio to the plain read; then, in a
process of its own, how much memory a comparison adds. The files are read once before, so all of this is
about memory, not about a disk.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save

from harness.tensors.boxes import State, TensorKind, TensorSpec
from harness.tensors.stored import trusted_state
from harness.verify.compare import compare_states

if TYPE_CHECKING:
    import torch

States = tuple[State, State, State]
NAMES = ("initial", "reference", "submission")
# What the states are cut along, and into how many shards: as one file, FSDP, and TP would.
CUTS = ((0, 1), (0, 4), (1, 4))
LAYER_PARAMETERS = 37_748_736
CHUNK = 1 << 22


def layout_of(gigabytes: float) -> dict[str, TensorSpec]:
    """About `gigabytes` of 10⁹ bytes over the three states, in shapes as an MoE model has them."""
    layout = {"embed": TensorSpec((32_000, 1_024), "float32", TensorKind.EMBEDDING)}
    elements = gigabytes * 1e9 / 4 / len(NAMES) - 32_000 * 1_024
    for layer in range(max(1, round(elements / LAYER_PARAMETERS))):
        layout[f"{layer}.gate_up"] = TensorSpec((16, 1_408, 1_024), "float32", TensorKind.EXPERTS)
        layout[f"{layer}.down"] = TensorSpec((16, 1_024, 704), "float32", TensorKind.EXPERTS)
        layout[f"{layer}.q"] = TensorSpec((1_024, 3_072), "float32")
    return layout


def write_states(folder: Path, layout: Mapping[str, TensorSpec]) -> None:
    """One safetensors file a tensor and shard, with the offsets of its box in the header."""
    rng = np.random.default_rng(0)
    for name, spec in layout.items():
        values = rng.standard_normal(spec.shape, dtype=np.float32)
        for state, (axis, shards) in zip(NAMES, CUTS, strict=True):
            target = folder / state
            target.mkdir(exist_ok=True)
            start = 0
            for shard, part in enumerate(np.array_split(values, shards, axis=axis)):
                offsets = [start if dim == axis else 0 for dim in range(values.ndim)]
                start += part.shape[axis]
                sharding = json.dumps({name: {"saved_offsets": offsets}})
                data = save({name: np.ascontiguousarray(part)}, {"DCP_SHARDING_INFO": sharding})
                (target / f"{name}-{shard}.safetensors").write_bytes(data)
            step = np.float32(1e-2 if state == "initial" else 1e-4)
            values += step * rng.standard_normal(spec.shape, dtype=np.float32)


def read_plainly(states: States, threads: int) -> None:
    """Every byte once, by numpy's sum over float32."""
    chunks = [
        piece.data.view(np.float32)[start : start + CHUNK]
        for state in states
        for pieces in state.values()
        for piece in pieces
        for start in range(0, piece.box.numel, CHUNK)
    ]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(np.sum, chunks))


def compare_naively(states: States, threads: int) -> None:
    """Whole tensors in torch, as a first version of a judge does it. Assembling them is included."""
    import torch

    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    for name in states[0]:
        w0, wr, ws = (whole_tensor(state, name) for state in states)
        moved = (wr.float() - w0.float()).square().sum().sqrt()
        ((ws.float() - wr.float()).square().sum().sqrt() / moved).item()
        ((ws.float() - w0.float()).square().sum().sqrt() / moved).item()


def whole_tensor(state: State, name: str) -> "torch.Tensor":
    import torch

    pieces = state[name]
    if len(pieces) == 1:
        return torch.from_numpy(pieces[0].data.view(np.float32).reshape(pieces[0].box.shape))
    whole = np.empty(pieces[0].tensor_shape, np.float32)
    for piece in pieces:
        index = tuple(
            slice(o, o + s) for o, s in zip(piece.box.offset, piece.box.shape, strict=True)
        )
        whole[index] = piece.data.view(np.float32).reshape(piece.box.shape)
    return torch.from_numpy(whole)


def load(folder: Path, layout: Mapping[str, TensorSpec]) -> States:
    initial, reference, submission = (trusted_state(folder / name, layout) for name in NAMES)
    return initial, reference, submission


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_resident() -> int:
    """Highest resident memory of this process so far, bytes; mapped pages of files included.

    Not getrusage's ru_maxrss, which a process inherits from the one that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4.0, help="of the three states together")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--json", type=Path, help="file that gets every round's seconds")
    parser.add_argument("--measure-memory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    layout = layout_of(options.gigabytes)
    if options.measure_memory:
        states = load(options.measure_memory, layout)
        before = peak_resident()
        compare_states(*states, layout, options.threads)
        print(peak_resident() - before)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        write_states(folder, layout)
        measure(folder, layout, options)


def measure(folder: Path, layout: Mapping[str, TensorSpec], options: argparse.Namespace) -> None:
    ways: dict[str, Callable[[], object]] = {
        "read": lambda: read_plainly(load(folder, layout), options.threads),
        "ours": lambda: compare_states(*load(folder, layout), layout, options.threads),
        "naive": lambda: compare_naively(load(folder, layout), options.threads),
    }
    read_plainly(load(folder, layout), options.threads)  # into the page cache
    rounds = [{name: seconds(work) for name, work in ways.items()} for _ in range(options.rounds)]
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=2) + "\n", encoding="utf-8")
    size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    print(f"{size / 1e9:.2f} GB in three states, {options.threads} threads, {os.cpu_count()} CPUs")
    for name in ways:
        median = statistics.median(times[name] for times in rounds)
        ratio = statistics.median(times[name] / times["read"] for times in rounds)
        print(f"{name:6} {median:7.3f} s {size / median / 1e9:7.2f} GB/s {ratio:7.2f} x read")
    command = [sys.executable, __file__, "--measure-memory", str(folder)]
    command += ["--gigabytes", str(options.gigabytes), "--threads", str(options.threads)]
    added = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print(f"memory added by a comparison: {int(added) / 2**20:.0f} MiB at its peak (resident)")


if __name__ == "__main__":
    main()
