"""Text that a submission chose, before it stands in a message or on a terminal."""

import pytest

from harness.protocol.text import (
    collapsed,
    counted,
    encodable,
    excerpt,
    one_line,
    printable,
    quoted,
)

BAD = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"plain", "plain"),
        ("é\u4e2d", "é\u4e2d"),
        (b"tab\tand\nline", "tab\tand\nline"),
        (b"dos\r\nmac\rend", "dos\nmac\nend"),
        (b"\x1b[31mred\x07", f"{BAD}[31mred{BAD}"),
        (b"\xff\xfe", BAD * 2),
        ("\udc80", "?"),  # a lone surrogate, as in an undecodable file name
        ("\u202eright to left", f"{BAD}right to left"),
        (b"", ""),
    ],
)
def test_what_moves_a_terminal_is_replaced(data: bytes | str, shown: str) -> None:
    assert printable(data) == shown


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [("four", 4, "four"), ("fives", 4, "five ..."), ("\x1b[0m", 9, f"{BAD}[0m"), ("", 0, "")],
)
def test_an_excerpt_says_that_it_was_cut(text: str, limit: int, shown: str) -> None:
    assert excerpt(text, limit) == shown


def test_what_is_collapsed_is_one_line_of_words() -> None:
    assert collapsed(" a\n\n\tb\r\n c\x1b[2J\u2028d\n") == f"a b c{BAD}[2J{BAD}d"


def test_one_line_is_one_line_of_200_characters() -> None:
    assert one_line("a\nb\tc\x1bd") == "a?b?c?d"
    assert one_line("x" * 200) == "x" * 200
    assert one_line("x" * 201) == "x" * 200 + "…"


def test_a_quoted_name_is_printable_ascii_and_short() -> None:
    assert quoted("layer.0\n\x1b") == r"'layer.0\n\x1b'"
    assert quoted("é") == r"'\xe9'"
    assert quoted("n" * 100) == repr("n" * 100)
    assert quoted("n" * 101) == repr("n" * 97 + "...")


def test_a_message_can_carry_what_is_no_unicode_up_to_its_limit() -> None:
    assert encodable("a\ud800b", 10) == "a?b"
    assert encodable("12345", 4) == "1234"
    assert encodable("1234", 4) == "1234"


def test_one_of_a_kind_takes_no_s() -> None:
    assert [counted(n, "rank") for n in (0, 1, 2, 1024)] == [
        "0 ranks", "1 rank", "2 ranks", "1,024 ranks",
    ]  # fmt: skip
