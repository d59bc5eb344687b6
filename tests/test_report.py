from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from seg_l1 import report
from seg_l1.cli.main import main
from seg_l1.config.compose import compose_plain
from seg_l1.display import style
from seg_l1.errors import UserError
from seg_l1.report import figures, page, plots, runs, statistics, tables
from seg_l1.runs.directory import RunDirectory
from tests.support.penalties import FIRST
from tests.support.runs import table

pytestmark = pytest.mark.slow


def seg_l1_report(words):
    """The exit code of `seg-l1 report`."""
    return main(["report", *words])


FIGURES = ("miou", "trade_off", "gap", "classes", "weights")
CLASSES = ("background", "<b>cat</b>", "dog & co")


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    """Figures of few pixels: what takes time is to draw them fine."""
    monkeypatch.setitem(style.RC_PARAMS, "savefig.dpi", 30)


def score(regularizer, alpha, seed, split="val"):
    """Any numbers that differ between all runs."""
    place = list(FIRST).index(regularizer)
    noise = np.random.default_rng([place, round(1e9 * alpha), seed, split == "val"]).normal()
    return 0.6 + 0.02 * place + 0.01 * seed + 0.01 * noise


@pytest.fixture(scope="module")
def template(trained_once, tmp_path_factory):
    """What a report reads of a real run."""
    folder = tmp_path_factory.mktemp("template") / "run"
    unread = shutil.ignore_patterns("checkpoints", "tensorboard", "*.png")
    shutil.copytree(trained_once.folder, folder, ignore=unread)
    return RunDirectory(folder)


@cache
def option(regularizer):
    """The configuration of a regularizer."""
    return compose_plain([f"regularizer={regularizer}"])["regularizer"]


@pytest.fixture
def write_run(template):
    """Copies a completed run with other scores; `more` replaces what its files say."""

    def write(folder, regularizer="l1", alpha=1e-5, seed=0, *, typed=None, **more):
        shutil.copytree(template.path, folder)
        files, config = RunDirectory(folder), template.read_config()
        solver = more.get("solver", "proximal")
        config["regularizer"] = {**option(regularizer), "alpha": alpha, "solver": solver}
        config["optimizer"]["_target_"] = f"torch.optim.{more.get('optimizer', 'Adam')}"
        config["target"] = {**config["target"], **more.get("target", {})}
        files.write_config({**config, "seed": seed})
        words = [f"regularizer={regularizer}", f"regularizer.alpha={alpha}", f"seed={seed}"]
        files.write_overrides(words if typed is None else typed)
        git = {"commit": "0123456789abcdef", "dirty": False}
        data = more.get("fingerprint", "feed")
        files.write_environment(
            {**template.read_environment(), "git": git, "data_fingerprint": data}
        )
        summary, value = template.read_summary(), more.get("miou", score(regularizer, alpha, seed))
        zeros = 0.0 if regularizer in ("none", "l2") else min(0.95, 1e4 * alpha)
        best = {k: x for k, x in summary.best.items() if not re.search("/iou/|^compact/", k)} | {
            "val/miou": value,
            "gap/miou": 0.05 + alpha,
            "sparsity/exact": zeros,
            "sparsity/groups": zeros / 2,
            **{f"val/iou/{n}": value - 0.1 * i for i, n in enumerate(more.get("classes", CLASSES))},
            **more.get("best", {}),
        }
        test = (
            {"test/miou": score(regularizer, alpha, seed, "test")} if more.get("test", True) else {}
        )
        changed = {"best": best, "test": test, **more.get("summary", {})}
        files.write_summary(replace(summary, **changed))
        return folder

    return write


@pytest.fixture
def write_sweep(write_run):
    """Writes a sweep in which `none` is trained once per seed: its other α are the same run."""

    def write(
        root, regularizers=("none", "l1", "l2"), alphas=(1e-6, 1e-5), seeds=(0, 1, 2), **more
    ):
        jobs, first = [], {}
        for regularizer, alpha, seed in itertools.product(regularizers, alphas, seeds):
            index = len(jobs)
            folder = f"{index}_regularizer-{regularizer}_alpha-{alpha:g}_seed-{seed}"
            same = first.setdefault(seed, index) if regularizer == "none" else index
            same = None if same == index else same
            if same is None:
                write_run(root / folder, regularizer, alpha, seed, **more)
            jobs.append(
                {"index": index, "folder": folder, "overrides": [], "swept": {}, "same_as": same,
                 "status": "completed", "error": None}
            )  # fmt: skip
        content = {"typed": ["regularizer=none,l1"], "jobs": jobs}
        (root / "sweep.json").write_text(json.dumps(content))
        return root

    return write


def set_job(root, index, **facts):
    content = json.loads((root / "sweep.json").read_text())
    content["jobs"][index] |= facts
    (root / "sweep.json").write_text(json.dumps(content))
    return root / content["jobs"][index]["folder"]


@pytest.fixture
def sweep(tmp_path, write_sweep):
    return write_sweep(tmp_path / "sweep")


@pytest.fixture
def no_figures(monkeypatch):
    """For tests of words and numbers: figures take a second."""
    monkeypatch.setattr(page, "figures", lambda *_, **__: {})


class Page(HTMLParser):
    """Collects tags, attributes and text; fails on a tag that is closed where it was not opened."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    @property
    def pictures(self):
        return [attributes["src"] for tag, attributes in self.tags if tag == "img"]


def written(folder, *more):
    assert seg_l1_report([str(folder), *more]) == 0
    return Page((Path(folder) / "report" / "report.html").read_text("utf-8"))


def test_mean_and_error_by_scipy():
    values = [0.81, 0.79, 0.84, 0.80]
    mean, error = statistics.mean_and_error(values)
    assert mean == pytest.approx(np.mean(values))
    assert error == pytest.approx(stats.sem(values))
    assert math.isnan(statistics.mean_and_error([0.5])[1])
    assert math.isnan(statistics.mean_and_error([])[0])


def test_paired_by_hand():
    ours, theirs = {0: 1.0, 1: 3.0, 2: 4.0, 7: 99.0}, {0: 0.0, 1: 1.0, 2: 1.0, 5: -9.0}
    test = statistics.paired(ours, theirs)  # differences 1, 2, 3: mean 2, sd 1, t = 2·√3
    assert (test.pairs, test.difference) == (3, pytest.approx(2))
    half = stats.t.ppf(0.975, 2) / math.sqrt(3)
    assert (test.low, test.high) == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert test.p == pytest.approx(2 * stats.t.sf(2 * math.sqrt(3), 2))


@pytest.mark.parametrize("ours", [{}, {0: 1.0}, {0: 1.5, 1: 2.5}, {4: 1.0}])
def test_paired_without_enough_seeds_or_spread_has_no_p(ours):
    test = statistics.paired(ours, {0: 1.0, 1: 2.0})
    assert test.pairs == len(ours.keys() & {0, 1})
    assert math.isnan(test.p) and math.isnan(test.low)


def test_holm_by_hand():
    # 0.01·3, then max(0.03, 0.02·2), then max(0.04, 0.03·1); a NaN is no test
    assert statistics.holm([0.03, 0.01, math.nan, 0.02])[:2] == pytest.approx([0.04, 0.03])
    assert statistics.holm([0.03, 0.01, math.nan, 0.02])[3] == pytest.approx(0.04)
    assert math.isnan(statistics.holm([0.03, math.nan])[1])
    assert statistics.holm([0.9, 0.8]) == [1, 1]


def test_holm_rejects_what_the_step_down_procedure_rejects():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.uniform(size=5) ** 3
        rejected = set()
        for rank, index in enumerate(np.argsort(p)):
            if p[index] > 0.05 / (5 - rank):
                break
            rejected.add(int(index))
        assert {i for i, value in enumerate(statistics.holm(list(p))) if value <= 0.05} == rejected


def test_pareto_front_by_definition():
    rng = np.random.default_rng(0)
    for _ in range(100):
        points = [tuple(p) for p in rng.integers(0, 6, (12, 2)).astype(float)]
        free = {
            i
            for i, (x, y) in enumerate(points)
            if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points)
        }
        front = statistics.pareto_front(points)
        assert set(front) == free
        assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)
    assert statistics.pareto_front([(math.nan, 1.0), (0.0, 0.5)]) == [1]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (3e-5, "3e-5"), (1e-3, "1e-3"), (0.01, "0.01"), (2.5e-7, "2.5e-7"), (1.0, "1")],
)
def test_short_numbers(number, text):
    assert runs.short(number) == text
    assert float(text) == number


def test_rows_against_scipy(sweep):
    found = report.collect([sweep])
    rows = {r.best.curve.label: r for r in tables.best_rows(runs.curves(found.runs))}
    assert list(rows) == ["none", "l1", "l2"]
    none = [score("none", 1e-6, seed) for seed in range(3)]
    raw = []
    for name in ("l1", "l2"):
        means = {a: np.mean([score(name, a, s) for s in range(3)]) for a in (1e-6, 1e-5)}
        best = max(means, key=means.get)
        values = [score(name, best, seed) for seed in range(3)]
        row = rows[name]
        assert row.best.alpha == best
        assert row.scores["val/miou"] == pytest.approx((np.mean(values), stats.sem(values)))
        test = stats.ttest_rel(values, none)
        assert row.tests["val/miou"].p == pytest.approx(test.pvalue)
        interval = test.confidence_interval(0.95)
        assert row.tests["val/miou"].low == pytest.approx(interval.low)
        raw.append(test.pvalue)
    adjusted = [rows[name].holm["val/miou"] for name in ("l1", "l2")]
    assert adjusted == pytest.approx(stats_holm(raw))


def stats_holm(p):
    """Two tests: the smaller times two, the larger at least that."""
    low = min(1, 2 * min(p))
    return [low if value == min(p) else max(low, value) for value in p]


def test_a_job_that_is_the_same_as_another_counts_once(sweep, no_figures):
    found = report.collect([sweep])
    assert len(found.runs) == 3 + 2 * 2 * 3
    assert found.same == 3
    assert len(found.runs) == len({run.name for run in found.runs})
    assert "3 more jobs were not trained" in written(sweep).text


def test_a_run_that_repeats_another_counts_once(tmp_path, write_run, write_sweep):
    write_sweep(tmp_path / "a", seeds=(0, 1))
    write_run(tmp_path / "b", "none", 1e-3, 0)  # none at another α is the same run
    write_run(tmp_path / "c", "l1", 1e-5, 1)
    found = report.collect([tmp_path, tmp_path / "a"])
    assert len(found.runs) == 2 + 2 * 2 * 2
    assert {run.name for run, _ in found.repeats} == {"b", "c"}
    assert "not counted: b, c." in found.notes[0]
    _, rows = tables.runs_table(found)
    assert len(rows) == len(found.runs) + 2


def test_the_best_alpha_has_all_its_seeds(tmp_path, write_run):
    for seed in range(2):
        write_run(tmp_path / f"a{seed}", "l1", 1e-5, seed, miou=0.5 + 0.1 * seed)
    write_run(tmp_path / "lucky", "l1", 1e-4, 0, miou=0.9)
    (curve,) = runs.curves(report.collect([tmp_path]).runs)
    assert curve.best().alpha == 1e-5


def test_what_else_was_swept_makes_curves_with_their_own_none(tmp_path, write_run):
    for name, optimizer, seed in itertools.product(("none", "l1"), ("Adam", "SGD"), (0, 1)):
        typed = [f"regularizer={name}", f"seed={seed}", "hydra.run.dir=x"]
        typed += ["optimizer=sgd"] if optimizer == "SGD" else []  # adam is not typed
        write_run(
            tmp_path / f"{name}{optimizer}{seed}", name, 1e-5, seed, typed=typed,
            optimizer=optimizer, miou=0.5 + 0.1 * (optimizer == "SGD") + 0.01 * seed**2,
        )  # fmt: skip
    found = runs.curves(report.collect([tmp_path]).runs)
    labels = [curve.label for curve in found]
    assert labels == [f"{n}, optimizer={o}" for n in ("none", "l1") for o in ("Adam", "sgd")]
    for curve in found[2:]:
        assert runs.baseline(curve, found).curve.setting == curve.setting
    assert tables.command(found[3].best().runs) == (
        "seg-l1 train -m regularizer=l1 optimizer=sgd seed=0,1"
    )


def test_runs_without_a_target_have_no_share(tmp_path, write_run):
    write_run(tmp_path / "none", "none", 0.0)
    for share in ("0.1", "0.25"):
        words = ["target=nonzeros", f"target.share={share}"]
        target = {"measure": "nonzeros", "share": float(share)}
        write_run(tmp_path / share, "l1", typed=words, target=target)
    settings = [run.setting for run in report.collect([tmp_path]).runs]
    shares = [{"target": "nonzeros", "target.share": share} for share in ("0.1", "0.25")]
    assert settings == [*shares, {"target": "none"}]


def test_other_data_are_not_mixed(tmp_path, write_sweep):
    write_sweep(tmp_path / "a", ("none", "l1"), (1e-5,), (0, 1))
    write_sweep(tmp_path / "b", ("none", "l1"), (1e-5,), (2, 3), fingerprint="beef")
    found = report.collect([tmp_path / "a", tmp_path / "b"])
    assert "different data" in found.notes[0]
    assert [len(c.configurations[0].runs) for c in runs.curves(found.runs)] == [2] * 4
    rows = tables.best_rows(runs.curves(found.runs))
    pairs = [row.tests["val/miou"].pairs for row in rows if row.best.curve.regularizer == "l1"]
    assert pairs == [2, 2]


def test_other_data_have_no_part_in_a_test(tmp_path, write_run):
    typed = ["regularizer=l1", "regularizer.solver=subgradient"]
    for seed in (0, 1):
        write_run(tmp_path / f"n{seed}", "none", seed=seed)
        write_run(tmp_path / f"l{seed}", seed=seed)
        write_run(tmp_path / f"o{seed}", seed=seed, typed=typed, solver="subgradient",
                  fingerprint="beef")  # fmt: skip
    found = runs.curves(report.collect([tmp_path]).runs)
    none = {curve.label: runs.baseline(curve, found) for curve in found}
    assert none["l1, solver=proximal, data=feed"].curve.setting["data"] == "feed"
    assert none["l1, solver=subgradient, data=beef"] is None


def test_differences_that_nobody_typed_are_named(tmp_path, write_run):
    for seed, optimizer in enumerate(("Adam", "SGD")):
        write_run(tmp_path / str(seed), seed=seed, optimizer=optimizer)
    assert any("optimizer._target_" in note for note in report.collect([tmp_path]).notes)


def test_a_run_typed_without_a_regularizer_has_the_name_of_its_penalty(tmp_path, write_run):
    (run,) = report.collect([write_run(tmp_path / "run", "elastic_net", typed=[])]).runs
    assert run.regularizer == "elastic_net"


def test_a_name_that_was_typed_labels_the_runs_of_all_seeds(tmp_path, write_run):
    for seed in (0, 1):
        typed = ["regularizer=none", "regularizer.name=narrow 0.5", f"seed={seed}"]
        files = RunDirectory(write_run(tmp_path / str(seed), "none", seed=seed, typed=typed))
        config = files.read_config()
        config["regularizer"]["name"] = "narrow 0.5"
        files.write_config({**config, "start": f"phases/{seed}.pt"})
    found = report.collect([tmp_path])
    assert [curve.label for curve in runs.curves(found.runs)] == ["narrow 0.5"]
    assert not [note for note in found.notes if "differ" in note]


def test_only_penalised_weights_are_drawn(sweep):
    run = report.collect([sweep]).runs[-1]
    assert figures.penalized_weights(run.files).shape == (run.summary.penalised_weights,)


def test_the_report_holds_everything_itself(sweep):
    page = written(sweep)
    assert len(page.pictures) == len(FIGURES)
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in page.pictures)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    text = (sweep / "report" / "report.html").read_text("utf-8")
    assert "http://" not in text and "https://" not in text and "@import" not in text
    for name in FIGURES:
        assert (sweep / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for words in ("0123456789", "digits", "UNet", "15 completed", "With 3 pairs the test"):
        assert words in page.text


@pytest.fixture
def write_costs(write_run):
    """Writes runs of `none` and `l1` whose compact networks have fewer multiply-adds with α."""

    def write(root, **more):
        for name, alpha, seed in itertools.product(("none", "l1"), (1e-6, 1e-5, 1e-4), (0, 1)):
            if name == "l1" or alpha == 1e-5:
                adds = 1000 * (8000 if name == "none" else round(4e-3 / alpha)) + seed
                best = {"compact/parameters": adds // 100, "compact/multiply_adds": adds}
                write_run(root / f"{name}{alpha:g}_{seed}", name, alpha, seed, best=best,
                          summary={"multiply_adds": 8_000_000}, **more)  # fmt: skip
        return root

    return write


def test_a_second_panel_has_the_multiply_adds_of_the_compact_networks(tmp_path, write_costs):
    found = runs.curves(report.collect([write_costs(tmp_path)]).runs)
    configurations = [c for curve in found for c in curve.configurations]
    cheap = configurations[1:3]
    figure = plots.trade_off(found, configurations[:1], cheap=cheap, column="val/miou")
    zeros, adds = figure.axes
    assert adds.get_xscale() == "log" and zeros.get_xscale() == "linear"
    points = {
        tuple(map(float, line.get_xydata()[0])) for line in adds.lines if len(line.get_xdata()) == 1
    }
    assert points == {
        (c.mean("compact/multiply_adds"), c.mean("val/miou")) for c in configurations
    }  # fmt: skip
    assert [line.get_xdata() for line in adds.lines if line.get_linestyle() == "--"] == [
        [8_000_000, 8_000_000]
    ]
    assert [text.get_text() for text in adds.texts] == ["2", "3"]
    assert [text.get_text() for text in zeros.texts] == ["1"]


def test_of_many_dense_networks_the_largest_is_drawn(tmp_path, write_run):
    best = {"compact/parameters": 10, "compact/multiply_adds": 100}
    for size in range(1, 6):
        write_run(tmp_path / str(size), alpha=size * 1e-5, best=best,
                  summary={"multiply_adds": 100 * size})  # fmt: skip
    found = runs.curves(report.collect([tmp_path]).runs)
    cheap = found[0].configurations[:1]
    figure = plots.trade_off(found, cheap, cheap=cheap, column="val/miou")
    lines = [line for line in figure.axes[1].lines if line.get_linestyle() == "--"]
    assert [list(line.get_xdata()) for line in lines] == [[500, 500]]


def test_the_fronts_are_those_of_fewest_multiply_adds(tmp_path, monkeypatch, write_costs):
    found = runs.curves(report.collect([write_costs(tmp_path)]).runs)
    given = {}
    monkeypatch.setattr(plots, "trade_off", lambda *_, **more: given.update(more))
    figures.figures(found, [], weights=figures.Weights())
    points = {
        c.label: (c.mean("compact/multiply_adds"), c.mean("val/miou"))
        for curve in found
        for c in curve.configurations
    }
    free = [
        name
        for name, (x, y) in points.items()
        if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in points.values())
    ]
    assert [c.label for c in given["cheap"]] == sorted(free, key=lambda name: points[name])


def test_the_page_and_tables_say_what_compact_networks_cost(tmp_path, write_costs):
    page = written(write_costs(tmp_path))
    assert "multiply-adds of the compact network" in page.text
    assert "8.00 M (1.00×)" in page.text.replace("\u00a0", " ")
    rows = {row["run"]: row for row in table(tmp_path / "report" / "runs.csv")}
    assert rows["none1e-05_1"]["compact/multiply_adds"] == "8000001"
    assert rows["none1e-05_1"]["compact/parameters"] == "80000"
    best = table(tmp_path / "report" / "best.csv")
    assert float(best[0]["compact/multiply_adds"]) == 8_000_000.5


def test_runs_without_compact_networks_have_no_second_panel(sweep, no_figures):
    found = runs.curves(report.collect([sweep]).runs)
    configurations = [c for curve in found for c in curve.configurations]
    assert len(plots.trade_off(found, configurations[:1], column="val/miou").axes) == 1
    assert "multiply-adds of the compact network" not in written(sweep).text
    assert table(sweep / "report" / "runs.csv")[0]["compact/multiply_adds"] == ""


def test_a_compact_folder_is_reported_like_a_run(tmp_path, write_run):
    best = {"compact/parameters": 10, "compact/multiply_adds": 100}
    write_run(tmp_path / "run")
    page = written(write_run(tmp_path / "run" / "compact", best=best))
    assert "1 completed" in page.text and "100 (" in page.text.replace("\u00a0", " ")


def test_tables_as_files(sweep, no_figures):
    written(sweep)
    runs = table(sweep / "report" / "runs.csv")
    assert len(runs) == 15
    assert float(runs[0]["val/miou"]) == pytest.approx(score("none", 1e-6, 0))
    assert runs[0]["alpha"] == ""
    best = {row["regularizer"]: row for row in table(sweep / "report" / "best.csv")}
    assert list(best) == ["none", "l1", "l2"]
    assert best["l1"]["val/miou pairs"] == "3" and 0 < float(best["l1"]["val/miou p"]) <= 1
    assert best["l1"]["command"].startswith("seg-l1 train -m regularizer=l1")
    assert best["l1"]["command"].endswith("seed=0,1,2")


def test_runs_without_a_result_are_named(sweep, no_figures):
    failed = set_job(sweep, 6, status="failed", error="Diverged: the loss is <script>nan")
    (failed / "summary.json").write_text(
        json.dumps({"status": "failed", "error": "Diverged: the loss is <script>nan", "best": None})
    )
    stopped = set_job(sweep, 7, status="interrupted")
    (stopped / "summary.json").write_text(json.dumps({"status": "interrupted", "best": None}))
    set_job(sweep, 8, status="pending", folder="8_never")
    set_job(sweep, 9, folder="9_gone")
    half = set_job(sweep, 10)
    (half / "summary.json").write_text('{"status": "comp')
    page = written(sweep)
    for words in ("Diverged: the loss is <script>nan", f"{failed}/train.log", stopped.name,
                  "8_never", "pending", "9_gone", "missing", half.name, "unreadable"):  # fmt: skip
        assert words in page.text
    assert not any(tag == "script" for tag, _ in page.tags)
    rows = table(sweep / "report" / "runs.csv")
    assert sorted({row["status"] for row in rows}) == [
        "completed", "failed", "interrupted", "missing", "pending", "unreadable"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("regularizers", "alphas", "seeds", "more"),
    [
        (("none", "l1"), (1e-5,), (0,), {}),
        (("l1",), (0.0, 1e-6, 1e-5), (0, 1), {}),
        (("none",), (1e-5,), (0, 1), {}),
        (("none", "l1"), (0.0,), (0, 1), {"test": False}),
        (("none", "l1"), (1e-5, 1e-4), (0, 1), {"classes": ("a",)}),
        (("none", "l1"), (1e-5,), (0, 1), {"best": {"val/iou/dog & co": None}}),
        (("none", "l1"), (1e-5,), (0, 1), {"classes": ()}),
    ],
)
def test_sweeps_that_lack_something(tmp_path, regularizers, alphas, seeds, more, write_sweep):
    root = write_sweep(tmp_path / "sweep", regularizers, alphas, seeds, **more)
    page = written(root)
    assert ("±" in page.text) == (len(seeds) > 1)
    assert ("not enough seeds" in page.text) == (len(seeds) == 1)
    assert ("test mIoU" in page.text) == more.get("test", True)
    assert len(page.pictures) >= 2
    assert "nan" not in page.text


def test_what_differs_from_none_is_said_first(tmp_path, no_figures, write_run):
    values = {"none": (0.5, 0.6, 0.7), "l1": (0.4, 0.501, 0.599), "l2": (0.9, 1.001, 1.099)}
    for name, seed in itertools.product(values, range(3)):
        write_run(tmp_path / f"{name}{seed}", name, 1e-5, seed, test=False,
                  miou=values[name][seed])  # fmt: skip
    text = written(tmp_path).text.replace("\u00a0", " ")
    assert "Significantly different from none in validation mIoU" in text
    assert "higher for l2, α = 1e-5 ; lower for l1, α = 1e-5" in text


def test_single_runs_and_missing_weights(tmp_path, write_run):
    run = write_run(tmp_path / "run")
    (run / "model.safetensors").write_bytes(b"no weights")
    page = written(run)
    assert len(page.pictures) == len(FIGURES) - 1
    assert "No weights could be read" in page.text
    assert "seg-l1 train regularizer=l1" in page.text


def test_output_and_several_folders(tmp_path, no_figures, write_run, write_sweep):
    write_sweep(tmp_path / "a=b", ("none",), (1e-5,), (0, 1))
    write_run(tmp_path / "run", "l1", 1e-5, 0)
    words = [str(tmp_path / "a=b"), str(tmp_path / "run"), f"output={tmp_path / 'out'}"]
    assert seg_l1_report(words) == 0
    assert len(table(tmp_path / "out" / "runs.csv")) == 3
    assert not (tmp_path / "a=b" / "report").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give one or more folders"),
        (["sweeep"], "Did you mean 'sweep'?"),
        (["empty"], "holds no completed run"),
        (["failed"], "holds no completed run; 1 is unfinished or failed"),
        (["sweep", "outptu=x"], "Did you mean 'output'?"),
        (["sweep", "--loud"], "--loud: words look like"),
        (["sweep", "output=file/x"], "cannot be written"),
    ],
)
def test_mistakes_end_with_2(words, said, tmp_path, monkeypatch, capsys, write_run, write_sweep):
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path / "sweep", ("l1",), (1e-5,), (0,))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    write_run(tmp_path / "failed" / "x", summary={"status": "failed", "error": "it broke"})
    assert seg_l1_report(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert ("it broke" in error) == (words == ["failed"])


def test_no_completed_run_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no completed run"):
        report.collect([tmp_path])
