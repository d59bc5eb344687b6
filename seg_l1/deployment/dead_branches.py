"""Removal of branches that cannot change the output of an ONNX graph.

torch has no layers without channels, so a layer that is dead altogether keeps one there. In a graph
it can go: a concatenation loses the inputs that all of its readers multiply by 0; concatenations,
sums and products take the constants of convolutions whose weights are all 0; and what nothing reads
any more is dropped. The exporter does not do this, as it does not look at the weights.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

CHANNEL_AXIS = {"Conv": 1, "ConvTranspose": 0}
"""The axis of the weights along which a convolution has its input channels."""

KEEPS_CONSTANTS = ("MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Resize", "Slice")
"""Operators that map a constant of a channel to itself: average pooling where it does not pad, and
slices of rows and columns."""


def without_dead_branches(content: bytes) -> bytes:
    """Returns an ONNX file with the same outputs, and without the branches that do nothing."""
    import onnx

    proto = onnx.load_from_string(content)
    graph = _Graph(proto)
    while graph.cut_concatenations() or graph.fold_constants():
        graph.drop_unread()
    written: bytes = proto.SerializeToString() if graph.changed else content
    return written


class _Graph:
    """A graph of onnx, which is changed in place."""

    def __init__(self, proto: Any) -> None:
        from onnx import numpy_helper, shape_inference

        self.graph, self.changed = proto.graph, False
        self.weights = {i.name: numpy_helper.to_array(i) for i in self.graph.initializer}
        known = shape_inference.infer_shapes(proto).graph
        self.shapes = {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in (*known.value_info, *known.input, *known.output)
        }

    def cut_concatenations(self) -> bool:
        """Removes inputs of concatenations that all readers weigh with 0."""
        done = False
        outputs = {value.name for value in self.graph.output}
        for node in self.graph.node:
            readers = self._readers(node.output[0]) if node.op_type == "Concat" else []
            if not readers or node.output[0] in outputs or _attribute(node, "axis") != 1:
                continue
            counts = [self._channels(name) for name in node.input]
            if not all(counts) or not all(map(self._is_plain, readers)):
                continue
            parts = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
            read = [any(self._reads(reader, part) for reader in readers) for part in parts]
            if not any(read):
                read[0] = True  # a graph has no value without channels
            if all(read):
                continue
            kept = np.concatenate([part for part, r in zip(parts, read, strict=True) if r])
            for reader in readers:
                axis = CHANNEL_AXIS[reader.op_type]
                weight = self.weights[reader.input[1]].take(kept, axis)
                reader.input[1] = self._add(f"{node.output[0]}_{reader.output[0]}", weight)
            names = [name for name, r in zip(node.input, read, strict=True) if r]
            node.input[:] = names
            self.shapes[node.output[0]][1] = len(kept)
            stated = {value.name for value in self.graph.value_info}
            _keep(self.graph.value_info, stated - {node.output[0]})
            done = self.changed = True
        return done

    def fold_constants(self) -> bool:
        """Puts constants, one per channel, into the sums and products that take them."""
        done, constants = False, dict[str, np.ndarray]()
        for node in [*self.graph.node]:
            constant = self._constant(node, constants)
            if constant is not None:
                constants[node.output[0]] = constant
            if node.op_type == "Concat" and _attribute(node, "axis") == 1:
                done |= self._expand_constants(node, constants)
            if node.op_type not in ("Add", "Mul"):
                continue
            for index, name in enumerate(node.input):
                other = self.shapes.get(node.input[1 - index])
                same = other is not None and other == self.shapes.get(node.output[0])
                if name in constants and node.input[1 - index] not in constants and same:
                    value = constants[name].reshape(1, -1, 1, 1)
                    node.input[index] = self._add(f"{node.output[0]}_{index}", value)
                    done = self.changed = True
        return done

    def _expand_constants(self, node: Any, constants: dict[str, np.ndarray]) -> bool:
        """Puts constants into a concatenation, expanded to the size of another input."""
        from onnx import helper

        like = next((n for n in node.input if n not in constants and self._channels(n)), None)
        places = [index for index, name in enumerate(node.input) if name in constants]
        if like is None:
            return False
        for index in places:
            value = constants[node.input[index]]
            name = self._new(f"{node.output[0]}_constant_{index}")
            count = self._add(f"{name}_channels", np.array([len(value)], np.int64))
            start = self._add(f"{name}_value", value.reshape(1, -1, 1, 1))
            made = [
                helper.make_node("Shape", [like], [f"{name}_batch"], start=0, end=1),
                helper.make_node("Shape", [like], [f"{name}_size"], start=2, end=4),
                helper.make_node(
                    "Concat", [f"{name}_batch", count, f"{name}_size"], [f"{name}_shape"], axis=0
                ),
                helper.make_node("Expand", [start, f"{name}_shape"], [name]),
            ]
            for each in made:
                self.graph.node.insert([*self.graph.node].index(node), each)
            self.shapes[name] = [*self.shapes[node.output[0]]]
            self.shapes[name][1] = len(value)
            node.input[index] = name
            self.changed = True
        return bool(places)

    def drop_unread(self) -> None:
        """Removes nodes, weights and shapes that no output needs."""
        while True:
            read = {name for node in self.graph.node for name in node.input}
            read |= {value.name for value in self.graph.output}
            unread = [node for node in self.graph.node if not read & {*node.output}]
            if not unread:
                break
            for node in unread:
                self.graph.node.remove(node)
        produced = {name for node in self.graph.node for name in node.output}
        _keep(self.graph.initializer, read)
        _keep(self.graph.value_info, produced)

    def _readers(self, name: str) -> list[Any]:
        return [node for node in self.graph.node if name in node.input]

    def _channels(self, name: str) -> int:
        """Returns the number of channels of a value; 0 if it is not known."""
        shape = self.shapes.get(name, [])
        return shape[1] if len(shape) > 1 and isinstance(shape[1], int) else 0

    def _is_plain(self, node: Any) -> bool:
        """Whether it is an ungrouped convolution with known weights that reads its input once."""
        plain = node.op_type in CHANNEL_AXIS and _attribute(node, "group", 1) == 1
        return plain and node.input[1] in self.weights and Counter(node.input)[node.input[0]] == 1

    def _reads(self, node: Any, channels: np.ndarray) -> bool:
        return bool(self.weights[node.input[1]].take(channels, CHANNEL_AXIS[node.op_type]).any())

    def _constant(self, node: Any, constants: dict[str, np.ndarray]) -> np.ndarray | None:
        """Returns what a node emits if that is one number per channel (C,)."""
        if node.op_type in CHANNEL_AXIS:
            return self._constant_convolution(node, constants.get(node.input[0]))
        if not node.input or node.input[0] not in constants:
            return None
        constant = constants[node.input[0]]
        if node.op_type == "Concat" and _attribute(node, "axis") == 1:
            parts = [constants[name] for name in node.input if name in constants]
            return np.concatenate(parts) if len(parts) == len(node.input) else None
        if node.op_type == "Relu":
            return np.maximum(constant, 0)
        if node.op_type == "AveragePool" and any(_attribute(node, "pads", [])):
            return None
        if node.op_type == "Slice":
            axes = self.weights.get(node.input[3]) if len(node.input) > 3 else None
            if axes is None or not {*axes.tolist()} <= {2, 3}:
                return None
        return constant if node.op_type in KEEPS_CONSTANTS else None

    def _constant_convolution(self, node: Any, constant: np.ndarray | None) -> np.ndarray | None:
        """Returns the bias of a convolution whose input makes no difference."""
        axis, groups = CHANNEL_AXIS[node.op_type], _attribute(node, "group", 1)
        weight = self.weights.get(node.input[1])
        if weight is None:
            return None
        if constant is not None and groups == 1:  # channels of 0 make no difference either
            weight = weight.take(np.flatnonzero(constant), axis)
        if weight.any():
            return None
        if len(node.input) == 3 and node.input[2]:
            return self.weights.get(node.input[2])
        filters = weight.shape[1 - axis] * (groups if node.op_type == "ConvTranspose" else 1)
        return np.zeros(filters, weight.dtype)

    def _add(self, name: str, value: np.ndarray) -> str:
        """Adds weights under a name like `name`, since the old ones may be shared; returns it."""
        from onnx import numpy_helper

        name, value = self._new(name), np.ascontiguousarray(value)
        self.weights[name] = value
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _new(self, name: str) -> str:
        """Returns a name like `name` that no value has."""
        while name in self.weights or name in self.shapes:
            name += "_"
        return name


def _attribute(node: Any, name: str, default: Any = None) -> Any:
    from onnx import helper

    found = [helper.get_attribute_value(one) for one in node.attribute if one.name == name]
    return found[0] if found else default


def _keep(entries: Any, names: set[str]) -> None:
    for entry in [entry for entry in entries if entry.name not in names]:
        entries.remove(entry)
