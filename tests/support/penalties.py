"""The table of penalties: every option of conf/regularizer with objects of its class.

A new penalty adds a row here. The tests of values, proximal operators, optimality and solvers take
their cases from this table.
"""

from __future__ import annotations

import math

from seg_l1 import penalties
from seg_l1.penalties import Penalty

TABLE: dict[str, tuple[float, list[Penalty]]] = {
    "none": (0.0, [penalties.Zero()]),
    "l1": (7.0, [penalties.L1()]),
    "l2": (12.5, [penalties.L2(), penalties.L2("decoupled")]),
    "elastic_net": (
        0.25 * 7.0 + 0.75 * 12.5,
        [penalties.ElasticNet(ratio) for ratio in (0.25, 0.5, 0.9, 0.0, 1.0)],
    ),
    "group_l1": (7.0, [penalties.GroupL1()]),
    "channel_l1": (7.0, [penalties.ChannelL1()]),
    "sparse_group_l1": (7.0, [penalties.SparseGroupL1(ratio) for ratio in (0.25, 0.5, 0.9)]),
    "mcp": ((3 - 9 / 7) + 1.75, [penalties.MCP(knot) for knot in (3.5, 1.0, 0.05)]),
    "reweighted_l1": (
        0.5 * (math.log(7) + math.log(9)),
        [penalties.ReweightedL1(epsilon) for epsilon in (0.5, 1.0, 0.05)],
    ),
    "bridge": (2 * (3**0.5 + 2), [penalties.Bridge(4)]),
    "norm_scale_l1": (7.0, [penalties.L1()]),
    "dropout": (0.0, [penalties.Zero()]),
    "drop_connect": (0.0, [penalties.Zero()]),
}
"""Option: R(w) by hand of the first object for w = (-3, 0, 4), and objects to prove."""

FIRST = {option: objects[0] for option, (_, objects) in TABLE.items()}
"""One object per option."""

ALL = list(dict.fromkeys(penalty for _, objects in TABLE.values() for penalty in objects))
"""Every object once."""

WITH_PROX = [penalty for penalty in ALL if hasattr(penalty, "prox")]

SHRINKING = [penalty for penalty in WITH_PROX if not isinstance(penalty, penalties.Zero)]
"""Those whose proximal operator changes the weights."""
