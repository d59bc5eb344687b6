"""The command as a user types it: runs, sweeps, resumes, and every kind of bad input."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from seg_l1.errors import UserError
from seg_l1.runs import checkpoints
from seg_l1.runs.directory import RunDirectory
from tests.support.forks import Forked, signal_at
from tests.support.runs import CARD, FILES, TINY, runs, same_bits, table


def test_a_run_leaves_the_files_of_the_contract(finished, tmp_path):
    path, _ = finished
    assert {p.name for p in path.iterdir()} == FILES
    assert path.parent == tmp_path / "outputs" / "runs"
    assert not set(path.name) & set("=, ")
    assert "regularizer-l1_alpha-1e-5" in path.name
    summary = json.loads((path / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["error"] is None
    rows = table(path / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["val/miou"]) == summary["last"]["val/miou"]
    weights = load_file(path / "model.safetensors")
    best = checkpoints.load(path / "checkpoints" / "best.pt")
    assert all(torch.equal(weights[name], tensor) for name, tensor in best["model"].items())
    assert best["config"]["regularizer"]["alpha"] == 1e-5
    scope = table(path / "scope.csv")
    assert {row["tensor"] for row in scope} <= weights.keys()


def test_the_table_of_classes_agrees_with_the_summary(finished):
    path, _ = finished
    summary = json.loads((path / "summary.json").read_text())
    rows = table(path / "per_class.csv")
    assert [row["class"] for row in rows] == ["background", *map(str, range(10))]
    for row in rows:
        for split, scores in (("val", summary["best"]), ("test", summary["test"])):
            expected = scores[f"{split}/iou/{row['class']}"]
            assert float(row[f"{split}_iou"]) == pytest.approx(expected)
        assert int(row["test_pixels"]) > 0


def test_splits_that_were_drawn_are_saved_with_their_names(command, street, tmp_path):
    words = [word for word in TINY if "dataset.num" not in word]
    where = f"hydra.run.dir={tmp_path / 'run'}"
    group = "dataset.group_pattern='^(.)'"
    assert command("dataset=folder", f"dataset.root={street}", *words, where)[0] == 0
    saved = json.loads((tmp_path / "run" / "splits.json").read_text())
    listing = sorted(f"images/{path.name}" for path in (street / "images").iterdir())
    assert sorted(i for part in saved["indices"].values() for i in part) == list(range(12))
    for split, indices in saved["indices"].items():
        assert saved["names"][split] == [listing[index] for index in indices]
    again = f"hydra.run.dir={tmp_path / 'again'}"
    code, _, err = command("dataset=folder", f"dataset.root={street}", *words, again, group)
    assert code == 2
    assert "dataset." in err


def test_zeros_in_the_summary_are_those_of_the_saved_file(finished):
    path, _ = finished
    summary = json.loads((path / "summary.json").read_text())
    weights = load_file(path / "model.safetensors")
    scope = table(path / "scope.csv")
    penalised = [weights[row["tensor"]] for row in scope if row["penalised"] == "True"]
    zeros = sum(int((w == 0).sum()) for w in penalised)
    share = zeros / sum(w.numel() for w in penalised)
    assert summary["best"]["sparsity/exact"] == pytest.approx(share, abs=1e-12)
    assert sum(layer["zeros"] for layer in summary["layers"]) == zeros


def test_a_run_directory_gives_back_its_weights(finished):
    record = RunDirectory(finished[0])
    weights = record.read_weights(record.penalized_tensors())
    best, last = record.model_state("best"), record.model_state("last")
    assert weights.keys() < best.keys() == last.keys()
    assert all(np.array_equal(w, best[name].numpy()) for name, w in weights.items())
    saved = checkpoints.load(record.last)["loop"]["model"]
    assert all(torch.equal(tensor, saved[name]) for name, tensor in last.items())
    values = np.concatenate([w.ravel() for w in weights.values()])
    score = record.read_summary().score("sparsity/exact")
    assert score == pytest.approx((values == 0).mean(), abs=1e-12)
    assert [run.path for run in RunDirectory.below(record.path.parent)] == [record.path]
    with pytest.raises(UserError, match=r"model\.safetensors: does not fit"):
        record.read_weights(["unheard.of"])
    record.scope.unlink()
    with pytest.raises(UserError, match=r"scope\.csv"):
        record.penalized_tensors()


def test_a_run_says_where_things_are_and_what_to_do_next(finished):
    path, out = finished
    again = "seg-l1 train -m dataset.num_train=16"
    for words in (str(path.relative_to(path.parents[2])), "exact zeros", "test recall", again,
                  "tensorboard --logdir outputs"):  # fmt: skip
        assert words in out
    assert "epoch   2/2" in (path / "train.log").read_text()


def test_tensorboard_has_scalars_pictures_histograms_and_one_hparams_record(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path, _ = finished
    events = EventAccumulator(str(path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"val/miou", "train/penalty", "sparsity/exact", "summary/val_miou"} <= set(
        tags["scalars"]
    )
    assert [event.step for event in events.Scalars("val/miou")] == [1, 2]
    assert tags["images"] == ["validation: image, truth, prediction"]
    assert "weights/all penalised weights" in tags["histograms"]
    histogram = events.Histograms("weights/all penalised weights")[-1].histogram_value
    assert histogram.num == json.loads((path / "summary.json").read_text())["penalised_weights"]
    assert [p for p in (path / "tensorboard").iterdir() if p.is_dir()] == []


@pytest.mark.slow
def test_the_same_command_gives_the_same_bits(finished, command, tmp_path):
    assert command(*CARD)[0] == 0
    first, second = (checkpoints.load(path / "checkpoints" / "last.pt") for path in runs(tmp_path))
    assert same_bits(first, second)


@pytest.mark.slow
def test_a_sweep_runs_every_job_in_its_own_folder(command, tmp_path):
    code, _, err = command(
        "-m", "regularizer=none,l1", "regularizer.alpha=1e-5,1e-2", *TINY, "trainer.epochs=1"
    )
    assert (code, err) == (0, "")
    paths = runs(tmp_path)
    assert len(paths) == 3  # none has no alpha
    assert len({path.parent for path in paths}) == 1
    assert paths[0].parent.parent == tmp_path / "outputs" / "sweeps"
    assert [path.name[:2] for path in paths] == ["0_", "2_", "3_"]
    assert not any(set(path.name) & set("=, ") for path in [*paths, paths[0].parent])
    none, weak, strong = (json.loads((p / "summary.json").read_text())["last"] for p in paths)
    assert none["sparsity/exact"] == 0 < weak["sparsity/exact"] < strong["sparsity/exact"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_to_the_same_end(number, finished, command, tmp_path):
    """Stopped within its second epoch."""
    strike = signal_at(number, "last.pt", 2)
    ended = Forked([*CARD, "hydra.run.dir=part"], prepare=strike).wait()
    assert ended.code == 130
    assert "go on with seg-l1 train resume=part" in ended.err
    assert checkpoints.load(tmp_path / "part/checkpoints/last.pt")["loop"]["batch"] == 1
    summary = json.loads((tmp_path / "part" / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert len(table(tmp_path / "part" / "metrics.csv")) == 1

    assert command("resume=part")[0] == 0
    both = finished[0], tmp_path / "part"
    for name in ("last.pt", "best.pt"):
        whole, part = (checkpoints.load(run / "checkpoints" / name) for run in both)
        assert same_bits({**whole, "config": None}, {**part, "config": None})
    tables = [
        [{k: v for k, v in row.items() if not k.startswith("time/")}
         for row in table(run / "metrics.csv")]
        for run in both
    ]  # fmt: skip
    assert tables[0] == tables[1]
    assert json.loads((tmp_path / "part" / "summary.json").read_text())["status"] == "completed"
    assert len(runs(tmp_path)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [False, True])
def test_who_asks_to_stop_at_the_end_of_the_last_epoch_is_heard(sweep, command, tmp_path):
    words = ["-m", "seed=0,1", "hydra.sweep.dir=it"] if sweep else ["hydra.run.dir=it"]
    strike = signal_at(signal.SIGTERM, "metrics.csv", 2)
    ended = Forked([*words, *TINY], prepare=strike).wait()
    assert ended.code == 130 and "go on with" in ended.err
    assert len(list(tmp_path.rglob("last.pt"))) == 1
    again = ["-m", "resume_sweep=it"] if sweep else ["resume=it"]
    assert command(*again)[0] == 0


@pytest.mark.slow
def test_a_damaged_best_checkpoint_is_said_before_anything_is_written(finished, command):
    path, _ = finished
    summary = json.loads((path / "summary.json").read_text())
    epoch = summary["best"]["epoch"]
    last = checkpoints.load(path / "checkpoints/last.pt")
    last["loop"]["batch"] = 1  # then the best weights are not in it
    checkpoints.save(path / "checkpoints/last.pt", last)
    (path / "checkpoints/best.pt").write_bytes(b"nothing")
    code, _, err = command(f"resume={path}", "trainer.epochs=3")
    assert code == 2 and "best.pt: is not a checkpoint" in err
    assert json.loads((path / "summary.json").read_text()) == summary
    checkpoints.save(path / "checkpoints/best.pt", {"epoch": epoch + 1})
    code, _, err = command(f"resume={path}", "trainer.epochs=3")
    assert code == 2 and "does not hold the best epoch" in err
    code, _, err = command(f"resume={path}", "--cfg", "job")
    assert code == 2 and "config.yaml" in err


def test_a_loss_that_explodes_keeps_the_last_good_checkpoint(command, tmp_path):
    code, _, err = command("optimizer=sgd", "optimizer.lr=9999", "model.norm=none", *TINY,
                           "hydra.run.dir=run")  # fmt: skip
    assert code == 1
    assert err.count("\n") == 1
    assert "not finite" in err
    state = checkpoints.load(tmp_path / "run" / "checkpoints" / "last.pt")
    assert all(torch.isfinite(w).all() for w in state["loop"]["model"].values())


def test_resume_refuses_another_run_and_leaves_this_one_alone(finished, command):
    path, _ = finished
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    for typed, words in {
        ("model=seed_cnn",): "model",
        ("regularizer.alpha=1",): "regularizer.alpha=1e-05",
        ("optimizer=sgd",): "optimizer",
        ("experiment=article",): "experiment=article",
        ("debug=limit",): "debug=limit",
        ("hydra.run.dir=elsewhere",): "hydra",
        ("trainer.epohcs=3",): "Did you mean 'trainer.epochs'?",
        ("trainer.epochs=0",): "trainer.epochs",
    }.items():
        code, _, err = command(f"resume={path}", *typed)
        assert (code, words in err) == (2, True), err
    assert before == {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_resume_of_a_damaged_run_names_the_file(finished, command):
    path, _ = finished
    run = RunDirectory(path)
    whole = run.last.read_bytes()
    run.last.write_bytes(whole[: len(whole) // 2])
    code, _, err = command(f"resume={path}")
    assert (code, "last.pt" in err) == (2, True)
    state = checkpoints.load(run.best)
    checkpoints.save(run.last, state)
    code, _, err = command(f"resume={path}")
    assert (code, "does not fit" in err) == (2, True)


def test_a_finished_run_can_train_longer(finished, command):
    path, _ = finished
    code, out, _ = command(f"resume={path}")
    assert (code, "is finished" in out) == (0, True)
    assert command(f"resume={path}", "trainer.epochs=3", "model=unet", "debug=true")[0] == 0
    assert RunDirectory(path).read_config()["trainer"]["epochs"] == 3
    rows = table(path / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]


@pytest.mark.slow
def test_a_run_goes_on_with_moved_data_but_not_with_other_data(street, command, tmp_path):
    first = ["dataset=folder", f"dataset.root={street}", "model.width=4", "trainer.epochs=1"]
    assert command(*first, "dataset.image_size=[20,30]", "hydra.run.dir=run")[0] == 0
    moved = street.rename(tmp_path / "moved")
    assert command("resume=run", f"dataset.root={moved}", "trainer.epochs=2")[0] == 0
    path = moved / "images" / "000.png"
    Image.fromarray(255 - np.array(Image.open(path))).save(path)
    code, _, err = command("resume=run", "trainer.epochs=3")
    assert (code, "other data" in err) == (2, True)


def test_shrinkage_beside_the_penalty_is_pointed_out(command, tmp_path):
    code, out, _ = command("regularizer=none", "optimizer=adamw", "optimizer.weight_decay=0.01",
                           "trainer.early_stopping=3", *TINY)  # fmt: skip
    assert code == 0
    (path,) = runs(tmp_path)
    shrinkage = json.loads((path / "summary.json").read_text())["shrinkage"]
    assert len(shrinkage) == 2
    assert "weight_decay=0.01" in shrinkage[0]
    assert "weight_decay=0.01" in out


def test_a_folder_that_holds_a_run_is_not_overwritten(finished, command):
    path, _ = finished
    code, _, err = command(*TINY, f"hydra.run.dir={path}")
    assert (code, "resume=" in err) == (2, True)


def test_a_folder_data_set_trains(street, command, tmp_path):
    code, out, _ = command("dataset=folder", f"dataset.root={street}", "model.width=4",
                           "dataset.image_size=[21,31]", "trainer.epochs=1")  # fmt: skip
    assert code == 0
    assert "road" in out
    assert "car" in out
    (path,) = runs(tmp_path)
    assert json.loads((path / "summary.json").read_text())["status"] == "completed"


@pytest.mark.parametrize("flag", [["debug=true"], ["traceback=true"]])
def test_debug_shows_the_traceback(flag, command):
    code, _, err = command("regularizer.alpha=-1", *flag)
    assert (code, "Traceback" in err) == (2, True)
    assert "regularizer.alpha: got -1" in err


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["debug=true", "debug=false"])
def test_debug_runs(flag, command):
    assert command(flag, *TINY, "trainer.epochs=1")[0] == 0


def test_metrics_of_an_older_version_keep_their_columns(tmp_path):
    record = RunDirectory(tmp_path)
    record.write_metrics([{"epoch": 1, "val/miou": 0.5}, {"epoch": 2, "new": 3.0, "val/miou": 0.6}])
    rows = record.read_metrics(2)
    assert [row["val/miou"] for row in rows] == [0.5, 0.6]
    assert rows[1]["new"] == 3
    assert rows[0]["new"] != rows[0]["new"]


def test_limits_cut_what_is_saved_about_the_splits(command, street, tmp_path):
    words = [word for word in TINY if "dataset.num" not in word]
    folder = ["dataset=folder", f"dataset.root={street}", "limit.train=4", "limit.val=1"]
    assert command(*folder, *words, "hydra.run.dir=run")[0] == 0
    saved = json.loads((tmp_path / "run" / "splits.json").read_text())
    listing = sorted(f"images/{path.name}" for path in (street / "images").iterdir())
    for split, count in (("train", 4), ("val", 1)):
        assert saved["names"][split] == [listing[i] for i in saved["indices"][split]]
        assert len(saved["names"][split]) == count
