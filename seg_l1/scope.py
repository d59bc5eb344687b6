"""Scope: ordered rules over parameter names and module types say which tensors are penalized."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import overload

from torch import Tensor, nn

from seg_l1.errors import UserError


@dataclass(frozen=True)
class Rule:
    """One line of a scope: tensors that match `name` and `types` are penalized, or are not.

    Args:
        name: shell pattern over the full parameter name, such as "*.weight" or "head.*".
        types: class names of the module that owns the tensor (base classes count); none = any.
        penalize: whether the tensors that match are penalized.
        factor: ω > 0, multiplies α for these tensors.
    """

    name: str = "*"
    types: tuple[str, ...] = ()
    penalize: bool = True
    factor: float = 1.0

    def matches(self, name: str, module: nn.Module) -> bool:
        kinds = {kind.__name__ for kind in type(module).__mro__}
        return fnmatchcase(name, self.name) and (not self.types or bool(kinds & set(self.types)))


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
    """

    name: str
    tensor: Tensor
    rule: int
    penalized: bool
    factor: float
    axis: int
    no_group_reason: str = ""
    kind: type[nn.Module] = nn.Module

    @property
    def groups_first(self) -> Tensor:
        """The tensor, as a view whose axis 0 is the output channel."""
        return self.along(self.tensor)

    @overload
    def along(self, step: Tensor) -> Tensor: ...

    @overload
    def along(self, step: float) -> float: ...

    def along(self, step: Tensor | float) -> Tensor | float:
        """A tensor of the same shape, as a view whose axis 0 is the output channel, or a number."""
        return step.movedim(self.axis, 0) if self.axis and isinstance(step, Tensor) else step


DEFAULT_RULES = (
    Rule(name="*weight", types=("Conv2d", "ConvTranspose2d", "Linear")),
    Rule(penalize=False),
)


def scope(model: nn.Module, rules: Sequence[Rule] = DEFAULT_RULES) -> list[ScopedTensor]:
    """Decides for every trainable tensor of `model` whether it is penalized.

    The first rule that matches wins. A tensor that several modules share counts once, under the
    first of its names.

    Raises:
        UserError: if a rule decides nothing, if none covers a tensor, or if nothing is penalized.
    """
    tensors: list[ScopedTensor] = []
    owners = Counter(id(t) for m in model.modules() for t in m.parameters(recurse=False))
    seen: set[int] = set()
    for module_name, module in model.named_modules():
        for short_name, tensor in module.named_parameters(recurse=False):
            if id(tensor) in seen or not tensor.requires_grad:
                continue
            seen.add(id(tensor))
            name = f"{module_name}.{short_name}" if module_name else short_name
            index = _first_match(rules, name, module)
            transposed = isinstance(module, nn.ConvTranspose2d) and tensor.ndim == 4
            reason = "several modules share that tensor" if owners[id(tensor)] > 1 else ""
            if transposed and getattr(module, "groups", 1) > 1:
                reason = "a transposed convolution in groups keeps them along two axes"
            tensors.append(
                ScopedTensor(
                    name,
                    tensor,
                    rule=index,
                    penalized=rules[index].penalize,
                    factor=rules[index].factor,
                    axis=int(transposed),
                    no_group_reason=reason,
                    kind=type(module),
                )
            )
    _check_rules(rules, tensors)
    return tensors


def _first_match(rules: Sequence[Rule], name: str, module: nn.Module) -> int:
    """The index of the rule that decides about a tensor."""
    for index, rule in enumerate(rules):
        if rule.matches(name, module):
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
