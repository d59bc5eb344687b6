"""Scope: ordered rules over parameter names and module types say which tensors are penalized."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, overload

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from seg_l1.errors import UserError, finite_number

KERNEL_TYPES = {
    *("_ConvNd", "DeformConv2d", "Linear", "Bilinear"),
    *("MultiheadAttention", "RNNBase", "RNNCellBase"),
}
"""Class names of the modules that own kernels; base classes count, as in `Rule.types`."""

_KERNEL_NAME = re.compile(r"(.*_)?weight(_(ih|hh|hr)(_l\d+)?(_reverse)?)?(_v|_orig)*")
"""Names of their kernels, `weight_v` of `weight_norm` and `weight_orig` of pruning included."""

_REPARAMETRIZED = {"_WeightNorm": "original1", "_SpectralNorm": "original"}
"""Parametrizations of which one tensor takes the place of the kernel, and its name."""


@dataclass(frozen=True)
class Rule:
    """One line of a scope: tensors that match it are penalized, or are not.

    Args:
        name: shell pattern over the full parameter name, such as "*.weight" or "head.*".
        types: class names of the module that owns the tensor (base classes count); none = any.
        penalize: whether the tensors that match are penalized.
        factor: ω > 0, multiplies α for these tensors.
        kernels: whether only kernels match: the weights of all convolutions, transposed too, of
            `Linear`, `Bilinear`, attention and recurrent layers. Under `weight_norm`,
            `spectral_norm` and pruning it is the tensor that is trained in their place.

    Raises:
        UserError: if `factor` is not a finite number above 0, or `types` is a string.
    """

    name: str = "*"
    types: tuple[str, ...] = ()
    penalize: bool = True
    factor: float = 1.0
    kernels: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", finite_number("factor", self.factor, positive=True))
        if isinstance(self.types, str):
            raise UserError(f"types: got {self.types!r}, expected a tuple, ({self.types!r},)")

    @property
    def label(self) -> str:
        """What it matches, in a few words."""
        return " ".join([self.name, *self.types, *["kernels"] * self.kernels])

    def matches(self, name: str, module: nn.Module, kernel: bool) -> bool:
        """Whether the rule takes a tensor of `module`, a `kernel` or not."""
        fits = not self.types or bool(_class_names(module) & set(self.types))
        return fnmatchcase(name, self.name) and fits and (kernel or not self.kernels)


@dataclass(frozen=True)
class ScopedTensor:
    """A trainable tensor, and what the scope decided about it.

    Attributes:
        name: the parameter's full name.
        tensor: the parameter.
        rule: index of the rule that decided.
        penalized: whether it is penalized.
        factor: ω > 0, multiplies α for this tensor.
        axis: the axis that counts output channels, the groups of group penalties.
        no_group_reason: why no axis counts output channels, or "".
        kind: class of the module that owns the tensor.
        flat: whether it is a flat shard of `FullyShardedDataParallel`.
        channels: of each slice along `axis` the number of the channel that it vanishes with; None
            unless `compaction.channel_groups` found them.
    """

    name: str
    tensor: Tensor
    rule: int
    penalized: bool
    factor: float
    axis: int
    no_group_reason: str = ""
    kind: type[nn.Module] = nn.Module
    flat: bool = False
    channels: tuple[int, ...] | None = None

    @property
    def local(self) -> Tensor:
        """The tensor; of a `DTensor` the shard that this process holds."""
        return local(self.tensor)

    @property
    def groups_first(self) -> Tensor:
        """The tensor (or its local shard), as a view whose axis 0 is the output channel."""
        return self.along(self.tensor)

    @overload
    def along(self, step: Tensor) -> Tensor: ...

    @overload
    def along(self, step: float) -> float: ...

    def along(self, step: Tensor | float) -> Tensor | float:
        """Views a tensor of this shape with output channels on axis 0; numbers pass through."""
        if not isinstance(step, Tensor):
            return step
        return local(step).movedim(self.axis, 0) if self.axis else local(step)


def local(tensor: Tensor) -> Tensor:
    """The shard of a `DTensor` that this process holds; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


DEFAULT_RULES = (Rule(kernels=True), Rule(penalize=False))


def rules_of(config: Sequence[Mapping[str, Any]]) -> tuple[Rule, ...]:
    """The rules that `regularizer.scope` lists."""
    return tuple(Rule(**{**rule, "types": tuple(rule.get("types", ()))}) for rule in config)


def scope(model: nn.Module, rules: Sequence[Rule] = DEFAULT_RULES) -> list[ScopedTensor]:
    """Decides for every trainable tensor of `model` whether it is penalized.

    The first rule that matches wins. A tensor that several modules share counts once, under the
    first of its names. A tensor of a parametrization belongs to the module that is parametrized.

    Raises:
        UserError: if a rule matches no tensor, a tensor matches no rule, nothing is penalized, or a
            tensor has no shape: it is lazy, or FSDP has flattened it.
    """
    tensors: list[ScopedTensor] = []
    owners = Counter(id(t) for m in model.modules() for t in m.parameters(recurse=False))
    for name, module, tensor, kernel, flat in _trainable_tensors(model):
        index = _first_match(rules, name, module, kernel)
        axis, reason = _output_channels(module, tensor, flat)
        if owners[id(tensor)] > 1:
            reason = "several modules share that tensor"
        tensors.append(
            ScopedTensor(
                name,
                tensor,
                rule=index,
                penalized=rules[index].penalize,
                factor=rules[index].factor,
                axis=axis,
                no_group_reason=reason,
                kind=type(module),
                flat=flat,
            )
        )
    _check_rules(rules, tensors)
    return tensors


def penalized_share(tensors: Iterable[ScopedTensor]) -> float:
    """The penalized share of the weights; vectors count only if they are penalized."""
    sizes = [(scoped.tensor.numel(), scoped.penalized) for scoped in _weights(tensors)]
    return sum(n for n, penalized in sizes if penalized) / max(1, sum(n for n, _ in sizes))


def is_partial(rules: Sequence[Rule], tensors: Iterable[ScopedTensor]) -> bool:
    """Whether `rules` are the default ones and leave out more than 5 % of the weights."""
    return tuple(rules) == DEFAULT_RULES and penalized_share(tensors) < 0.95


def left_out(tensors: Iterable[ScopedTensor]) -> list[ScopedTensor]:
    """The tensors of two or more axes that are not penalized, the largest first."""
    missing = [scoped for scoped in _weights(tensors) if not scoped.penalized]
    return sorted(missing, key=lambda scoped: -scoped.tensor.numel())


def coverage(tensors: Sequence[ScopedTensor]) -> str:
    """One line: the penalized share of the weights, and the largest tensors without penalty."""
    text = f"{100 * penalized_share(tensors):.1f} % of the weights are penalized"
    missing = left_out(tensors)
    if missing:
        named = [f"{s.name} ({s.kind.__name__}, {s.tensor.numel():,})" for s in missing[:3]]
        rest = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        text += f"; left out are {', '.join(named)}{rest}"
    return text


def _weights(tensors: Iterable[ScopedTensor]) -> Iterator[ScopedTensor]:
    return (scoped for scoped in tensors if scoped.tensor.ndim > 1 or scoped.penalized)


def _class_names(module: nn.Module) -> set[str]:
    return {kind.__name__ for kind in type(module).__mro__}


def _trainable_tensors(
    model: nn.Module,
) -> Iterator[tuple[str, nn.Module, Tensor, bool, bool]]:
    """Yields name, owner, tensor, whether it is a kernel, and whether a flat shard; each once."""
    seen: set[int] = set()
    flat: list[str] = []
    for prefix, module in model.named_modules():
        if "FullyShardedDataParallel" in _class_names(module):
            flat.append(f"{prefix}." if prefix else "")
        owner = module
        if isinstance(module, ParametrizationList):
            path = f".{prefix}".rpartition(".parametrizations.")[0]
            owner = model.get_submodule(path.removeprefix("."))
        for short_name, tensor in module.named_parameters(recurse=False):
            if id(tensor) in seen or not tensor.requires_grad:
                continue
            seen.add(id(tensor))
            name = f"{prefix}.{short_name}" if prefix else short_name
            _check_shape(name, tensor)
            kernel = _is_kernel(name, module, owner)
            shard = tensor.ndim == 1 and name.startswith(tuple(flat))
            yield name, owner, tensor, kernel, shard


def _check_shape(name: str, tensor: Tensor) -> None:
    if is_lazy(tensor):
        raise UserError(f"{name} has no shape yet: call the model on one batch before `attach`")
    if getattr(tensor, "_is_flat_param", False):
        raise UserError(
            f"FullyShardedDataParallel has put many tensors into '{name}': give it"
            " use_orig_params=True, or use fully_shard (FSDP2)"
        )


def _is_kernel(name: str, module: nn.Module, owner: nn.Module) -> bool:
    """Whether a tensor of `module` is a kernel of `owner`, or is trained in its place."""
    path, _, own_name = name.rpartition(".")
    if isinstance(module, ParametrizationList):
        kinds = [type(parametrization).__name__ for parametrization in module]
        if any(_REPARAMETRIZED.get(kind) != own_name for kind in kinds):
            return False
        own_name = path.rpartition(".")[2]
    return bool(_class_names(owner) & KERNEL_TYPES and _KERNEL_NAME.fullmatch(own_name))


def _output_channels(module: nn.Module, tensor: Tensor, flat: bool) -> tuple[int, str]:
    """The axis of a tensor that counts output channels, and why there is none, or ""."""
    axis, reason = 0, ""
    if isinstance(module, _ConvTransposeNd) and tensor.ndim > 2:
        depthwise = module.groups == module.in_channels == module.out_channels
        axis = 0 if depthwise else 1
        if module.groups > 1 and not depthwise:
            reason = "a transposed convolution in groups keeps them along two axes"
    if flat:
        reason = (
            "FullyShardedDataParallel cuts it into flat shards (fully_shard, which is FSDP2, keeps"
            " the channels)"
        )
    placements = getattr(tensor, "placements", ())
    if tensor.ndim > 1 and any(getattr(p, "dim", axis) != axis for p in placements):
        reason = f"its shards {placements} cut them"
    return axis, reason


def _first_match(rules: Sequence[Rule], name: str, module: nn.Module, kernel: bool) -> int:
    """The index of the rule that decides about a tensor."""
    for index, rule in enumerate(rules):
        if rule.matches(name, module, kernel):
            return index
    raise UserError(
        f"regularizer.scope: no rule covers the tensor '{name}'"
        f" ({type(module).__name__}). End the list with {{name: '*', penalize: false}}."
    )


def _check_rules(rules: Sequence[Rule], tensors: Sequence[ScopedTensor]) -> None:
    """Refuses rules without an effect."""
    for index, rule in enumerate(rules):
        rest = rule == Rule(penalize=False)  # the end of a list may find nothing left
        if not rest and not any(scoped.rule == index for scoped in tensors):
            raise UserError(
                f"regularizer.scope: rule {index} ({rule}) matches no tensor that an earlier rule"
                f" has not taken. Names look like '{tensors[0].name if tensors else ''}'."
            )
    if tensors and not any(scoped.penalized for scoped in tensors):
        raise UserError(
            "regularizer.scope: penalizes no tensor. Write a rule with penalize: true, or leave"
            " the scope as it is and choose regularizer=none."
        )
