"""`benchmarks/peers`: the contenders take their turns, and train the same thing."""

from __future__ import annotations

import importlib
import threading

import pytest
import torch

from benchmarks.peers.__main__ import CONTENDERS, Stopwatch, Turns, in_turns, ratio, table
from benchmarks.peers.task import ALPHA, Images, Task, naive_l1


def task(folder, epochs: int = 2) -> Task:
    draw = torch.Generator().manual_seed(0)
    sizes = {"train": 18, "val": 8, "test": 8}
    images = {
        name: torch.randint(0, 256, (size, 1, 16, 16), dtype=torch.uint8, generator=draw)
        for name, size in sizes.items()
    }
    masks = {name: (image[:, 0] > 127).to(torch.uint8) for name, image in images.items()}
    return Task(images, masks, 2, epochs=epochs, batch_size=8, rate=0.01, threads=1, folder=folder)


def test_one_thread_at_a_time_goes_on_and_they_take_turns():
    turns, seen, going = Turns(), [], []
    rounds = {"a": 3, "b": 2, "c": 3}

    def work(name: str, mine: threading.Event) -> None:
        mine.wait()
        for _ in range(rounds[name]):
            going.append(name)
            assert going == [name]
            seen.append(name)
            going.remove(name)
            turns.hand_on(mine)
            mine.wait()
        turns.leave(mine)

    threads = [threading.Thread(target=work, args=(name, turns.enter())) for name in rounds]
    for thread in threads:
        thread.start()
    turns.start()
    for thread in threads:
        thread.join(timeout=30)
    assert "".join(seen) == "abcabcac" and not turns.waiting


def test_the_first_round_does_not_count_and_above_one_is_slower_than_ours():
    assert ratio([9.0, 1.0, 2.0, 1.0], [1.0, 2.0, 4.0, 3.0]) == 2.0
    watch = Stopwatch(training=[1.0, 2.0], epochs=[1.0, 3.0], wall=[1.0, 4.0])
    rows = table({(name, False): watch for name in CONTENDERS}, {}, images=8).splitlines()
    assert rows[2].startswith("| seg_l1 | 2 | 1.00 | 1.00 |") and len(rows) == 5


def test_the_penalty_and_the_images_of_the_tutorials(tmp_path):
    one = task(tmp_path)
    model = one.network()
    total = sum(float(p.detach().abs().sum()) for p in model.parameters())
    assert float(naive_l1(model).detach()) == pytest.approx(ALPHA * total)
    images = torch.stack([image for image, _ in Images(one, "train")])
    assert float(images.mean()) == pytest.approx(0, abs=1e-5)
    assert float(images.std()) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_every_contender_takes_the_same_steps(tmp_path, monkeypatch):
    present = [name for name in CONTENDERS if name != "lightning_smp"]
    try:
        importlib.import_module("lightning")
        present = list(CONTENDERS)
    except ImportError:
        pass
    monkeypatch.setattr("benchmarks.peers.__main__.CONTENDERS", present)
    steps = dict.fromkeys(present, 0)
    make = Task.optimizer

    def counted(self: Task, model):
        optimizer, name = make(self, model), self.folder.name.removesuffix("_l1")
        optimizer.register_step_post_hook(lambda *_: steps.update({name: steps[name] + 1}))
        return optimizer

    monkeypatch.setattr(Task, "optimizer", counted)
    watches = in_turns(task(tmp_path))
    assert {len(watch.epochs) for watch in watches.values()} == {2}
    assert all(
        training < epoch
        for watch in watches.values()
        for training, epoch in zip(watch.training, watch.epochs, strict=True)
    )
    assert {steps[name] for name in present if name != "ours"} == {2 * 2 * 2}
    summary = (tmp_path / "ours_l1/metrics.csv").read_text().splitlines()
    step = summary[0].split(",").index("step")
    assert summary[-1].split(",")[step] == "4"
