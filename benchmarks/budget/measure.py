"""What a finished job came to: size, scores per image, remaining zeros, latency."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.budget.job import Job, Trained
from seg_l1.compaction.latency import median_ms
from seg_l1.data.batches import Batches
from seg_l1.data.labels import IGNORE
from seg_l1.deployment import onnx_file
from seg_l1.metrics.sparsity import multiply_adds, parameters
from seg_l1.models.tiles import tiled
from seg_l1.runs import files
from seg_l1.runs.directory import RunDirectory
from seg_l1.scope import rules_of, scope
from seg_l1.training.loop import Loop
from seg_l1.training.saved import SavedRun, load_run

SECONDS = 3.0
"""How long the latency of a network is measured, in alternation with the dense one."""


@dataclass(frozen=True)
class Result:
    """The outcome of a job.

    Attributes:
        name, share, zeros_asked, seed: of the job.
        epochs: of all trainings together.
        multiply_adds: of its compact network, for one image.
        share_got: the same, relative to the dense network.
        parameters: of its compact network.
        zeros: share of the penalized weights of the dense network that are 0 or gone.
        nonzero: share of the compact network's multiply-adds that belong to weights other than 0.
        val_miou, test_miou: of its best epoch; without a test split, both are of validation.
        latency_ms, dense_ms: of one image in onnxruntime with one thread, or None.
        run: its folder.
    """

    name: str
    share: float | None
    zeros_asked: float | None
    seed: int
    epochs: int
    multiply_adds: int
    share_got: float
    parameters: int
    zeros: float
    nonzero: float
    val_miou: float
    test_miou: float
    latency_ms: float | None
    dense_ms: float | None
    run: str

    @property
    def confusions(self) -> np.ndarray:
        """Counts (N, K, K) of the images of the test split, truth along axis 1."""
        return np.load(path_of(RunDirectory(Path(self.run)), ".npy"))


def path_of(record: RunDirectory, suffix: str) -> Path:
    """Returns the file, beside the runs, with what was measured of one."""
    return record.path.parents[1] / "measured" / f"{record.path.name}{suffix}"


def result_of(record: RunDirectory) -> Result | None:
    """Returns the result of a job that is finished and measured, or None."""
    path = path_of(record, ".json")
    if record.read_summary(missing_ok=True).status != "completed" or not path.is_file():
        return None
    return Result(**files.read_json(path))


def results_in(folder: Path) -> list[Result]:
    """Returns all results in a folder, by contender, share and seed; dense first."""
    found = [result_of(record) for record in RunDirectory.below(folder / "runs")]
    results = [result for result in found if result is not None]
    return sorted(results, key=lambda r: (r.name != "dense", -(r.share or 0), r.name, r.seed))


def measured(job: Job, trained: Trained, dense: bytes | None) -> Result:
    """Measures a finished job, and writes what was found.

    Args:
        dense: the dense network as an ONNX file; None = latency is not measured.
    """
    record, summary = trained.record, trained.record.read_summary()
    small = record.compact if record.compact.best.is_file() else record
    saved = load_run(small.path, device="cpu")
    model, example = saved.experiment.loop.model.eval(), job.example
    counts = confusions(saved)
    latency = latencies(dense, model, example) if dense else None
    cost = multiply_adds(model, example)
    result = Result(
        name=job.name,
        share=job.share,
        zeros_asked=job.zeros,
        seed=job.seed,
        epochs=trained.epochs,
        multiply_adds=cost,
        share_got=cost / job.dense_cost,
        parameters=parameters(model),
        zeros=zeros_of(job, record),
        nonzero=nonzero_share(model, example),
        val_miou=summary.score("val/miou"),
        test_miou=miou(counts.sum(0)),
        latency_ms=latency[1] if latency else None,
        dense_ms=latency[0] if latency else None,
        run=str(record.path),
    )
    path = path_of(record, ".npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, counts)
    files.write_json(path_of(record, ".json"), asdict(result))
    return result


def zeros_of(job: Job, record: RunDirectory) -> float:
    """Returns which share of the penalized weights of the dense network is 0 or gone in a run."""
    scoped = scope(job.network(), rules_of(job.config["regularizer"]["scope"]))
    state = record.model_state("best")
    names = [entry.name for entry in scoped if entry.penalized]
    left = sum(int((state[name] != 0).sum()) for name in names)
    return 1 - left / sum(entry.tensor.numel() for entry in scoped if entry.penalized)


def predicted(loop: Loop, batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the predicted class ids and the masks, both (N, H, W), of batches."""
    loop.model.eval()
    for images, masks in batches.epoch():
        with torch.no_grad(), loop.autocast:
            logits = tiled(loop.model, images, loop.settings.tile, loop.settings.tile_overlap)
        yield logits.float().argmax(1), masks


def confusions(saved: SavedRun) -> np.ndarray:
    """Returns the counts (N, K, K) of each image of the split of a run, truth along axis 1."""
    loop, found = saved.experiment.loop, []
    classes = len(loop.classes)
    for ids_of_all, masks in predicted(loop, saved.batches):
        for ids, mask in zip(ids_of_all, masks, strict=True):
            pairs = (classes * mask + ids)[mask != IGNORE]
            found.append(torch.bincount(pairs, minlength=classes**2).view(classes, classes))
    return torch.stack(found).cpu().numpy()


def miou(counts: np.ndarray) -> float:
    """Returns the mean IoU over the classes in truth or prediction, of counts (K, K)."""
    return float(mious(counts[None])[0])


def mious(counts: np.ndarray) -> np.ndarray:
    """Returns `miou` of each of (..., K, K)."""
    return np.nanmean(ious(counts), axis=-1)


def ious(counts: np.ndarray) -> np.ndarray:
    """IoU of each class, (..., K, K) -> (..., K); NaN for one in neither truth nor prediction."""
    hit = np.diagonal(counts, axis1=-2, axis2=-1).astype(float)
    union = counts.sum(-1) + counts.sum(-2) - hit
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(union > 0, hit / union, np.nan)


def nonzero_share(model: nn.Module, example: Tensor) -> float:
    """Returns which share of the multiply-adds for `example` belongs to weights other than 0.

    A weight has as many multiply-adds as any other of its layer. What belongs to no weight, such as
    a product of activations, counts as other than 0.
    """
    layers = {name: module for name, module in model.named_modules() if _has_weight(module)}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(example)
    total, zeros = counter.get_total_flops(), 0.0
    prefix = type(model).__name__
    for name, counts in counter.get_flop_counts().items():
        layer = layers.get(name.removeprefix(f"{prefix}."))
        if layer is not None:
            zeros += sum(counts.values()) * float((layer.weight == 0).double().mean())
    return 1 - zeros / max(1, total)


def _has_weight(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd | nn.Linear)


def latencies(dense: bytes, model: nn.Module, example: Tensor) -> tuple[float, float]:
    """Milliseconds for one image with one thread in onnxruntime: (dense network, `model`).

    Both take turns. Times are CPU times: on a busy machine a long call is interrupted more often
    than a short one, so that wall-clock time would flatter the small network.
    """
    sources = {"dense": dense, "small": onnx_file.to_onnx(model, example)}
    calls: dict[str, Callable[[], object]] = {
        name: partial(onnx_file.caller(content, threads=1), example)
        for name, content in sources.items()
    }
    times = median_ms(calls, seconds=SECONDS, clock=time.thread_time)
    return times["dense"], times["small"]
