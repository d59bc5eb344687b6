from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import (
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassJaccardIndex,
)

from seg_l1.metrics.segmentation import (
    BoundaryF1,
    BoundaryIoU,
    CalibrationError,
    ConfusionMatrix,
    _boundary,
    iou_per_class,
    per_class,
    scores,
)


def pooled(pairs, num_classes):
    matrix = ConfusionMatrix(num_classes)
    for prediction, target in pairs:
        matrix.update(prediction, target)
    return matrix


def some_pairs():
    pairs = []
    for _ in range(3):
        target = torch.randint(0, 4, (2, 9, 7))
        prediction = torch.where(torch.rand(target.shape) < 0.7, target, 3 - target)
        target[torch.rand(target.shape) < 0.1] = 255
        pairs.append((prediction, target))
    return pairs


def test_miou_is_pooled_over_the_split_and_ignores_unlabelled_pixels():
    pairs = some_pairs()
    oracle = MulticlassJaccardIndex(4, ignore_index=255)
    for prediction, target in pairs:
        oracle.update(prediction, target)
    assert scores(pooled(pairs, 4).counts)["miou"] == pytest.approx(float(oracle.compute()))


def test_counts_are_those_of_torchmetrics():
    oracle = MulticlassConfusionMatrix(4, ignore_index=255)
    pairs = some_pairs()
    for prediction, target in pairs:
        oracle.update(prediction, target)
    counts = pooled(pairs, 4).counts
    assert counts.dtype == torch.int64
    assert torch.equal(counts, oracle.compute())
    as_bytes = pooled([(p.byte(), y.byte()) for p, y in pairs], 4).counts
    assert torch.equal(as_bytes, counts)


def test_a_batch_may_have_no_image_and_no_label():
    nothing = torch.zeros(0, 3, 3, dtype=torch.int64)
    unlabeled = torch.full((1, 3, 3), 255)
    counts = pooled([(nothing, nothing), (torch.zeros_like(unlabeled), unlabeled)], 2).counts
    assert counts.tolist() == [[0, 0], [0, 0]]


def test_scores_by_hand():
    prediction = torch.tensor([[[0, 0, 1, 1]]])
    target = torch.tensor([[[0, 1, 1, 255]]])
    counts = pooled([(prediction, target)], 3).counts
    assert counts.dtype == torch.int64
    assert counts.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    got = scores(counts)
    assert got["miou"] == pytest.approx(0.5)
    assert got["dice"] == pytest.approx(2 / 3)
    assert got["pixel_accuracy"] == pytest.approx(2 / 3)
    assert iou_per_class(counts)[2].isnan()


def test_a_confusion_matrix_goes_on_from_saved_counts():
    pairs = some_pairs()
    first, rest = pooled(pairs[:1], 4), ConfusionMatrix(4)
    rest.load(first.counts)
    for pair in pairs[1:]:
        rest.update(*pair)
    assert torch.equal(rest.counts, pooled(pairs, 4).counts)


def boundary_by_hand(prediction, target, num_classes, tolerance):
    """The definition, pixel by pixel."""

    def boundary(ids, label):
        found = set()
        for n, y, x in (target != 255).nonzero().tolist():
            if ids[n, y, x] != label:
                continue
            around = [
                (y + dy, x + dx)
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
                if 0 <= y + dy < ids.shape[1] and 0 <= x + dx < ids.shape[2]
            ]
            if any(target[n, a, b] != 255 and ids[n, a, b] != label for a, b in around):
                found.add((n, y, x))
        return found

    def near(some, others):
        return sum(
            any(n == m and (y - v) ** 2 + (x - u) ** 2 <= tolerance**2 for m, v, u in others)
            for n, y, x in some
        )

    f1 = []
    for label in range(num_classes):
        mine, true = boundary(prediction, label), boundary(target, label)
        if mine or true:
            precision = near(mine, true) / max(1, len(mine))
            recall = near(true, mine) / max(1, len(true))
            f1.append(2 * precision * recall / max(1e-12, precision + recall))
    return sum(f1) / len(f1)


@pytest.mark.parametrize("tolerance", [0, 1, 2])
def test_boundary_f1_is_its_definition(tolerance):
    target = torch.zeros(2, 10, 12, dtype=torch.int64)
    target[0, 2:6, 3:9] = 1
    target[1, 5:, :4] = 2
    target[1, 0] = 255
    prediction = target.roll((1, 2), (1, 2)).where(target != 255, 0).clamp_max(2)
    metric = BoundaryF1(3, tolerance)
    metric.update(prediction[:1], target[:1])
    metric.update(prediction[1:], target[1:])
    assert metric.compute() == pytest.approx(boundary_by_hand(prediction, target, 3, tolerance))


def test_a_perfect_prediction_has_perfect_boundaries():
    target = torch.randint(0, 3, (2, 8, 8))
    metric = BoundaryF1(3, 0)
    metric.update(target, target)
    assert metric.compute() == 1


@pytest.mark.parametrize("tolerance", [1, 2, 3])
def test_boundary_iou_is_its_definition(tolerance):
    """With scipy's erosion; outside of the image and unlabeled pixels count as inside."""
    from scipy.ndimage import binary_erosion

    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, (2, 5, 4)).repeat(4, 1).repeat(5, 2)
    prediction = np.roll(target, (1, 2), (1, 2))
    target[:, 7:9, 3:8] = 255
    valid, window = target != 255, np.ones((2 * tolerance + 1,) * 2)
    ious = []
    for label in range(3):
        bands = []
        for ids in (prediction, target):
            mask = (ids == label) & valid
            inner = [
                binary_erosion(m | ~v, window, border_value=1)
                for m, v in zip(mask, valid, strict=True)
            ]
            bands.append(mask & ~np.array(inner))
        ious.append((bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum())
    metric = BoundaryIoU(3, tolerance)
    for index in range(2):
        metric.update(*(torch.from_numpy(x[index : index + 1]) for x in (prediction, target)))
    assert metric.compute() == pytest.approx(np.mean(ious))
    assert 0 < metric.compute() < 1


def test_boundary_f1_finds_what_lies_within_the_tolerance_of_monai():
    """MONAI measures the distances; the edges are ours (8 neighbours instead of 4)."""
    from monai.metrics.utils import get_surface_distance

    target = torch.zeros(1, 24, 24, dtype=torch.int64)
    target[0, 4:15, 6:20] = 1
    prediction = torch.zeros_like(target)
    prediction[0, 6:19, 5:17] = 1
    valid = torch.ones_like(target, dtype=torch.bool)
    edges = [(_boundary(ids, valid) == 1)[0].numpy() for ids in (prediction, target)]
    for tolerance in (0, 1, 2, 3):
        near = [
            (get_surface_distance(one, other) <= tolerance).mean()
            for one, other in (edges, edges[::-1])
        ]
        metric = BoundaryF1(2, tolerance)
        metric.update(prediction, target)
        precise, predicted, recalled, true = metric.sums[:, 1].tolist()
        assert [precise / predicted, recalled / true] == pytest.approx(near)


def test_calibration_error_is_that_of_torchmetrics():
    metric = CalibrationError()
    oracle = MulticlassCalibrationError(4, n_bins=15, norm="l1", ignore_index=255)
    for _ in range(3):
        logits = 2 * torch.randn(2, 4, 16, 16)
        target = torch.where(torch.rand(2, 16, 16) < 0.4, logits.argmax(1), 0)
        target[torch.rand(target.shape) < 0.1] = 255
        metric.update(logits, target)
        oracle.update(logits, target)
    assert metric.compute() == pytest.approx(float(oracle.compute()), rel=1e-5)
    assert metric.compute() > 0.05


def test_calibration_of_a_sure_and_right_network_is_perfect():
    metric = CalibrationError()
    target = torch.randint(0, 3, (2, 8, 8))
    metric.update(100 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1), target)
    assert metric.compute() == 0


def test_the_table_of_classes_against_scikit_learn():
    from sklearn.metrics import precision_recall_fscore_support

    pairs = some_pairs()
    got = per_class(pooled(pairs, 4).counts)
    prediction, target = (torch.cat([pair[i].flatten() for pair in pairs]) for i in (0, 1))
    valid = target != 255
    expected = precision_recall_fscore_support(target[valid], prediction[valid])
    for name, values in zip(("precision", "recall", "dice", "pixels"), expected, strict=True):
        assert got[name] == pytest.approx(values.tolist())
