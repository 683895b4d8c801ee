"""What an organiser decides: seasons, authors and their keys, and what becomes of a submission."""

from collections.abc import Callable
from functools import partial

import pytest

from harness.board.maintenance import check
from harness.board.organise import (
    SeasonPlan,
    add_author,
    author_of_key,
    close_season,
    has_author,
    invalidate,
    new_key,
    open_season,
    release,
    revoke_keys,
    the_season,
)
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.board.submit import Handed, cancel, submit
from harness.board.tables import Season, Submission
from harness.errors import Code, InputError
from tests.board.conftest import Raw
from tests.board.examples import (
    HPARAMS_SHA256,
    accepted_result,
    board_with,
    error_result,
    hand_in,
    judge_next,
    rejected_result,
    train_file,
)


def refused(what: Callable[[], object]) -> InputError:
    with pytest.raises(InputError) as caught:
        what()
    return caught.value


def plan(
    name: str = "autumn", starts_at: float | None = None, ends_at: float | None = None
) -> SeasonPlan:
    return SeasonPlan(
        name=name,
        hparams_sha256=HPARAMS_SHA256,
        benchmark="qwen3-30b-a3b",
        world_size=2,
        hardware="",
        rule=ScoringRule(),
        starts_at=starts_at,
        ends_at=ends_at,
    )


def state(store: Store, number: int) -> tuple[str, str]:
    with store.read() as session:
        row = session.get_one(Submission, number)
        return row.state, row.state_why


# --- seasons -------------------------------------------------------------------------------------


def test_a_season_keeps_the_rule_that_it_was_opened_with(store: Store) -> None:
    rule = ScoringRule(min_runs=5, base_threshold=0.02, isolation=("docker",))
    before = store.now()
    assert open_season(store, SeasonPlan("autumn", "a" * 64, "tiny", 8, "8 x H100", rule)) == 1
    with store.read() as session:
        season = session.get_one(Season, 1)
        assert ScoringRule.model_validate_json(season.rule) == rule
        found = (season.name, season.hparams_sha256, season.benchmark, season.world_size)
        assert found == ("autumn", "a" * 64, "tiny", 8)
        assert (season.hardware, season.ends_at, season.closed_at) == ("8 x H100", None, None)
        assert before <= season.starts_at == season.opened_at <= store.now()


def test_two_seasons_cannot_have_one_name(store: Store) -> None:
    open_season(store, plan())
    assert refused(lambda: open_season(store, plan())).code is Code.NOT_NOW
    assert open_season(store, plan("winter")) == 2


def test_a_season_that_ends_before_it_starts_is_refused(store: Store) -> None:
    for ends in (1000.0, 999.0):
        code = refused(partial(open_season, store, plan(starts_at=1000.0, ends_at=ends))).code
        assert code is Code.BAD_ARGUMENT
    assert (
        refused(lambda: open_season(store, plan(ends_at=store.now() - 1))).code is Code.BAD_ARGUMENT
    )
    assert open_season(store, plan(starts_at=1000.0, ends_at=1001.0)) == 1


@pytest.mark.parametrize(
    "name",
    ["", " ", "-rf", ".hidden", "a b", "a/b", "ä", "<b>", "a\n", "x" * 65, "a\u202eb", "a\0"],
)
def test_a_name_that_is_hard_to_type_or_looks_like_another_is_refused(
    store: Store, name: str
) -> None:
    assert refused(lambda: add_author(store, name)).code is Code.BAD_ARGUMENT
    refusal = refused(lambda: open_season(store, plan(name)))
    assert refusal.code is Code.BAD_ARGUMENT
    assert refusal.message.isascii()
    assert refusal.message.isprintable()


@pytest.mark.parametrize("name", ["a", "7", "Ada.Lovelace_1815-1852", "x" * 64])
def test_a_name_that_can_be_typed_is_taken(store: Store, name: str) -> None:
    add_author(store, name)
    open_season(store, plan(name))


def test_a_closed_season_takes_nothing_and_is_closed_once(store: Store) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    close_season(store, "autumn")
    assert refused(lambda: hand_in(store, "ada", 2)).code is Code.NOT_NOW
    assert refused(lambda: close_season(store, "autumn")).code is Code.NOT_NOW
    assert refused(lambda: close_season(store, "winter")).code is Code.UNKNOWN_ID
    # What was handed in is judged still.
    assert judge_next(store, accepted_result()) == 1


def names(store: Store, wanted: str | None = None) -> str:
    with store.read() as session:
        return the_season(session, wanted).name


def test_without_a_name_the_only_open_season_is_meant(store: Store) -> None:
    assert refused(lambda: names(store)).code is Code.UNKNOWN_ID
    open_season(store, plan("spring"))
    assert names(store) == "spring"
    open_season(store, plan("summer"))
    refusal = refused(lambda: names(store))
    assert refusal.code is Code.BAD_ARGUMENT
    assert "spring, summer" in refusal.message
    assert names(store, "spring") == "spring"
    close_season(store, "spring")
    assert names(store) == "summer"
    assert names(store, "spring") == "spring"
    close_season(store, "summer")
    assert names(store) == "summer"
    assert refused(lambda: names(store, "nope")).code is Code.UNKNOWN_ID


def test_a_season_whose_time_is_over_is_not_in_the_way_of_the_next(store: Store) -> None:
    now = store.now()
    open_season(store, plan("spring", starts_at=now - 10, ends_at=now - 5))
    assert names(store) == "spring"
    open_season(store, plan("summer"))
    assert names(store) == "summer"


# --- authors and keys ----------------------------------------------------------------------------


def test_a_key_finds_its_author_and_is_kept_nowhere(store: Store, raw: Raw) -> None:
    ada, bob = add_author(store, "ada"), add_author(store, "bob")
    assert author_of_key(store, ada).name == "ada"
    assert author_of_key(store, bob).name == "bob"
    assert len(ada) >= 43  # 256 bits
    everything = repr([raw(f"SELECT * FROM {table}") for table in ("keys", "events", "authors")])
    assert ada not in everything
    assert ada[9:] not in everything


@pytest.mark.parametrize("key", ["", "tj_", "x" * 10_000, "tj_\0", "tj_\ud800", "' OR 1=1 --"])
def test_a_key_that_nobody_has_is_refused(store: Store, key: str) -> None:
    add_author(store, "ada")
    assert refused(lambda: author_of_key(store, key)).code is Code.KEY_REFUSED


def test_a_key_is_not_taken_for_its_hash_or_its_beginning(store: Store, raw: Raw) -> None:
    key = add_author(store, "ada")
    ((sha256, prefix),) = raw("SELECT sha256, prefix FROM keys")
    for wrong in (sha256, prefix, key[:-1], key + "x", key.upper()):
        assert refused(partial(author_of_key, store, wrong)).code is Code.KEY_REFUSED


def test_a_revoked_key_is_refused_and_the_others_stay(store: Store) -> None:
    first, second = add_author(store, "ada"), new_key(store, "ada")
    third = add_author(store, "bob")
    assert revoke_keys(store, "ada", first[:9]) == 1
    refusal = refused(lambda: author_of_key(store, first))
    assert (refusal.code, "revoked" in refusal.message) == (Code.KEY_REFUSED, True)
    assert author_of_key(store, second).name == "ada"
    assert refused(lambda: revoke_keys(store, "ada", first)).code is Code.UNKNOWN_ID
    assert revoke_keys(store, "ada") == 1
    assert refused(lambda: author_of_key(store, second)).code is Code.KEY_REFUSED
    assert author_of_key(store, third).name == "bob"
    assert refused(lambda: revoke_keys(store, "ada")).code is Code.UNKNOWN_ID


def test_a_whole_key_revokes_itself_only(store: Store) -> None:
    first, second = add_author(store, "ada"), new_key(store, "ada")
    assert revoke_keys(store, "ada", second) == 1
    assert author_of_key(store, first).name == "ada"
    # The key of somebody else is not revoked by a wrong author's name.
    add_author(store, "bob")
    assert refused(lambda: revoke_keys(store, "bob", first)).code is Code.UNKNOWN_ID
    assert author_of_key(store, first).name == "ada"


def test_an_author_is_there_once(store: Store) -> None:
    assert not has_author(store, "ada")
    add_author(store, "ada")
    assert has_author(store, "ada")
    assert refused(lambda: add_author(store, "ada")).code is Code.NOT_NOW
    for unknown in (lambda: new_key(store, "bob"), lambda: revoke_keys(store, "bob")):
        assert refused(unknown).code is Code.UNKNOWN_ID


# --- what becomes of a submission ----------------------------------------------------------------


def in_state(store: Store, wanted: str) -> int:
    """A submission that has come as far as that."""
    rule = ScoringRule(max_attempts=1, pairs=0)
    board_with(store, "ada", rule=rule)
    if wanted == "held":
        hand_in(store, "ada")
        judge_next(store, rejected_result())
    number = hand_in(store, "ada")
    if wanted in ("judged", "held", "invalidated"):
        judge_next(store, accepted_result())
    elif wanted == "failed":
        judge_next(store, error_result())
    elif wanted == "cancelled":
        cancel(store, number)
    if wanted == "invalidated":
        invalidate(store, number, "trains on the test rows")
    assert state(store, number)[0] == wanted
    return number


@pytest.mark.parametrize("before", ["judged", "held", "failed"])
def test_an_invalidated_submission_says_why(store: Store, before: str) -> None:
    number = in_state(store, before)
    invalidate(store, number, "trains on the test rows")
    assert state(store, number) == ("invalidated", "trains on the test rows")
    assert check(store).problems == ()


@pytest.mark.parametrize("before", ["queued", "cancelled", "invalidated"])
def test_what_has_no_verdict_or_is_off_the_board_is_not_invalidated(
    store: Store, before: str
) -> None:
    number = in_state(store, before)
    was = state(store, number)
    assert refused(lambda: invalidate(store, number, "again")).code is Code.NOT_NOW
    assert state(store, number) == was


@pytest.mark.parametrize("before", ["held", "invalidated"])
def test_the_organiser_lets_a_submission_be_ranked(store: Store, before: str) -> None:
    number = in_state(store, before)
    release(store, number, "looked at it")
    assert state(store, number) == ("judged", "looked at it")
    assert check(store).problems == ()


@pytest.mark.parametrize("before", ["queued", "judged", "failed", "cancelled"])
def test_only_what_waits_for_the_organiser_is_released(store: Store, before: str) -> None:
    number = in_state(store, before)
    assert refused(lambda: release(store, number, "why not")).code is Code.NOT_NOW
    assert state(store, number)[0] == before


def test_a_submission_that_is_not_there_is_said_so(store: Store) -> None:
    board_with(store, "ada")
    for act in (invalidate, release):
        assert refused(partial(act, store, 17, "why")).code is Code.UNKNOWN_ID
    assert (
        refused(lambda: submit(store, Handed("bob", "t.py", train_file()))).code is Code.UNKNOWN_ID
    )


def test_a_reason_with_control_characters_harms_nobody(store: Store) -> None:
    number = in_state(store, "judged")
    invalidate(store, number, "cheat\x1b[31m\0\nsecond line")
    assert (
        state(store, number)[1]
        == "cheat\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}\nsecond line"
    )


def test_a_season_s_plan_says_what_will_be_fixed() -> None:
    rule = ScoringRule(pairs=4, peak_tflops=0.0624)
    plan = SeasonPlan("autumn", "ab" * 32, "small", 2, "cpu, 2 cores\x1b[2J", rule)
    assert plan.words() == (
        "benchmark small (hparams abababababab), 2 ranks",
        "hardware of the main board cpu, 2 cores?[2J, peak 0.0624 TFLOP/s a device",
        "rule pairs 4",
    )
    plain = SeasonPlan("autumn", "ab" * 32, "small", 1, "H100", ScoringRule())
    assert plain.words()[0].endswith("1 rank")
    assert plain.words()[1].endswith("peak the benchmark's")
    assert plain.words()[2] == "rule the default one (docs/scoring.md)"
