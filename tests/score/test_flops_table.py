"""What `validator flops` prints, as a table and for programs."""

import dataclasses
import io
import json
import re

from harness.score import flops
from harness.score.flops import ParameterCount
from tests.score.on_paper import MADE_UP, QWEN3_30B_A3B, count


def table_of(found: ParameterCount, sequence_length: int) -> dict[str, str]:
    """Its rows, as they are printed."""
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(flops.render(found, sequence_length))
    lines = [line.strip("│┃ ") for line in console.export_text().splitlines()]
    cells = [re.split(r"\s*[│┃]\s*", line, maxsplit=1) for line in lines]
    rows = {row[0]: row[1] for row in cells if len(row) == 2}
    return {**rows, "title": lines[0], "caption": lines[-1]}


def test_an_embedding_that_is_the_head_too_is_no_look_up_alone() -> None:
    untied, tied = count(**QWEN3_30B_A3B), count(**{**QWEN3_30B_A3B, "tie_word_embeddings": True})
    assert untied.active - untied.active_without_embedding == 311_164_928
    assert tied.active_without_embedding == tied.active == untied.active - 311_164_928


def test_programs_get_the_same_figures() -> None:
    found = count(**QWEN3_30B_A3B)
    said = flops.document(found, 1024)
    assert set(said) - set(dataclasses.asdict(found)) == {
        *("active_without_embedding", "sequence_length", "attention_flops_per_token"),
        *("active_params_flops_per_token", "matmul_flops_per_token", "formula_version"),
    }
    assert (said["total"], said["active"]) == (30_532_122_624, 3_353_032_704)
    assert said["matmul_flops_per_token"] == flops.flops_per_token(found, 1024, "matmul_flops")
    assert said["active_params_flops_per_token"] == 6 * 3_353_032_704
    assert json.loads(json.dumps(said)) == said


def test_the_table_shows_both_bases() -> None:
    assert table_of(count(**QWEN3_30B_A3B), 1024) == {
        "quantity": "value",
        "parameters, total": "30,532,122,624  (30.5 B)",
        "parameters, active": "3,353,032,704  (3.35 B)",
        "of them without input embedding": "3,041,867,776  (3.04 B)",
        "input embedding": "311,164,928  (311 M)",
        "routed experts": "128 experts, 8 a token, 48 layers",
        "routed experts, total": "28,991,029,248  (29 B)",
        "in matrix products, active": "3,041,656,832  (3.04 B)",
        "attention, FLOPs a token": "2.416e+09",
        "active_params, FLOPs a token": "2.012e+10",
        "matmul_flops, FLOPs a token": "2.067e+10",
        "title": "qwen3_moe, 48 layers, rows of 1024 tokens",
        "caption": "formula version 1; forward and backward, no recomputation",
    }


def test_the_table_of_a_dense_model_says_that_it_has_no_experts_and_that_it_is_tied() -> None:
    rows = table_of(dataclasses.replace(MADE_UP, num_experts=0, tied=True), 10)
    assert rows["routed experts"] == "none"
    assert rows["input embedding"] == "100  (0.0001 M), tied"
    assert rows["parameters, total"] == "1,000,000,000  (1 B)"
    assert rows["parameters, active"] == "999,999,999  (1e+03 M)"
