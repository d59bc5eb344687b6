"""Checkpoints: plain types and tensors, written whole or not at all."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seg_l1 import distributed
from seg_l1.errors import UserError, first_line
from seg_l1.runs.files import write_bytes


def save(path: Path, state: dict[str, Any]) -> None:
    """Saves dicts, lists, numbers, strings and tensors."""
    content = io.BytesIO()  # writing to a full disk, torch.save says only "unexpected pos"
    torch.save(state, content)
    write_bytes(path, content.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """Loads a checkpoint onto the CPU, executing nothing that it holds.

    Raises:
        UserError: if the file is missing, truncated, or holds anything but plain types.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint.")
    try:
        with warnings.catch_warnings():  # torch warns about files that are not checkpoints
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
    except Exception as error:
        reason = first_line(error).partition(". ")[0]
        raise UserError(
            f"{path}: is not a checkpoint of this program, or is damaged ({reason}). Restore a"
            " copy of it, or train again."
        ) from None
    return state


def model_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights and batch-norm statistics in a `last.pt` or `best.pt`, see `RunDirectory`.

    Raises:
        KeyError: if it is neither.
    """
    state: dict[str, Tensor] = checkpoint.get("loop", checkpoint)["model"]
    return state


def compact_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """`model_state` of a compact network, whose layers are smaller than those of the configuration.

    None for another one.
    """
    return model_state(checkpoint) if checkpoint.get("compact") is True else None


def random_state() -> dict[str, Any]:
    """The states of the random generators of python, numpy and torch, as plain types."""
    legacy = np.random.get_state()
    assert isinstance(legacy, tuple)
    kind, keys, *rest = legacy
    state = {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(keys.astype("int64")), *rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restores what `random_state` returned."""
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype("uint32"), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        if distributed.size() > 1:  # all draw the same, each on its own GPU
            torch.cuda.set_rng_state(state["cuda"][0])
        else:
            torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])


def seed_everything(seed: int) -> None:
    """Seeds python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
