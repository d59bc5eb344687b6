"""Data parallelism: what the processes that torchrun starts tell each other.

torchrun starts the same command several times. Rank 0 reads the command line and is the only one
that writes files; all take part in every step. Each batch is divided between them, and the state
that the next step needs (weights, optimizer, random generators) is the same in all. In a single
process nothing is exchanged; `all_gather`, `gather_batch` and `device` are for several only.

torch is imported inside functions, because commands import this module before they need torch.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from threading import Thread
from typing import TYPE_CHECKING, Any, NoReturn

from seg_l1.errors import RunError, UserError, first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

TIMEOUT = timedelta(minutes=5)
"""How long to wait for a process that lives but does not answer; a dead one is noticed at once."""

_rank, _size = 0, 1
"""Rank and world size. They belong to the process, as torch's process group does: `init` sets them
once, and they stay as they are here without torchrun."""

_store: Any = None
"""torch's key-value store, which all processes reach; set by `init`."""

_local_only = False
"""Whether the code that runs is inside `local_only`."""


class ProcessLost(RunError):
    """Another process of the run has died, or does not answer."""

    can_go_on = False


def rank() -> int:
    """Returns the number of this process, from 0."""
    return _rank


def size() -> int:
    """Returns the number of processes (the world size)."""
    return _size


def is_distributed() -> bool:
    """Returns whether other processes now compute what this one does."""
    return _size > 1 and not _local_only


@contextmanager
def local_only() -> Iterator[None]:
    """Context manager: layers of a model use the data of this process alone, and do not wait."""
    global _local_only
    before, _local_only = _local_only, True
    try:
        yield
    finally:
        _local_only = before


def init() -> None:
    """Sets up the process group with the processes that torchrun has started.

    From here on SIGTERM, SIGUSR1 and SIGUSR2 only stop a training, after its step: torchrun sends
    SIGTERM as soon as one process has failed, and the others still have to report why they end.

    Raises:
        ProcessLost: if the processes do not find each other.
    """
    import torch
    import torch.distributed as dist

    global _rank, _size, _store
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _raise_process_lost():
        store, _rank, _size = next(dist.rendezvous("env://", timeout=TIMEOUT))
        _store = dist.PrefixStore("seg_l1", store)
        dist.init_process_group(backend, store=store, rank=_rank, world_size=_size, timeout=TIMEOUT)


def shutdown(code: int) -> NoReturn:
    """Ends this process with an exit code.

    After a failure there is no barrier, since the others may wait for something else. The
    interpreter is not finalized: now and then the threads of gloo abort a process that does.
    """
    if code == 0:
        import torch.distributed as dist

        dist.destroy_process_group()
    elif _rank == 0:
        _store.set("exit_code", str(code))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def rank_zero_exit_code(wait: timedelta) -> int | None:
    """Returns the exit code that rank 0 reported when it failed; None if none came within `wait`.

    If the network to rank 0 is down, the store blocks until the kernel stops resending, after about
    a quarter of an hour. Therefore a thread asks the store, and is abandoned in that case.
    """
    codes: list[int] = []
    deadline = time.monotonic() + wait.total_seconds()

    def ask() -> None:
        with suppress(RuntimeError):  # the store is gone, as is rank 0, which holds it
            while not _store.check(["exit_code"]):
                if time.monotonic() > deadline:
                    return
                time.sleep(0.05)
            codes.append(int(_store.get("exit_code")))

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(wait.total_seconds() + 1)
    return codes[0] if codes else None


@contextmanager
def rank_zero_first(needed: bool = True) -> Iterator[None]:
    """Context manager: rank 0 runs its body (a download, say) before the others enter theirs."""
    if needed and _rank > 0:
        while not _store.check(["rank_zero_done"]):
            time.sleep(0.1)
    try:
        yield
    finally:
        if needed and _size > 1 and _rank == 0:
            _store.set("rank_zero_done", "")


def device(name: str) -> torch.device:
    """Returns the device of this process, of several: for "auto" and "cuda" one GPU each.

    Raises:
        UserError: if there are not enough GPUs, or if all processes were to use the same one.
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


def shard(count: int, of: int | None = None) -> slice:
    """Returns which of `count` items belong to this process, or to rank `of`: evenly, in order.

    Where they cannot be divided evenly, the first ranks have one more.
    """
    rank = _rank if of is None else of
    quotient, remainder = divmod(count, _size)
    start = rank * quotient + min(rank, remainder)
    return slice(start, start + quotient + (rank < remainder))


def all_reduce(*tensors: Tensor) -> None:
    """Replaces each tensor, in place, by its sum over the processes."""
    if _size > 1:
        import torch.distributed as dist

        for tensor in tensors:
            with _raise_process_lost():
                dist.all_reduce(tensor)


def all_gather(part: Tensor) -> list[Tensor]:
    """Returns the `part` of every rank; they have one shape and type. No gradients flow."""
    import torch.distributed as dist

    parts = [part.new_empty(part.shape) for _ in range(_size)]
    with _raise_process_lost():
        dist.all_gather(parts, part.contiguous())
    return parts


def gather_batch(part: Tensor, count: int) -> Tensor:
    """Returns the whole batch of `count` items, of which each process holds its `shard`.

    Gradients flow back into the part of this process only. Every process should compute the same
    loss of the whole batch, and the gradients of the weights then have to be summed over processes.
    """
    import torch

    largest = range(count)[shard(count, of=0)]
    padded = part.detach().new_zeros(len(largest), *part.shape[1:])
    padded[: len(part)] = part.detach()
    lengths = [len(range(count)[shard(count, of)]) for of in range(_size)]
    parts = [rows[:length] for rows, length in zip(all_gather(padded), lengths, strict=True)]
    parts[_rank] = part
    return torch.cat(parts)


def any_rank(flag: bool) -> bool:
    """Returns whether `flag` is true in any process."""
    if _size == 1:
        return flag
    import torch

    votes = torch.tensor(int(flag))
    all_reduce(votes)
    return bool(votes)


def broadcast_object(value: Any) -> Any:
    """Returns the `value` that rank 0 passed, which must be picklable; that of others is unused."""
    if _size == 1:
        return value
    import torch
    import torch.distributed as dist

    values = [value]
    with _raise_process_lost():
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def all_reduce_gradients(parameters: Iterable[nn.Parameter], extra: Tensor) -> Tensor:
    """Replaces all gradients by their sums over the processes, in one message.

    A missing gradient counts as 0; one that is missing in every process stays missing.

    Returns:
        The sum of `extra` (0-d) over the processes, sent along.
    """
    if _size == 1:
        return extra
    import torch

    weights = [w for w in parameters if w.requires_grad]
    present = [w.grad is not None for w in weights]
    flags = torch.tensor(present, dtype=extra.dtype, device=extra.device)
    grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    message = torch.cat([*(grad.reshape(-1) for grad in grads), flags, extra[None]])
    all_reduce(message)
    *sums, flags, total = message.split([*(w.numel() for w in weights), len(weights), 1])
    # only a process that lacks a gradient has to read the flags, and to wait for its device
    anywhere = present if all(present) else (flags > 0).tolist()
    for w, grad, summed, exists in zip(weights, grads, sums, anywhere, strict=True):
        if exists:
            w.grad = grad.copy_(summed.view(w.shape))
    return total[0]


@contextmanager
def _raise_process_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = re.sub(r"\[[^]]*\] ?", "", first_line(error)).partition(". ")[0]
        raise ProcessLost(
            f"another process has died or does not answer ({reason}). If the run has finished an"
            " epoch, continue it with resume=<its folder>"
        ) from error
