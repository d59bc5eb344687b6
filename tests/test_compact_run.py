"""Compact networks of runs: `<run>/compact`, and `seg-l1 compact`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seg_l1.cli.main import main
from seg_l1.deployment import onnx_file
from seg_l1.runs import checkpoints
from seg_l1.runs.directory import RunDirectory
from seg_l1.training import compact_run
from seg_l1.training.prediction import load_predictor
from tests.support.runs import TINY, same_bits, table

pytestmark = pytest.mark.slow

WORDS = [
    "regularizer=l1",
    "regularizer.alpha=2e-3",
    "trainer.kkt_every=null",
    "trainer.threads=1",
    *(word for word in TINY if word != "trainer.compact=false" and "epochs" not in word),
    "trainer.epochs=3",
]


@pytest.fixture(scope="module")
def sparse_once(tmp_path_factory) -> Path:
    """A run whose network has dead channels; no test may change it."""
    folder = tmp_path_factory.mktemp("sparse")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", *WORDS, "hydra.run.dir=run"]) == 0
    return folder / "run"


@pytest.fixture
def sparse(sparse_once, tmp_path, monkeypatch) -> Path:
    """A copy of it, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(sparse_once, tmp_path / "run"))


@pytest.fixture
def unhurried(monkeypatch):
    """Nothing is measured for longer than needed, and not in onnxruntime."""
    monkeypatch.setattr(compact_run, "SECONDS", 0.0)
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None)


def size(run: Path) -> int:
    """The number of parameters of the network of a run."""
    return sum(p.numel() for p in load_predictor(run).model.parameters())


def test_a_run_ends_with_a_smaller_network_that_gives_the_same_scores(sparse, capsys):
    scores = []
    for run in (sparse, sparse / "compact"):
        assert main(["evaluate", f"run={run}"]) == 0
        found = json.loads(capsys.readouterr().out)
        scores.append([value or 0.0 for key, value in found.items() if key.startswith("test/")])
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)
    summary, small = (RunDirectory(r).read_summary() for r in (sparse, sparse / "compact"))
    assert [summary.parameters, small.parameters] == [size(sparse), size(sparse / "compact")]
    assert small.parameters < summary.parameters / 2
    assert small.multiply_adds < summary.multiply_adds
    assert small.best == summary.best
    assert summary.best["compact/parameters"] == small.parameters
    assert summary.best["compact/multiply_adds"] == small.multiply_adds


def test_the_compact_network_is_no_other_run(sparse):
    assert [run.path for run in RunDirectory.below(sparse.parent)] == [sparse]
    assert [run.path for run in RunDirectory.below(sparse / "compact")] == [sparse / "compact"]
    assert main(["report", str(sparse.parent), "output=report"]) == 0
    assert len(table(Path("report/runs.csv"))) == 1
    assert main(["report", str(sparse / "compact"), "output=report"]) == 0


def test_each_row_of_metrics_has_the_size_of_the_compact_network(sparse, command):
    sizes = [int(row["compact/parameters"]) for row in table(sparse / "metrics.csv")]
    dense = RunDirectory(sparse).read_summary().parameters
    assert len(sizes) == 3 and all(0 < size <= dense for size in sizes) and min(sizes) < dense
    assert command(*WORDS, "trainer.compact=false", "hydra.run.dir=none")[0] == 0
    assert not Path("none/compact").exists()
    assert "compact/parameters" not in table(Path("none/metrics.csv"))[0]
    same = [checkpoints.load(run / "checkpoints/last.pt")["loop"] for run in (sparse, Path("none"))]
    assert same_bits(*same)


def test_the_compact_network_predicts_the_same_masks(sparse):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 37, 53, 3), dtype=np.uint8)
    Path("images").mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(f"images/{index}.png")
    for run, output in ((sparse, "dense"), (sparse / "compact", "small")):
        assert main(["predict", f"run={run}", "input=images", f"output={output}"]) == 0
    for index in range(3):
        one, other = (np.asarray(Image.open(f"{o}/masks/{index}.png")) for o in ("dense", "small"))
        assert (one == other).all()


def test_training_goes_on_from_a_compact_network_and_resumes(sparse, command):
    small = size(sparse / "compact")
    start = [*WORDS, f"start={sparse}/compact", "scheduler=constant"]
    assert command(*start, "trainer.epochs=2", "hydra.run.dir=whole")[0] == 0
    assert command(*start, "trainer.epochs=1", "hydra.run.dir=parts")[0] == 0
    shutil.rmtree(sparse)
    assert command("resume=parts", "trainer.epochs=2")[0] == 0
    whole, parts = (checkpoints.load(Path(r) / "checkpoints/last.pt") for r in ("whole", "parts"))
    assert whole["compact"] is parts["compact"] is True
    assert same_bits(whole["loop"]["model"], parts["loop"]["model"])
    assert size(Path("parts")) == RunDirectory(Path("parts")).read_summary().parameters == small


def test_a_frozen_support_stays_as_small(sparse, command):
    frozen = [*WORDS, f"start={sparse}/compact", "regularizer.solver=frozen"]
    assert command(*frozen, "hydra.run.dir=frozen")[0] == 0
    before, after = (
        checkpoints.model_state(checkpoints.load(run / "checkpoints/best.pt"))
        for run in (sparse / "compact", Path("frozen"))
    )
    for name in RunDirectory(Path("frozen")).penalized_tensors():
        assert (after[name][before[name] == 0] == 0).all()
    assert size(Path("frozen")) == size(sparse / "compact")


def test_the_command_reports_what_it_did(sparse, unhurried, capsys):
    assert main(["compact", f"run={sparse}", "multiple=1"]) == 0
    out = capsys.readouterr().out
    assert "no pixel changed class" in out and "no times in onnxruntime" in out
    content = json.loads((sparse / "compact/compact.json").read_text())
    for key, run in (("dense", sparse), ("compact", sparse / "compact")):
        assert content["parameters"][key] == size(run)
        assert content["file_bytes"][key] == (run / "model.safetensors").stat().st_size
    modules = dict(load_predictor(sparse / "compact").model.named_modules())
    for layer in content["layers"]:
        assert layer["kept"] == modules[layer["name"]].out_channels
        assert layer["total"] == layer["live"] + layer["constant"] + layer["unread"]
    check = content["validation"]
    assert check["changed"] == 0 and check["images"] == 8 and check["pixels"] == 8 * 48 * 48
    assert 0 <= check["difference"] <= 1e-5 * check["scale"]
    assert {(t["runtime"], t["batch"]) for t in content["latency_ms"]} == {
        ("torch", 1),
        ("torch", 8),
    }


def test_multiples_of_channels(sparse, unhurried):
    assert main(["compact", f"run={sparse}", "multiple=auto"]) == 0
    content = json.loads((sparse / "compact/compact.json").read_text())
    sizes = [candidate["parameters"] for candidate in content["candidates"]]
    assert sizes == sorted(sizes) and len(sizes) == 4
    assert content["multiple"] in compact_run.MULTIPLES
    assert main(["compact", f"run={sparse}", "multiple=2"]) == 0
    for layer in json.loads((sparse / "compact/compact.json").read_text())["layers"]:
        assert layer["kept"] % 2 == 0 or layer["kept"] == layer["total"], layer


def test_compacting_twice_is_refused_and_changes_nothing(sparse, unhurried, capsys):
    before = (sparse / "compact/model.safetensors").read_bytes()
    assert main(["compact", f"run={sparse}/compact", "multiple=1"]) == 2
    assert "keeps its size" in capsys.readouterr().err
    assert (sparse / "compact/model.safetensors").read_bytes() == before
    assert not (sparse / "compact/compact").exists()


def test_what_cannot_be_compacted_is_refused(finished, sparse, unhurried, monkeypatch, capsys):
    path, _ = finished  # a penalty of 1e-5 for two epochs: no channel is dead
    assert main(["compact", f"run={path}"]) == 2
    assert "larger regularizer.alpha" in capsys.readouterr().err
    assert main(["compact", f"run={sparse}", "multiple=0"]) == 2
    assert "multiple" in capsys.readouterr().err
    summary = json.loads((sparse / "summary.json").read_text())
    (sparse / "summary.json").write_text(json.dumps({**summary, "status": "interrupted"}))
    assert main(["compact", f"run={sparse}"]) == 2
    err = capsys.readouterr().err
    assert "not finished" in err and f"resume={sparse}" in err
    (sparse / "summary.json").write_text(json.dumps(summary))
    monkeypatch.setattr(torch.export, "export", _fail)
    assert main(["compact", f"run={sparse}"]) == 2
    *_, last = capsys.readouterr().err.strip().splitlines()
    assert last.startswith("error: run: ") and "data-dependent" in last
    assert [file.name for file in sparse.iterdir() if file.name.startswith(".")] == []


def _fail(*arguments, **options):
    raise RuntimeError("Could not guard on data-dependent expression\nand a page of details")


def test_a_network_that_cannot_be_captured_trains_all_the_same(command, monkeypatch):
    monkeypatch.setattr(torch.export, "export", _fail)
    code, out, _ = command(*WORDS, "hydra.run.dir=run")
    assert code == 0 and out.count("not compacted") == 1
    assert not Path("run/compact").exists()


def test_an_older_compact_network_does_not_stay(sparse, command):
    assert command(f"resume={sparse}", "trainer.epochs=4", "trainer.compact=false")[0] == 0
    assert not (sparse / "compact").exists()
    assert command(f"resume={sparse}", "trainer.epochs=5", "trainer.compact=true")[0] == 0
    best = [RunDirectory(run).read_summary().best["epoch"] for run in (sparse, sparse / "compact")]
    assert best[0] == best[1]
