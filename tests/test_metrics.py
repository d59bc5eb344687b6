from __future__ import annotations

import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from seg_l1.metrics import BoundaryF1, ConfusionMatrix, iou_per_class, scores


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
