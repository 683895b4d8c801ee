"""The text of a benchmark: documents of every form, packed into tokens."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from harness.benchmark.corpus import pack, read_documents
from harness.errors import InputError
from tests.tiny_models import TOKENIZER

DOCUMENTS = ["one", "two\u2028still two", "three", "  four "]


def _lines(documents: list[str]) -> bytes:
    return "\n".join(documents).encode() + b"\n\n"


def _json_lines(documents: list[str]) -> bytes:
    return b"".join(json.dumps({"id": 1, "body": d}).encode() + b"\n" for d in [*documents, ""])


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("suffix", "content"), [("txt", _lines), ("jsonl", _json_lines)])
def test_documents_of_every_form(
    tmp_path: Path, suffix: str, content: Callable[[list[str]], bytes], zipped: bool
) -> None:
    raw = content(DOCUMENTS)
    file = tmp_path / (f"a.{suffix}.gz" if zipped else f"a.{suffix}")
    file.write_bytes(gzip.compress(raw) if zipped else raw)
    assert list(read_documents(file, "body")) == DOCUMENTS


@pytest.mark.parametrize("zipped", [False, True])
def test_documents_of_a_parquet_file(tmp_path: Path, zipped: bool) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    plain = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"body": [*DOCUMENTS, None], "id": [1] * 5}), plain)
    file = plain
    if zipped:
        file = tmp_path / "a.parquet.gz"
        file.write_bytes(gzip.compress(plain.read_bytes()))
    assert list(read_documents(file, "body")) == DOCUMENTS
    with pytest.raises(InputError, match="no column 'text'"):
        list(read_documents(file))


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.benchmark.corpus.find_spec", lambda _: None)
    (tmp_path / "a.parquet").touch()
    with pytest.raises(InputError, match="pip install pyarrow"):
        list(read_documents(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"x", "must end with"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
        ("a.txt.gz", b"not gzip", "gzip"),
        ("a.txt.gz", gzip.compress(b"some text\n" * 99, mtime=0)[:-20], "gzip"),
        ("a.jsonl", b"{]\n", "line 1 is not JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"other": 1}\n', "line 2 has no text"),
        ("a.jsonl", b"[]\n", "line 1 has no text"),
    ],
)
def test_an_unreadable_corpus_says_why(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(read_documents(tmp_path / name))


def test_a_large_vocabulary_gets_wider_tokens(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    packed = pack(["ab"], tokenizer, 100_000, 100_001, tmp_path / "tokens", lambda _: None)
    tokens = np.fromfile(tmp_path / "tokens", dtype=np.uint32)
    assert packed.dtype == "uint32" and packed.count == len(tokens) and tokens[-1] == 100_000
