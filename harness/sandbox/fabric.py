"""A sandbox's network to the other sandboxes of its evaluation, on other machines; and to nothing else.

The supervisor goes into a network namespace of its own and gets one end of a VXLAN into it. What is sent
there is wrapped by the kernel into UDP between the machines' own addresses, on a socket that stays in
their namespace; what arrives for the network's number is unwrapped inside. The machines have no end of
that network, so there is nothing in it but the sandboxes. Each knows its peers, and which machine each is
on, from a list: nothing is learnt, asked for or sent to everybody.

Imports the standard library only: the supervisor starts with it.
"""

import ctypes
import json
import os
import shutil
import subprocess
from typing import Final

from harness.sandbox.job import Fabric

#: As ranks see it.
INTERFACE: Final = "fabric0"
#: UDP, on the machines. Not the registered one (4789), which a cluster's own overlay may have.
PORT: Final = 47_890
PREFIX_BITS: Final = 24
#: What wrapping adds to a packet, over IPv4.
WRAPPING: Final = 50
CLONE_NEWNET: Final = 0x40000000
SECONDS: Final = 20.0
#: The supervisor has no environment.
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def enter(fabric: Fabric) -> None:
    """Go into a namespace of one's own, for good, with this network in it. Needs root.

    Raises OSError: it cannot be made, and why.
    """
    ip, bridge = _program("ip"), _program("bridge")
    peers = [index for index in range(len(fabric.machines)) if index != fabric.index]
    mtu = _mtu(ip, fabric.machines[peers[0]]) - WRAPPING
    # Started now, it stays in the machine's namespace, and reads later what it has to do there.
    outside = subprocess.Popen(
        [ip, "-batch", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    _into_a_new_namespace()
    made = (
        f"link add {INTERFACE} netns {os.getpid()} address {_mac(fabric.index)} type vxlan "
        f"id {fabric.number} local {fabric.machines[fabric.index]} dstport {PORT} nolearning\n"
    )
    _, said = outside.communicate(made, timeout=SECONDS)
    if outside.returncode != 0:
        raise OSError(f"no network between the sandboxes: {said.strip()}")
    _run(ip, "link", "set", "lo", "up")
    _run(ip, "link", "set", INTERFACE, "mtu", str(mtu))
    own = f"{fabric.addresses[fabric.index]}/{PREFIX_BITS}"
    _run(ip, "addr", "add", own, "dev", INTERFACE)
    _run(ip, "link", "set", INTERFACE, "up")
    for index in peers:
        mac = _mac(index)
        _run(bridge, "fdb", "append", mac, "dev", INTERFACE, "dst", fabric.machines[index])
        known = ("lladdr", mac, "dev", INTERFACE, "nud", "permanent")
        _run(ip, "neigh", "replace", fabric.addresses[index], *known)


def _mac(index: int) -> str:
    """Of a machine's end: local, and known to all others, so that nothing has to be sent to everybody."""
    return f"02:74:6a:00:{index >> 8:02x}:{index & 255:02x}"


def unavailable() -> str | None:
    """Why no such network can be made here, or None; the first one that is made tells the rest."""
    if os.geteuid() != 0:
        return "a network between sandboxes is made by root"
    try:
        _program("ip"), _program("bridge")
    except OSError as error:
        return str(error)
    return None


def _program(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        raise OSError(f"`{name}` is not here: install iproute2")
    return found


def _into_a_new_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no network namespace: {os.strerror(number)}")


def _mtu(ip: str, peer: str) -> int:
    """Bytes of a packet on the way to a peer. What is wrapped has to fit, or each would be cut into two."""
    [route] = json.loads(_run(ip, "-json", "route", "get", peer))
    [link] = json.loads(_run(ip, "-json", "link", "show", "dev", route["dev"]))
    return int(link["mtu"])


def _run(*command: str) -> str:
    ended = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if ended.returncode != 0:
        raise OSError(f"{' '.join(command)}: {ended.stderr.strip()}")
    return ended.stdout
