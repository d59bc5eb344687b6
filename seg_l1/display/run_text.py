"""What the log says of one run: its network, its title, and where it starts."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch

from seg_l1.compaction import CompactModel
from seg_l1.config.commands import assignment, command_line
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.files import Config
from seg_l1.runs.summary import RunSummary, Scores
from seg_l1.scope import ScopedTensor

POWERS = ("", "k", "M", "G", "T", "P")
"""What stands for the powers of 1000."""


def class_name(section: Config) -> str:
    """Returns the class that a section of the configuration names."""
    return section["_target_"].rsplit(".", 1)[-1]


def network_name(model: Config) -> str:
    """Returns the name of a network, such as "flat UNet" or "FPN on resnet18"."""
    name = model.get("arch") or class_name(model)
    flat = "flat " if model.get("growth") == 1 else ""
    return f"{flat}{name}" + (f" on {model['encoder']}" if "encoder" in model else "")


def prefixed(number: float) -> str:
    """Returns a number with three digits and the letter of its power of 1000.

    >>> prefixed(4216000), prefixed(250), prefixed(71.3e9)
    ('4.22 M', '250', '71.3 G')
    """
    power = 0
    while abs(number) >= 999.5 and power < len(POWERS) - 1:
        number, power = number / 1000, power + 1
    digits = 0 if abs(number) >= 99.95 or not power else 1 if abs(number) >= 9.995 else 2
    return f"{number:.{digits}f} {POWERS[power]}".rstrip()


def share_text(share: float) -> str:
    """Returns a share of the dense network as a factor, "" for NaN.

    >>> share_text(0.4812), share_text(0.00213), share_text(float("nan"))
    ('0.48x', '0.0021x', '')
    """
    if math.isnan(share):
        return ""
    return f"{share:.2f}x" if share >= 0.1 or not share else f"{share:.2g}x"


def compact_cost(compact: float | None, dense: float | None) -> str:
    """Returns the multiply-adds of a compact network and their share of the dense one's.

    The text is empty without the first, and has no share without the second.

    >>> compact_cost(4216000, 8432000)
    '4.22 M (0.50x)'
    """
    if compact is None or math.isnan(compact):
        return ""
    return prefixed(compact) + (f" ({share_text(compact / dense)})" if dense else "")


def changed_pixels(changed: int, pixels: int) -> str:
    """Returns how many pixels have another class than before.

    >>> changed_pixels(0, 1000), changed_pixels(12, 6400)
    ('no pixel changed class', '12 of 6,400 pixels (0.19 %) changed class')
    """
    share = f"{changed} of {pixels:,} pixels ({100 * changed / max(1, pixels):.2g} %)"
    return f"{share if changed else 'no pixel'} changed class"


def run_title(config: Config, best: Scores) -> str:
    """Returns the title of the pictures of a run: its penalty, and the scores `best`."""
    penalty = class_name(config["regularizer"]["penalty"])
    alpha = config["regularizer"]["alpha"]
    name = "no penalty" if penalty == "Zero" else f"{penalty}, α = {alpha:g}"
    return (
        f"{name}: validation mIoU {best['val/miou']:.3f},"
        f" {100 * best['sparsity/exact']:.1f} % zeros, epoch {best['epoch']}"
    )


def start_lines(
    config: Config,
    summary: RunSummary,
    *,
    tensors: Sequence[ScopedTensor],
    device: torch.device,
    processes: int,
    folder: Path,
) -> list[str]:
    """Returns the lines that are printed before the first step of a run."""
    penalized = sum(entry.penalized for entry in tensors)
    shared = f" in {processes} processes" if processes > 1 else ""
    return [
        f"{network_name(config['model'])}: {summary.parameters:,} parameters, of which"
        f" {summary.penalised_weights:,} in {penalized} of {len(tensors)} tensors are penalized"
        f" (scope.csv); {(summary.multiply_adds or 0) / 1e6:.0f} M multiply-adds per image,"
        f" on {device}{shared}",
        f"regularization: {', and '.join(summary.shrinkage) or 'none'}",
        *(f"note: {note}" for note in summary.notes),
        f"run: {folder}",
    ]


def closing_text(
    row: Scores,
    test: Scores,
    *,
    run: RunDirectory,
    overrides: Sequence[str],
    alpha: float,
    seconds: float,
    compact: CompactModel | None,
    target: str = "",
) -> str:
    """Returns scores and files of a finished run, and commands for the next steps.

    Args:
        compact: the compact network; it is saved in the run unless it is unchanged.
        target: what `target_line` returns.
    """
    files = (run.preview, run.metrics, run.summary, run.weights, run.best)
    tested = f", test {test['miou']:.4f}" if test else ""
    saved = compact is not None and not compact.is_unchanged
    small = "".join(f"\n{line}" for line in (target, compact and compact_line(compact)) if line)
    return "\n".join(
        [
            f"\nbest epoch {row['epoch']}: mIoU val {row['val/miou']:.4f}{tested},"
            f" {100 * row['sparsity/exact']:.1f} % exact zeros; {seconds:.0f} s in total{small}",
            f"\nall results are in {run.path}",
            "".join(f"  {file.relative_to(run.path)}" for file in files),
            "\nnext:",
            *(f"  {line}" for line in _next_commands(run, overrides, alpha, saved)),
        ]
    )


def target_line(config: Config, rows: Sequence[Scores], best: Scores) -> str:
    """Returns how a run met its target, and how α changed; "" for a run without one.

    Args:
        rows: of all epochs.
        best: the row of the best epoch.
    """
    if "target/share" not in best:
        return ""
    alpha, target = config["regularizer"]["alpha"], config["target"]
    alphas = [alpha * row["target/multiplier"] for row in rows if row["target/multiplier"]]
    limit = target.get("limit")  # older runs have no such key
    asked = f"{target['share']:g}" if limit is None else f"{limit:g} in all"
    met = f"target: {best['target/share']:.4f} of the {target['measure']} ({asked} was asked for)"
    if not alphas:  # as where a resumed run was given fewer epochs
        return f"{met}; no epoch had a penalty"
    return (
        f"{met}; alpha went from {alphas[0]:.2g} to {alphas[-1]:.2g} in {len(alphas)} epochs; the"
        " others had no penalty"
    )


def compact_line(compact: CompactModel) -> str:
    """Returns what compaction made of a network, such as "compact: 9.7x fewer parameters, ..."."""
    if compact.is_unchanged:
        return "compact: no channel is without effect, so the network keeps its size"
    fewer, adds = (
        before / max(1, after) for before, after in (compact.parameters, compact.multiply_adds)
    )
    return f"compact: {fewer:.1f}x fewer parameters, {adds:.1f}x fewer multiply-adds, same outputs"


def _next_commands(
    run: RunDirectory, overrides: Sequence[str], alpha: float, compact: bool
) -> list[str]:
    sweep = ",".join(f"{(alpha or 1e-5) * factor:g}" for factor in (0.3, 1, 3))
    left_out = r"[+~]*((regularizer|target)(\.|=)|resume|hydra|debug=|path\.|start=|sweep\.)"
    general = r"\+*regularizer\.(scope|dropout|drop_connect|lam)="  # of every penalty
    kept = [w for w in overrides if not re.match(left_out, w) or re.match(general, w)]
    penalties = ("regularizer=l1,l2,elastic_net", f"regularizer.alpha={sweep}")
    board = "outputs" if run.path.parts[0] == "outputs" else shlex.quote(str(run.path))
    network = assignment("run", run.compact.path if compact else run.path)
    return [
        command_line("train", *kept, "regularizer=none"),
        command_line("train", "-m", *kept, *penalties),
        command_line("predict", network, "input=images", "output=predictions"),
        command_line("export", network, "format=onnx"),
        f"tensorboard --logdir {board}",
    ]
