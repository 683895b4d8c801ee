"""One rank inside the sandbox: `torchrun --nproc-per-node N -m env.worker`.

Reads top to bottom as `docs/protocol.md` does: say hello, build the model, import the submission, set up
and warm up, then for every run wait for GO, train, commit, open. From the import on, everything in
this process belongs to the submission as much as to us, so nothing here protects anything: it only
makes an honest submission's life easy, and its failures readable.
"""

import faulthandler
import gc
import importlib.util
import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TypeVar

import torch
import torch.distributed as dist
import transformers
from torch import nn

from env import places
from env.data import Rows, challenge_tokens, random_tokens
from env.model import load_model
from env.result import LocalResult, ModelNames, ResultError, read_result
from harness.protocol.digest import KEY_BYTES, digest_many
from harness.protocol.messages import (
    PROTOCOL_VERSION,
    Again,
    Assignment,
    Bye,
    Commitment,
    Done,
    Failed,
    Go,
    Hello,
    Import,
    Key,
    Loaded,
    Message,
    Open,
    Opened,
    Piece,
    Progress,
    Ready,
    Stage,
    written,
)
from harness.protocol.opening import write_opened
from harness.protocol.text import encodable
from harness.protocol.wire import RankSocket

M = TypeVar("M", bound=Message)
#: What a train file is called once it is imported.
MODULE = "train"
#: What a train file does to an optimizer.
OF_OPTIMIZERS = ("zero_grad", "step", "param_groups", "state", "state_dict", "add_param_group")


class StageError(Exception):
    """Something failed in `stage`; the cause is the exception that it wraps."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage


@contextmanager
def stage(name: Stage) -> Iterator[None]:
    """Whatever is raised inside, SystemExit included, is a failure of this stage."""
    try:
        yield
    except BaseException as error:
        raise StageError(name) from error


@dataclass(frozen=True)
class Rank:
    """Who this process is, and what the judge has assigned to it."""

    rank: int
    world_size: int
    device: torch.device
    link: RankSocket
    task: Assignment

    @property
    def dp_rank(self) -> int:
        """Ranks are laid out with dp outermost."""
        return self.rank // (self.world_size // self.task.dp_size)

    def expect(self, kind: type[M]) -> M:
        message = self.link.receive()
        if not isinstance(message, kind):
            raise RuntimeError(f"expected {kind.__name__}, got {type(message).__name__}")
        return message


def main() -> None:
    faulthandler.enable(all_threads=False)  # a rank that dies in native code says where
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = pick_device(int(os.environ["LOCAL_RANK"]))
    link = RankSocket(places.socket_of(rank))
    link.send(
        Hello(
            protocol=PROTOCOL_VERSION,
            rank=rank,
            world_size=world_size,
            torch=str(torch.__version__),  # a class of its own
            transformers=transformers.__version__,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        )
    )
    task = link.receive()
    if not isinstance(task, Assignment):
        raise RuntimeError(f"expected Assignment, got {type(task).__name__}")
    me = Rank(rank, world_size, device, link, task)
    try:
        serve(me)
    except StageError as error:
        link.send(describe(error))
        # Leaving now would let the other ranks fail in their collectives and drown the first cause.
        link.receive()
    except EOFError:
        pass  # the judge has ended the evaluation
    except BaseException:
        traceback.print_exc()
    # A submission's threads, hooks and native libraries may make a clean exit impossible, and the
    # judge has all that it needs by now.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def pick_device(local_rank: int) -> torch.device:
    if os.environ["TRAINJUDGE_DEVICE"] == "cpu":
        return torch.device("cpu")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def join(device: torch.device) -> None:
    """Meet the other ranks."""
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")


def serve(me: Rank) -> None:
    """The whole life of a rank after its assignment."""
    with stage(Stage.LOADING):
        join(me.device)
        model = build(me)
        names = ModelNames.of(model)
        me.link.send(Loaded())
        order = me.expect(Import)
    with stage(Stage.IMPORT):
        submission = import_file(places.inbox() / order.file)
    if me.task.warmup_steps:
        model = set_up(me, submission, model)
        me.link.send(Progress(stage=Stage.WARMUP))
        warm_up(me, submission, model, names)
        del model
        model = build(me)
    run = 0
    while True:
        model = set_up(me, submission, model)
        if me.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(me.device)
        me.link.send(Ready(run=run))
        evaluate(me, submission, model, names)
        following = me.link.receive()
        if isinstance(following, Bye):
            return
        if not isinstance(following, Again):
            raise RuntimeError(f"expected Again or Bye, got {type(following).__name__}")
        run = following.run
        del model
        model = build(me)


def build(me: Rank) -> nn.Module:
    """A fresh model with the initial weights; the memory of the one before goes back first."""
    gc.collect()
    if me.device.type == "cuda":
        torch.cuda.empty_cache()
    torch.manual_seed(0)
    dtype = getattr(torch, me.task.param_dtype)
    return load_model(places.model_dir(), me.device, me.task.placement, dtype)


def import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path.name}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module  # dataclasses and pickling by the submission look it up here
    spec.loader.exec_module(module)
    return module


def set_up(me: Rank, submission: ModuleType, model: nn.Module) -> nn.Module:
    me.link.send(Progress(stage=Stage.SETUP))
    with stage(Stage.SETUP):
        setup: Callable[..., nn.Module] | None = getattr(submission, "setup", None)
        if setup is None:
            return model
        prepared = setup(model, me.device, me.world_size)
        if prepared is None:
            raise TypeError("setup() returned None; it must return the model")
        return prepared


def train(
    me: Rank,
    submission: ModuleType,
    model: nn.Module,
    tokens: torch.Tensor,
    rows_of: type[Rows] = Rows,
) -> object:
    """Call `inner_steps` on this rank's rows. `tokens` is [steps, global_batch, sequence_length]."""
    rows = rows_of(tokens, me.dp_rank, me.task.dp_size)
    return submission.inner_steps(model, rows, None, len(tokens), me.device, num_gpus=me.world_size)


def warm_up(me: Rank, submission: ModuleType, model: nn.Module, names: ModelNames) -> None:
    """Compile, allocate and connect on random tokens; the digests of the clock's end included."""
    tokens = random_tokens(
        me.task.warmup_steps, me.task.global_batch, me.task.sequence_length, me.task.vocab_size
    )
    with stage(Stage.WARMUP):
        returned = train(me, submission, model, tokens)
    with stage(Stage.RESULT):
        commit(me, read_result(returned, names), run=0, key=bytes(KEY_BYTES))


def evaluate(me: Rank, submission: ModuleType, model: nn.Module, names: ModelNames) -> None:
    """One run, from GO to OPENED."""
    go = me.expect(Go)
    with stage(Stage.TRAINING):
        tokens = challenge_tokens(places.inbox() / go.challenge)
        returned = train(me, submission, model, tokens)
    with stage(Stage.RESULT):
        result = read_result(returned, names)
        me.link.send(
            Done(
                run=go.run,
                final_loss=written(result.final_loss),
                total_tokens=result.total_tokens,
            )
        )
        key = me.expect(Key)
        me.link.send(commit(me, result, go.run, bytes.fromhex(key.key)))
        wanted = me.expect(Open)
    with stage(Stage.OPENING):
        boxes = [result.boxes[index] for index in wanted.pieces]
        write_opened(
            places.outbox() / f"run{go.run}-rank{me.rank}",
            boxes,
            shard=me.rank + 1,
        )
        me.link.send(Opened(run=go.run, peak_memory_bytes=peak_memory(me.device)))


def peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on the GPU since the last READY, or resident in this process ever."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def commit(me: Rank, result: LocalResult, run: int, key: bytes) -> Commitment:
    digests = digest_many([box.tensor for box in result.boxes], key, cores_per_rank())
    return Commitment(
        run=run,
        pieces=tuple(
            Piece(
                name=box.name,
                tensor_shape=tuple(box.tensor_shape),
                offset=tuple(box.offset),
                shape=tuple(box.tensor.shape),
                dtype=str(box.tensor.dtype).removeprefix("torch."),
                digest=digest,
            )
            for box, digest in zip(result.boxes, digests, strict=True)
        ),
    )


def cores_per_rank() -> int:
    """The clock runs while all ranks of this machine hash: each may use its share of the cores."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ["LOCAL_WORLD_SIZE"]))


def describe(error: StageError) -> Failed:
    """The submission's own exception in its author's words: message, and the end of the traceback."""
    cause = error.__cause__ or error
    if isinstance(cause, ResultError):
        return Failed(stage=error.stage, message=encodable(str(cause), 2_000))
    text = "".join(traceback.format_exception(cause.with_traceback(own_frames(cause))))
    return Failed(
        stage=error.stage,
        message=encodable(f"{type(cause).__name__}: {cause}{advice(cause)}", 2_000),
        detail=encodable(text[-8_000:], 8_000),
    )


def own_frames(cause: BaseException) -> TracebackType | None:
    """The traceback from the train file's first frame on; all of it where that has none."""
    found = cause.__traceback__
    while found is not None and found.tb_frame.f_globals.get("__name__") != MODULE:
        found = found.tb_next
    return found or cause.__traceback__


def advice(cause: BaseException) -> str:
    """What to do about a mistake that is made often; empty where none is known."""
    if isinstance(cause, AttributeError) and cause.obj is None and cause.name in OF_OPTIMIZERS:
        return ". The `optimizer` that inner_steps is given is None: make the benchmark's own"
    return ""


if __name__ == "__main__":
    main()
