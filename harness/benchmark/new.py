"""A benchmark of one's own: from model and data to a whole hparams file, `validator benchmark new`.

What cannot be known is a default that is said to be one: the tolerances are guesses until `validator
calibrate` has measured them. Limits follow from the model's size and this machine.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import ValidationError

from harness.benchmark.checkpoint import folder_sha256, model_folder
from harness.benchmark.corpus import check_form, load_tokenizer, text_sha256
from harness.benchmark.hparams import Hparams, LoadedHparams, load, problems
from harness.benchmark.model_config import config_from_folder, load_config
from harness.errors import Code, InputError, TrainjudgeError
from harness.files import write_whole
from harness.machine import gpu_files
from harness.protocol.text import counted, quoted

if TYPE_CHECKING:
    from transformers import PretrainedConfig

GIB: Final = 2**30
#: As in the embedded benchmarks (docs/benchmark.md).
ADAMW_EPS: Final = 1e-4
#: Of this machine's memory: the judge and its file cache need the rest.
MEMORY_SHARE: Final = 0.75
#: Bytes a second at which a slow disk gives and takes weights.
SLOW_DISK: Final = 100e6
#: Beside two versions of the state: headers, and what ranks report.
OUTBOX_SPARE: Final = 256 * 2**20
#: Wide enough for the honest noise of the embedded benchmarks in this precision; calibration replaces them.
GUESSES: Final[dict[str, dict[str, float]]] = {
    "float32": {
        "loss": 5e-3, "update_error": 2e-2, "tensor_update_error": 0.2, "slice_update_error": 0.2,
        "norm_ratio": 3e-3, "tensor_norm_ratio": 0.1, "step_weight": 3e-2,
    },
    "bfloat16": {
        "loss": 5e-2, "update_error": 0.25, "tensor_update_error": 0.6, "slice_update_error": 0.6,
        "norm_ratio": 3e-2, "tensor_norm_ratio": 0.3, "step_weight": 0.1,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """What an organiser has in mind.

    Attributes:
        name: of the benchmark.
        model: "owner/name" or "owner/name@commit" of the hub, a folder, or a config.json.
        data: "owner/name:file" or "owner/name@commit:file" of the hub, or a file on this machine.
        tokenizer: a tokenizer.json; for a config.json alone.
        random_init: draw the weights, though the model has some.
        compute_dtype: None: bfloat16 on GPUs, else float32.
        world_size: None: the machine's GPUs, or 2 on CPU.
        token: of the hub.
    """

    name: str
    model: str
    data: str
    sequence_length: int
    global_batch: int
    tokenizer: Path | None = None
    random_init: bool = False
    optimizer: str = "adamw"
    lr: float = 1e-3
    compute_dtype: str | None = None
    world_size: int | None = None
    token: str | None = None


def new_benchmark(wish: Wish, file: Path) -> LoadedHparams:
    """Write the hparams file of a new benchmark, and read it back.

    Raises:
        InputError: BAD_ARGUMENT: the file is there already, model or data are not; HPARAMS_INVALID: the
            values do not fit together; DOWNLOAD_FAILED: the hub has no such thing.
        JudgeError: DOWNLOAD_FAILED where the hub cannot be reached.
    """
    if file.exists():
        raise InputError(Code.BAD_ARGUMENT, f"{file} is there already: name another with --to")
    folder = file.absolute().parent
    if not folder.is_dir():
        raise InputError(Code.BAD_ARGUMENT, f"there is no folder {folder}")
    gpus = gpu_files()
    compute = wish.compute_dtype or ("bfloat16" if gpus else "float32")
    model, config = _model(wish, folder)
    _check_length(config, wish.sequence_length)
    content = {
        "schema_version": 1,
        "name": wish.name,
        "model": model,
        "data": _data(wish, folder),
        "sequence_length": wish.sequence_length,
        "global_batch": wish.global_batch,
        "steps": {"min": 5, "max": 8},
        "world": {"size": wish.world_size or gpus or 2, "device": "cuda" if gpus else "cpu"},
        "optimizer": _optimizer(wish),
        "numerics": {"compute_dtype": compute, "placement": "cpu" if gpus else "device"},
        "verify": {"tolerances": GUESSES.get(compute, GUESSES["float32"])},
        "limits": _limits(_state_bytes(config)),
    }
    _write(file, content)
    return load(file)


def next_steps(made: LoadedHparams, file: Path) -> str:
    """What an organiser does with a new benchmark, in order."""
    hparams = made.hparams
    model = hparams.model
    where = model.repo if model.source == "hub" else model.source
    commands = (
        (f"validator preload --hparams {file}", "once, with a network if it names the hub"),
        (f"validator run TRAIN.py --hparams {file}", "an honest file: times and memory"),
        (f"validator calibrate --hparams {file}", "its tolerances are guesses until then"),
        (f"validator power --hparams {file}", "what would pass unseen"),
        (f"make image HPARAMS={file}", "for --sandbox docker, from a checkout"),
        (f"validator season new {hparams.name} --hparams {file}", "docs/organise.md"),
    )
    width = max(len(command) for command, _ in commands)
    return "\n".join(
        (
            f"{file}: {where} model, {hparams.global_batch} x {hparams.sequence_length:,} tokens a step, "
            f"{counted(hparams.world.size, 'rank')} on {hparams.world.device}. What each field means is in "
            "docs/benchmark.md; next:",
            *(f"  {command:{width}}  {why}" for command, why in commands),
        )
    )


def _write(file: Path, content: dict[str, Any]) -> None:
    """With every field, defaults too, so that whoever edits it sees what there is."""
    try:
        whole = Hparams.model_validate(content)
    except ValidationError as error:
        raise InputError(Code.HPARAMS_INVALID, "\n".join(problems(error))) from None
    try:
        write_whole(file, json.dumps(whole.model_dump(mode="json"), indent=2) + "\n")
    except OSError as error:
        raise InputError(Code.BAD_ARGUMENT, f"{file} cannot be written: {error.strerror}") from None


def _model(wish: Wish, folder: Path) -> tuple[dict[str, Any], "PretrainedConfig"]:
    """The section of the file, and the config that it leads to."""
    path = Path(wish.model).expanduser()
    if wish.tokenizer is not None and not path.is_file():
        raise InputError(Code.BAD_ARGUMENT, "--tokenizer is for a config.json alone")
    if path.is_dir():
        found = model_folder(path, wish.random_init)
        section = {"source": "local", "folder": _relative(path, folder)}
        section |= {"sha256": folder_sha256(found)}
        return section | {"random_init": wish.random_init}, config_from_folder(path)
    if path.is_file():
        if wish.tokenizer is None:
            raise InputError(
                Code.BAD_ARGUMENT,
                f"{path} is a config alone: name a tokenizer.json with --tokenizer",
            )
        config = load_config(str(path))
        load_tokenizer(_file(wish.tokenizer))
        tokenizer = _relative(wish.tokenizer, folder)
        section = {"source": "embedded", "config": json.loads(path.read_bytes())}
        return section | {"init_seed": 0, "tokenizer": tokenizer}, config
    from harness.benchmark.hub import download_config

    repo, revision = _pinned("model", wish.model, wish.token)
    config = config_from_folder(download_config(repo, revision, wish.token))
    section = {"source": "hub", "repo": repo, "revision": revision}
    return section | {"random_init": wish.random_init}, config


def _optimizer(wish: Wish) -> dict[str, Any]:
    """AdamW with an eps that keeps the noise of elements without any gradient out of the comparison."""
    chosen: dict[str, Any] = {"name": wish.optimizer, "lr": wish.lr}
    return chosen | {"eps": ADAMW_EPS} if wish.optimizer == "adamw" else chosen


def _check_length(config: "PretrainedConfig", length: int) -> None:
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if isinstance(longest, int) and length > longest:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"rows of {length:,} tokens do not fit the model, which has {longest:,} positions: use a "
            "smaller --sequence-length",
        )


def _data(wish: Wish, folder: Path) -> dict[str, Any]:
    path = Path(wish.data).expanduser()
    if path.is_file():
        check_form(path)
        return {"source": "embedded", "file": _relative(path, folder), "sha256": text_sha256(path)}
    repo, colon, file = wish.data.partition(":")
    if not colon or not file:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"there is no file {quoted(wish.data)}; data of the hub is named owner/name:file",
        )
    repo, revision = _pinned("dataset", repo, wish.token)
    return {"source": "hub", "repo": repo, "revision": revision, "file": file}


def _pinned(kind: Literal["model", "dataset"], named: str, token: str | None) -> tuple[str, str]:
    """Repository and full commit hash; a branch would be another benchmark tomorrow."""
    from harness.benchmark.hub import commit_of

    repo, _, revision = named.partition("@")
    if repo.count("/") != 1:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{quoted(named)} is neither here nor a name of the hub (owner/name)",
        )
    try:
        return repo, commit_of(kind, repo, revision or None, token)
    except TrainjudgeError as error:
        # Who meant a folder, and mistyped it, would look for the mistake in the network.
        message = f"{quoted(named)} is not here, and as a name of the hub: {error.message}"
        raise type(error)(error.code, message, error.detail) from None


def _file(path: Path) -> Path:
    if not path.is_file():
        raise InputError(Code.BAD_ARGUMENT, f"there is no file {path}")
    return path


def _relative(path: Path, folder: Path) -> str:
    """As seen from the hparams file."""
    return os.path.relpath(path.absolute(), folder)


def _state_bytes(config: "PretrainedConfig") -> int:
    """Of one state in float32, counted on a model without memory."""
    import torch

    from harness.benchmark.initial_state import empty_model

    state = empty_model(config, torch.float32).state_dict()
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def _limits(state_bytes: int) -> dict[str, Any]:
    import psutil

    memory = psutil.virtual_memory().total
    moving = round(state_bytes / SLOW_DISK)  # seconds to read or write one state
    return {
        "startup_seconds": 300 + moving,
        "setup_seconds": 300 + moving,
        "run_seconds": 600,
        "open_seconds": 300 + moving,
        "memory_bytes": int(memory * MEMORY_SHARE) // GIB * GIB or GIB,
        "outbox_bytes": 2 * state_bytes + OUTBOX_SPARE,
    }
