"""Addresses: where a key may travel."""

import pytest

from harness.client.address import address_of, check_key, check_may_carry_key
from harness.errors import Code, InputError


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://board.example.org", "https://board.example.org"),
        ("https://board.example.org/", "https://board.example.org"),
        ("HTTPS://Board.Example.ORG:8443/boards/", "https://board.example.org:8443/boards"),
        (" http://127.0.0.1:8000 ", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_is_put_in_one_form(given: str, url: str) -> None:
    assert address_of(given).url == url


@pytest.mark.parametrize(
    "given",
    [
        "",
        "board.example.org",
        "ftp://board.example.org",
        "https://",
        "https://board.example.org:port",
        "https://board.example.org?x=1",
        "https://board.example.org/#x",
        "https://board.example.org/../x y",
        "http://127.0.0.1\\.example.org",
        "https://bo\u0430rd.example.org",
        "file:///etc/passwd",
    ],
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(InputError, match="address") as caught:
        address_of(given)
    assert caught.value.code is Code.BAD_ARGUMENT


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError) as caught:
        address_of("https://ada:hunter2@board.example.org")
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    "server",
    ["https://board.example.org", "http://127.0.0.1:8000", "http://localhost", "http://[::1]"],
)
def test_a_key_may_travel_encrypted_or_within_this_machine(server: str) -> None:
    check_may_carry_key(address_of(server), insecure=False)


@pytest.mark.parametrize(
    "server",
    [
        "http://board.example.org",
        "http://localhost.example.org",
        "http://127.0.0.1.example.org",
        "http://10.0.0.1",
        "http://0.0.0.0",
    ],
)
def test_a_key_does_not_travel_in_the_open_unless_that_is_asked_for(server: str) -> None:
    with pytest.raises(InputError, match="--insecure") as caught:
        check_may_carry_key(address_of(server), insecure=False)
    assert caught.value.code is Code.BAD_ARGUMENT
    check_may_carry_key(address_of(server), insecure=True)


def test_blanks_around_a_key_do_not_matter() -> None:
    assert check_key(" tj_abc\n") == "tj_abc"


@pytest.mark.parametrize("key", [None, "", "  ", "tj_a b", "tj_a\r\nX-Evil: 1", "tj_\u00e4"])
def test_what_is_no_key_is_not_sent(key: str | None) -> None:
    with pytest.raises(InputError) as caught:
        check_key(key)
    assert caught.value.code is Code.KEY_REFUSED
