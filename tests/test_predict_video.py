"""Videos: their frames, rate and shares; those that are damaged, empty or turned."""

from __future__ import annotations

import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from seg_l1.cli import predict as command
from seg_l1.cli.main import main
from seg_l1.deployment.predict_files import predict_files
from seg_l1.display.paint import overlay
from seg_l1.errors import UserError
from tests.support.runs import table
from tests.support.videos import CODECS, Brightness, frames_of, read_video, write_video

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def brightness(monkeypatch):
    """`seg-l1 predict` with the predictor of these tests."""
    monkeypatch.setattr(command, "_load", lambda typed: Brightness())

    def call(*words):
        return main(["predict", "run=run", "output=out", *words])

    return call


@pytest.mark.parametrize("suffix", CODECS)
def test_an_overlay_video_has_rate_and_frames_of_the_source(suffix, tmp_path):
    rate, frames = Fraction(30000, 1001), frames_of(24)
    write_video(path := tmp_path / f"Ünter [1]{suffix}", frames, rate)
    done = predict_files(Brightness(), [path], tmp_path / "out")
    assert (done.videos, done.skipped, done.damaged) == (1, [], [])
    found, painted = read_video(tmp_path / "out/overlays/Ünter [1].mp4")
    if suffix == ".webm":  # its times are in milliseconds
        assert float(found) == pytest.approx(float(rate), rel=0.01)
    else:
        assert found == rate
    assert len(painted) == 24
    ids = (frames[..., 0] > 127).astype(np.uint8)
    for frame, mask, shown in zip(frames, ids, painted, strict=True):
        expected = overlay(frame, mask, colors=Brightness.colors)
        assert np.abs(expected.astype(int) - shown).mean() < 12
    rows = table(tmp_path / "out/frames/Ünter [1].csv")
    assert [int(row["frame"]) for row in rows] == list(range(1, 25))
    times = [float(row["seconds"]) for row in rows]
    assert np.diff(times) == pytest.approx([float(1 / rate)] * 23, abs=2e-3)
    light = [float(row["light"]) for row in rows]
    assert light == pytest.approx(ids.mean((1, 2)).tolist(), abs=0.02)
    (row,) = table(tmp_path / "out/shares.csv")
    assert (row["file"], row["width"], row["height"]) == (path.name, "64", "48")
    assert float(row["light"]) == pytest.approx(np.mean(light), abs=1e-6)
    assert float(row["confidence"]) == 0.75


def test_frames_become_pictures_whose_masks_are_exact(brightness, tmp_path, capsys):
    """A lossless video of odd sides, beside pictures whose folder has its name."""
    frames = frames_of(7, (31, 45))
    write_video(tmp_path / "clip.mkv", frames)
    (tmp_path / "clip").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "clip/000001.png")
    assert brightness("clip", "clip.mkv", "frames=pictures") == 0
    assert "2 of 2 images and videos predicted" in capsys.readouterr().out
    for index, frame in enumerate(frames, start=1):
        name = f"clip_mkv/{index:06d}.png"
        ids = np.array(Image.open(tmp_path / "out/masks" / name))
        assert (ids == (frame[..., 0] > 127)).all()
        painted = np.array(Image.open(tmp_path / "out/overlays" / name))
        assert (painted == overlay(frame, ids, colors=Brightness.colors)).all()
    assert not list((tmp_path / "out/overlays").glob("*.mp4"))
    assert np.array(Image.open(tmp_path / "out/masks/clip/000001.png")).shape == (9, 9)


def test_odd_sides_are_repeated_to_even_ones(tmp_path):
    write_video(tmp_path / "odd.mkv", frames_of(5, (31, 45)))
    predict_files(Brightness(), ["odd.mkv"], tmp_path / "out")
    assert read_video(tmp_path / "out/overlays/odd.mp4")[1].shape == (5, 32, 46, 3)


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1), ((1, 0, 0, 1), 0)],
)
def test_a_video_of_a_turned_phone_is_upright(matrix, turned, tmp_path):
    """The matrix of the track header is that of ISO 14496-12: (x, y) -> (ax + cy, bx + dy)."""
    frames = frames_of(2, (48, 64))
    frames[:, :24] = 0
    write_video(tmp_path / "a.mp4", frames)
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    start = content.index(b"tkhd") + 44
    a, b, c, d = (65536 * value for value in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(content)
    predict_files(Brightness(), ["a.mp4"], tmp_path / "out", pictures=True)
    ids = np.array(Image.open(tmp_path / "out/masks/a/000002.png"))
    expected = np.rot90(frames[1, ..., 0] > 127, turned)
    assert ids.shape == expected.shape
    assert (ids == expected).mean() > 0.98


def write_broken() -> dict[str, str]:
    """Writes files that are no videos; returns a part of what is said of each."""
    write_video(Path("whole.mp4"), frames_of(20))
    whole = Path("whole.mp4").read_bytes()
    Path("whole.mp4").unlink()
    Path("cut.mp4").write_bytes(whole[: len(whole) // 2])
    Path("empty.mov").touch()
    Path("text.avi").write_text("no video")
    Path("gone.webm").symlink_to("nowhere.webm")
    Path("list.mkv").write_text("ffconcat version 1.0\nfile 'good.webm'\n")  # opens other files
    with av.open("sound.mkv", "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux([*stream.encode(frame), *stream.encode()])
    for name, codec in (("none.mkv", "ffv1"), ("none.avi", "mpeg4")):
        with av.open(name, "w") as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height = 64, 48
            container.start_encoding()
    return {
        "cut.mp4": "cannot be read as a video", "empty.mov": "the file is empty",
        "text.avi": "cannot be read as a video", "list.mkv": "cannot be read as a video",
        "sound.mkv": "holds no video", "none.mkv": "it holds no frame",
        "none.avi": "it holds no frame", "gone.webm": "No such file",
    }  # fmt: skip


def test_what_is_no_video_is_named_and_the_others_are_predicted(brightness, tmp_path, capsys):
    said = write_broken()
    write_video(Path("good.webm"), frames_of(4))
    assert brightness("*.*") == 1
    captured = capsys.readouterr()
    assert "1 of 9 videos predicted" in captured.out
    lines = captured.err.splitlines()
    assert len(lines) == len(said) and "Traceback" not in captured.err
    for name, words in said.items():
        (line,) = (line for line in lines if name in line)
        assert line.startswith("skipped: ") and words in line and "Replace it" in line
    files = sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert files == ["classes.csv", "good.csv", "good.mp4", "shares.csv"]


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_what_can_be_read_of_a_damaged_video_is_predicted(damage, brightness, tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (100, 48, 64, 3), dtype=np.uint8)
    write_video(path := tmp_path / f"a.{'mkv' if damage == 'cut' else 'mp4'}", noise)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) * 6 // 10]
    else:
        middle = len(content) // 2
        content[middle : middle + 2000] = np.random.default_rng(1).bytes(2000)
    path.write_bytes(content)
    assert brightness("a.*") == 1
    err = capsys.readouterr().err
    assert err.startswith(f"damaged: {path.name}: ")
    assert ("ends after" if damage == "cut" else "are damaged") in err
    frames = len(table(tmp_path / "out/frames/a.csv"))
    assert 40 < frames < 101 and f"{frames} frames are predicted" in err
    assert len(read_video(tmp_path / "out/overlays/a.mp4")[1]) == frames


def test_a_missing_pyav_is_named_and_images_need_none(brightness, tmp_path, capsys, monkeypatch):
    write_video(tmp_path / "a.mp4", frames_of(2))
    monkeypatch.setitem(sys.modules, "av", None)
    assert brightness("a.mp4") == 2
    assert "pip install 'seg-l1[video]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    Image.new("RGB", (9, 9)).save(tmp_path / "b.png")
    assert brightness("*.*") == 1
    captured = capsys.readouterr()
    assert "1 of 2 images and videos predicted" in captured.out
    assert captured.err.startswith("skipped: a.mp4: videos need PyAV: pip install")


class Failing(Brightness):
    """Refuses the third picture, as a network of a fixed size does."""

    count = 0

    def __call__(self, picture):
        self.count += 1
        if self.count == 3:
            raise UserError("this network takes images of 3x3 alone")
        return super().__call__(picture)


def test_a_video_is_written_whole_or_not_at_all(tmp_path):
    write_video(tmp_path / "a.mp4", frames_of(9))
    with pytest.raises(UserError, match="3x3 alone"):
        predict_files(Failing(), ["a.mp4"], tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["shares.csv"]


def test_folders_that_no_prediction_wrote_are_refused(tmp_path):
    write_video(tmp_path / "a.mp4", frames_of(2))
    (tmp_path / "out/frames").mkdir(parents=True)
    with pytest.raises(UserError, match="frames' already exists"):
        predict_files(Brightness(), ["a.mp4"], tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        predict_files(Brightness(), ["a.mp4"], tmp_path / "file")


@pytest.mark.slow
def test_the_memory_does_not_grow_with_the_length(tmp_path):
    """The peak in MB of 2000 frames of 160x200 pixels, which are 192 MB, and that of 200."""
    code = """
import re, sys
from pathlib import Path
from seg_l1.deployment.predict_files import predict_files
from tests.support.videos import Brightness
predict_files(Brightness(), [sys.argv[1]], Path(sys.argv[2]))
status = Path("/proc/self/status").read_text()  # ru_maxrss would begin with that of the parent
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) // 1024)
"""
    peaks = []
    for count in (200, 2000):
        write_video(path := tmp_path / f"{count}.avi", frames_of(count, (160, 200)))
        words = [sys.executable, "-c", code, str(path), str(tmp_path / "out")]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] + 60, peaks
