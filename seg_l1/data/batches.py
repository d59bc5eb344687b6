"""Batches: shuffled, normalized and augmented, as a function of (seed, epoch, batch) only.

Because no random state is carried from batch to batch, a run that is resumed anywhere sees the same
batches as one that was never stopped, with any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from seg_l1.data.split import SegmentationData, Split, TensorSplit
from seg_l1.data.workers import follow_parent
from seg_l1.errors import UserError

Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(images uint8 or int32 (N, C, H, W), masks uint8 (N, H, W)) -> both, changed alike.

Images int32 have 16 bits, and may come back as floats of the same range."""


class Batches:
    """The batches of one split: float32 images (N, C, H, W), normalized, and int64 masks.

    Args:
        data, split: what to read.
        batch_size: images per batch; the last batch of a shuffled epoch is dropped when it is not
            full (batch norm on a few images does more harm than they help). Images that differ in
            size come one at a time unless they are augmented: padding would change the scores.
        shuffle: a new order every epoch.
        repeats: how often each image occurs in an epoch.
        augment: applied to whole batches of images and masks, before they are normalized.
        seed: of order and augmentation.
        workers: processes that read ahead; None = none for data held in memory, else 2.
        device, memory_format: of the images that are yielded.
    """

    def __init__(
        self,
        data: SegmentationData,
        split: str,
        *,
        batch_size: int,
        shuffle: bool = False,
        repeats: int = 1,
        augment: Augment | None = None,
        seed: int = 0,
        workers: int | None = None,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.split = data.splits[split]
        single = self.split.image_size is None and augment is None
        self.batch_size = 1 if single else min(batch_size, len(self.split))
        self.shuffle, self.augment, self.seed = shuffle, augment, seed
        self.places = range(len(self.split) * repeats)
        in_memory = isinstance(self.split, TensorSplit)
        self.workers = (0 if in_memory else 2) if workers is None else workers
        self.device, self.memory_format = torch.device(device), memory_format
        self.mean = torch.tensor(data.mean, device=self.device).view(-1, 1, 1) * 255
        self.std = torch.tensor(data.std, device=self.device).view(-1, 1, 1) * 255

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(len(self.places), self.batch_size)
        return full if self.shuffle or not rest else full + 1

    def epoch(
        self, number: int = 0, start: int = 0, *, step: int = 1, part: slice = slice(None)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the batches of epoch `number`: every `step`-th from batch `start` on.

        Args:
            part: the slice of each batch to yield, with the same pixels as in the whole batch; it
                may be empty.
        """
        order = (
            RandomSampler(self.places, generator=_generator(self.seed, number))
            if self.shuffle
            else SequentialSampler(self.places)
        )
        chosen = [place % len(self.split) for place in order]
        indices = list(BatchSampler(chosen, self.batch_size, drop_last=self.shuffle))[start::step]
        if self.augment is None and range(self.batch_size)[part]:  # the rest need not be read
            indices, part = [batch[part] for batch in indices], slice(None)
        loader: DataLoader[Any] = DataLoader(
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
            yield self.normalize(images), masks.to(self.device, torch.int64)

    def normalize(self, images: Tensor) -> Tensor:
        """Pixels (N, C, H, W) -> float32 of mean 0 and standard deviation 1 per channel."""
        images = images.to(self.device, torch.float32)
        return images.sub_(self.mean).div_(self.std).to(memory_format=self.memory_format)


@dataclass(frozen=True)
class _Fetched(Dataset[Any]):
    """What workers fetch of a split: a batch, or one pair at a time where each has its own size.

    The latter are cropped before they are put together, and need no padding. An error is returned,
    so that it reaches the user without the traceback of the worker.
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
    return int.from_bytes(blake2b(repr(numbers).encode(), digest_size=8).digest(), "big") >> 1


def _generator(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(_mix(*numbers))
