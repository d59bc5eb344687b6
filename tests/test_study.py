"""`benchmarks/study.py`: what is compared, how, and that the page says what was measured."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import study
from benchmarks.budget.measure import mious
from benchmarks.budget.paired import paired
from benchmarks.claims import (
    borders,
    gradients,
    overfitting,
    page,
    selection,
    sparsity,
    textures,
    trials,
)
from benchmarks.claims.claim import comparison_rows
from benchmarks.claims.compare import Comparison, Results, adjusted, of_images, of_runs, verdict
from benchmarks.claims.measure import (
    BOUNDARIES,
    REGIONS,
    SCORES,
    Measured,
    boundary_f1,
    in_folder,
    mean_iou,
    near_zeros,
    total_variation,
)
from benchmarks.claims.trials import SIZES, Study, Trial, grid, unique
from seg_l1.config.check import check_overrides
from seg_l1.config.compose import plain
from seg_l1.config.words import parse
from seg_l1.metrics.segmentation import BoundaryF1, BoundaryIoU, ConfusionMatrix, scores
from seg_l1.models.unet import UNet
from seg_l1.runs.files import write_json
from seg_l1.scope import scope

PAGE = Path(__file__).parents[1] / "docs/study.md"
TINY = (
    "dataset.num_train=16", "dataset.num_val=8", "dataset.num_test=8", "model.width=4",
    "model.depth=2", "trainer.epochs=2",
)  # fmt: skip


def everything() -> list[Trial]:
    here = Study(Path("nowhere"), Path("nowhere"), "camvid")
    return unique([trial for claim in study.CLAIMS.values() for trial in claim.trials(here)])


def comparison(difference: float, p: float, data: str = "digits", claimed: int = 1) -> Comparison:
    return Comparison(data, 32, "l1", "none", None, "", claimed, 5, difference, 0, 0, p, p)


def run(value: float, folder: Path = Path(), **numbers: float) -> Measured:
    return Measured({"val_miou": value, "test_miou": value, **numbers}, folder)


def test_every_trial_is_a_configuration_and_has_a_name_of_its_own():
    every = everything()
    assert len({trial.name for trial in every}) == len(every)
    kinds = {(trial.data, trial.contender, trial.variant): trial for trial in every}
    for trial in kinds.values():
        root = ["dataset.root=camvid"] if trial.data == "camvid" else []
        plain(check_overrides(*parse([*trial.overrides, *root])))


def test_all_sizes_take_the_same_number_of_steps():
    for data, images in ((data, size) for data, sizes in SIZES.items() for size in sizes):
        words = dict(w.split("=", 1) for w in Trial(data, images, "none", None, 0).overrides)
        per_epoch = images * int(words["dataset.repeats"])
        assert per_epoch // 8 == pytest.approx(SIZES[data][-1] // 8, abs=1)


def test_the_page_says_how_many_runs_there_are():
    assert f"{len(everything())} runs" in PAGE.read_text()
    seeds = {data: len({trial.seed for trial in grid(data)}) for data in SIZES}
    assert seeds == {"digits": 5, "camvid": 3}
    assert {images for data in SIZES for images in SIZES[data]} == {t.images for t in everything()}


def test_the_strength_has_the_best_validation_score_over_the_seeds_of_all_strengths():
    values = {
        ("1e-5", 0): 0.5, ("1e-5", 1): 0.5, ("1e-5", 2): 0.9,
        ("3e-5", 0): 0.4, ("3e-5", 1): 0.7, ("3e-5", 2): 0.1,
        ("1e-4", 0): 0.45, ("1e-4", 1): 0.45,
    }  # fmt: skip
    found = {Trial("digits", 32, "l1", a, seed): run(value) for (a, seed), value in values.items()}
    strength, runs = Results(found).best("digits", 32, "l1")
    assert strength == "3e-5" and sorted(runs) == [0, 1, 2]
    assert Results(found).best("digits", 64, "l1") == (None, {})


@pytest.mark.parametrize(
    ("signs", "said"),
    [
        ([[1, 1, 0]], "true here"), ([[-1, -1, 0]], "false here"), ([[1, 0, 0]], "not seen here"),
        ([[1, -1, 1]], "mixed"), ([[0, 0]], "not seen here"), ([], "not tested"),
        ([[1, 1], [0, 0, 1]], "not seen here"), ([[1, 1], [1, 0]], "true here"),
        ([[0, 0], [-1]], "false here"), ([[1], [-1]], "mixed"),
    ],
)  # fmt: skip
def test_verdicts_are_those_of_the_protocol(signs, said):
    groups = [[comparison(sign or 0.3, 0.001 if sign else 0.5) for sign in part] for part in signs]
    assert verdict(groups) == said
    turned = [[replace(r, difference=-r.difference, claimed=-1) for r in part] for part in groups]
    assert verdict(turned) == said


def test_what_each_claim_needs():
    """A gap is no claim without a score, nor are borders that the mIoU explains."""

    def said(letter: str, *rows: tuple[str, str, str, int]) -> str:
        made = [
            replace(comparison(sign or 0.1, 0.001 if sign else 0.5), first=a, second=b, score=score)
            for a, b, score, sign in rows
        ]
        return study.CLAIMS[letter].verdict(made)

    gap, test = overfitting.GAP, overfitting.TEST
    assert said("a", ("l1", "none", gap, 1), ("l1", "none", test, 0)) == "not seen here"
    assert said("a", ("l1", "none", gap, 1), ("l1", "none", test, 1)) == "true here"
    assert said("a", ("l2", "none", gap, 1)) == "not tested"
    assert said(
        "b", ("l1", "none", next(iter(BOUNDARIES)), 1), ("l1", "none", borders.EQUAL, 0)
    ) == ("not seen here")
    random = ("dropout", "l1", test, -1), ("dropout", "none", test, 0)
    assert said("f", *random) == "not seen here"
    norm = gradients.NORM
    assert said("e", ("l1 by subgradients", "none", norm, 1)) == "not tested"
    assert said("e", ("l1", "none", gradients.VANISHED, 1), ("l1", "none", norm, 0)) == (
        "not seen here"
    )
    assert said("h", ("l1 by subgradients", "l1", "exact zeros", -1)) == "false here"


def test_borders_at_equal_miou_are_beyond_a_curve_of_the_other_seeds(tmp_path):
    """Those of a penalty that follows the curve are not; what is added to them is."""
    found = {}
    for place, images in enumerate(SIZES["digits"]):
        for seed in range(3):
            for contender, more in (("none", 0.0), ("l1", 0.04)):
                miou = 0.3 + 0.2 * place + 0.01 * seed + more
                score = 0.1 + 1.5 * miou - 0.7 * miou**2
                one = Trial("digits", images, contender, None, seed)
                found[one] = run(miou, tmp_path, **{borders.AT_EQUAL: score + more})
    odd = Trial("digits", 32, "none", None, 1)  # which must not take part in its own curve
    found[odd] = run(0.31, tmp_path, **{borders.AT_EQUAL: 0.9})
    results = Results(found)
    beyond = borders.beyond(results, "digits", results.best("digits", 128, "l1")[1])
    assert beyond[1] == pytest.approx(0.04)
    (strange,) = [
        value for seed, value in
        borders.beyond(results, "digits", results.best("digits", 32, "none")[1]).items()
        if seed == 1
    ]  # fmt: skip
    assert strange == pytest.approx(0.9 - (0.1 + 1.5 * 0.31 - 0.7 * 0.31**2))


def test_p_values_are_adjusted_per_data_set_and_by_whether_they_decide():
    """What is only shown beside the comparisons that a claim needs does not dilute them."""
    shown = replace(comparison(1, 0.015), score="shown")
    rows = [comparison(1, 0.01), shown, comparison(1, 0.03), comparison(1, 0.04, "camvid"), shown]
    found = adjusted(rows, lambda row: None if row.score == "shown" else "score")
    assert [row.adjusted for row in found] == pytest.approx([0.02, 0.03, 0.03, 0.04, 0.03])


def test_runs_that_a_claim_never_compares_do_not_count():
    here = Study(Path("nowhere"), Path("nowhere"), "camvid")
    planned = {letter: study.CLAIMS[letter].trials(here) for letter in "af"}
    assert not {t.contender for t in planned["a"]} & set(overfitting.RANDOM)
    assert {t.data for t in planned["f"]} == {"digits"}
    sizes = {t.images for t in planned["f"] if t.contender in overfitting.RANDOM}
    assert {t.images for t in planned["f"]} == sizes == {32, 512}


def test_layers_without_a_gradient_are_counted(tmp_path):
    """Whether it is exactly 0 or has decayed, as where subgradients shrink a layer."""
    norms = np.full((4, 5), 0.1)
    norms[-1, :2] = 0, 1e-12
    np.savez(tmp_path / "one.npz", gradients=norms)
    one = run(0.5, tmp_path / "one.npz")
    assert gradients.vanished(one) == pytest.approx(2 / 5)
    assert gradients.median_norm(one) == pytest.approx(0.1)


def test_summed_counts_give_the_scores_of_the_program():
    draw = torch.Generator().manual_seed(0)
    prediction, target = torch.randint(0, 4, (2, 6, 20, 20), generator=draw)
    target[0, :5] = 255
    confusion = ConfusionMatrix(4)
    confusion.update(prediction, target)
    counts, expected = confusion.counts, scores(confusion.counts)["miou"]
    regions = torch.stack([counts.diagonal(), counts.sum(0), counts.sum(1)])
    assert float(mious(counts.numpy())) == pytest.approx(expected)
    assert float(mean_iou(regions.numpy())) == pytest.approx(expected)
    for (kind, score), tolerance in product(
        ((BoundaryF1, boundary_f1), (BoundaryIoU, mean_iou)), (0, 1, 2)
    ):
        whole, parts = kind(4, tolerance), []
        whole.update(prediction, target)
        for one, mask in zip(prediction, target, strict=True):
            part = kind(4, tolerance)
            part.update(one[None], mask[None])
            parts.append(part.sums.long().numpy())
        assert float(score(np.stack(parts).sum(0))) == pytest.approx(whole.compute())


def test_the_paired_test_takes_other_scores_than_the_miou():
    rng = np.random.default_rng(0)
    sums = {seed: rng.integers(50, 100, (30, 4, 3)) for seed in range(3)}
    worse = {
        seed: counts * np.array([8, 10, 8, 10])[:, None] // 10 for seed, counts in sums.items()
    }
    found = paired(sums, worse, score=SCORES["boundary F1, 1 pixel"])
    means = [np.mean([boundary_f1(c.sum(0)) for c in part.values()]) for part in (sums, worse)]
    assert found.difference == pytest.approx(means[0] - means[1])
    assert found.low < found.difference < found.high and found.p < 0.05


def test_differences_of_images_and_runs_agree_with_the_runs(tmp_path):
    rng, runs = np.random.default_rng(1), []
    for name in ("first", "second"):
        group = {}
        for seed in range(3):
            counts = (
                rng.integers(1, 20, (12, 3, 3))
                + np.array([20 * (name == "first"), 40, 40])[:, None]
            )
            np.savez(tmp_path / f"{name}{seed}.npz", **{REGIONS: counts.astype(np.uint8)})
            group[seed] = run(float(mean_iou(counts.sum(0))), tmp_path / f"{name}{seed}.npz")
        runs.append(group)
    images = of_images(*runs, REGIONS)
    seeds = of_runs(*runs, lambda one: one.numbers["test_miou"])
    assert images["difference"] == pytest.approx(seeds["difference"])
    assert images["low"] > 0 and images["seeds"] == seeds["seeds"] == 3
    assert of_images({}, runs[1], REGIONS) == {} == of_runs({}, runs[1], lambda one: 0.0)


def test_total_variation_and_near_zeros_by_definition():
    torch.manual_seed(0)
    model = UNet(3, 4, width=4, depth=1)
    tensors = scope(model)
    with torch.no_grad():
        for entry in tensors:
            entry.tensor[torch.rand(entry.tensor.shape) < 0.3] *= 1e-4
    differences, sizes, near, total = [], [], 0, 0
    for entry in (e for e in tensors if e.penalized):
        weight = entry.tensor.detach().numpy()
        near += (np.abs(weight) <= 0.01 * np.abs(weight).max()).sum()
        total += weight.size
        if weight.ndim == 4 and weight.shape[2] > 1:
            sizes += np.abs(weight).ravel().tolist()
            for i, j in product(range(weight.shape[2]), range(weight.shape[3])):
                for down, right in ((1, 0), (0, 1)):
                    if i + down < weight.shape[2] and j + right < weight.shape[3]:
                        step = weight[:, :, i + down, j + right] - weight[:, :, i, j]
                        differences += np.abs(step).ravel().tolist()
    assert near_zeros(tensors) == pytest.approx(near / total) and near / total > 0.25
    assert total_variation(tensors) == pytest.approx(np.mean(differences) / np.mean(sizes))


def test_the_entropy_of_noise_is_above_that_of_a_plain_area(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / "train" / name).mkdir(parents=True)
    rng, mask = np.random.default_rng(0), np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 5  # tree
    image = np.full((64, 64), 100, np.uint8)
    image[:, 32:] = rng.integers(0, 256, (64, 32))
    Image.fromarray(image).save(tmp_path / "train/images/a.png")
    Image.fromarray(mask).save(tmp_path / "train/masks/a.png")
    found = textures.entropies(tmp_path)
    assert found["tree"] > 4 and found["sky"] < 1
    assert found["tree"] <= np.log2(textures.LEVELS)


def test_wrong_words_are_refused(capsys):
    for word, said in (
        *(("claim=z", "a,b,c"), ("clam=a", "claim="), ("claim", "claim=")),
        ("seeds=x", "expected whole numbers"),
    ):
        assert study.main([word]) == 2
        assert said in capsys.readouterr().err


def small(monkeypatch) -> None:
    """Shrinks the study to what trains in seconds."""
    monkeypatch.setitem(trials.SETTINGS, "digits", ("trainer.kkt_every=null", *TINY))
    monkeypatch.setitem(SIZES, "digits", (8, 16))
    cells = (("none", None), ("l1", "3e-5"))
    small_grid = tuple(trials.Cells(c, (strength,), (8, 16), range(2)) for c, strength in cells)
    monkeypatch.setitem(trials.GRID, "digits", small_grid)
    monkeypatch.setattr(sparsity, "IMAGES", 16)
    monkeypatch.setattr(gradients, "IMAGES", 16)
    monkeypatch.setattr(gradients, "SEEDS", range(1))
    monkeypatch.setattr(gradients, "REMEDIES", {"": ()})


@pytest.mark.slow
def test_a_study_trains_once_and_writes_its_tables(monkeypatch, tmp_path, capsys):
    small(monkeypatch)
    words = [f"folder={tmp_path}", f"output={tmp_path / 'out'}"]
    assert study.main(["claim=a,e", *words]) == 0
    trained = capsys.readouterr().out
    assert trained.count("digits_") == 8 + 4
    assert study.main(["claim=a,b,e", *words]) == 0
    assert "digits_" not in capsys.readouterr().out
    with (tmp_path / "out/a_scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["contender"], row["images"]) for row in rows} == set(
        product(("none", "l1"), ("8", "16"))
    )
    assert all(row["seeds"] == "2" for row in rows)
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"a.png", "b.png", "e.png"}
    here = Study(tmp_path, tmp_path / "out/measured")
    one = gradients.trial("l1", "", 0)
    record, found = here.run(one), in_folder(one.name, here.measured)
    assert found.arrays["gradients"].shape == (2, len(record.penalized_tensors()))
    assert gradients.median_norm(found) > 0 == gradients.vanished(found)
    state = record.model_state("last")
    weights = [state[name] for name in record.penalized_tensors()]
    relative = torch.cat([(weight / weight.abs().max()).flatten() for weight in weights])
    assert found.arrays["histogram"].sum() == len(relative)
    sizes = relative.abs().sort(descending=True).values
    middle = found.arrays["quantiles"][100]
    assert middle == pytest.approx(float(sizes[(len(sizes) - 1) // 2]), rel=1e-2)
    assert set(found.arrays) == {"regions", "histogram", "quantiles", "gradients"}
    plainly = in_folder(Trial("digits", 16, "l1", "3e-5", 0).name, here.measured)
    assert set(plainly.arrays) == {"regions", *BOUNDARIES, "histogram", "quantiles"}
    pooled = plainly.arrays["regions"].sum(0)
    assert plainly.numbers["test_miou"] == pytest.approx(float(mean_iou(pooled)), nan_ok=True)
    claim = study.CLAIMS["a"]
    (first, *_) = claim.comparisons(study.found(here, [claim]), here)
    assert first.seeds == 2 and first.images == 8


def test_the_path_on_all_images_is_not_followed_twice(monkeypatch, tmp_path):
    """The refit of the folds is its last run, where they chose the smallest α."""
    folded = tmp_path / "folds"
    for name in ("all/00", "all/01", "refit"):
        (folded / name).mkdir(parents=True)
    (tmp_path / "whole/path/00").mkdir(parents=True)
    asked = []
    monkeypatch.setattr(
        selection, "_path", lambda *given: asked.append(given[-1]) or tmp_path / "whole"
    )
    here, alphas = Study(tmp_path, tmp_path), [3e-5, 1e-5, 3e-6]
    found = selection.whole_path(here, 0, folded, {"alphas": alphas, "best_alpha": 3e-6})
    assert sorted(found) == sorted(folded / name for name in ("all/00", "all/01", "refit"))
    assert not asked
    found = selection.whole_path(here, 0, folded, {"alphas": alphas, "best_alpha": 1e-5})
    assert found == [tmp_path / "whole/path/00"]
    assert asked == [["path.alphas=[3e-05,1e-05,3e-06]", f"dataset.parts={selection.FOLDS}"]]


def test_the_regret_is_that_of_the_best_alpha_of_the_path(tmp_path):
    path = [{"alpha": a, "test_miou": m, "zeros": 0.9} for a, m in ((1e-5, 0.5), (1e-6, 0.6))]
    for seed in selection.SEEDS:
        chosen = {"best mean": 1e-6, "one standard error": 1.0000001e-5}
        write_json(tmp_path / f"path_s{seed}.json", {"chosen": chosen, "path": path})
    rows = selection.regrets(Study(tmp_path, tmp_path))
    assert [row["regret"] for row in rows] == pytest.approx([0.0, 0.1] * len(selection.SEEDS))
    assert selection.answer(rows) == "mixed" and selection.answer([]) == "not tested"
    assert selection.answer(rows[::2]) == "true here"
    assert selection.answer(rows[1::2]) == "false here"


def test_the_answer_is_that_of_the_comparisons():
    text = PAGE.read_text("utf-8")
    assert page.filled(text, PAGE.parent / "study") == text


def test_comparisons_are_read_back_and_put_into_words(tmp_path, monkeypatch):
    rows = [
        replace(comparison(-0.1, 0.001, claimed=-1), score=overfitting.GAP),
        replace(comparison(-0.25, 0.5), first="l2"),
        replace(comparison(0.03, 0.01), score="test mIoU", strength="3e-5", low=0.01, high=0.05),
    ]  # fmt: skip
    study.write_table(tmp_path / "a_comparisons.csv", comparison_rows(rows))
    assert page.read(tmp_path / "a_comparisons.csv") == rows
    planned = unique(study.CLAIMS["a"].trials(Study(tmp_path, tmp_path, "camvid")))
    (tmp_path / "measured").mkdir()
    for one in planned[1:]:
        (tmp_path / f"measured/{one.name}.json").touch()
    counted = f"({len(planned) - 1} of {len(planned)} runs)"
    assert f"| so far: true here {counted} |" in page.table(tmp_path)
    (tmp_path / f"measured/{planned[0].name}.json").touch()
    found = page.table(tmp_path)
    assert found.splitlines()[2].endswith("| true here |")
    assert "| test mIoU | +0.030 | +0.010 to +0.050 | 0.010 | as claimed |" in found
    assert found.splitlines()[3].endswith("| not yet |")
    single = [
        replace(row, seeds=1, low=np.nan, high=np.nan, p=np.nan, adjusted=np.nan) for row in rows
    ]
    study.write_table(tmp_path / "a_comparisons.csv", comparison_rows(single))
    assert "| test mIoU | +0.030 |  |  |  |" in page.table(tmp_path)


def test_the_interval_of_a_difference_that_never_varies_is_the_difference():
    right, wrong = (np.tile(row, (6, 1)) for row in ([4, 0], [3, 1]))
    found = paired(
        dict.fromkeys(range(3), right),
        dict.fromkeys(range(3), wrong),
        score=lambda counts: counts[..., 0] / counts.sum(-1),
    )
    assert [found.difference, found.low, found.high] == pytest.approx([0.25] * 3)
