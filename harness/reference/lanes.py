"""Runs of the trusted loop side by side: inside of the reference's sandbox, where no submission runs."""

import multiprocessing
from collections.abc import Callable

import torch


def in_lanes(work: Callable[[int], None], lanes: int) -> None:
    """Do the work of every lane in a process of its own, with its share of the cores.

    One rank on several cores waits for memory and for itself: two runs side by side take little longer than
    one. Nothing is computed before the fork, so no thread is lost; what is imported is there once.

    Raises RuntimeError: one of them failed, and has said why.
    """
    threads = max(1, torch.get_num_threads() // lanes)
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_in_lane, args=(work, lane, threads)) for lane in range(lanes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    failed = [process for process in processes if process.exitcode != 0]
    if failed:
        raise RuntimeError(f"{len(failed)} of {lanes} lanes failed")


def _in_lane(work: Callable[[int], None], lane: int, threads: int) -> None:
    torch.set_num_threads(threads)
    work(lane)
