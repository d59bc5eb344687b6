"""The figures of a path: scores and norms against alpha, and which weights are nonzero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seg_l1.display.style import BLUE, FAINT, GREEN, INK, ORANGE, RED, new_figure, png, styled
from seg_l1.experiments.path import sizes
from seg_l1.experiments.path.plan import Plan
from seg_l1.experiments.path.selection import Selection
from seg_l1.runs.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

LEGEND_ENTRIES = 24
"""Networks with more penalized tensors get a color bar in place of a legend."""

NAMES = {"miou": "mIoU", "dice": "Dice", "loss": "loss"}


def write(
    plan: Plan, selection: Selection, *, supports: dict[str, Tensor], times: Mapping[str, float]
) -> None:
    """Writes `path.png`, and `stability.png` where several runs can be compared.

    Args:
        supports: see `stability.supports`.
        times: see `sizes.latencies`.
    """
    write_bytes(plan.path / "path.png", png(path_figure(plan, selection, times)))
    if supports:
        write_bytes(plan.path / "stability.png", png(stability_figure(supports)))


@styled
def path_figure(plan: Plan, selection: Selection, times: Mapping[str, float]) -> Figure:
    """Draws score, zeros, norm of each tensor and generalization gap against α, and score by size.

    The last is the score against what the compact networks cost: multiply-adds, and latency.
    """
    shares = sizes.shares(plan).mean(0)
    sized = bool(np.isfinite(shares).any())
    figure = new_figure(11.5 + 3.2 * sized, 3.9)
    score, norms, gap, *rest = figure.subplots(
        1, 3 + sized, width_ratios=(1.25, 1, 0.9, *[1.1] * sized)
    )
    alphas = np.array(selection.alphas)
    _scores(score, plan, selection=selection)
    _norms(norms, alphas, layers=layer_norms(plan))
    for row in plan.scores("gap/miou"):
        gap.plot(alphas, row, color=BLUE, linewidth=0.8, alpha=0.5)
    gap.plot(alphas, plan.scores("gap/miou").mean(0), color=BLUE, marker="o", markersize=4)
    gap.set(title="generalization gap", ylabel="training mIoU − validation mIoU")
    gap.axhline(0, color=FAINT, linewidth=0.8)
    for axes in (score, norms, gap):
        axes.set(xscale="log", xlabel="α")
    if sized:
        _costs(rest[0], plan, selection, shares, sizes.relative(times, selection.alphas))
    return figure


def _costs(
    axes: Axes, plan: Plan, selection: Selection, shares: np.ndarray, latency: np.ndarray
) -> None:
    """Draws the score against the costs of the compact networks."""
    metric, budget = NAMES[plan.settings["metric"]], plan.settings.get("budget")
    look: dict[str, Any] = {"markersize": 4, "linewidth": 1.2}
    axes.plot(shares, selection.mean, "o-", color=BLUE, label="multiply-adds", **look)
    if np.isfinite(latency).any():
        axes.plot(latency, selection.mean, "s--", color=ORANGE, label="latency", **look)
    if budget is not None:
        axes.axvline(budget, color=FAINT, linewidth=1, label=f"budget, {budget:g}")
    chosen = getattr(selection, plan.settings["rule"])
    point = (shares[chosen], selection.mean[chosen])
    axes.plot(*point, "o", color=GREEN, markersize=9, fillstyle="none", label="chosen")
    axes.set(title="compact network", xlabel="share of the dense network", xlim=(0, None))
    axes.set(ylabel=f"validation {metric}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8)


def _scores(axes: Axes, plan: Plan, *, selection: Selection) -> None:
    metric, alphas = NAMES[plan.settings["metric"]], np.array(selection.alphas)
    several = len(plan.jobs) > 1
    name, error = f"validation {metric}", None
    if several:
        name, error = f"{name} ± standard error", selection.error
    look: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 4, "capsize": 3}
    axes.errorbar(alphas, selection.mean, error, label=name, **look)
    axes.axvline(alphas[selection.best], color=GREEN, linestyle="--", label="best")
    if several:
        axes.axvline(alphas[selection.one_se], color=RED, linestyle=":", label="one standard error")
    title = f"{len(plan.jobs)} runs per α" if several else "one run per α"
    axes.set(title=title, ylabel=f"validation {metric}")
    second = axes.twinx()
    zeros = 100 * plan.scores("sparsity/exact").mean(0)
    second.plot(alphas, zeros, color=ORANGE, marker="s", markersize=3.5, linewidth=1, label="zeros")
    second.set(ylabel="exact zeros (%)", ylim=(0, 101))
    second.grid(False)
    second.spines["right"].set_visible(True)
    handles = [*axes.get_legend_handles_labels()[0], *second.get_legend_handles_labels()[0]]
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8
    )


def _norms(axes: Axes, alphas: np.ndarray, *, layers: Mapping[str, np.ndarray]) -> None:
    """Draws a curve per tensor, from dark at the input to bright at the output."""
    colors = colormaps["viridis"](np.linspace(0, 0.95, len(layers)))
    for color, (name, norms) in zip(colors, layers.items(), strict=True):
        positive = np.where(norms > 0, norms, np.nan)
        label = name if np.isfinite(positive).any() else f"{name} (0)"
        axes.plot(alphas, positive, ".-", color=color, linewidth=1.2, markersize=3, label=label)
    axes.set(title="norm of each penalized tensor", ylabel="‖w‖₂ (mean over runs)", yscale="log")
    if len(layers) <= LEGEND_ENTRIES:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=5.5)
        return
    scale = ScalarMappable(Normalize(1, len(layers)), ListedColormap(colors))
    bar = axes.figure.colorbar(scale, ax=axes, label=f"{len(layers)} tensors, input to output")
    bar.outline.set_visible(False)


def layer_norms(plan: Plan) -> dict[str, np.ndarray]:
    """Returns ‖w‖₂ of each penalized tensor for decreasing alphas, averaged over the jobs."""
    names = plan.point_run(plan.jobs[0], 0).penalized_tensors()
    columns: dict[str, list[float]] = {name: [] for name in names}
    for alpha in sorted(plan.order, reverse=True):
        runs = [plan.point_run(job, plan.order.index(alpha)) for job in plan.jobs]
        runs = [run for run in runs if run.last.is_file()]
        states = [run.model_state("last") for run in runs]
        for name, column in columns.items():
            norms = [float(state[name].norm()) for state in states]
            column.append(sum(norms) / len(norms) if norms else math.nan)
    return {name: np.array(column) for name, column in columns.items()}


@styled
def stability_figure(supports: dict[str, Tensor]) -> Figure:
    """Draws a map per tensor: how often weights are nonzero, by output and input channel.

    The weights of a kernel are averaged. White: in no run; dark: in all.
    """
    columns = min(6, len(supports))
    rows = -(-len(supports) // columns)
    figure = new_figure(2.1 * columns + 0.8, 2.0 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, alive) in zip(grid, supports.items(), strict=False):
        share = alive.double().mean(0)
        channels = (
            share.reshape(*share.shape[:2], -1).mean(-1) if share.ndim > 1 else share[:, None]
        )
        drawn = axes.imshow(
            channels.numpy(), vmin=0, vmax=1, cmap="Blues", aspect="auto", interpolation="nearest"
        )
        axes.set_title(f"{name}\n{100 * float(share.mean()):.1f} % nonzero", fontsize=7.5)
        axes.grid(False)
        axes.tick_params(labelsize=6)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(4, integer=True))
    for axes in grid[len(supports) :]:
        axes.set_visible(False)
    figure.supylabel("output channel", fontsize=8.5, color=INK)
    figure.supxlabel("input channel", fontsize=8.5, color=INK)
    runs = len(next(iter(supports.values())))
    label = f"share of {runs} runs in which a weight is nonzero"
    figure.colorbar(drawn, ax=grid, label=label, aspect=40, pad=0.01)
    return figure
