"""`model.safetensors`: the best weights for other programs, with what is needed to use them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from seg_l1.runs import files


def write_weights(path: Path, model: nn.Module, about: Mapping[str, Any]) -> None:
    """Writes each tensor of the state of a network under its name.

    A network that wraps one of another library, in a module that its attribute `wrapped` names,
    has the names of that library.

    Args:
        about: goes into the metadata, each value as JSON.
    """
    wrapped = getattr(model, "wrapped", None)
    prefix = f"{wrapped}." if wrapped else ""
    state = {
        name.removeprefix(prefix): tensor.cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    metadata = {key: json.dumps(files.finite(value)) for key, value in about.items()}
    content = save(state, {"format": "pt", "prefix": prefix, **metadata})
    files.write_bytes(path, _with_sorted_header(content))


def _with_sorted_header(content: bytes) -> bytes:
    """Returns a file of safetensors whose bytes are the same each time; its header is a dict.

    The file is the length of the header in 8 bytes, the header as JSON, and the tensors, whose
    places are counted from the end of the header.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned
    return len(text).to_bytes(8, "little") + text + content[end:]


def read_weights(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns tensors by the names that they have in the network of this program.

    Raises:
        UserError: if the file is missing or damaged, or lacks one of them.
    """
    with files.blame_file(path), safe_open(path, "numpy") as tensors:
        prefix = (tensors.metadata() or {}).get("prefix", "")  # older files have none
        return {name: tensors.get_tensor(name.removeprefix(prefix)) for name in names}
