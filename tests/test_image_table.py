"""The scores of each image: by definition, of odd images, and where the files are written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, jaccard_score

from seg_l1.cli.main import main
from seg_l1.display.pictures import Example
from seg_l1.display.worst import save_worst
from seg_l1.metrics.per_image import PerImage
from seg_l1.runs.directory import RunDirectory
from seg_l1.training.saved import evaluate_run
from tests.support.runs import TINY, table
from tests.support.standard_files import write_pairs

ROOT = Path(__file__).parents[1]
NAMES = ("a $x$ [1].png", "Ärger/böse ü.PNG", 'c,"d".png', "e.png", "all unlabeled.png")
SIZES = ((20, 30), (33, 17), (64, 64), (8, 70), (16, 16))


def evaluate(*words):
    """The exit code of `seg-l1 evaluate`."""
    return main(["evaluate", *map(str, words)])


def test_scores_are_those_of_scikit_learn_image_by_image():
    rng = np.random.default_rng(0)
    per_image, every = PerImage(6, 5), []
    for count, size in ((3, (7, 9)), (1, (4, 4)), (2, (12, 5))):
        truth, found = rng.choice([0, 1, 3, 4], (2, count, *size))
        truth[rng.random(truth.shape) < 0.2] = 255
        found[truth == 255] = 2  # which occurs nowhere else
        every += zip(truth, found, strict=True)
        per_image.update(torch.from_numpy(found), torch.from_numpy(truth.astype(np.uint8)))
    scores = per_image.compute()
    for index, (truth, found) in enumerate(every):
        valid = truth != 255
        true, predicted = truth[valid], found[valid]
        occurring = sorted({*true.tolist(), *predicted.tolist()})
        iou = jaccard_score(true, predicted, labels=occurring, average=None)
        assert scores.labeled[index] == valid.sum()
        assert scores.accuracy[index] == pytest.approx(accuracy_score(true, predicted))
        assert scores.iou[index][occurring].tolist() == pytest.approx(iou.tolist())
        assert scores.iou[index].isnan().sum() == 5 - len(occurring)
        assert scores.miou[index] == pytest.approx(iou.mean())


def test_equal_images_keep_their_order_and_unlabeled_ones_come_last():
    per_image = PerImage(5, 2)
    masks = torch.tensor([[[1, 1]], [[255, 255]], [[0, 1]], [[0, 0]], [[0, 1]]])
    per_image.update(torch.tensor([[1, 1]]).expand(5, 1, 2), masks)
    assert per_image.compute().worst_first() == [3, 2, 4, 0, 1]


@pytest.mark.slow
def test_the_memory_does_not_grow_with_the_number_of_images():
    """In MB, after the first images: 300 of 512 KiB, of which none is kept."""
    code = """
import re, torch
from pathlib import Path
from seg_l1.metrics.per_image import PerImage
from seg_l1.runs.directory import RunDirectory
sizes, per_image = [], PerImage(400, 21)
for index in range(400):
    masks = torch.randint(0, 21, (1, 256, 256))
    per_image.update(masks.roll(1, 1), masks)
    status = Path("/proc/self/status").read_text()
    sizes.append(int(re.search(r"VmRSS:\\s+(\\d+) kB", status)[1]) // 1024)
print(sizes[-1] - sizes[100])
"""
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 30


def _rename(folder: Path) -> None:
    """Gives five pairs odd names and sizes of their own; the last has no labeled pixel."""
    rng = np.random.default_rng(1)
    for index, (name, size) in enumerate(zip(NAMES, SIZES, strict=True)):
        mask = np.full(size, 255, np.uint8)
        if index < 4:
            mask = rng.integers(0, 2, size, dtype=np.uint8)
            mask[:2] = 255
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        for kind, pixels in (("images", image), ("masks", mask)):
            path = folder / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, format="png")


@pytest.fixture(scope="module")
def own_sizes(tmp_path_factory):
    """A folder with the run `run` on images of their own sizes, and `new` to score."""
    folder = tmp_path_factory.mktemp("sizes")
    write_pairs(folder / "street", 12, size=(32, 32))
    (folder / "street/classes.txt").write_text("road\ncar\n")
    words = [word for word in TINY if "dataset.num" not in word]
    words += ["dataset=folder", f"dataset.root={folder / 'street'}", "dataset.image_size=null"]
    words += ["augmentation=strong", "augmentation.crop=[16,16]"]
    assert main(["train", *words, "device=cpu", f"hydra.run.dir={folder / 'run'}"]) == 0
    _rename(folder / "new")
    return folder


@pytest.fixture
def at(own_sizes, tmp_path, monkeypatch):
    """A copy of it, which is the current folder."""
    shutil.copytree(own_sizes / "run", tmp_path / "run")
    shutil.copytree(own_sizes / "new", tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_has_the_scores_of_the_masks_that_predict_writes(at, capsys):
    assert evaluate("run=run", "dataset.root=new", "output=out") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == evaluate_run("run", root="new")
    assert "are in out" in captured.err
    assert main(["predict", "run=run", "input=new/images", "output=predicted"]) == 0
    rows = table(at / "out/images.csv")
    assert sorted(row["file"] for row in rows) == sorted(f"images/{name}" for name in NAMES)
    values = [float(row["miou"]) for row in rows[:-1]]
    assert values == sorted(values)
    assert [*rows[-1].values()] == ["images/all unlabeled.png", "0", "", "", "", ""]
    for row in rows[:-1]:
        name = Path(row["file"]).relative_to("images")
        truth = np.array(Image.open(at / "new/masks" / name))
        found = np.array(Image.open(at / "predicted/masks" / name.with_suffix(".png")))
        valid = truth != 255
        assert int(row["labeled_pixels"]) == valid.sum()
        assert float(row["pixel_accuracy"]) == pytest.approx(
            (truth == found)[valid].mean(), abs=1e-6
        )
        iou = []
        for number, column in enumerate(("iou/road", "iou/car")):
            either = ((truth == number) | (found == number)) & valid
            if not either.any():
                assert row[column] == ""
                continue
            iou.append(((truth == found) & either).sum() / either.sum())
            assert float(row[column]) == pytest.approx(iou[-1], abs=1e-6)
        assert float(row["miou"]) == pytest.approx(np.mean(iou), abs=1e-6)
    picture = Image.open(at / "out/worst.png").convert("RGB")
    assert min(picture.size) > 300 and len(picture.getcolors(2**24)) > 100


def test_each_evaluation_has_its_place_and_is_replaced_by_itself_alone(at, own_sizes, capsys):
    for _ in range(2):
        assert evaluate("run=run") == evaluate("run=run", "dataset.root=new") == 0
    names = sorted(path.name for path in (at / "run/evaluation").iterdir())
    assert names[1] == "val" and names[0].startswith("test_new_") and len(names) == 2
    shutil.copytree(own_sizes / "street", at / "moved")
    assert evaluate("run=run", "dataset.root=moved") == 0  # the same images
    assert len([*(at / "run/evaluation").iterdir()]) == 2
    about = json.loads((at / "run/evaluation/val/scores.json").read_text())
    assert about["scores"] == evaluate_run("run")
    assert evaluate("run=run", "output=out") == evaluate("run=run", "output=out") == 0
    before = (at / "out/images.csv").read_bytes()
    capsys.readouterr()
    assert evaluate("run=run", "dataset.root=new", "output=out") == 2
    captured = capsys.readouterr()
    assert "something else than this evaluation" in captured.err and not captured.out
    assert (at / "out/images.csv").read_bytes() == before


@pytest.mark.slow
def test_all_images_of_another_folder_are_scored_whatever_the_run_was_limited_to(
    own_sizes, tmp_path, monkeypatch, capsys
):
    """`limit.val` is for the images of the run, whose scores stay those of its training."""
    monkeypatch.chdir(tmp_path)
    words = RunDirectory(own_sizes / "run").read_overrides()
    assert main(["train", *words, "limit.val=1", "hydra.run.dir=limited"]) == 0
    shutil.copytree(own_sizes / "new", tmp_path / "new")
    assert evaluate("run=limited") == evaluate("run=limited", "dataset.root=new") == 0
    new, own = (table(path) for path in sorted(Path("limited/evaluation").glob("*/*.csv")))
    assert (len(own), len(new)) == (1, len(NAMES))


def test_files_of_others_are_not_written_over(at, capsys):
    (at / "mine").mkdir()
    (at / "mine/images.csv").write_text("my own table")
    (at / "odd").mkdir()
    (at / "odd/scores.json").write_text("no json")
    (at / "file").touch()
    for output, words in {
        "mine": "images.csv",
        "odd": "odd/scores.json",
        "file": "cannot be written",
        "new/images/out": "lies among the images",
        "/proc/x": "cannot be written",
        "x" * 300: "too long",
    }.items():
        assert evaluate("run=run", "dataset.root=new", f"output={output}") == 2, output
        captured = capsys.readouterr()
        assert words in captured.err and "Traceback" not in captured.err and not captured.out
    assert (at / "mine/images.csv").read_text() == "my own table"


def test_a_run_that_cannot_be_written_is_scored(at, capsys):
    (at / "run/evaluation").touch()  # a folder of this name cannot be made
    assert evaluate("run=run") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == evaluate_run("run")
    assert captured.err.startswith("note: the scores of each image are not written")
    assert captured.err.rstrip().endswith("Give output=<folder>.")


def test_images_without_file_names_are_named_by_their_position(finished):
    assert evaluate(f"run={finished.folder}") == 0
    rows = table(finished.folder / "evaluation/test/images.csv")
    assert sorted(row["file"] for row in rows) == [f"test_{index:04d}" for index in range(8)]


def test_a_picture_is_drawn_of_a_few_images_of_any_shape(tmp_path):
    rng = np.random.default_rng(0)
    examples = []
    for number, (height, width) in enumerate([(3, 900), (700, 2), (1, 1)]):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        mask = rng.integers(0, 2, (height, width), dtype=np.uint8)
        examples.append((Example(image, mask, 1 - mask), f"{number} $\\bad$ \udcff\n"))
        path = tmp_path / f"{number}.png"
        save_worst(path, iter(examples), classes=["background", "b$"], title="t$")
        with Image.open(path) as picture:
            assert max(picture.size) < 4000
