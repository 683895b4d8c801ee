"""Where a server is, and whether a key may travel there."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from harness.errors import Code, InputError
from harness.protocol.text import quoted

_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
_KEY: Final = re.compile(r"[!-~]{1,200}")


@dataclass(frozen=True)
class Address:
    """Of a server.

    Attributes:
        url: without a slash at its end; put together from checked parts, so that nobody who parses it
            again finds another host in it.
        encrypted: whether it is spoken to by https.
        loopback: whether it is this machine.
    """

    url: str
    encrypted: bool
    loopback: bool


def address_of(server: str) -> Address:
    """What somebody gave as --server. Raises InputError(BAD_ARGUMENT)."""
    try:
        parts = urlsplit(server.strip())
        port = parts.port
    except ValueError as error:
        raise InputError(Code.BAD_ARGUMENT, f"{quoted(server)} is no address: {error}") from None
    host = parts.hostname or ""
    scheme = parts.scheme.lower()
    path = parts.path.rstrip("/")
    if "@" in parts.netloc:
        # Not quoted: a password may be in it.
        raise InputError(Code.BAD_ARGUMENT, "a server's address has no user and no password in it")
    known = scheme in ("http", "https") and not parts.query and not parts.fragment
    if not known or not _PATH.fullmatch(path) or not (_HOST.fullmatch(host) or _is_ipv6(host)):
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{quoted(server)} is no address of a server: https://board.example.org would be one",
        )
    named = f"[{host}]" if ":" in host else host
    url = f"{scheme}://{named}{'' if port is None else f':{port}'}{path}"
    return Address(url, scheme == "https", _is_loopback(host))


def check_key(key: str | None) -> str:
    """The key without the blanks around it. Raises InputError(KEY_REFUSED)."""
    given = (key or "").strip()
    if not given:
        raise InputError(
            Code.KEY_REFUSED,
            "this needs the API key that the organiser gave you: as --key, or in $TRAINJUDGE_KEY",
        )
    if not _KEY.fullmatch(given):
        raise InputError(
            Code.KEY_REFUSED, "that is no API key: it has blanks, or characters that no key has"
        )
    return given


def check_may_carry_key(address: Address, insecure: bool) -> None:
    """Raises InputError(BAD_ARGUMENT): whoever is on the way could read the key."""
    if address.encrypted or address.loopback or insecure:
        return
    raise InputError(
        Code.BAD_ARGUMENT,
        f"{address.url} is not encrypted, and whoever is on the way could read the key: use https, or "
        "--insecure if the way there is your own",
    )


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6 and "%" not in host
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
