"""One job of a path: a run for each alpha in turn, on one fold."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seg_l1.errors import RunError, UserError
from seg_l1.experiments.jobs import complete, read_data
from seg_l1.experiments.launch import jobs_at_a_time, stopping_the_launcher
from seg_l1.experiments.lock import lock
from seg_l1.experiments.path.plan import Job, Plan
from seg_l1.experiments.path.warm_starts import regularization_path
from seg_l1.runs.directory import RunDirectory


def task(cfg: Any) -> str:
    """Entry point for hydra's launchers: `cfg.path` names the job, `path.json` holds the rest."""
    plan = Plan(Path(cfg.path.folder))
    try:
        with stopping_the_launcher():
            return follow(plan, plan.jobs[cfg.path.job], parallel=jobs_at_a_time(len(plan.jobs)))
    except UserError as error:  # the data have changed, or are missing
        sys.stderr.write(f"error: {error}\n")
        return "failed"


def follow(plan: Plan, job: Job, *, refit_at: float | None = None, parallel: int = 1) -> str:
    """Trains the points of `job` that are missing; returns "completed" or "failed".

    Args:
        refit_at: the alpha that the path ends with; its run is `plan.refit`, which is scored on
            the test split too.

    Raises:
        Interrupted: if it was asked to stop; everything is saved then.
        RunError: with `refit_at`, if a run fails.
    """
    with lock(plan.path, job.name, wait=True):
        whole = read_data(plan.config)
        data = plan.data(whole, job)

        def fit(alpha: float, before: RunDirectory | None) -> RunDirectory:
            position = plan.order.index(alpha)
            config, words = plan.point(job, position, before.last if before else None)
            if alpha == refit_at:
                complete(config, words, plan.refit, data=whole)
                return plan.refit
            record = plan.point_run(job, position)
            complete(config, words, record, data=data, parallel=parallel)
            return record

        return _trace(plan, fit, refit_at)


def progress(plan: Plan, job: Job) -> str:
    """Returns the status of a job: "completed", "failed" or "pending"."""

    def look(alpha: float, before: RunDirectory | None) -> RunDirectory:
        record = plan.point_run(job, plan.order.index(alpha))
        status = record.read_summary(missing_ok=True).status
        if status != "completed":
            raise RunError if status == "failed" else _Missing
        return record

    return _trace(plan, look)


def _trace(plan: Plan, fit: Callable[..., RunDirectory], until: float | None = None) -> str:
    """Follows the path with `fit`; a network is dead if it is all zero or predicts one class."""
    settings, alphas = plan.settings, plan.order
    if until is not None:
        first = 0 if settings["warm_start"] else alphas.index(until)
        alphas = alphas[first : alphas.index(until) + 1]

    def dead(record: RunDirectory) -> bool:
        last = record.read_summary().last
        predicted = sum(bool(value) for name, value in last.items() if name.startswith("val/iou/"))
        return last["sparsity/exact"] == 1 or predicted <= 1

    points = regularization_path(
        alphas,
        fit,
        dead=dead,
        merit=lambda record: record.read_summary().score("val/miou", epoch="last"),
        warm_start=settings["warm_start"],
        collapse=settings["collapse"],
    )
    try:
        for _ in points:
            pass
    except RunError:
        if until is not None:
            raise
        return "failed"
    except _Missing:
        return "pending"
    return "completed"


class _Missing(Exception):
    """Raised where a run does not exist yet."""
