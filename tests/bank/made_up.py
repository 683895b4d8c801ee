"""Entries that nobody has trained."""

from pathlib import Path

from harness.bank.store import Bank, Entry
from harness.reference.outcome import RunFolders


def put(bank: Bank, folder: Path, name: str, kind: str = "k", made_at: str = "2026-01-01") -> Entry:
    """One with 12 bytes in two files, which lie in `folder` before."""
    made = RunFolders(folder / f"asked-{name}", folder / f"made-{name}", folder / "nowhere")
    made.asked.mkdir(parents=True)
    (made.made / "state").mkdir(parents=True)
    (made.asked / "coordinates").write_bytes(b"12345")
    (made.made / "state" / "weights").write_bytes(b"1234567")
    entry = Entry(
        id=name,
        kind=kind,
        program="p",
        benchmark="b",
        seed="5eed",
        tokens_sha256="0" * 64,
        steps=5,
        world_size=1,
        made_at=made_at,
        seconds=2.0,
    )
    return bank.add(entry, made)
