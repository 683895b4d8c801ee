"""Tickets: what lets somebody who has shown a key send in the very file that was looked at.

So the key is typed once, and stands in no page.
"""

import hashlib
import hmac
import secrets
import time
from typing import Final

from harness.errors import Code, InputError

LIFE_SECONDS: Final = 900


class Tickets:
    """Signed by a secret that lives as long as the server."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def issue(self, author: str, season: str, source: bytes) -> str:
        """A ticket for this file, author and season."""
        until = int(time.time()) + LIFE_SECONDS
        return f"{until}.{author}.{self._sign(until, author, season, source)}"

    def author(self, ticket: str, season: str, source: bytes) -> str:
        """Whose ticket it is. Raises InputError(KEY_REFUSED): forged, too old, or of another file."""
        until, _, rest = ticket.partition(".")
        author, _, signature = rest.rpartition(".")
        if until.isascii() and until.isdecimal() and len(until) < 20:
            expected = self._sign(int(until), author, season, source)
            genuine = hmac.compare_digest(signature.encode(), expected.encode())
            if genuine and time.time() < int(until):
                return author
        raise InputError(
            Code.KEY_REFUSED, "this page has been open for too long: choose the file once more"
        )

    def _sign(self, until: int, author: str, season: str, source: bytes) -> str:
        digest = hashlib.sha256(source).hexdigest()
        said = "\n".join((str(until), author, season, digest)).encode("utf-8", "replace")
        return hmac.new(self._secret, said, hashlib.sha256).hexdigest()
