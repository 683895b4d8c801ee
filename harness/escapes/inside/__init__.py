"""What an attacker would try from inside a sandbox: one function for each attempt.

`harness.escapes.probe` copies this package into a sandbox and runs it there, and the tests do so from
inside a train file. Standard library only, and nothing of the project: it runs where the project is
not. Targets are decoys that the judge has set up (a process, files, sockets), and nothing here does
harm where it succeeds: no setting is changed, and every appetite has an end.

Of each attempt one line of JSON goes to stdout: what succeeded, what was refused, and what was read. The
judge believes a success; whether a refusal was one, it looks up for itself where it can.
"""

from .changing import (
    change_inputs,
    devices,
    kernel_settings,
    mknod,
    module,
    oom_score,
    ptrace,
    raise_limits,
    remount,
    setuid,
    shared_folders,
    signals,
    write_outside,
)
from .reaching import (
    challenge,
    environment,
    judge_memory,
    neighbour_files,
    neighbour_socket,
    outside,
    processes,
    rank_socket,
    reference,
    services,
)
from .stage import Attempt
from .taking import (
    deleted_files,
    fork,
    kernel_memory,
    machine_folders,
    mapped_files,
    memory,
    outbox,
    outlive,
    shared_memory,
    temporary_folder,
)

# All in one launch; the last one kills what the others need.
TOUR: dict[str, Attempt] = {
    each.__name__: each
    for each in (
        rank_socket, neighbour_socket, outside, services, reference, challenge, neighbour_files,
        judge_memory, environment, processes, write_outside, change_inputs, shared_folders, remount,
        mknod, devices, ptrace, setuid, module, kernel_settings, raise_limits, oom_score, signals,
    )
}  # fmt: skip
# Each in a launch of its own, which it may end.
ENDING: dict[str, Attempt] = {
    each.__name__: each
    for each in (
        fork, memory, kernel_memory, outbox, deleted_files, mapped_files, temporary_folder, machine_folders,
        shared_memory, outlive,
    )
}  # fmt: skip

__all__ = ["ENDING", "TOUR"]
