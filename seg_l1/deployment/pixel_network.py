"""A network that takes the pixels of files, and its ONNX file with metadata and precision."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seg_l1 import __version__
from seg_l1.deployment.onnx_file import quiet
from seg_l1.deployment.onnx_predictor import About

PRECISIONS = ("fp32", "fp16", "int8")
"""float32; float16 weights and arithmetic; weights and activations of 8 bits."""


class PixelNetwork(nn.Module):
    """A network with its normalization: images uint8 or uint16 (N, C, H, W) -> logits, or ids.

    Args:
        model: normalized float32 images (N, C, H, W) -> logits (N, K, H, W).
        mean, std: per channel, of images divided by 255.
        output: "scores" gives logits float32, "classes" their argmax (N, H, W) uint8.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: nn.Module, mean: Sequence[float], std: Sequence[float], *, output: str
    ) -> None:
        super().__init__()
        self.model, self.output = model, output
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1) * 255)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model((images.float() - self.mean) / self.std)
        return logits.argmax(1).to(torch.uint8) if self.output == "classes" else logits


def with_metadata(content: bytes, about: About, more: Mapping[str, Any]) -> bytes:
    """Returns an ONNX file with `about`, and `more`, in its metadata, each value as JSON."""
    import onnx

    proto = onnx.load_from_string(content)
    entries = {**asdict(about), "seg_l1": __version__, **more}
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in entries.items()})
    written: bytes = proto.SerializeToString()
    return written


def operators(content: bytes) -> dict[str, int]:
    """Returns how often each operator is in an ONNX file, the most frequent first."""
    import onnx

    kinds = [node.op_type for node in onnx.load_from_string(content).graph.node]
    return {kind: kinds.count(kind) for kind in sorted({*kinds}, key=lambda k: -kinds.count(k))}


def to_fp16(content: bytes) -> bytes:
    """Returns an ONNX file that computes in float16; its input and output stay as they are.

    Images of 16 bits are normalized in float32: float16 keeps 11 bits, and ends at 65504.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        proto = onnx.load_from_string(content)
        deep = proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT16
        nodes, weights = _take_normalization(proto.graph) if deep else ([], [])
        proto = convert_float_to_float16(proto, keep_io_types=True)
    for index, node in enumerate(nodes):
        proto.graph.node.insert(index, node)
    proto.graph.initializer.extend(weights)
    del proto.graph.input[1:]
    converted: bytes = proto.SerializeToString()
    return converted


def _take_normalization(graph: Any) -> tuple[list[Any], list[Any]]:
    """Removes the nodes with which `PixelNetwork` begins; their result becomes the second input.

    The converter would round between two nodes of float32, even if they are on its block list.

    Returns:
        These nodes and their weights.
    """
    import onnx

    nodes, value = [], graph.input[0].name
    for kind in ("Cast", "Sub", "Div"):
        node = next(node for node in graph.node if node.op_type == kind and value in node.input)
        nodes.append(node)
        value = node.output[0]
    used = {name for node in nodes for name in node.input}
    weights = [weight for weight in graph.initializer if weight.name in used]
    for node in nodes:
        graph.node.remove(node)
    for weight in weights:
        graph.initializer.remove(weight)
    made = {name for node in nodes for name in node.output}
    for info in [info for info in graph.value_info if info.name in made]:
        graph.value_info.remove(info)
    shape = [None] * 4
    graph.input.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, shape))
    return nodes, weights


def to_int8(content: bytes, batches: Iterable[np.ndarray]) -> bytes:
    """Returns an ONNX file whose convolutions compute with 8 bits.

    Weights have a scale per output channel; the ranges of activations are those of `batches`
    (static quantization of onnxruntime, in the format QDQ).

    Args:
        batches: images uint8 or uint16 (N, C, H, W) to calibrate on.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with quiet(), tempfile.TemporaryDirectory() as folder:
        source, ready, target = (Path(folder) / f"{name}.onnx" for name in ("a", "b", "c"))
        source.write_bytes(content)
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            target,
            _reader(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "ConvTranspose", "MatMul", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        return target.read_bytes()


def _reader(batches: Iterable[np.ndarray]) -> Any:
    """Returns `batches` in the form in which onnxruntime asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest: Iterator[np.ndarray] = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            images = next(self.rest, None)
            return None if images is None else {"images": images}

    return Reader()
