"""From a network to the bytes of one ONNX file, checked in onnxruntime."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from seg_l1.deployment.dead_branches import without_dead_branches
from seg_l1.errors import UserError, first_line

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""What the extra `export` installs."""

AXES = {0: "batch", 2: "height", 3: "width"}
"""The axes of (N, C, H, W) that can be dynamic, and their names in the file."""

TOLERANCE = 1e-3
"""Largest accepted difference from the network, relative to its largest output."""

CHANGED = 0.01
"""The same for class ids: the largest share of those that differ."""

MULTIPLE = 64
"""Sizes of examples are multiples of this: the exporter treats an odd size, or 1, as fixed."""


class ExportError(RuntimeError):
    """A network cannot be exported, or its file gives other outputs."""


@dataclass(frozen=True)
class OnnxNetwork:
    """An ONNX file.

    Attributes:
        content: its bytes.
        dynamic: names of the dynamic axes, a part of "batch", "height" and "width".
        reason: why the others are fixed; "" if none is.
    """

    content: bytes
    dynamic: tuple[str, ...]
    reason: str = ""


def require_packages() -> None:
    """Checks that the extra `export` is installed.

    Raises:
        UserError: if not.
    """
    if not all(map(find_spec, PACKAGES)):
        raise UserError(
            "format=onnx needs onnx, onnxscript and onnxruntime: pip install 'seg-l1[export]'"
        )


def to_onnx(model: nn.Module, example: Tensor, *, dynamic: bool = True) -> bytes:
    """Returns a network as an ONNX file: "images" -> "scores", in eval mode; see `export`."""
    return export(model, example, dynamic=dynamic).content


def export(
    model: nn.Module, example: Tensor, *, dynamic: bool = True, output: str = "scores"
) -> OnnxNetwork:
    """Exports a network in eval mode, and compares the file with it in onnxruntime.

    Batch and size are dynamic where the network allows; else the size is that of the example, and
    the batch too if it has to be.

    Args:
        model: (N, C, H, W) -> one tensor.
        example: images (N, C, H, W) of a size that the network takes.
        dynamic: False = all is fixed as in the example.
        output: name of the output in the file; the input is "images".

    Raises:
        UserError: if a package is missing.
        ExportError: if the network cannot be exported, or onnxruntime computes something else.
    """
    require_packages()
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    reason = ""
    try:
        for axes in ((0, 2, 3), (0,), ()) if dynamic else ((),):
            size = example.shape[-2:] if 2 not in axes else _rounded(example.shape[-2:])
            batch = max(2, len(example)) if axes else len(example)
            try:
                content = _exported(model, _like(example, batch, size), axes, output)
                for probe in _probes(example, axes, size):
                    _check(model, content, probe)
            except Exception as error:
                reason = reason or _reason(error)
                last = error
            else:
                return OnnxNetwork(content, tuple(AXES[axis] for axis in axes), reason)
    finally:
        for module, training in modes:
            module.training = training
    raise ExportError(f"the network cannot be exported to ONNX: {_reason(last)}") from last


def run(content: bytes, images: Tensor) -> Tensor:
    """Returns the output of an ONNX file for `images`, computed by onnxruntime on the CPU."""
    return caller(content)(images)


def caller(content: bytes, *, threads: int = 0) -> Callable[[Tensor], Tensor]:
    """Returns a function that computes the output of an ONNX file in onnxruntime on the CPU.

    Args:
        threads: 0 = all.
    """
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    session = InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def call(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: images.cpu().numpy()})[0])

    return call


def _rounded(size: Sequence[int]) -> list[int]:
    """Returns at least `size`, with unequal sides so that they are not taken for one dimension."""
    height, width = (-(-side // MULTIPLE) * MULTIPLE for side in size)
    return [height, width if width != height else width + MULTIPLE]


def _like(example: Tensor, batch: int, size: Sequence[int]) -> Tensor:
    """Returns `batch` images of `size` in which the example is repeated."""
    height, width = size
    rows = torch.arange(height, device=example.device) % example.shape[-2]
    columns = torch.arange(width, device=example.device) % example.shape[-1]
    first = example[torch.arange(batch, device=example.device) % len(example)]
    return first[:, :, rows][..., columns].contiguous()


def _probes(example: Tensor, axes: Sequence[int], size: Sequence[int]) -> Iterator[Tensor]:
    """Yields images to check a file on: other batches and sizes where these are dynamic."""
    yield example
    if 2 in axes:
        yield _like(example, 1, [size[0] - 27, size[1] - 5])
        yield _like(example, 3, [size[0] + 13, size[1] - 1])
    elif axes:
        yield _like(example, 1, example.shape[-2:])
        yield _like(example, 3, example.shape[-2:])


@torch.no_grad()
def _check(model: nn.Module, content: bytes, images: Tensor) -> None:
    expected = model(images).cpu()
    got = run(content, images)
    if got.shape != expected.shape:
        raise ExportError(f"onnxruntime gives {[*got.shape]} instead of {[*expected.shape]}")
    if not expected.is_floating_point():
        if (changed := float((got != expected).double().mean())) > CHANGED:
            raise ExportError(f"{100 * changed:.2g} % of onnxruntime's class ids differ")
        return
    difference = float((got - expected).abs().max())
    scale = float(expected.abs().max())
    if not difference <= TOLERANCE * max(scale, torch.finfo(expected.dtype).tiny):
        raise ExportError(
            f"onnxruntime's outputs differ by {difference:.1e} (the largest is {scale:.1e})"
        )


def _exported(model: nn.Module, example: Tensor, axes: Sequence[int], output: str) -> bytes:
    shapes = ({axis: AXES[axis] for axis in axes},) if axes else None
    with quiet():
        program: Any = torch.onnx.export(
            model,
            (example,),
            input_names=["images"],
            output_names=[output],
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        content = program.model_proto.SerializeToString()
    return without_dead_branches(content)


def _reason(error: Exception) -> str:
    """Returns an error of the exporter in one line: its root cause, which is more to the point."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = str(cause).strip().splitlines()
    details = [line.lstrip("- ") for line in lines[1:] if line.lstrip().startswith("- ")]
    return details[0] if details else first_line(cause)


@contextmanager
def quiet() -> Iterator[None]:
    """Context manager: the exporter and its libraries print, log and warn nothing."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
