"""`experiment=own` beside the defaults of `dataset=folder`, on two made-up data sets of 30 images.

    python -m benchmarks.own_images [data=lines,blobs] [seeds=0,1,2] [folder=outputs/own_images]
        [camvid=<CamVid>] [words of train.py, such as trainer.threads=1]

`lines`: thin branching lines (2 to 4 pixels) drawn on photographs. `blobs`: spots of 4 to 8 pixels
radius, less than 1 % of the pixels, among rings and bars of the same colors. The photographs are
those in the wheels of scikit-learn and matplotlib; training and test use different ones. `camvid=`
adds 46 frames of CamVid. Runs that are finished are not trained again; a CSV file has all.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.summary import RunSummary

SIZE, TRAIN, TEST = 320, 30, 30
COLORS = np.array([[200, 60, 50], [60, 110, 190], [225, 200, 90], [70, 60, 60]])


def photographs() -> list[Image.Image]:
    """The pictures that wheels hold: a temple, a portrait, a flower; the last is for the test."""
    import matplotlib
    from sklearn.datasets import load_sample_images

    temple, flower = map(Image.fromarray, load_sample_images().images)
    portrait = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"
    return [temple, Image.open(portrait).convert("RGB"), flower]


def background(rng: np.random.Generator, pictures: list[Image.Image]) -> Image.Image:
    picture = pictures[rng.integers(len(pictures))]
    side = int(rng.integers(250, min(picture.size)))
    left, top = (int(rng.integers(0, extent - side + 1)) for extent in picture.size)
    cut = picture.crop((left, top, left + side, top + side)).resize((SIZE, SIZE))
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else cut


def line(rng: np.random.Generator, start: np.ndarray, angle: float) -> list[tuple[float, float]]:
    """A random walk whose direction changes slowly."""
    points, bend = [start], 0.0
    for _ in range(int(rng.integers(20, 50))):
        bend = 0.8 * bend + rng.normal(0, 0.08)
        angle += bend
        points.append(points[-1] + 6 * np.array([np.cos(angle), np.sin(angle)]))
    return [tuple(map(float, point)) for point in points]


def with_lines(rng: np.random.Generator, image: Image.Image) -> tuple[Image.Image, Image.Image]:
    mask, shade = Image.new("L", image.size), Image.new("L", image.size)
    for _ in range(int(rng.integers(3, 6))):
        angle = rng.uniform(0, 2 * np.pi)
        points = line(rng, rng.uniform(0, SIZE, 2), angle)
        branch = line(rng, np.array(points[len(points) // 2]), angle + rng.uniform(0.5, 1.2))
        for path, width in ((points, int(rng.integers(3, 5))), (branch, 2)):
            ImageDraw.Draw(mask).line(path, fill=1, width=width, joint="curve")
            ImageDraw.Draw(shade).line(path, fill=int(rng.integers(120, 200)), width=width)
    green = Image.new("RGB", image.size, (120, 220, 120))
    return Image.composite(green, image, shade.filter(ImageFilter.GaussianBlur(0.7))), mask


def with_blobs(rng: np.random.Generator, image: Image.Image) -> tuple[Image.Image, Image.Image]:
    image, mask = image.copy(), Image.new("L", image.size)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(4, 9))):
        x, y, r = [*rng.uniform(10, SIZE - 10, 2).tolist(), rng.uniform(4, 8)]
        color = tuple(map(int, COLORS[rng.integers(4)] + rng.integers(-20, 20, 3)))
        kind = rng.integers(3)
        if kind == 0:
            draw.ellipse((x - r, y - r, x + r, y + r), outline=color, width=2)
        elif kind == 1:
            draw.rectangle((x - 2 * r, y - r / 2, x + 2 * r, y + r / 2), fill=color)
    for _ in range(int(rng.integers(2, 6))):
        x, y, r = [*rng.uniform(10, SIZE - 10, 2).tolist(), rng.uniform(4, 8)]
        stretch = rng.uniform(0.8, 1.2)
        box = (x - r * stretch, y - r / stretch, x + r * stretch, y + r / stretch)
        draw.ellipse(box, fill=tuple(map(int, COLORS[rng.integers(4)] + rng.integers(-20, 20, 3))))
        ImageDraw.Draw(mask).ellipse(box, fill=1)
    return image.filter(ImageFilter.GaussianBlur(0.6)), mask


KINDS = {"lines": with_lines, "blobs": with_blobs}


def write(kind: str, folder: Path) -> None:
    """Writes train and test pairs of one kind."""
    *train, test = photographs()
    for split, count, pictures in (("train", TRAIN, train), ("test", TEST, [test])):
        for name in ("images", "masks"):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            rng = np.random.default_rng([split == "test", index])
            image, mask = KINDS[kind](rng, background(rng, pictures))
            noisy = np.asarray(image) + rng.normal(0, 6, (SIZE, SIZE, 3))
            image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
            image.save(folder / split / "images" / f"{index:03d}.png")
            mask.save(folder / split / "masks" / f"{index:03d}.png")
    (folder / "classes.txt").write_text(f"background\n{kind.rstrip('s')}\n")


def trained(run: RunDirectory, words: list[str]) -> RunSummary:
    """Trains a run unless it is completed; its output lies beside it."""
    if run.read_summary(missing_ok=True).status != "completed":
        command = [sys.executable, "train.py", *words, f"hydra.run.dir={run.path}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        run.path.with_suffix(".txt").write_text(done.stdout + done.stderr)
    return run.read_summary()


def main(words: list[str]) -> None:
    """Trains what is missing, and prints the table."""
    given = dict(word.split("=", 1) for word in words)
    root = Path(given.pop("folder", "outputs/own_images"))
    kinds = given.pop("data", "lines,blobs").split(",")
    seeds = given.pop("seeds", "0,1,2").split(",")
    camvid = given.pop("camvid", None)
    more = [f"{key}={value}" for key, value in given.items()]
    data = {}
    for kind in [kind for kind in kinds if kind in KINDS]:
        if not (root / kind / "classes.txt").is_file():
            write(kind, root / kind)
        data[kind] = ["dataset=folder", f"dataset.root={root / kind}"]
    if camvid:
        data["camvid"] = ["dataset=camvid", f"dataset.root={camvid}", "limit.train=46"]
    rows = []
    for (name, source), way, seed in product(data.items(), ("defaults", "own"), seeds):
        first = ["experiment=own"] if way == "own" else []
        run = RunDirectory(root / "runs" / f"{name}_{way}_{seed}")
        summary = trained(run, [*first, *source, *more, f"seed={seed}"])
        rows.append((name, way, seed, summary.test["test/miou"], summary.wall_time_s))
        print(*rows[-1], flush=True)
    with (root / f"own_images_{'_'.join(data)}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("data", "settings", "seed", "test_miou", "seconds"), *rows])
    for name, way in product(data, ("defaults", "own")):
        scores = [row[3] for row in rows if row[:2] == (name, way)]
        spread = stdev(scores) if len(scores) > 1 else 0.0
        minutes = mean(row[4] for row in rows if row[:2] == (name, way)) / 60
        print(f"{name:8} {way:9} {mean(scores):.3f} ± {spread:.3f}  {minutes:.1f} min")


if __name__ == "__main__":
    main(sys.argv[1:])
