"""The data set of a configuration, cut down to `limit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from seg_l1.data.split import SegmentationData
from seg_l1.data.wrong_labels import with_wrong_labels
from seg_l1.errors import UserError
from seg_l1.runs.files import Config
from seg_l1.training.instantiate import instantiate

_BATCH_KEYS = ("batch_size", "repeats", "workers", "class_weights", "show")
"""The keys of a data set that say nothing about its content."""
_LABEL_KEYS = ("wrong_labels", "wrong_labels_by")
"""The keys of a data set that change it after it has been read."""


def data_key(config: Config) -> str:
    """Returns a text that is the same for two configurations with the same data."""
    spec = {k: v for k, v in config["dataset"].items() if k not in _BATCH_KEYS}
    return repr((spec, config["limit"]))


def load_data(config: Config) -> SegmentationData:
    """Reads and checks the data set of `config`, with its wrong labels, cut down to `limit`.

    Raises:
        UserError: naming what is wrong with the data.
    """
    spec = {k: v for k, v in config["dataset"].items() if k not in (*_BATCH_KEYS, *_LABEL_KEYS)}
    if config["limit"]["val_is_train"] and "val_fraction" in spec:
        spec["val_fraction"] = None
    try:
        data = instantiate("dataset", spec)
    except OSError as error:
        reason = f"{error.filename or 'a file'}: {error.strerror or error}"
        raise UserError(f"dataset: cannot be read ({reason})") from error
    share, by = (config["dataset"].get(key) for key in _LABEL_KEYS)
    if share:  # older runs have no such keys
        data = with_wrong_labels(data, share=share, by=by, seed=spec.get("seed", 0))
    limit = config["limit"]
    kept = {name: _kept(name, len(split), limit) for name, split in data.splits.items()}
    splits = {
        name: split if len(split) == len(kept[name]) else split.subset(kept[name])
        for name, split in data.splits.items()
    }
    indices = {name: [found[i] for i in kept[name]] for name, found in data.indices.items()}
    if limit["val_is_train"] and "train" in splits:
        splits["val"] = splits["train"]
        indices |= {"val": indices["train"]} if indices else {}
    groups = [data.groups[i] for i in kept["train"]] if data.groups else []
    return replace(data, splits=splits, indices=indices, groups=groups)


def _kept(split: str, length: int, limit: Mapping[str, Any]) -> Sequence[int]:
    """Returns the positions of the images of a split that `limit` leaves, in their order."""
    most = limit["train"] if split == "train" else limit["val"]
    count = length if most is None else min(most, length)
    seed = limit.get("seed")  # older runs have no such key
    if split != "train" or seed is None:
        return range(count)
    draw = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(length, generator=draw)[:count].tolist())
