"""`ray start` asks for a token where the machine has one: so do we show it."""

from pathlib import Path

import pytest

from harness.fleet.token import GIVEN, HOME, PATH, has_token


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a user who has no token."""
    for name in (GIVEN, PATH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_without_a_token_there_is_none(home: Path) -> None:
    assert not has_token()
    (home / HOME).parent.mkdir()
    (home / HOME).write_text("\n")
    assert not has_token()


def test_it_is_in_the_home_in_a_file_that_is_named_or_given(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / HOME).parent.mkdir()
    (home / HOME).write_text("secret")
    assert has_token()
    monkeypatch.setenv(PATH, str(home / "other"))
    assert not has_token()
    (home / "other").write_text("secret")
    assert has_token()
    monkeypatch.setenv(PATH, str(home / "none"))
    monkeypatch.setenv(GIVEN, "secret")
    assert has_token()
