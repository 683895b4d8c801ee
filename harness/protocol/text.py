"""Text that somebody else chose, made fit to be sent, and to stand on a person's terminal.

Both sides of the sandbox use it, and so do processes that have the standard library only.
"""

QUOTED_CHARACTERS = 100
LINE_CHARACTERS = 200


def printable(data: bytes | str) -> str:
    """Without the characters that would move a terminal's cursor or colour its output.

    Newlines and tabs stay; what is no UTF-8, and every other control character, becomes U+FFFD.
    """
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
    text = raw.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    return "".join(
        c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def excerpt(text: str, limit: int) -> str:
    """`printable`, and cut after `limit` characters with a sign that it was."""
    return printable(text[:limit]) + (" ..." if len(text) > limit else "")


def collapsed(text: str) -> str:
    """`printable`, with every stretch of spaces, tabs and line ends as one space."""
    return " ".join(printable(text).split())


def one_line(text: str) -> str:
    """At most LINE_CHARACTERS on one line; what is not printable, a line's end included, becomes "?"."""
    line = "".join(c if c.isprintable() else "?" for c in text[: LINE_CHARACTERS + 1])
    return line if len(line) <= LINE_CHARACTERS else line[:LINE_CHARACTERS] + "…"


def quoted(text: str) -> str:
    """A name in quotation marks: printable ASCII, at most QUOTED_CHARACTERS of it."""
    short = text if len(text) <= QUOTED_CHARACTERS else text[: QUOTED_CHARACTERS - 3] + "..."
    return ascii(short)


def counted(number: int, singular: str, plural: str = "") -> str:
    """As "1 rank", "2 ranks", "1,024 ranks"; `plural` where an s at the end is not enough."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def encodable(text: str, limit: int) -> str:
    """What a message can carry: no lone surrogates, at most `limit` characters."""
    return text.encode("utf-8", "replace").decode()[:limit]
