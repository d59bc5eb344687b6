"""Several processes that train one model: what they share, and how they agree.

torchrun starts the same command several times. The first process (rank 0) reads what was typed and
is the only one that writes; the others take part in every step. Each batch is divided between them,
and everything that the next step depends on is the same in all: weights, optimizer, and the random
generators. In a single process every function here does nothing.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from seg_l1.errors import UserError, first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

PATIENCE = timedelta(minutes=5)
"""How long a process waits for one that lives and does not answer; a dead one is seen at once."""

_rank, _size, _alone = 0, 1, False
_store: Any = None


class ProcessLost(RuntimeError):
    """Another process of the run has died, or does not answer."""


def launched() -> int:
    """How many processes torchrun has started; 1 without torchrun."""
    under = {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()
    return int(os.environ["WORLD_SIZE"]) if under else 1


def refuse(what: str, way: str) -> None:
    """Refuses `what` under torchrun with the `way` to do it, once for all processes.

    Raises:
        UserError: in the first process. The others wait until torchrun ends them for that.
    """
    if launched() > 1:
        if os.environ["RANK"] != "0":
            time.sleep(10)
            raise SystemExit(2)
        raise UserError(f"{what} does not go under torchrun: {way}")


def rank() -> int:
    """The number of this process, from 0."""
    return _rank


def size() -> int:
    """The number of processes."""
    return _size


def together() -> bool:
    """Whether there are other processes that compute what this one does."""
    return _size > 1 and not _alone


@contextmanager
def alone() -> Iterator[None]:
    """What a model computes inside concerns this process alone: its layers wait for no other."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def join() -> None:
    """Joins the processes that torchrun has started.

    From here on SIGTERM ends nothing but a training, after its step: torchrun sends it as soon as
    one process has failed, and the others have yet to say and to write why they end.

    Raises:
        ProcessLost: if they do not find each other.
    """
    import torch
    import torch.distributed as dist

    global _rank, _size, _store
    signal.signal(signal.SIGTERM, lambda *_: None)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _others_answer():
        store, _rank, _size = next(dist.rendezvous("env://", timeout=PATIENCE))
        _store = dist.PrefixStore("seg_l1", store)
        dist.init_process_group(
            backend, store=store, rank=_rank, world_size=_size, timeout=PATIENCE
        )


def leave(code: int) -> NoReturn:
    """Ends this process with an exit code.

    One that failed takes no leave of the others, who may wait for something else. No process tidies
    up its interpreter: the threads of gloo now and then abort one that does.
    """
    if code == 0:
        import torch.distributed as dist

        dist.destroy_process_group()
    elif _rank == 0:
        _store.set("ended", str(code))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def code_of_first(wait: timedelta) -> int | None:
    """The exit code with which the first process failed, and said why; None if it has not."""
    until = time.monotonic() + wait.total_seconds()
    try:
        while not _store.check(["ended"]):
            if time.monotonic() > until:
                return None
            time.sleep(0.05)
        return int(_store.get("ended"))
    except RuntimeError:  # the store has gone with the first process
        return None


@contextmanager
def in_turn(needed: bool = True) -> Iterator[None]:
    """The first process goes first, as to download; the others find there what it has left."""
    if needed and _rank > 0:
        while not _store.check(["done"]):
            time.sleep(0.1)
    try:
        yield
    finally:
        if needed and _size > 1 and _rank == 0:
            _store.set("done", "")


def device(name: str) -> torch.device:
    """The device of this process, of several: for "auto" and "cuda" a GPU each, if there are any.

    Raises:
        UserError: if there are not enough GPUs, or if all were to have the same.
    """
    import torch

    if name.startswith("cuda:"):
        raise UserError(f"device: {_size} processes cannot all have {name}; give device=auto")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    index, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if name not in ("auto", "cuda") or index >= count:
        raise UserError(
            f"device: {name} with {os.environ['LOCAL_WORLD_SIZE']} processes, but there are {count}"
            f" GPUs here. Give --nproc-per-node={max(1, count)}, or device=cpu"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def share(count: int, of: int | None = None) -> slice:
    """Which of `count` items are those of this process (or of process `of`): evenly, in order.

    Where they do not divide, the first processes have one more.
    """
    number = _rank if of is None else of
    few, rest = divmod(count, _size)
    start = number * few + min(number, rest)
    return slice(start, start + few + (number < rest))


def add_up(*tensors: Tensor) -> None:
    """Replaces each tensor by its sum over the processes."""
    if _size > 1:
        import torch.distributed as dist

        for tensor in tensors:
            with _others_answer():
                dist.all_reduce(tensor)


def gather(part: Tensor) -> list[Tensor]:
    """Returns the tensors `part` of all processes, which have one shape and type; no gradients."""
    import torch.distributed as dist

    parts = [part.new_empty(part.shape) for _ in range(_size)]
    with _others_answer():
        dist.all_gather(parts, part.contiguous())
    return parts


def whole(part: Tensor, count: int) -> Tensor:
    """Puts the parts of a batch of `count` together, of which each process has its `share`.

    Gradients flow to the part of this process only, from what this process computes of the whole:
    every process is to compute the same, and the gradients of the weights are then to be added up.
    """
    import torch

    most = range(count)[share(count, of=0)]
    padded = part.detach().new_zeros(len(most), *part.shape[1:])
    padded[: len(part)] = part.detach()
    parts = [rows[: len(range(count)[share(count, of)])] for of, rows in enumerate(gather(padded))]
    parts[_rank] = part
    return torch.cat(parts)


def agree(flag: bool) -> bool:
    """Whether `flag` is true in any process."""
    if _size == 1:
        return flag
    import torch

    votes = torch.tensor(int(flag))
    add_up(votes)
    return bool(votes)


def from_first(thing: Any) -> Any:
    """Returns what the first process has given: an object that can be pickled."""
    if _size == 1:
        return thing
    import torch
    import torch.distributed as dist

    things = [thing]
    with _others_answer():
        dist.broadcast_object_list(things, src=0, device=torch.device("cpu"))
    return things[0]


def add_up_gradients(parameters: Iterable[nn.Parameter], beside: Tensor) -> Tensor:
    """Replaces all gradients by their sums over the processes, in one message.

    A gradient that is missing counts as 0; one that is missing everywhere stays missing.

    Returns:
        The sum of `beside` (0-d) over the processes, sent along.
    """
    if _size == 1:
        return beside
    import torch

    weights = [w for w in parameters if w.requires_grad]
    present = [w.grad is not None for w in weights]
    found = torch.tensor(present, dtype=beside.dtype, device=beside.device)
    parts = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    message = torch.cat([*(part.reshape(-1) for part in parts), found, beside[None]])
    add_up(message)
    *sums, found, total = message.split([*(w.numel() for w in weights), len(weights), 1])
    # only a process that lacks one has to look, and to wait for its device
    anywhere = present if all(present) else (found > 0).tolist()
    for w, part, total_part, any_has in zip(weights, parts, sums, anywhere, strict=True):
        if any_has:
            w.grad = part.copy_(total_part.view(w.shape))
    return total[0]


@contextmanager
def _others_answer() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = re.sub(r"\[[^]]*\] ?", "", first_line(error)).partition(". ")[0]
        raise ProcessLost(
            f"another process has died or does not answer ({reason}). After its first epoch a run"
            " can go on, with resume=<its folder>"
        ) from error
