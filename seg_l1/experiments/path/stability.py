"""Which weights and channels survive on every fold and seed: frequencies and overlaps.

Networks that start from the same seed can be compared weight by weight. From different seeds
channels come in another order, so that a small overlap says nothing there.
"""

from __future__ import annotations

from itertools import combinations

import torch
from safetensors.torch import save
from torch import Tensor

from seg_l1.experiments.path.plan import Plan
from seg_l1.runs.files import write_bytes, write_csv


def jaccard(supports: Tensor) -> float:
    """Returns the mean over all pairs of runs of |A ∩ B| / |A ∪ B|; two empty supports are equal.

    Args:
        supports: bool (runs, ...), at least two runs.
    """
    flat = supports.flatten(1)
    pairs = combinations(flat, 2)
    overlaps = [float((a & b).sum() / (a | b).sum()) if (a | b).any() else 1.0 for a, b in pairs]
    return sum(overlaps) / len(overlaps)


def by_chance(supports: Tensor) -> float:
    """Returns what `jaccard` would be about if each run drew as many weights at random.

    Pair by pair E|A ∩ B| = p·q and E|A ∪ B| = p + q − p·q for shares p and q.
    """
    shares = supports.flatten(1).double().mean(1).tolist()
    pairs = [(p * q, p + q - p * q) for p, q in combinations(shares, 2)]
    return sum(both / either if either else 1.0 for both, either in pairs) / len(pairs)


def supports(plan: Plan, alpha: float) -> dict[str, Tensor]:
    """Returns bool (jobs, ...) per penalized tensor, output channels first: which weights survive.

    These are the weights that are not 0 at the end of the runs at `alpha`, of the jobs that reached
    it.
    """
    position = plan.order.index(alpha)
    runs = [plan.point_run(job, position) for job in plan.jobs]
    runs = [run for run in runs if run.last.is_file()]
    states = [run.model_state("last") for run in runs]
    return {
        name: torch.stack([state[name].movedim(axis, 0) != 0 for state in states])
        for name, axis in runs[0].penalized_tensors().items()
    }


def write(plan: Plan, alpha: float) -> dict[str, Tensor]:
    """Writes what survives in the runs at `alpha`; returns the `supports`, {} for one run.

    `stability.csv` has a row per tensor: weights that survive in every run, in some, in none; the
    overlap of the supports and what it would be by chance; the same overlaps of the channels.
    `stability.safetensors` has for each weight the share of runs in which it survives, by tensor,
    output channels first.
    """
    if len(plan.jobs) < 2:
        return {}
    header = (
        "tensor", "weights", "always", "sometimes", "never", "jaccard", "jaccard_by_chance",
        "channels", "channels_always", "channels_jaccard", "channels_jaccard_by_chance",
    )  # fmt: skip
    found, rows = supports(plan, alpha), []
    flat = {name: alive.flatten(1) for name, alive in found.items()}
    channels = {name: x.reshape(*x.shape[:2], -1).any(2) for name, x in found.items()}
    flat["all"], channels["all"] = (torch.cat(list(x.values()), 1) for x in (flat, channels))
    for name, alive in flat.items():
        share, units = alive.double().mean(0), channels[name]
        rows.append(
            (
                name,
                share.numel(),
                int((share == 1).sum()),
                int(((share > 0) & (share < 1)).sum()),
                int((share == 0).sum()),
                round(jaccard(alive), 6),
                round(by_chance(alive), 6),
                units.shape[1],
                int(units.all(0).sum()),
                round(jaccard(units), 6),
                round(by_chance(units), 6),
            )
        )
    write_csv(plan.path / "stability.csv", header, rows)
    shares = {name: alive.float().mean(0).contiguous() for name, alive in found.items()}
    write_bytes(plan.path / "stability.safetensors", save(shares))
    return found
