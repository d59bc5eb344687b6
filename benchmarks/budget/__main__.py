"""Schemes that make a network smaller, at equal multiply-adds, data, epochs and seeds.

    python -m benchmarks.budget experiment=digits shares=0.5,0.25,0.125 seeds=0,1,2
        contenders=narrow,flat,random,random_late,magnitude,magnitude_late,torch_pruning
        folder=outputs/budget trainer.threads=1
    python -m benchmarks.budget experiment=camvid dataset.root=<CamVid> [trainer.epochs=40]
    python -m benchmarks.budget shares= contenders= zeros=0.95 [penalty=...] [refit=5]

Each contender is a file beside this one that says what it does and what it cannot do. Its network
has at most the multiply-adds that are asked for, and at least 98 % of them, counted exactly after
compaction. `trainer.epochs` is what all its trainings may spend together. Words that are not named
here are overrides of `train.py`, for all of them.

penalty=    a regularizer as a contender of its own, as often as wanted:
            penalty="regularizer=group_l1 regularizer.alpha=3e-5"
refit=      epochs of a last phase of each penalty=, without it, on the nonzero weights
zeros=      share of zeros among single weights, reached by gradual pruning, by l1, by mcp, and by
            dual averaging (target=nonzeros)
against=    the contender whose differences from the others are tested (ours)
latency=    false leaves out the times in onnxruntime

The same command resumes where it was stopped; with more seeds, shares or contenders it trains what
is missing. What is deleted from <folder>/measured is measured again, without training. The results
are in <folder>/runs, for `seg-l1 report`; budget.md and budget.csv show all that the folder holds.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields
from importlib.util import find_spec

import torch

from benchmarks.budget.job import Job
from benchmarks.budget.measure import Result, measured, result_of, results_in
from benchmarks.budget.options import Options, Train, read
from benchmarks.budget.table import tables
from seg_l1.config.identity import FREE
from seg_l1.config.words import key_of
from seg_l1.deployment import onnx_file
from seg_l1.errors import Interrupted, RunError, UserError, described
from seg_l1.runs import files


def main(arguments: list[str], say: Callable[[str], None] = print) -> int:
    """Trains and measures what is missing, and writes the tables; returns the exit code."""
    if not arguments or {"-h", "--help"} & {*arguments}:
        say(__doc__ or "")
        return 0
    try:
        return compare(read(arguments), say)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 130


def compare(options: Options, say: Callable[[str], None]) -> int:
    """Goes through all jobs; returns 1 if one failed."""
    jobs = options.jobs()
    if options.latency and not all(map(find_spec, onnx_file.PACKAGES)):
        raise UserError('latency: needs pip install "seg-l1[export]"; or give latency=false')
    _check_folder(options, jobs[0][0])
    torch.set_num_threads(jobs[0][0].config["trainer"]["threads"] or torch.get_num_threads())
    dense = _Dense(jobs[0][0], wanted=options.latency)
    failed = False
    for number, (job, train) in enumerate(jobs, 1):
        title = f"[{number}/{len(jobs)}] {job.name}, seed {job.seed}"
        result = result_of(job.run)
        if result is None:
            say(f"{title} ...")
            try:
                result = _finished(job, train, dense)
            except Interrupted:
                raise
            except Exception as error:  # whatever it is, the other contenders go on
                say(f"{title}: {described(error)}")
                failed = True
                continue
        say(f"{title}: share {result.share_got:.4f}, test mIoU {result.test_miou:.3f}")
        _write(options)
    say("\n" + _write(options))
    return int(failed)


class _Dense:
    """The dense network as an ONNX file, made when it is needed."""

    def __init__(self, job: Job, *, wanted: bool) -> None:
        self.job, self.wanted = job, wanted
        self.content: bytes | None = None

    def file(self) -> bytes | None:
        if self.wanted and self.content is None:
            self.content = onnx_file.to_onnx(self.job.network(), self.job.example)
        return self.content


def _finished(job: Job, train: Train, dense: _Dense) -> Result:
    """Trains a job, or goes on with it, and measures it.

    Raises:
        UserError, RunError: if it fails, or spent another budget than it was given.
    """
    trained = train(job)
    if trained.epochs != job.epochs:
        raise RunError(f"spent {trained.epochs} epochs of {job.epochs}")
    return measured(job, trained, dense.file())


def _check_folder(options: Options, job: Job) -> None:
    """Refuses to mix results of different experiments.

    Raises:
        UserError: if the folder holds those of others.
    """
    path = options.folder / "experiment.json"
    words = sorted(word for word in options.words if key_of(word) not in FREE)
    if path.is_file() and (before := files.read_json(path)["words"]) != words:
        raise UserError(
            f"folder={options.folder}: holds results of {' '.join(before) or 'the default job'};"
            " choose another one"
        )
    _ = job.config  # checks the words before anything is written
    options.folder.mkdir(parents=True, exist_ok=True)
    files.write_json(path, {"words": words})


def _write(options: Options) -> str:
    """Writes budget.md and budget.csv of all results in the folder; returns the tables."""
    results = results_in(options.folder)
    text = tables(results, options.against) if results else "no results\n"
    files.write_text(options.folder / "budget.md", text)
    content = io.StringIO()
    writer = csv.DictWriter(content, [field.name for field in fields(Result)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, results))
    files.write_text(options.folder / "budget.csv", content.getvalue())
    return text


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.exit(main(sys.argv[1:], lambda text: print(text, flush=True)))
