"""What the leaderboard costs when it is large, busy or idle, as docs/performance.md shows it.

    python -m measurements.board pages [--evaluations N]
    python -m measurements.board uploads [--rate N] [--seconds S] [--clients N]
    python -m measurements.board idle-worker [--seconds S] [--evaluations N]

All of it happens in a SQLite store in a temporary folder (about 1 GB for a million evaluations).

`pages` fills a season with finished evaluations, ranks it from scratch, and asks a real `validator serve`
for pages over loopback: the first time, again and again, and right after an event, when all has to be
ranked anew. The season needs no pairs, so the record's history is replayed from the scores: of the two
ways the slower one. Source, result and history of a few hundred submissions are there, the others' are
not: no page reads those of more than one.

`uploads` hands in small files at a fixed rate to a server beside a worker, whose judge is a stand-in that
takes no time. What is due while all clients wait for the server is sent late or, when the time is over,
not at all. In the end every file that the server took is looked for in the store.

`idle-worker` is a worker that nothing waits for. With `--evaluations` its season has so many; it makes the
ranking anew every minute, so give it a few.

Times are wall time. Where CPU time stands beside it and is much less, the machine had other work.
"""

import argparse

from measurements.board.idle import idle_worker
from measurements.board.pages import pages
from measurements.board.uploads import uploads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("pages", help="ranking, pages and memory of a large board")
    one.add_argument("--evaluations", type=int, default=1_000_000)
    one = commands.add_parser("uploads", help="many files at once, beside a worker")
    one.add_argument("--rate", type=float, default=200.0, help="files a second; default: 200")
    one.add_argument("--seconds", type=float, default=60.0, help="default: 60")
    one.add_argument("--clients", type=int, default=64, help="connections; default: 64")
    one = commands.add_parser("idle-worker", help="a worker that nothing waits for")
    one.add_argument("--seconds", type=float, default=30.0, help="default: 30")
    one.add_argument("--evaluations", type=int, default=0, help="of its season; default: none")
    options = parser.parse_args()
    if options.command == "pages":
        pages(options.evaluations)
    elif options.command == "uploads":
        uploads(options.rate, options.seconds, options.clients)
    else:
        idle_worker(options.seconds, options.evaluations)


if __name__ == "__main__":
    main()
