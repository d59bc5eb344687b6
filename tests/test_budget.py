"""`benchmarks/budget`: every contender meets its target with the epochs that it was given."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from benchmarks.budget import __main__ as budget
from benchmarks.budget import (
    gradual,
    group_norm,
    magnitude,
    narrow,
    ours,
    random_channels,
    table,
)
from benchmarks.budget.channels import Channels, by_position, filters_of, norms_after, renewed
from benchmarks.budget.flat import job_of
from benchmarks.budget.gradual import Gradual
from benchmarks.budget.job import TOLERANCE, Job, split_epochs
from benchmarks.budget.measure import Result, nonzero_share
from benchmarks.budget.options import CONTENDERS, read
from benchmarks.budget.paired import paired
from seg_l1.errors import RunError, UserError
from seg_l1.metrics.sparsity import multiply_adds
from seg_l1.models.unet import UNet
from seg_l1.runs.directory import RunDirectory
from tests.support.runs import TINY, same_bits

IMAGE = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
WORDS = [
    *(word for word in TINY if not word.startswith(("trainer.epochs", "trainer.compact", "model"))),
    "model.width=8",
    "model.depth=1",
    "trainer.epochs=4",
    "trainer.kkt_every=null",
    "trainer.threads=1",
]


def unet(**options) -> nn.Module:
    """A U-Net whose norm layers do something in eval mode."""
    torch.manual_seed(0)
    model = UNet(3, 5, **{"width": 8, "depth": 2, **options})
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_()
    return model.eval()


@pytest.fixture(scope="module")
def channels() -> Channels:
    return Channels(unet(), IMAGE)


RANKINGS = {
    "position": by_position,
    "random": lambda channels: random_channels.ranking(channels, 3),
    "magnitude": magnitude.ranking,
    "magnitude_rms": lambda channels: magnitude.ranking(channels, magnitude.root_of_size),
}


def test_the_filters_are_those_of_all_layers_but_the_head(channels):
    assert "head" not in channels.layers
    layers = [m for m in channels.model.modules() if isinstance(m, nn.modules.conv._ConvNd)]
    assert len(channels.layers) == len(layers) - 1
    assert len(channels.filters()) == sum(len(filters_of(layer)) for layer in layers[:-1])


def test_the_norm_behind_each_layer_is_found():
    model = unet()
    names = {module: name for name, module in model.named_modules()}
    found = {name: names[norm] for name, norm in norms_after(model, IMAGE).items()}
    assert found["down.0.0"] == "down.0.1" and found["merge.1.3"] == "merge.1.4"
    assert not {"up.0", "up.1", "head"} & found.keys()


def test_a_removed_filter_emits_zero_and_the_outputs_are_those_without_it(channels):
    removed = [("down.0.0", 2), ("down.1.3", 5), ("up.1", 0), ("merge.0.0", 7)]
    found = channels.without(removed)
    model = unet()
    outputs = {}
    for name, index in removed:

        def zero(module, inputs, output, name=name, index=index):
            outputs[name] = True
            output = output.clone()
            output[:, index] = 0
            return output

        norm = norms_after(model, IMAGE).get(name, model.get_submodule(name))
        norm.register_forward_hook(zero)
    with torch.no_grad():
        expected = model(IMAGE)
        torch.testing.assert_close(found.model(IMAGE), expected, rtol=1e-4, atol=1e-4)
    assert len(outputs) == len(removed)
    counts = {layer.name: (layer.total, layer.kept) for layer in found.layers}
    assert all(counts[name][1] == counts[name][0] - 1 for name, _ in removed)
    for name, value in unet().state_dict().items():  # it is whole again
        assert torch.equal(channels.model.state_dict()[name], value)


@pytest.mark.parametrize(("ranking", "share"), [*product(RANKINGS, (0.5, 0.25, 0.125))])
def test_a_target_is_met_within_2_percent_and_never_exceeded(channels, ranking, share):
    target = int(share * channels.dense_cost)
    small = channels.meet(RANKINGS[ranking](channels), target).model
    assert (1 - TOLERANCE) * target <= multiply_adds(small, IMAGE) <= target


def test_a_target_below_one_channel_per_layer_is_refused(channels):
    with pytest.raises(UserError, match="no choice of channels"):
        channels.meet(by_position(channels), 10)


def test_narrowing_takes_the_same_share_of_all_layers(channels):
    target = int(0.25 * channels.dense_cost)
    found = channels.meet(by_position(channels), target)
    shares = [layer.kept / layer.total for layer in found.layers if layer.name != "head"]
    assert max(shares) - min(shares) <= 1 / 8  # one channel of the narrowest layer


LARGEST = {
    magnitude.mean_norm: ("down.0.3", 2),  # 9 times those of its layer
    magnitude.root_of_size: ("merge.1.3", 0),  # each weight is 2
    magnitude.one: ("merge.0.0", 5),  # many weights
}


@pytest.mark.parametrize("unit", LARGEST)
def test_magnitude_removes_the_smallest_filters_first(unit):
    model = unet()
    with torch.no_grad():
        model.down[1][0].weight[3] *= 1e-3
        model.up[0].weight[:, 1] *= 1e-2
        model.down[0][3].weight[2] *= 9
        model.merge[0][0].weight.fill_(1.0)
        model.merge[0][0].weight[5] *= 1.5
        model.merge[1][3].weight[:] = 1.9
        model.merge[1][3].weight[0] = 2.0
    ranking = magnitude.ranking(Channels(model, IMAGE), unit)
    assert ranking[:2] == [("down.1.0", 3), ("up.0", 1)]
    assert ranking[-1] == LARGEST[unit]


def test_random_channels_are_drawn_by_the_seed(channels):
    drawn = [random_channels.ranking(channels, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert sorted(drawn[0]) == sorted(channels.filters())


def test_new_weights_are_those_of_a_new_network():
    found, expected = renewed(unet(), 7), UNet(3, 5, width=8, depth=2)
    torch.manual_seed(7)
    for module in expected.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)


def test_epochs_are_divided_without_loss():
    assert split_epochs(20, 0.5, 0.25, 0.25) == [10, 5, 5]
    assert split_epochs(3, 0.5, 0.25, 0.25) == [1, 1, 1]
    with pytest.raises(UserError, match="needs 3"):
        split_epochs(2, 0.5, 0.25, 0.25)


def test_the_share_of_zeros_follows_the_cubic_schedule():
    plan = Gradual.__new__(Gradual)
    plan.zeros, plan.begin, plan.end = 0.9, 100, 300
    assert [plan.share(step) for step in (0, 100, 300, 400)] == [0, 0, 0.9, 0.9]
    assert plan.share(200) == pytest.approx(0.9 * (1 - 0.5**3))


def test_the_share_of_nonzero_weights_by_hand():
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 3, bias=False)).eval()
    with torch.no_grad():
        model[0].weight[0] = 0
        model[1].weight[:, :, 0] = 0
    nonzero, total = 25 * 1 + 9 * 12, 25 * 2 + 9 * 18
    assert nonzero_share(model, torch.ones(1, 1, 5, 5)) == pytest.approx(nonzero / total)


def test_torch_pruning_is_shown_transposed_convolutions_as_others():
    pytest.importorskip("torch_pruning")
    model = unet().train()
    pruner = group_norm.pruner_of(model, IMAGE, 5)
    assert model.training
    layer = model.up[0]
    before, expected = layer.weight.detach().clone(), layer.weight.detach().transpose(0, 1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with group_norm.untransposed(model):
        assert torch.equal(layer.weight, expected)
        pruner.regularize(model)
    assert torch.equal(layer.weight, before) and layer.transposed
    ratio = layer.weight.grad / layer.weight.detach()  # positive: it shrinks every weight
    assert (ratio > 0).all() and layer.weight.grad.shape == before.shape


@pytest.mark.slow
def test_torch_pruning_meets_the_target():
    pytest.importorskip("torch_pruning")
    target = int(0.3 * multiply_adds(unet(), IMAGE))
    small = group_norm.pruned(unet(), IMAGE, 5, target)
    assert (1 - TOLERANCE) * target <= multiply_adds(small, IMAGE) <= target


def test_without_torch_pruning_its_contender_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(group_norm, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed; pip install \"seg-l1\[peers\]\""):
        group_norm.train(Job("torch_pruning 0.5", tuple(WORDS), 0.5, None, 0, tmp_path, "t"))


@pytest.mark.slow
def test_the_flat_network_has_one_width(tmp_path):
    job = Job("flat 0.5", (*WORDS, "model.depth=2"), 0.5, None, 0, tmp_path, "flat 0.5")
    wide = next(flat for flat in map(job_of(job), range(1, 20)) if flat.dense_cost >= job.target)
    model = narrow.narrowed(wide, job.target)
    assert (1 - TOLERANCE) * job.target <= multiply_adds(model, job.example) <= job.target
    widths = {len(filters_of(layer)) for layer in Channels(model, job.example).layers.values()}
    assert max(widths) - min(widths) <= 1


# the paired test


def counts_of(rng: np.random.Generator, seeds: int, images: int, hits: float) -> dict:
    """Counts of 3 classes, of which a share is right."""
    noise = rng.integers(0, 20, size=(seeds, images, 3, 3))
    return {s: noise[s] + np.eye(3, dtype=int) * int(100 * hits) for s in range(seeds)}


def slow_miou(matrices) -> float:
    total = sum(matrices)
    ious = []
    for k in range(len(total)):
        union = total[k].sum() + total[:, k].sum() - total[k, k]
        if union:
            ious.append(total[k, k] / union)
    return sum(ious) / len(ious)


def test_the_paired_test_adds_the_variances_of_seeds_and_images():
    rng = np.random.default_rng(0)
    first, second = counts_of(rng, 3, 12, 0.9), counts_of(rng, 3, 12, 0.5)
    found = paired(first, second)
    gaps = [slow_miou(first[s]) - slow_miou(second[s]) for s in range(3)]
    assert found.difference == pytest.approx(np.mean(gaps))
    draw, drawn = np.random.default_rng(5), []
    for _ in range(400):
        images = draw.integers(12, size=12)
        each = [
            [slow_miou([one[s][i] for i in images]) for s in range(3)] for one in (first, second)
        ]
        drawn.append(np.mean(each[0]) - np.mean(each[1]))
    parts = np.var(gaps, ddof=1) / 3, np.var(drawn, ddof=1)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 11)
    half = stats.t.ppf(0.975, freedom) * sum(parts) ** 0.5
    assert found.high - found.difference == pytest.approx(half, rel=0.1)
    assert found.difference - found.low == pytest.approx(half, rel=0.1)
    assert found.p < 0.01 and (found.seeds, found.images) == (3, 12)


def test_the_paired_test_of_equals_is_not_significant():
    rng = np.random.default_rng(1)
    one = counts_of(rng, 2, 10, 0.5)
    assert paired(one, one).p == 1.0
    assert paired(one, {7: one[0]}) is None


def test_where_images_do_not_matter_it_is_the_t_test_over_the_seeds():
    """Images that are all alike leave the seeds alone."""
    rng = np.random.default_rng(2)
    first, second = (
        {s: np.tile(c[:1], (20, 1, 1)) for s, c in counts_of(rng, 4, 1, hits).items()}
        for hits in (0.8, 0.75)
    )
    scores = [[slow_miou(one[s]) for s in range(4)] for one in (first, second)]
    found, expected = paired(first, second), stats.ttest_rel(*scores)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert [found.low, found.high] == pytest.approx([*expected.confidence_interval()], rel=1e-6)


def test_one_seed_has_a_difference_and_no_interval():
    rng = np.random.default_rng(3)
    found = paired(counts_of(rng, 1, 15, 0.8), counts_of(rng, 1, 15, 0.75))
    assert np.isfinite(found.difference) and np.isnan([found.low, found.high, found.p]).all()


@pytest.mark.parametrize(("of_seeds", "of_images"), [(0.03, 0.0), (0.03, 0.006), (0.0, 0.03)])
def test_equal_contenders_differ_significantly_in_a_twentieth_of_the_cases(of_seeds, of_images):
    """With three seeds. A bootstrap of images and seeds finds 7 to 25 %, of images up to 100."""
    rng, rejected, cases = np.random.default_rng(4), 0, 400
    for _ in range(cases):
        shared = of_images * 20**0.5 * rng.standard_normal(20)
        hits = [
            {
                s: np.stack([0.5 + shift + sign * shared / 2, np.ones(20)], axis=1)
                for s, shift in enumerate(of_seeds / 2**0.5 * rng.standard_normal(3))
            }
            for sign in (1, -1)
        ]
        found = paired(*hits, score=lambda sums: sums[..., 0] / sums[..., 1], resamples=100)
        rejected += found.p < 0.05
    assert 0.01 <= rejected / cases <= 0.09


# the harness


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_every_contender_meets_its_target_within_its_epochs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    left_out = ["ours", "dense", *["torch_pruning"] * (find_spec("torch_pruning") is None)]
    names = [name for name in CONTENDERS if name not in left_out]
    words = ["shares=0.5", "seeds=0", f"contenders={','.join(names)}"]
    words += ["latency=false", "folder=out"]
    words += ["zeros=0.9", "penalty=regularizer=l1 regularizer.alpha=2e-3", "refit=1"]
    words += ["against=narrow"]
    monkeypatch.setattr(ours, "FOR_ZEROS", {})
    said: list[str] = []
    assert budget.main([*words, *WORDS], said.append) == 0, said
    results = {}
    for path in Path("out/measured").glob("*.json"):
        found = json.loads(path.read_text("utf-8"))
        results[found["name"]] = found
        assert found["epochs"] == 4
        if found["share"] is not None:
            assert (1 - TOLERANCE) * 0.5 <= found["share_got"] <= 0.5
        summary = RunDirectory(Path(found["run"])).read_summary()
        assert found["test_miou"] == pytest.approx(summary.test["test/miou"], abs=1e-6)
        assert found["multiply_adds"] == summary.best["compact/multiply_adds"]
    assert len(results) == len(names) + 3  # dense, gradual, penalty
    assert results["gradual 0.9"]["zeros"] >= 0.9
    assert results["l1 alpha=2e-3 refit=1"]["zeros"] > 0.1
    assert results["l1 alpha=2e-3 refit=1"]["share_got"] < 1
    _is_not_trained_again(words, said[-1], monkeypatch)
    _is_reported_by_name()


def _is_not_trained_again(words: list[str], tables: str, monkeypatch) -> None:
    monkeypatch.setattr(budget, "_finished", lambda *_: pytest.fail("trained again"))
    said: list[str] = []
    assert budget.main([*words, *WORDS], said.append) == 0
    assert said[-1] == tables and "narrow − dense" in tables
    assert Path("out/budget.md").read_text("utf-8") in tables
    assert budget.main([*words, *WORDS, "model.norm=none"], said.append) == 2  # another experiment


def _is_reported_by_name() -> None:
    from seg_l1 import report

    found = report.collect(["out/runs"])
    assert {run.regularizer for run in found.runs} >= {"none", "narrow 0.5", "flat 0.5"}
    assert all(not run.setting or run.penalized for run in found.runs)
    assert not [note for note in found.notes if "differ" in note or "counted" in note]


def result(name: str, seed: int, **values) -> Result:
    defaults = {
        "share": None, "zeros_asked": None, "epochs": 4, "multiply_adds": 100, "share_got": 1.0,
        "parameters": 10, "zeros": 0.0, "nonzero": 1.0, "val_miou": 0.5, "test_miou": 0.5,
        "latency_ms": 2.0, "dense_ms": 4.0, "run": "",
    }  # fmt: skip
    return Result(name=name, seed=seed, **{**defaults, **values})


def test_the_table_pairs_seeds_and_marks_missed_targets():
    results = [
        *(result("dense", seed, test_miou=0.1 * seed, latency_ms=4.0) for seed in (1, 2)),
        *(result("a 0.5", s, share=0.5, share_got=0.495, test_miou=0.1 * s + 0.02) for s in (1, 2)),
        *(result("b 0.5", seed, share=0.5, share_got=0.501) for seed in (1, 3)),
    ]
    lines = table.tables(results, "nobody").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:5]]
    rows = {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[2:]}
    assert rows["a"]["share got"] == "0.4950" and rows["b"]["share got"] == "0.5010 (missed)"
    assert rows["a"]["to dense"] == "0.020 ± 0.000" and rows["b"]["to dense"] == "0.400"
    assert rows["a"]["onnxruntime"] == "2.00×" and rows["dense"]["onnxruntime"] == "1.00×"
    assert rows["a"]["test mIoU"] == "0.170 ± 0.071"


def test_ours_is_the_command_of_a_user(tmp_path, monkeypatch):
    job = Job("ours 0.25", ("dataset=digits",), 0.25, None, 3, tmp_path, "ours 0.25")
    called = []

    def run(command, **options):
        called.append(command[2:])
        return subprocess.CompletedProcess(command, 2 * (len(called) > 2), stderr="x\nerror: y\n")

    monkeypatch.setattr(subprocess, "run", run)
    ours.train(job)
    path = job.run.path
    job.run.last.parent.mkdir(parents=True)
    job.run.last.touch()
    ours.train(job)
    target = ["target=multiply_adds", "target.share=0.25", "regularizer=group_l1"]
    named = ["regularizer.name='ours 0.25'", "seed=3", f"hydra.run.dir={path}"]
    assert called == [["dataset=digits", *target, *named], [f"resume={path}"]]
    zeros = replace(job, name="mcp 0.95", share=None, zeros=0.95)
    with pytest.raises(RunError, match="error: y"):
        ours.train_zeros(zeros, ours.FOR_ZEROS["mcp"])
    assert called[-1][1:5] == [
        *["target=nonzeros", "target.share=0.05", "regularizer=mcp"],
        "regularizer.name='mcp 0.95'",
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_interrupted_jobs_end_as_if_they_had_not_been(tmp_path, monkeypatch):
    jobs = [Job("gradual", tuple(WORDS), None, 0.9, 0, tmp_path / name, "g") for name in "ab"]
    gradual.train(jobs[0])
    after_step = Gradual.after_step

    def stops(self):
        after_step(self)
        if self.loop.step == 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Gradual, "after_step", stops)
        gradual.train(jobs[1])
    assert jobs[1].run.read_summary().status == "interrupted"
    gradual.train(jobs[1])
    assert same_bits(*(job.run.model_state("best") for job in jobs))


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_what_a_training_starts_from_is_made_once(tmp_path, monkeypatch):
    job = Job("narrow 0.5", tuple(WORDS), 0.5, None, 0, tmp_path, "narrow 0.5")
    record = narrow.train(job).record
    record.write_summary(replace(record.read_summary(), status="interrupted"))
    monkeypatch.setattr(narrow, "narrowed", lambda *_: pytest.fail("made again"))
    assert narrow.train(job).epochs == 4


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_contender_that_fails_leaves_the_others_alone(tmp_path, monkeypatch):
    def fails(job):
        raise IndexError("out of bounds")

    monkeypatch.setitem(CONTENDERS, "narrow", fails)
    said: list[str] = []
    words = ["shares=0.5", "seeds=0", "contenders=narrow,flat", "latency=false"]
    assert budget.main([*words, f"folder={tmp_path}", *WORDS], said.append) == 1
    assert "[2/3] narrow 0.5, seed 0: IndexError: out of bounds" in said
    assert "| flat " in said[-1] and "| narrow " not in said[-1]


def test_the_command_line_is_checked():
    with pytest.raises(UserError, match="contenders=nobody"):
        read(["contenders=nobody"])
    with pytest.raises(UserError, match="shares=2"):
        read(["shares=2"])
    with pytest.raises(UserError, match=r"seeds=0\.5: expected whole numbers"):
        read(["seeds=0.5"])
    with pytest.raises(UserError, match="names no regularizer"):
        read(["penalty=trainer.epochs=3"])
    options = read(["experiment=camvid", "dataset.root=x", "trainer.epochs=9", "zeros=0.95"])
    assert "trainer.epochs=9" in options.words and "trainer.epochs=40" not in options.words
    for_zeros = [job.name for job, _ in options.jobs() if job.zeros and job.seed == 0]
    assert for_zeros == ["gradual 0.95", "l1 0.95", "mcp 0.95", "dual_averaging 0.95"]
