"""Publishing: the boards and all results as files, for a web server, a spreadsheet or a data set's readers.

What is written depends on the events alone, so an unchanged store gives the same files again. Who stands
where says `leaderboard.rank_season`, as for pages and commands; nothing here ranks.
"""

import tempfile
from pathlib import Path
from typing import Final

from sqlalchemy import func, select

from harness.board.leaderboard import rank_season
from harness.board.publish_data import ResultsFile, SeasonBoard, season_board, write_csv
from harness.board.publish_site import page, readme
from harness.board.publish_target import replace_folder, upload
from harness.board.store import Store
from harness.board.tables import EventRow
from harness.board.views import seasons_view
from harness.errors import Code, JudgeError

PAGE: Final = "index.html"
RESULTS: Final = "results.parquet"
BOARD: Final = "board.csv"
README: Final = "README.md"


def publish_to_folder(store: Store, target: Path, style: str) -> None:
    """A static site: the page, the board, the results, and a README. A reader never sees half of it.

    Args:
        store: what is published.
        target: a new folder, or one that was made by this.
        style: CSS of the page.

    Raises InputError(BAD_ARGUMENT): something else is at `target`, or it cannot be written.
    """

    def fill(folder: Path) -> None:
        boards, as_of = _write_data(store, folder)
        (folder / PAGE).write_text(page(boards, as_of, style), encoding="utf-8")

    replace_folder(target, (PAGE, RESULTS, BOARD, README), fill)


def publish_to_hub(store: Store, name: str, token: str | None) -> str:
    """A data set on the Hugging Face hub: the board, the results, and a card. Gives its address.

    Args:
        store: what is published.
        name: ORG/NAME.
        token: of the hub; None: as `hf auth login` has kept it.

    Raises InputError, JudgeError: as `publish_target.upload`; JudgeError(STORE_FAILED) on a full disk.
    """
    with tempfile.TemporaryDirectory(prefix="trainjudge-publish-") as made:
        folder = Path(made)
        try:
            _write_data(store, folder)
        except OSError as error:
            raise JudgeError(
                Code.STORE_FAILED, f"{folder} cannot be written: {error.strerror or error}"
            ) from error
        return upload(folder, name, token, f"The board after event {store.last_event()}")


def _write_data(store: Store, folder: Path) -> tuple[list[SeasonBoard], float | None]:
    """Results, board and README; gives the boards, newest season first, and the last event's time."""
    with store.read() as session:
        seasons = seasons_view(session)
        as_of = session.scalar(select(func.max(EventRow.at)))
    boards = []
    with ResultsFile(folder / RESULTS) as results:
        for season in seasons:
            ranking = rank_season(store, season.id)
            boards.append(season_board(season, ranking))
            with store.read() as session:
                results.add(session, season, ranking)
    write_csv(folder / BOARD, boards)
    (folder / README).write_text(readme(boards, as_of), encoding="utf-8")
    return boards, as_of
