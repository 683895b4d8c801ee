"""What the ranks of a submission run in: the job that a sandbox is given, on each of their machines."""

from typing import Any, Final

from harness.benchmark.hparams import Hparams
from harness.benchmark.snapshot import Snapshot
from harness.files import write_readable
from harness.machine import Device, threads_per_rank
from harness.paths import WORKER
from harness.sandbox import Job, Meeting, code_folder, torchrun_argv
from harness.timed.workspace import Workspace

BENCHMARK_FILE: Final = "benchmark.json"
# What a train file may read of hparams (`env.benchmark`).
BENCHMARK_FIELDS: Final[dict[str, Any]] = {
    "sequence_length": True,
    "global_batch": True,
    "optimizer": True,
    "numerics": {"param_dtype", "compute_dtype", "reduce_dtype", "state_dtype"},
}


def submission_job(
    hparams: Hparams,
    snapshot: Snapshot,
    device: Device,
    ranks: int,
    workspace: Workspace,
    meeting: Meeting | None = None,
) -> Job:
    """The ranks of a submission on one machine, and all that they may see.

    Args:
        ranks: on this machine.
        meeting: where they meet those of other machines; None: there are no others.
    """
    shown = hparams.model_dump_json(include=BENCHMARK_FIELDS)
    write_readable(workspace.inbox / BENCHMARK_FILE, shown.encode())
    return Job(
        argv=torchrun_argv(ranks, WORKER, meeting),
        code=code_folder(workspace.code),
        read_only=(snapshot.model_dir, workspace.inbox, workspace.sockets),
        writable=(workspace.outbox,),
        environment={
            "OMP_NUM_THREADS": str(threads_per_rank(ranks)),
            "TRAINJUDGE_SOCKETS": str(workspace.sockets),
            "TRAINJUDGE_MODEL": str(snapshot.model_dir),
            "TRAINJUDGE_INBOX": str(workspace.inbox),
            "TRAINJUDGE_OUTBOX": str(workspace.outbox),
            "TRAINJUDGE_DEVICE": device,
            "TRAINJUDGE_BENCHMARK": str(workspace.inbox / BENCHMARK_FILE),
        },
        limits=hparams.limits,
        outbox=workspace.outbox,
        private=(workspace.inbox, workspace.sockets),
        gpus=ranks if device == "cuda" else 0,
        fabric=None if meeting is None else meeting.fabric,
    )
