"""expects: accepted ok world=1 — takes every road to other rights: user ids, capabilities, setuid programs, namespaces.

Tries: setuid and setgid calls, capset, ambient capabilities, a new user namespace by unshare, clone
    and clone3, mounts in it, keyrings, and whatever setuid program there is, started with a shell's
    name.
Would save: the machine; a mount over the reference's files.
Needs: a sandbox
"""

import ctypes
import os
import shutil
import stat
import subprocess
from types import SimpleNamespace

import torch
import torch.nn.functional as F

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID = 0x10000000, 0x20000, 0x40000000, 0x20000000
before = os.getresuid()
got = []


def attempt(name, call, *arguments):
    try:
        if call(*arguments) in (None, 0):
            got.append(name)
    except OSError:
        pass


if libc.prctl(39, 0, 0, 0, 0) != 1:  # PR_GET_NO_NEW_PRIVS
    got.append("new privileges are possible")
for name, call in (("setuid", os.setuid), ("setgid", os.setgid)):
    attempt(name, call, 0)
attempt("setgroups", os.setgroups, [0])
attempt("setresuid", os.setresuid, 0, 0, 0)
for flag in (CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWUSER | CLONE_NEWNS):
    attempt(f"unshare({flag:#x})", libc.unshare, flag)
attempt("mount", libc.mount, b"none", b"/tmp", b"tmpfs", 0, None)
attempt("pivot_root", libc.syscall, 155, b"/tmp", b"/tmp")
attempt("chroot", os.chroot, "/tmp")
attempt("bpf", libc.syscall, 321, 0, None, 0)
attempt("keyctl", libc.syscall, 250, 0, -3, 0)
attempt("reboot", libc.syscall, 169, 0, 0, 0, 0)  # a wrong magic: EINVAL for root, EPERM for others
for folder in ("/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/lib/dbus-1.0", "/usr/libexec"):
    for entry in os.scandir(folder) if os.path.isdir(folder) else ():
        if entry.is_file() and entry.stat().st_mode & (stat.S_ISUID | stat.S_ISGID):
            try:
                subprocess.run([entry.path, "-c", "id"], stdin=subprocess.DEVNULL, timeout=0.5)
            except (OSError, subprocess.TimeoutExpired):
                pass
copy = shutil.copy("/bin/sh", "/tmp/sh-as-whoever-starts-it")
os.chmod(copy, 0o6755)
if got or os.getresuid() != before:
    raise RuntimeError(f"got {got}, now {os.getresuid()}")


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        tokens += batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
