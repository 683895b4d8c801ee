"""The code that a sandbox is given, and the command line that starts its ranks."""

import shutil
import sys
from pathlib import Path

from harness.files import make_readable
from harness.paths import PROJECT
from harness.sandbox.job import Meeting

LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def code_folder(destination: Path, *, judge: bool = False) -> Path:
    """Copy what runs inside a sandbox into `destination`, readable by every user.

    A copy, because the sandbox must see neither the repository nor the judge's own modules, and
    because nobody can then change a file under a running evaluation.

    Args:
        destination: folder to be made; it goes onto PYTHONPATH as `Job.code`.
        judge: copy the whole `harness` too. Only for the trusted reference: a submission gets
            `env` and `harness.protocol`, which is all that `env` imports.

    Returns:
        `destination`.
    """
    shutil.copytree(PROJECT / "env", destination / "env", ignore=LEFT_OUT)
    if judge:
        shutil.copytree(PROJECT / "harness", destination / "harness", ignore=LEFT_OUT)
    else:
        (destination / "harness").mkdir()
        shutil.copyfile(
            PROJECT / "harness" / "__init__.py", destination / "harness" / "__init__.py"
        )
        shutil.copytree(
            PROJECT / "harness" / "protocol",
            destination / "harness" / "protocol",
            ignore=LEFT_OUT,
        )
    for path in (destination, *destination.rglob("*")):
        make_readable(path)
    return destination


def torchrun_argv(ranks: int, module: str, meeting: Meeting | None = None) -> tuple[str, ...]:
    """The command that starts so many ranks of `module` on this machine, for `Job.argv`.

    The rendezvous store listens on a port of the kernel's choice on the loopback interface, so two
    evaluations at level `none` or `user`, which share the host's network, cannot collide, and no
    name has to be resolved. `--local-addr` keeps torchrun from asking for the host's name.

    Of several machines each is given its part of the ranks in the order of their addresses.

    Args:
        meeting: where those of several machines find each other; None: there is this one.
    """
    nodes = 1
    where: tuple[str, ...] = ("--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1")
    if meeting is not None:
        fabric = meeting.fabric
        nodes, is_host = len(fabric.addresses), "true" if fabric.index == 0 else "false"
        where = (
            f"--rdzv-endpoint={fabric.addresses[0]}:{meeting.port}",
            f"--rdzv-conf=is_host={is_host}",
            f"--local-addr={fabric.addresses[fabric.index]}",
        )
    return (
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={nodes}",
        f"--nproc-per-node={ranks}",
        "--rdzv-backend=c10d",
        *where,
        "--max-restarts=0",
        "-m",
        module,
    )
