"""expects: accepted ok world=1 — opens the kernel's switches and devices for writing.

Tries: core_pattern, modprobe, sysrq-trigger, uevent_helper, release_agent and cgroup.procs of every
    mounted control group, /dev/mem, disks, loop and fuse devices, and the GPUs and accelerators
    that this benchmark does not use.
Would save: root by a helper that the kernel starts; a GPU that nobody counts.
Needs: a sandbox
Gap at user: of the machine's devices those are there that everybody may open, such as /dev/fuse.
"""

import glob
import os
from types import SimpleNamespace

import torch
import torch.nn.functional as F

SWITCHES = [
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper",
    "/proc/sys/vm/overcommit_memory", "/proc/sys/vm/drop_caches", "/proc/sys/kernel/sched_rt_runtime_us",
    "/proc/sys/fs/binfmt_misc/register", "/proc/timer_list", "/proc/kcore", "/proc/kmsg",
    *glob.glob("/sys/fs/cgroup/**/cgroup.procs", recursive=True), *glob.glob("/sys/fs/cgroup/**/release_agent", recursive=True),
    *glob.glob("/sys/fs/cgroup/**/memory.max", recursive=True), *glob.glob("/sys/fs/cgroup/**/pids.max", recursive=True),
]
DEVICES = [
    "/dev/mem", "/dev/port", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/loop-control", "/dev/uinput",
    "/dev/userfaultfd", "/dev/kfd", *glob.glob("/dev/nvidia*"), *glob.glob("/dev/dri/*"), *glob.glob("/dev/[vs]d[a-z]*"),
    *glob.glob("/dev/nvme*"), *glob.glob("/dev/loop[0-9]*"), *glob.glob("/dev/accel*"), *glob.glob("/dev/dm-*"),
]
# What an engine has covered is the null device.
NOTHING = os.stat("/dev/null").st_rdev
opened = []
for path in SWITCHES + DEVICES:
    for flags in (os.O_WRONLY, os.O_RDONLY) if path in DEVICES else (os.O_WRONLY,):
        try:
            descriptor = os.open(path, flags | os.O_NONBLOCK)
            if os.fstat(descriptor).st_rdev != NOTHING:
                opened.append(path)
            os.close(descriptor)
        except OSError:
            pass
if opened or torch.cuda.is_available():
    raise RuntimeError(f"opened: {opened}")


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
