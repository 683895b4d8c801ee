"""Where things lie in this sandbox: what its environment says."""

import os
from pathlib import Path


def model_dir() -> Path:
    """The snapshot: config.json and the initial weights."""
    return Path(os.environ["TRAINJUDGE_MODEL"])


def inbox() -> Path:
    """Where the judge puts the train file and the challenges; read-only."""
    return Path(os.environ["TRAINJUDGE_INBOX"])


def outbox() -> Path:
    """Where every rank opens its state, in a folder of its own."""
    return Path(os.environ["TRAINJUDGE_OUTBOX"])


def socket_of(rank: int) -> str:
    """The judge's socket for a rank."""
    return f"{os.environ['TRAINJUDGE_SOCKETS']}/rank{rank}.sock"
