"""The corpus: documents out of a file, tokenised and packed into one row of integers without padding."""

import gzip
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np
from tokenizers import Tokenizer

from harness.errors import Code, InputError
from harness.phases import OnProgress

BATCH_DOCUMENTS = 2_000
BATCH_ROWS = 1_000
COPY_BYTES = 2**24
FORMS = (".txt", ".jsonl", ".parquet")

TokenDtype = Literal["uint16", "uint32"]


@dataclass(frozen=True)
class Packed:
    """What `pack` has written."""

    dtype: TokenDtype
    count: int
    documents: int


def read_documents(file: Path, text_field: str = "text") -> Iterator[str]:
    """The documents of a .txt (one a line), .jsonl or .parquet file, or of any of them in a .gz.

    Empty documents are left out. Memory stays bounded whatever the size of the file.

    Args:
        file: its name's endings say what it is.
        text_field: key (.jsonl) or column (.parquet) of the text.

    Raises:
        InputError: HPARAMS_INVALID where the file is not what its name says.
    """
    zipped = file.suffix == ".gz"
    form = check_form(file)
    try:
        with _open(file) as stream:
            if form == ".txt":
                yield from _lines(file, stream)
            elif form == ".jsonl":
                yield from _json_lines(file, stream, text_field)
            else:
                yield from _parquet(file, stream, text_field, zipped)
    except (EOFError, gzip.BadGzipFile) as error:
        raise _unusable(file, f"is not a whole gzip file: {error}") from None
    except UnicodeDecodeError as error:
        raise _unusable(file, f"is not UTF-8: {error.reason}") from None
    except OSError as error:
        raise _unusable(file, f"cannot be read: {error.strerror or error}") from None


def check_form(file: Path) -> str:
    """The ending that says what a file is. Raises InputError(HPARAMS_INVALID) for any other."""
    form = (file.with_suffix("") if file.suffix == ".gz" else file).suffix
    if form not in FORMS:
        raise _unusable(file, "must end with .txt, .jsonl or .parquet, or one of them .gz")
    return form


def load_tokenizer(file: Path) -> Tokenizer:
    """Raises InputError(HPARAMS_INVALID) where it is no tokenizer.json."""
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing more precise
        raise InputError(Code.HPARAMS_INVALID, f"{file} is not a tokenizer.json: {error}") from None


def text_sha256(file: Path) -> str:
    """SHA-256 of a plain or gzipped file's uncompressed bytes. Raises InputError(HPARAMS_INVALID)."""
    digest = hashlib.sha256()
    try:
        with _open(file) as stream:
            while block := stream.read(COPY_BYTES):
                digest.update(block)
    except (EOFError, gzip.BadGzipFile) as error:
        raise _unusable(file, f"is not a whole gzip file: {error}") from None
    except OSError as error:
        raise _unusable(file, f"cannot be read: {error.strerror or error}") from None
    return digest.hexdigest()


def pack(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    end_of_document: int,
    vocab_size: int,
    target: Path,
    progress: OnProgress,
) -> Packed:
    """Tokenise the documents and write them to `target`, each followed by `end_of_document`.

    Args:
        documents: texts, in order; read as a stream.
        tokenizer: adds no special tokens of its own here.
        end_of_document: token id.
        vocab_size: every id must be below; at most 65,536 gives little-endian uint16, else uint32.
        target: the token file to write.
        progress: told what is going on.

    Raises:
        InputError: HPARAMS_INVALID where the tokenizer's ids do not fit the model.
    """
    dtype: TokenDtype = "uint16" if vocab_size <= 2**16 else "uint32"
    tokenizer.no_truncation()
    tokenizer.no_padding()
    stream = iter(documents)
    count = seen = 0
    with target.open("wb") as out:
        while batch := list(islice(stream, BATCH_DOCUMENTS)):
            ids: list[int] = []
            for encoded in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                ids.extend(encoded.ids)
                ids.append(end_of_document)
            if max(ids) >= vocab_size:
                raise InputError(
                    Code.HPARAMS_INVALID,
                    f"the tokenizer gives token {max(ids)}, the model's vocabulary ends below "
                    f"{vocab_size}: tokenizer and model do not belong together",
                )
            np.asarray(ids, dtype=np.dtype(dtype).newbyteorder("<")).tofile(out)
            count += len(ids)
            seen += len(batch)
            if seen % (10 * BATCH_DOCUMENTS) == 0:
                progress(f"tokenised {seen:,} documents, {count:,} tokens")
    return Packed(dtype, count, seen)


def _open(file: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(file)) if file.suffix == ".gz" else file.open("rb")


def _lines(file: Path, stream: BinaryIO) -> Iterator[str]:
    for line in stream:
        if text := line.decode("utf-8").strip("\r\n"):
            yield text


def _json_lines(file: Path, stream: BinaryIO, text_field: str) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise _unusable(file, f"line {number} is not JSON: {error}") from None
        text = record.get(text_field) if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise _unusable(file, f"line {number} has no text under {text_field!r}")
        if text:
            yield text


def _parquet(file: Path, stream: BinaryIO, text_field: str, zipped: bool) -> Iterator[str]:
    if find_spec("pyarrow") is None:
        raise InputError(
            Code.HPARAMS_INVALID,
            f"{file.name} is a parquet file; reading it needs pyarrow: `pip install pyarrow`",
        )
    # Not a dependency: only benchmarks with such a corpus need it, and only to preload.
    pyarrow = import_module("pyarrow")
    parquet = import_module("pyarrow.parquet")
    with tempfile.TemporaryFile() as plain:
        if zipped:  # parquet is read from its end
            while block := stream.read(COPY_BYTES):
                plain.write(block)
        try:
            table = parquet.ParquetFile(plain if zipped else stream)
            if text_field not in table.schema_arrow.names:
                raise _unusable(file, f"has no column {text_field!r}")
            for rows in table.iter_batches(batch_size=BATCH_ROWS, columns=[text_field]):
                yield from (text for text in rows.column(0).to_pylist() if text)
        except pyarrow.ArrowException as error:
            raise _unusable(file, f"is not a readable parquet file: {error}") from None


def _unusable(file: Path, why: str) -> InputError:
    return InputError(Code.HPARAMS_INVALID, f"the corpus {file} {why}")
