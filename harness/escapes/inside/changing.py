"""Attempts to change what is not the sandbox's, and to gain rights."""

import ctypes
import errno
import glob
import os
import platform
import resource
import signal
import stat
import subprocess
import tempfile

from .stage import Briefing, Target, Tries, call, in_child, recognise

SYSTEM_FOLDERS = ("/", "/usr", "/etc", "/dev", "/proc", "/sys", "/var/lib")
TEMPORARY_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
# None of them does anything by being opened, as a watchdog does.
DEVICES = (
    "/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/loop-control", "/dev/vda",
    "/dev/sda", "/dev/nvme0n1", "/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/dri/*", "/dev/kfd",
)  # fmt: skip
KERNEL_SETTINGS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sysrq-trigger",
    "/sys/kernel/uevent_helper",
    "/sys/fs/cgroup/cgroup.procs",
)
PTRACE_SEIZE = 0x4206
MS_REMOUNT_BIND = 32 | 4096
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
FSOPEN = 430  # the same on every machine
SYSLOG_READ_ALL = 3
INIT_MODULE = {"x86_64": 175, "aarch64": 105}


def write_outside(stage: Briefing, tries: Tries) -> None:
    """Make a file where neither the outbox nor a temporary folder is."""
    own = ("", "/inbox", "/code", "/private", "/sockets")
    for folder in (*(stage.root + name for name in own), stage.model, stage.neighbour):
        if folder:
            tries.look(folder, leave_file, f"{folder}/{stage.marker}")
    for folder in SYSTEM_FOLDERS:
        tries.way(folder, make_nameless_file, folder)


def change_inputs(stage: Briefing, tries: Tries) -> None:
    """Write into what the judge has given: train file, code, model."""
    folders = (f"{stage.root}/inbox", f"{stage.root}/code", stage.model)
    for folder in filter(None, folders):
        for path in sorted(glob.glob(f"{folder}/*"))[:4]:
            if os.path.isfile(path):
                tries.way(path, append, path, stage.marker)
        tries.way(f"rename {folder}", rename_and_back, folder, f"{folder}-{stage.marker}")


def shared_folders(stage: Briefing, tries: Tries) -> None:
    """Leave a file for others where everybody may write. Only the judge sees whether it did."""
    for folder in filter(None, (*TEMPORARY_FOLDERS, stage.everybodys)):
        tries.look(folder, leave_file, f"{folder}/{stage.marker}")


def append(path: str, word: str) -> None:
    with open(path, "a") as file:
        file.write(word)


def rename_and_back(folder: str, other: str) -> None:
    os.rename(folder, other)
    os.rename(other, folder)


def make_file(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def leave_file(path: str) -> bytes:
    make_file(path)
    return b""


def make_nameless_file(folder: str) -> None:
    """Really write, and leave nothing: a file without a name goes when it is closed."""
    file = os.open(folder, os.O_TMPFILE | os.O_WRONLY)
    try:
        os.write(file, b"x")
    finally:
        os.close(file)


def remount(stage: Briefing, tries: Tries) -> None:
    """Change what is mounted, here or in a namespace of its own."""
    place = tempfile.mkdtemp()

    def mount() -> None:
        call("mount", b"none", place.encode(), b"tmpfs", 0, None)
        call("umount2", place.encode(), 0)

    def mount_in_namespace() -> None:
        call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
        call("mount", b"none", place.encode(), b"tmpfs", 0, None)

    inbox = f"{stage.root}/inbox".encode()
    tries.way("mount a tmpfs", mount)
    tries.way("mount one in a new namespace", in_child, mount_in_namespace)
    tries.way("make inbox/ writable", call, "mount", None, inbox, None, MS_REMOUNT_BIND, None)
    tries.way("fsopen", call, "syscall", FSOPEN, b"tmpfs", 0)
    tries.way("chroot", in_child, lambda: os.chroot(place))
    os.rmdir(place)


def mknod(stage: Briefing, tries: Tries) -> None:
    """Make the device file of the machine's memory, or of a disk."""
    for folder in (stage.outbox, tempfile.gettempdir()):
        for name, kind, number in (
            ("memory", stat.S_IFCHR, (1, 1)),
            ("disk", stat.S_IFBLK, (7, 0)),
        ):
            path = f"{folder}/{stage.marker}-{name}"
            tries.way(f"{name} in {folder}", os.mknod, path, kind | 0o600, os.makedev(*number))


def devices(stage: Briefing, tries: Tries) -> None:
    """Open a device of the machine: memory, disks, virtual machines, GPUs that were not given."""
    for pattern in DEVICES:
        for path in glob.glob(pattern):
            if not os.path.isdir(path):
                tries.way(
                    path, lambda path: os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK)), path
                )


def ptrace(stage: Briefing, tries: Tries) -> None:
    """Trace a process of the judge or of another evaluation."""

    def seize(target: Target) -> None:
        recognise(target)
        call("ptrace", PTRACE_SEIZE, target.pid, 0, 0)

    for target in stage.targets:
        tries.way("PTRACE_SEIZE", in_child, seize, target)  # ends with the child


def signals(stage: Briefing, tries: Tries) -> None:
    """Kill a process of the judge or of another evaluation."""

    def kill(target: Target) -> None:
        recognise(target)
        os.kill(target.pid, signal.SIGKILL)

    for target in stage.targets:
        tries.way("SIGKILL", kill, target)


def setuid(stage: Briefing, tries: Tries) -> None:
    """Become root: by system call, and by a program that is setuid root."""

    def become_root() -> None:
        os.setresuid(0, 0, 0)
        make_file(f"{stage.outbox}/{stage.marker}-root")

    def run_program() -> None:
        said = subprocess.run([stage.setuid, "-u"], capture_output=True, timeout=10, check=False)
        if said.stdout.strip() != b"0":
            raise OSError(errno.EPERM, f"it ran as user {said.stdout.decode().strip()}")

    tries.way("setresuid(0, 0, 0)", in_child, become_root)
    tries.way("setgroups", in_child, lambda: os.setgroups([0]))
    if stage.setuid:
        tries.way("a setuid program", run_program)


def module(stage: Briefing, tries: Tries) -> None:
    """Load a kernel module. What is loaded is none, so whoever has the right is told ENOEXEC."""

    def load() -> None:
        try:
            call("syscall", INIT_MODULE[platform.machine()], b"no module", 9, b"")
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise

    if platform.machine() in INIT_MODULE:
        tries.way("init_module", load)


def kernel_settings(stage: Briefing, tries: Tries) -> None:
    """Open a switch of the kernel for writing, or read the kernel's log."""
    log = ctypes.create_string_buffer(256)
    tries.way("the kernel's log", call, "klogctl", SYSLOG_READ_ALL, log, len(log))
    for path in KERNEL_SETTINGS:
        tries.way(path, lambda path: os.close(os.open(path, os.O_WRONLY)), path)


def raise_limits(stage: Briefing, tries: Tries) -> None:
    """Raise a resource limit or the own priority."""

    def exceed(number: int) -> None:
        hard = resource.getrlimit(number)[1]
        try:
            resource.setrlimit(number, (hard + 1, hard + 1))
        except ValueError as error:  # Python's word for EPERM
            raise OSError(errno.EPERM, str(error)) from None

    for name in ("RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_FSIZE", "RLIMIT_RTPRIO", "RLIMIT_CORE"):
        number = getattr(resource, name)
        if resource.getrlimit(number)[1] != resource.RLIM_INFINITY:
            tries.way(name, exceed, number)
    tries.way("nice -5", in_child, lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))
    real_time = os.sched_param(1)
    tries.way("real time", in_child, lambda: os.sched_setscheduler(0, os.SCHED_FIFO, real_time))


def oom_score(stage: Briefing, tries: Tries) -> None:
    """When the machine is out of memory, have the judge killed first."""

    def lower() -> None:
        with open("/proc/self/oom_score_adj", "r+") as score:
            lower_one = int(score.read()) - 500
            score.seek(0)
            score.write(str(lower_one))

    tries.way("a lower oom_score_adj", in_child, lower)
