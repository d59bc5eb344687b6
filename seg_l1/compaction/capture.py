"""From a module to a `Graph`, by `torch.export`."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, nn

from seg_l1.compaction.graph import Graph, Operation, Value, values_in
from seg_l1.models.layers import eval_mode


class CaptureError(ValueError):
    """`torch.export` cannot capture the network."""


class Program:
    """What a network computes in eval mode, as `torch.export` captures it.

    The parameters may change afterwards: a graph has those of the moment at which it is made.

    Raises:
        CaptureError: if the network has control flow that depends on the data, for example.
    """

    def __init__(self, model: nn.Module, example: Sequence[Tensor]) -> None:
        self._model = model
        try:
            with eval_mode(model), _silent():
                self._exported = torch.export.export(model, tuple(example), strict=False)
        except Exception as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
            raise CaptureError(f"torch.export cannot capture the network: {reason}") from error

    def graph(self, rules: Mapping[str, type[Operation]], *, biases: bool = True) -> Graph:
        """Returns a new graph, in which each operator has the class that `rules` name.

        Args:
            biases: whether layers without a bias may get one.
        """
        graph = _Reader(self._exported, dict(_tensors(self._model)), rules).graph
        if biases:
            graph.takes_bias = {
                f"{path}.weight".removeprefix(".")
                for path, module in self._model.named_modules(remove_duplicate=False)
                if isinstance(module, nn.modules.conv._ConvNd | nn.Linear)
            }
        return graph


_TALKATIVE = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes")


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps what torch prints of a failure off the terminal: the exception says it in one line."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


class _Reader:
    """Translates an exported program. In-place operators give new values: there is no mutation."""

    def __init__(
        self, program: Any, tensors: dict[str, Tensor], rules: Mapping[str, type[Operation]]
    ) -> None:
        self.rules = rules
        self.values: dict[Any, Any] = {}
        self.graph = Graph([], {}, [], [], set())
        by_storage: dict[int, Value] = {}
        signature = program.graph_signature
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        for node in program.graph.nodes:
            if node.op == "placeholder":
                value = Value(node.name, _shape(node))
                if node.name in names:
                    name = names[node.name]
                    value = by_storage.setdefault(id(tensors[name]), value)
                    value.name, value.data = name, tensors[name].detach()
                    self.graph.parameters[name] = value
                elif node.name in signature.user_inputs:
                    self.graph.inputs.append(value)
                self.values[node] = value
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                outputs = self._translate(node.args[0])
                self.graph.outputs = list(values_in(outputs))

    def _call(self, node: Any) -> None:
        if node.target.__name__ == "getitem":
            self.values[node] = self.values[node.args[0]][node.args[1]]
            return
        shapes = node.meta["val"]
        if shapes is None:  # an assertion, say
            return
        several = isinstance(shapes, (tuple, list))
        outputs = [Value(node.name, tuple(s.shape)) for s in (shapes if several else [shapes])]
        packet = getattr(node.target, "overloadpacket", node.target)
        operator = packet.__name__
        arguments = self._arguments(node)
        if operator.endswith("_") and not operator.endswith("__"):
            operator = operator[:-1]
            self.values[node.args[0]] = outputs[0]
        self.values[node] = outputs if several else outputs[0]
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        layer = stack[-1][0] if stack else ""
        rule = self.rules.get(operator, Operation)
        self.graph.operations.append(rule(operator, layer, node.target, arguments, outputs))

    def _arguments(self, node: Any) -> dict[str, Any]:
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            return {str(i): self._translate(a) for i, a in enumerate(node.args)}
        names = [argument.name for argument in schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        return {
            a.name: self._translate(given.get(a.name, a.default_value))
            for a in schema.arguments
            if a.name in given or a.has_default_value()
        }

    def _translate(self, argument: Any) -> Any:
        if isinstance(argument, torch.fx.Node):
            return self.values[argument]
        if isinstance(argument, (list, tuple)):
            return [self._translate(item) for item in argument]
        if isinstance(argument, dict):
            return [self._translate(item) for item in argument.values()]
        return argument


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(getattr(node.meta.get("val"), "shape", ()))
