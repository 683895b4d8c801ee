"""From what a person names (a file, a folder, a model of the hub) to a transformers config."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.benchmark.at_hand import benchmarks
from harness.errors import Code, InputError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def load_config(source: str) -> "PretrainedConfig":
    """The config that a person names: nothing is executed, remote code is never trusted.

    Args:
        source: a config.json, a folder that holds one, an hparams file, the name of a benchmark, or a
            model name of the hub.

    Raises InputError(BAD_ARGUMENT) with one line.
    """
    path = _named(source)
    if path.is_dir():
        path = path / "config.json"
        if not path.exists():
            raise InputError(Code.BAD_ARGUMENT, f"{source} has no config.json")
    elif not path.exists():
        return _config_from_hub(source)
    content = _json_of(path)
    if _is_hparams(content):
        from harness.benchmark import hparams, problem

        loaded = hparams.load(path)
        model = loaded.hparams.model
        if isinstance(model, problem.HubModel):
            return _config_from_hub(model.repo, model.revision)
        if isinstance(model, problem.LocalModel):
            return load_config(str(loaded.resolve(model.folder)))
        content = model.config
    return config_from_dict(content, str(path))


def row_length(source: str) -> int | None:
    """Tokens in a row of an hparams file; None for whatever else is named."""
    path = _named(source)
    if not path.is_file() or not _is_hparams(_json_of(path)):
        return None
    from harness.benchmark import hparams

    return hparams.load(path).hparams.sequence_length


def _named(source: str) -> Path:
    """What lies at a path goes before a benchmark of that name, as for `--hparams`."""
    path = Path(source).expanduser()
    return path if path.exists() else benchmarks().get(source, path)


def _json_of(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(Code.BAD_ARGUMENT, f"cannot read {path} as JSON: {error}") from None


def _is_hparams(content: object) -> bool:
    return isinstance(content, dict) and "schema_version" in content


def config_from_fields(fields: Mapping[str, object]) -> "PretrainedConfig":
    """A transformers config from the fields of an embedded benchmark.

    Raises:
        InputError: HPARAMS_INVALID where transformers does not know or accept them.
    """
    from transformers import AutoConfig

    rest = dict(fields)
    model_type = rest.pop("model_type", None)
    try:
        return AutoConfig.for_model(model_type, **rest)
    except Exception as error:  # a config class may raise anything for a bad field
        raise InputError(
            Code.HPARAMS_INVALID, f"model.config: transformers does not accept it: {error}"
        ) from None


def config_from_folder(folder: Path) -> "PretrainedConfig":
    """The config of a downloaded repository; its own code is never run.

    Raises:
        InputError: HPARAMS_INVALID where this transformers cannot read it.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            Code.HPARAMS_INVALID,
            f"transformers cannot read the model's config.json: {_first_line(error)}",
        ) from None


def config_from_dict(content: object, where: str) -> "PretrainedConfig":
    """A transformers config from the content of a config.json.

    Raises InputError(BAD_ARGUMENT), naming `where`.
    """
    from transformers import CONFIG_MAPPING

    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise InputError(Code.BAD_ARGUMENT, f"{where} is no model config: it has no model_type")
    model_type = content["model_type"]
    if model_type not in CONFIG_MAPPING:
        raise InputError(
            Code.BAD_ARGUMENT, f"{where}: transformers knows no model_type {model_type!r}"
        )
    try:
        return CONFIG_MAPPING[model_type].from_dict(content)
    except Exception as error:  # each architecture validates in its own way
        lines = str(error).splitlines() or [type(error).__name__]
        raise InputError(Code.BAD_ARGUMENT, f"{where}: {lines[0]}") from None


def _config_from_hub(name: str, revision: str | None = None) -> "PretrainedConfig":
    """As `preload` fetches it, so that what is wrong with name, token or network is said alike."""
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or name.endswith(".json"):
        raise InputError(
            Code.BAD_ARGUMENT,
            f"there is no file {name}, and it is no model name of the hub (owner/name) either",
        )
    from harness.benchmark.hub import download_config

    return config_from_folder(download_config(name, revision))


def _first_line(error: Exception) -> str:
    """Its first words on one line: what is wrong often stands below a heading that ends with a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [
        type(error).__name__
    ]
    count = next((n for n, line in enumerate(lines, 1) if not line.endswith(":")), len(lines))
    return " ".join(lines[:count])
