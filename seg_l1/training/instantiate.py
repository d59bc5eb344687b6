"""Objects from the sections of a configuration that have a `_target_`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_method
from hydra.utils import instantiate as hydra_instantiate

from seg_l1.errors import UserError, first_line
from seg_l1.runs.files import Config


def instantiate(where: str, spec: Config, **more: Any) -> Any:
    """Calls what `spec["_target_"]` names with the other entries and `more`.

    Raises:
        UserError: naming the group `where`, if the arguments are refused.
    """
    try:
        return hydra_instantiate({**spec, "_partial_": True}, _convert_="all")(**more)
    except InstantiationException as error:
        reason = " ".join(str(error).split()).partition(", set env")[0]
        raise UserError(f"{where}._target_: {reason}") from error
    except UserError:
        raise
    except (TypeError, ValueError, OverflowError, MemoryError, RuntimeError) as error:
        name, reason = spec["_target_"].rsplit(".", 1)[-1], first_line(error)
        if isinstance(error, MemoryError) or "allocate" in reason:
            reason = f"does not fit into memory, choose smaller sizes ({reason})"
        raise UserError(f"{where} ({name}): {reason}") from error


def load_function(key: str, name: str, signature: Sequence[str]) -> Callable[..., Any]:
    """Returns the function of the dotted `name`, which the user gave as the value of `key`.

    Raises:
        UserError: if it cannot be imported, or does not take the arguments of `signature`.
    """
    try:
        function = get_method(name)
        inspect.signature(function).bind(*signature)
    except ImportError as error:
        reason = first_line(error.__cause__ or error)
        raise UserError(f"{key}: {reason}; its folder must be in PYTHONPATH") from error
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{key}: {name} must be a function of ({', '.join(signature)}) ({first_line(error)})"
        ) from error
    return function
