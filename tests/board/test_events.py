"""Events are written once: the database itself refuses to change one, however it is asked."""

from typing import get_args

import pytest
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError

from harness.board import project
from harness.board.events import AuthorAdded, Event, Stamped
from harness.board.store import Store
from tests.board.conftest import Raw
from tests.board.examples import board_with


def changes(database: str) -> list[str]:
    both = [
        "UPDATE events SET body = '{}' WHERE id = 1",
        "UPDATE events SET at = 0",
        "DELETE FROM events WHERE id = 1",
        "DELETE FROM events",
        "INSERT INTO events SELECT id, 0, kind, NULL, NULL, '{}' FROM events WHERE id = 1"
        " ON CONFLICT (id) DO UPDATE SET body = '{}'",
    ]
    if database == "postgresql":
        return [*both, "TRUNCATE events"]
    # It deletes the old row, and SQLite does not call that a deletion.
    return [*both, "INSERT OR REPLACE INTO events VALUES (1, 0, 'author_added', NULL, NULL, '{}')"]


def test_an_event_cannot_be_changed_or_removed(store: Store, raw: Raw, database: str) -> None:
    board_with(store, "ada")
    before = raw("SELECT * FROM events ORDER BY id")
    assert len(before) == 3  # season, author, key
    for change in changes(database):
        with pytest.raises(DBAPIError, match="events are never changed"):
            raw(change)
        assert raw("SELECT * FROM events ORDER BY id") == before, change


def test_an_event_says_what_happened_when_and_to_whom(store: Store, raw: Raw) -> None:
    before = store.now()
    board_with(store, "ada")
    (row,) = raw("SELECT id, at, kind, submission, evaluation, body FROM events WHERE id = 2")
    assert (row[0], row[2:5]) == (2, ("author_added", None, None))
    assert before <= row[1] <= store.now()
    assert row[5] == '{"kind":"author_added","author":1,"name":"ada"}'


def test_a_stored_event_is_read_as_what_it_was() -> None:
    event = Stamped.body.validate_json('{"kind":"author_added","author":1,"name":"ada"}')
    assert event == AuthorAdded(author=1, name="ada")


@pytest.mark.parametrize(
    "body",
    [
        '{"kind":"author_married","author":1}',
        '{"kind":"author_added","author":1,"name":"ada","rank":1}',
        '{"kind":"author_added","author":1}',
        '{"author":1,"name":"ada"}',
    ],
)
def test_an_event_with_anything_unknown_or_missing_is_not_read(body: str) -> None:
    with pytest.raises(ValidationError):
        Stamped.body.validate_json(body)


def test_every_event_can_be_carried_out() -> None:
    union = get_args(Event)[0]
    assert set(get_args(union)) == set(project._APPLY)
