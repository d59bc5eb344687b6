"""Objects from the sections of a configuration that have a `_target_`."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
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
