"""From what a person names to a config: a file, a folder, a benchmark, a model of the hub, or a line."""

import json
from pathlib import Path

import huggingface_hub.constants
import pytest

from harness.benchmark.model_config import load_config, row_length
from harness.errors import InputError
from tests.project import ROOT

MIXTRAL = {"model_type": "mixtral", "num_local_experts": 4}


def test_a_config_is_found_in_a_file_a_folder_and_hparams(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(MIXTRAL))
    for source in (file, tmp_path):
        assert load_config(str(source)).num_local_experts == 4
    assert load_config(str(ROOT / "hparams.json")).model_type == "qwen3_moe"
    assert load_config("embedded-adamw").model_type == "qwen3_moe"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "as JSON"),
        ("[]", "no model_type"),
        ("{}", "no model_type"),
        ('{"model_type": "gpt-17"}', "gpt-17"),
        ('{"schema_version": 1}', "name"),
        ('{"model_type": "llama", "auto_map": {"AutoConfig": "x.Y"}, "hidden_size": "a"}', "size"),
    ],
)
def test_a_bad_config_gets_a_clear_line(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(InputError, match=told):
        load_config(str(file))


@pytest.mark.parametrize("source", ["nothing-here", "./a/b", "no/such.json", "/etc/nothing"])
def test_what_is_no_file_is_not_asked_of_the_hub_unless_it_looks_like_one(source: str) -> None:
    with pytest.raises(InputError, match=r"there is no file"):
        load_config(source)


def test_a_hub_name_without_network_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set") as caught:
        load_config("no-such-owner/no-such-model")
    assert "\n" not in caught.value.message


def test_rows_are_as_long_as_an_hparams_file_says_and_nothing_else_says_it(tmp_path: Path) -> None:
    assert row_length(str(ROOT / "hparams.json")) == row_length("embedded-bf16") == 256
    file = tmp_path / "config.json"
    file.write_text(json.dumps(MIXTRAL))
    assert row_length(str(file)) is row_length(str(tmp_path)) is row_length("owner/name") is None
