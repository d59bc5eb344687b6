"""Batches: shuffled, normalised and augmented, as a function of (seed, epoch, batch) alone.

Because no random state runs on from batch to batch, a run that is resumed anywhere sees the same
batches as one that was never stopped, with any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from seg_l1.data.split import SegmentationData, Split, TensorSplit
from seg_l1.data.workers import follow_parent
from seg_l1.errors import UserError

Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(images uint8 (N, C, H, W), masks uint8 (N, H, W)) -> the same, changed alike."""


class Batches:
    """The batches of one split: float32 images (N, C, H, W), normalised, and int64 masks.

    Args:
        data, split: what to read.
        batch_size: images per batch; the last batch of a shuffled epoch is dropped when it is not
            full (batch norm on a few images harms more than they help). Images that differ in size
            come one by one where they are not augmented: padding would change what is scored.
        shuffle: a new order every epoch.
        augment: applied to whole batches of uint8 images and masks.
        workers: processes that read ahead; None = none for data held in memory, else 2.
    """

    def __init__(
        self,
        data: SegmentationData,
        split: str,
        *,
        batch_size: int,
        shuffle: bool = False,
        augment: Augment | None = None,
        seed: int = 0,
        workers: int | None = None,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.split = data.splits[split]
        alone = self.split.image_size is None and augment is None
        self.batch_size = 1 if alone else min(batch_size, len(self.split))
        self.shuffle, self.augment, self.seed = shuffle, augment, seed
        in_memory = isinstance(self.split, TensorSplit)
        self.workers = (0 if in_memory else 2) if workers is None else workers
        self.device, self.memory_format = torch.device(device), memory_format
        self.mean = torch.tensor(data.mean, device=self.device).view(-1, 1, 1) * 255
        self.std = torch.tensor(data.std, device=self.device).view(-1, 1, 1) * 255

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(len(self.split), self.batch_size)
        return full if self.shuffle or not rest else full + 1

    def epoch(
        self, number: int = 0, start: int = 0, *, step: int = 1, part: slice = slice(None)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the batches of epoch `number`: every `step`-th from batch `start` on.

        Of each batch it yields the `part`, as it is in the whole batch; that may be no image.
        """
        if self.shuffle:
            order = RandomSampler(self.split, generator=_generator(self.seed, number))
        else:
            order = SequentialSampler(self.split)
        indices = list(BatchSampler(order, self.batch_size, drop_last=self.shuffle))[start::step]
        if self.augment is None and range(self.batch_size)[part]:  # then nothing else is needed
            indices, part = [batch[part] for batch in indices], slice(None)
        loader = DataLoader(
            _Fetched(self.split),
            sampler=indices,
            batch_size=None,
            num_workers=self.workers,
            generator=_generator(self.seed, number),
            worker_init_fn=follow_parent,
        )
        for index, pairs in zip(range(start, len(self), step), loader, strict=True):
            if isinstance(pairs, UserError):
                raise pairs
            if self.augment is not None:
                with torch.random.fork_rng(devices=[]):
                    torch.default_generator.manual_seed(_mix(self.seed, number, index))
                    pairs = [self.augment(*pair) for pair in pairs]
            images, masks = (torch.cat(parts)[part] for parts in zip(*pairs, strict=True))
            yield self.normalise(images), masks.to(self.device, torch.int64)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> float32 of mean 0 and standard deviation 1 per channel."""
        images = images.to(self.device, torch.float32)
        return images.sub_(self.mean).div_(self.std).to(memory_format=self.memory_format)


@dataclass(frozen=True)
class _Fetched:
    """What workers fetch of a split: a batch, or pairs one by one where each has its own size.

    Cut first, those need no padding. An error is handed over as it is, without the worker's trace.
    """

    split: Split

    def __getitem__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]] | UserError:
        parts = [indices] if self.split.image_size else [[index] for index in indices]
        try:
            return [self.split[part] for part in parts]
        except UserError as error:
            return error


def _mix(*numbers: int) -> int:
    """One 63-bit seed from several numbers, the same on every machine."""
    from hashlib import blake2b

    return int.from_bytes(blake2b(repr(numbers).encode(), digest_size=8).digest(), "big") >> 1


def _generator(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(_mix(*numbers))
