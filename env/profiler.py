"""One rank under torch.profiler: what `validator run --profile` starts, in the same sandbox.

`torchrun --nproc-per-node N -m env.profiler`: as a judged rank it sets up and warms up; then one run on
random tokens is recorded. Nobody listens and nothing is compared: the figures are for the file's author.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import torch
import torch.distributed as dist
from torch import nn
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from env import places
from env.data import Rows, random_tokens
from env.result import ModelNames, read_result
from env.worker import Rank, build, commit, import_file, join, pick_device, set_up, train, warm_up
from harness.protocol.digest import KEY_BYTES
from harness.protocol.messages import Assignment, Message
from harness.protocol.profile import (
    MAX_OPERATIONS,
    PROFILE_FILE,
    TRACE_FILE,
    Operation,
    RankProfile,
    Span,
    split,
)
from harness.protocol.text import encodable
from harness.protocol.wire import RankSocket

RUN, DATA, COMMITMENT = "trainjudge: run", "trainjudge: data", "trainjudge: commitment"
OPTIMIZER = "Optimizer.step"
COLLECTIVES = ("nccl", "gloo:", "c10d::", "record_param_comms")
MICRO = 1e-6  # the profiler's unit, in seconds


class Nobody(RankSocket):
    """A socket without a judge at its other end."""

    def __init__(self) -> None:
        pass

    def send(self, message: Message) -> None:
        pass


class RecordedRows(Rows):
    """Rows whose making shows in the trace."""

    def __next__(self) -> torch.Tensor:
        with record_function(DATA):
            return super().__next__()


def main() -> None:
    task = msgspec.json.decode(Path(os.environ["TRAINJUDGE_TASK"]).read_bytes(), type=Assignment)
    device = pick_device(int(os.environ["LOCAL_RANK"]))
    me = Rank(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), device, Nobody(), task)
    join(device)
    model = build(me)
    names = ModelNames.of(model)
    submission = import_file(Path(os.environ["TRAINJUDGE_TRAIN_FILE"]))
    if task.warmup_steps:
        model = set_up(me, submission, model)
        warm_up(me, submission, model, names)
        del model
        model = build(me)
    model = set_up(me, submission, model)
    recorded = record(me, submission, model, names, int(os.environ["TRAINJUDGE_STEPS"]))
    outbox = places.outbox()
    recorded.export_chrome_trace(str(outbox / TRACE_FILE.format(rank=me.rank)))
    figures = msgspec.json.encode(summary(recorded))
    (outbox / PROFILE_FILE.format(rank=me.rank)).write_bytes(figures)
    dist.barrier()
    os._exit(0)  # as a judged rank does


def record(
    me: Rank, submission: ModuleType, model: nn.Module, names: ModelNames, steps: int
) -> Any:
    """One run and its commitment, under the profiler."""
    task = me.task
    tokens = random_tokens(steps, task.global_batch, task.sequence_length, task.vocab_size)
    activities = [ProfilerActivity.CPU]
    if me.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as recorded, record_function(RUN):
        returned = train(me, submission, model, tokens, RecordedRows)
        with record_function(COMMITMENT):
            commit(me, read_result(returned, names), run=0, key=bytes(KEY_BYTES))
    return recorded


def summary(recorded: Any) -> RankProfile:
    """What stands in the trace, in a few figures."""
    events = list(recorded.events())
    on_device = any(not _on_cpu(event) for event in events)
    [whole] = [_span(event) for event in events if event.name == RUN and _on_cpu(event)]
    spans: dict[str, Iterable[Span]] = {
        "commitment": _named(events, COMMITMENT),
        "data": _named(events, DATA),
        "optimizer": _named(events, OPTIMIZER),
        "compute": [
            _span(event)
            for event in events
            if _computes(event, on_device) and not _collective(event)
        ],
        "communication": [_span(event) for event in events if _collective(event)],
    }
    parts = {part: length * MICRO for part, length in split(whole, spans).items()}
    return RankProfile(
        seconds=(whole[1] - whole[0]) * MICRO, operations=_dearest(recorded, on_device), **parts
    )


def _computes(event: Any, on_device: bool) -> bool:
    """A kernel; without a device one of torch's own operations, or another that calls none."""
    if on_device:
        return not _on_cpu(event)
    leaf = not event.cpu_children and not event.name.startswith("trainjudge:")
    return leaf or bool(event.name.startswith("aten::"))


def _collective(event: Any) -> bool:
    return bool(event.name.startswith(COLLECTIVES))


def _on_cpu(event: Any) -> bool:
    return bool(event.device_type == DeviceType.CPU)


def _named(events: Iterable[Any], name: str) -> list[Span]:
    return [_span(event) for event in events if event.name.startswith(name) and _on_cpu(event)]


def _span(event: Any) -> Span:
    return float(event.time_range.start), float(event.time_range.end)


def _dearest(recorded: Any, on_device: bool) -> tuple[Operation, ...]:
    attribute = "self_device_time_total" if on_device else "self_cpu_time_total"
    averages = [each for each in recorded.key_averages() if not each.key.startswith("trainjudge:")]
    averages.sort(key=lambda each: getattr(each, attribute), reverse=True)
    return tuple(
        Operation(
            name=encodable(each.key, 256),
            calls=each.count,
            seconds=max(0.0, getattr(each, attribute) * MICRO),
        )
        for each in averages[:MAX_OPERATIONS]
    )


if __name__ == "__main__":
    main()
