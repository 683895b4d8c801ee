"""The stage of the escape probe: an evaluation's folders, and decoys in place of all that is to be got.

Nothing real is at risk: the process that stands for the judge only sleeps, and the folders, the listeners
and the second evaluation exist for the probe alone.
"""

import contextlib
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.escapes.decoys import LIMITS, WORLD, Judge, Listeners, Neighbour, hello, target, write
from harness.escapes.inside.stage import Briefing
from harness.files import make_readable
from harness.paths import ESCAPES_PACKAGE
from harness.protocol.wire import frame
from harness.sandbox import Job, Sandbox, code_folder
from harness.timed.workspace import Workspace

EXCESS = 4
TEMPORARY_FOLDERS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))


class Scene:
    """Everything that the attempts at one level aim at, for the length of a `with` block.

    Attributes:
        stage: as the program inside is told.
        secrets: for each attempt that reads, what proves that it did.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._stack = contextlib.ExitStack()
        try:
            self._set_up()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove everything, also what the program has left where it should not."""
        self._remove_left()
        self._stack.close()

    def _set_up(self) -> None:
        enter = self._stack.enter_context
        self.workspace = enter(Workspace())
        self.outer = Path(enter(tempfile.TemporaryDirectory(prefix="trainjudge-outer-")))
        self.outer.chmod(0o755)
        self.marker = f"trainjudge-escape-{secrets.token_hex(8)}"
        self.judge = Judge(self._stack)
        self.neighbour = Neighbour(self.sandbox, self._stack)
        self.listeners = Listeners(self.outer / "service.sock", self.marker)
        self._stack.callback(self.listeners.close)
        self.own = secrets.token_hex(16)
        self._files()
        self.stage = self._stage()
        self.secrets = {
            "reference": self.own,
            "challenge": self.own,
            "neighbour_files": self.neighbour.secret,
            "judge_memory": self.judge.memory,
            "environment": self.judge.environment,
            "processes": self.judge.arguments,
        }

    def _files(self) -> None:
        """What an evaluation's folder holds just before the clock starts."""
        folder = self.workspace
        code_folder(folder.code)
        shutil.copytree(
            ESCAPES_PACKAGE, folder.code / "escapes", ignore=shutil.ignore_patterns("*.pyc")
        )
        for path in (folder.code / "escapes").rglob("*"):
            make_readable(path)
        write(folder.inbox / "train.py", "the train file")
        for name in ("reference.safetensors", "challenge0.safetensors", self.own):
            write(folder.private / name, self.own)
        self.model = self.outer / "snapshot" / "model"
        self.corpus = self.outer / "snapshot" / "corpus"
        self.everybodys = self.outer / "everybodys"
        for made, mode in ((self.model, 0o755), (self.corpus, 0o700), (self.everybodys, 0o777)):
            made.mkdir(parents=True)
            made.chmod(mode)
        self.model.parent.chmod(0o755)
        write(self.model / "config.json", "{}")
        write(self.corpus / "tokens.bin", self.own)

    def _stage(self) -> Briefing:
        setuid = ""
        if os.geteuid() == 0 and (program := shutil.which("id")) is not None:
            copy = self.workspace.code / "id"
            shutil.copyfile(program, copy)
            copy.chmod(0o4755)
            setuid = str(copy)
        return Briefing(
            marker=self.marker,
            root=str(self.workspace.root),
            model=str(self.model),
            corpus=str(self.corpus / "tokens.bin"),
            hellos=tuple(frame(hello(rank)).hex() for rank in range(WORLD)),
            neighbour=str(self.neighbour.workspace.root),
            neighbours=self.neighbour.targets(),
            judge=target(self.judge.process.pid),
            address=self.judge.address,
            secret_bytes=len(self.judge.memory),
            addresses=tuple(self.listeners.addresses),
            abstract=self.listeners.abstract,
            service=str(self.listeners.service),
            everybodys=str(self.everybodys),
            setuid=setuid,
            tasks=EXCESS * LIMITS.processes,
            memory_bytes=EXCESS * LIMITS.memory_bytes,
            folder_bytes=EXCESS * LIMITS.tmp_bytes,
        )

    def job(self, *attempts: str) -> Job:
        """Make these attempts, one after the other."""
        folder = self.workspace
        return Job(
            argv=(
                sys.executable, "-S", "-m", "escapes", str(folder.code / "stage.json"), *attempts,
            ),
            code=folder.code,
            read_only=(self.model, folder.inbox, folder.sockets),
            writable=(folder.outbox,),
            environment={},
            limits=LIMITS,
            outbox=folder.outbox,
            private=(folder.inbox, folder.sockets),
        )  # fmt: skip

    def places(self) -> Iterator[Path]:
        """Where a file of the program's could lie that must not be there."""
        folder = self.workspace
        yield from (folder.root, folder.inbox, folder.code, folder.private, folder.sockets)
        yield from (self.model, self.neighbour.workspace.root)

    def made(self, *folders: Path) -> list[Path]:
        """Files with the marker in their name that are visible out here."""
        found = []
        for folder in folders:
            with contextlib.suppress(OSError):
                found += [path for path in folder.iterdir() if self.marker in path.name]
        return found

    def changed(self) -> list[Path]:
        """Files given to the sandbox into which the program has written."""
        folder = self.workspace
        given = [*folder.inbox.iterdir(), *folder.code.iterdir(), *self.model.iterdir()]
        return [path for path in given if path.is_file() and self.marker.encode() in _end_of(path)]

    def prepare(self) -> None:
        """Before a launch; nothing of an earlier one runs any more."""
        self._remove_left()
        shutil.rmtree(self.workspace.outbox)
        self.workspace.outbox.mkdir(mode=0o700)
        write(self.workspace.code / "stage.json", json.dumps(asdict(self.stage)))

    def _remove_left(self) -> None:
        for path in self.made(*TEMPORARY_FOLDERS):
            with contextlib.suppress(OSError):
                path.unlink()


def _end_of(path: Path) -> bytes:
    """The last bytes, which no file of the stage shares with another."""
    return path.read_bytes()[-64:]
