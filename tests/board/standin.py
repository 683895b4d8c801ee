"""A stand-in for `validator run`: the train file's first line says what it does: `# judge: WHAT SECONDS`.

It takes the options of the judge, and of its own: `--results DIR`, where the documents lie that it hands
out, and `--mark FILE`, into which it writes when it starts and ends.
"""

import json
import os
import signal
import sys
import time

STATUS = {"accepted": 0, "rejected": 1, "error": 3}


def main(arguments: list[str]) -> int:
    file, *rest = arguments
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    with open(file, encoding="utf-8") as source:  # noqa: PTH123 - starts faster without pathlib
        _, _, what, seconds = source.readline().split()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    mark(options, "starts", json.dumps(arguments))
    if keep := options.get("--keep"):
        os.mkdir(keep)  # noqa: PTH102
    try:
        return judge(what, float(seconds), options)
    finally:
        mark(options, "ends", what)


def judge(what: str, seconds: float, options: dict[str, str]) -> int:
    print("timed: run 1 of 2 \x1b[31mred\x1b[0m", file=sys.stderr, flush=True)
    if what == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        mark(options, "deaf", "")
    try:
        time.sleep(seconds)
    except SystemExit:
        time.sleep(0.2)  # it ends its sandbox, removes its folder
        raise
    print("it says this last", file=sys.stderr, flush=True)
    if what in STATUS:
        with open(f"{options['--results']}/{what}.json", "rb") as document:  # noqa: PTH123
            store(document.read(), options["--json"])
        return STATUS[what]
    if what == "half":
        with open(f"{options['--results']}/accepted.json", "rb") as document:  # noqa: PTH123
            store(document.read()[:1000], options["--json"])
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 if what == "misfit" else 3


def store(document: bytes, path: str) -> None:
    with open(path + ".part", "wb") as file:  # noqa: PTH123
        file.write(document)
    os.rename(path + ".part", path)  # noqa: PTH104


def mark(options: dict[str, str], event: str, detail: str) -> None:
    if path := options.get("--mark"):
        with open(path, "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(f"{event} {os.getpid()} {detail}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
