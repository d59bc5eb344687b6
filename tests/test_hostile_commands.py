"""Wrong words of the commands beside `train`: named with their remedy, nothing left behind."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.support.refusals import assert_refused, called

LONG = "x" * 20_000
NUMBER = "a number"
ALPHA = "regularizer.alpha=log(1e-5,1e-3)"
SCRIPT_WORDS = {
    ("evaluate", ""): ["run=..."],
    ("evaluate", "run"): ["run", "run=..."],
    ("evaluate", "run="): ["run: must be given"],
    ("evaluate", "run=run split="): ["split: must be given"],
    ("evaluate", "run=run split=5"): ["split", "val, test"],
    ("evaluate", "run=run split=train"): ["split", "val and test"],
    ("evaluate", "run=run device=gpu"): ["device", "'gpu'"],
    ("evaluate", "run=run dataset.root=x"): ["dataset.root", "leave it out"],
    ("evaluate", "run=run dataset.rot=x"): ["Did you mean 'dataset.root'?"],
    ("evaluate", "run=a.png"): ["a.png", "outputs/runs"],
    ("evaluate", "run=sweep"): ["sweep", "outputs/runs"],
    ("evaluate", f"run={LONG}"): ["too long", "choose another"],
    ("evaluate", "runn=x"): ["Did you mean 'run'?"],
    ("evaluate", "--foo"): ["--foo", "run=..."],
    ("predict", "run=run"): ["input: must be given"],
    ("predict", "run=run input=a.png"): ["output: must be given"],
    ("predict", "run=run input=a.png outptu=o"): ["Did you mean 'output'?"],
    ("predict", "run=run input=nope output=o"): ["input", "'nope'"],
    ("predict", "run=run input=empty output=o"): ["input", "'empty'", ".png"],
    ("predict", "run=run input=loop.png output=o"): ["input", "loop.png"],
    ("predict", "run=run input=a.png output=a.png"): ["a.png", "cannot be written"],
    ("predict", "run=run input=a.png output=/proc/x"): ["/proc/x", "cannot be written"],
    ("predict", "run=run input=pictures output=pictures/o"): ["output", "another folder"],
    ("predict", "run=run input=a.png output=o tile=0"): ["tile", "at least 64"],
    ("predict", "run=run input=a.png output=o tile=²"): ["tile", "at least 64"],
    ("predict", "run=run input=a.png output=o tile=1e3"): ["tile", "at least 64"],
    ("predict", "run=run input=a.png output=o device=cpu:x"): ["device", "cpu:x"],
    ("report", ""): ["outputs/sweeps"],
    ("report", "nope"): ["nope", "no such folder"],
    ("report", "a.png"): ["a.png", "no such folder"],
    ("report", "empty"): ["empty", "no completed run"],
    ("report", "sweep nope"): ["nope", "no such folder"],
    ("report", "sweep outptu=x"): ["Did you mean 'output'?"],
    ("report", "sweep output="): ["output: must be given"],
    ("report", "--x"): ["--x", "output=..."],
    ("search", ""): ["nothing to search", "log(a,b)"],
    ("search", "regularizer=l1"): ["nothing to search"],
    ("search", "regularizer.alhpa=log(1e-7,1e-3)"): ["Did you mean 'regularizer.alpha'?"],
    ("search", "regularizer.alpha=log(0,1)"): ["regularizer.alpha", "0 < a < b"],
    ("search", "regularizer.alpha=choice(a,b)"): ["regularizer.alpha", NUMBER],
    ("search", "regularizer.alpha=uniform(-1,1)"): ["regularizer.alpha", "at least 0"],
    ("search", "regularizer.l1_ratio=uniform(0,1.5)"): ["regularizer.l1_ratio: got 1.5"],
    ("search", "model.width=int(1.5,3)"): ["model.width", "whole numbers"],
    ("search", "model.width=int(0,4)"): ["model.width: got 0"],
    ("search", "model.width=int(4,99999999)"): ["model.width", "at most 4096"],
    ("search", "model=choice(unet,nope)"): ["'nope'", "Did you mean 'unet'?"],
    ("search", "optimizer=choice(sgd,adam) optimizer.momentum=0.5"): ["optimizer=sgd"],
    ("search", f"{ALPHA} seed=0,1"): ["choice(a,b,...)"],
    ("search", f"{ALPHA} regularizer=l3"): ["there is no option 'l3'"],
    ("search", f"{ALPHA} -m"): ["-m"],
    ("search", f"{ALPHA} triasl=3"): ["Did you mean 'trials'?"],
    ("search", f"{ALPHA} trials=0"): ["trials: got '0'"],
    ("search", f"{ALPHA} trials=²"): ["trials", "at least 1"],
    ("search", f"{ALPHA} objectives=miou,zero"): ["Did you mean 'miou,zeros'?"],
    ("search", f"{ALPHA} pruner=mediann"): ["Did you mean 'median'?"],
    ("search", f"{ALPHA} hydra.run.dir=x"): ["hydra.run.dir"],
    ("search", f"{ALPHA} resume=x"): ["resume"],
    ("search", f"{ALPHA} study="): ["study", "a folder"],
    ("search", f"{ALPHA} study=run"): ["study", "another one"],
    ("search", f"{ALPHA} study=a.png"): ["study", "a.png"],
    ("search", "study=nowhere"): ["nowhere"],
    ("search", "study=empty"): ["study", "outputs/searches"],
    ("search", f"{ALPHA} study=/proc/x"): ["/proc/x", "cannot be written"],
    ("search", f"{ALPHA} dataset=folder dataset.root=nö(x"): ["dataset.root", "nö(x"],
    ("search", f"{ALPHA} resume_sweep=x"): ["resume_sweep", "study=<folder>"],
    ("search", f"{ALPHA} sweep.plan_only=true"): ["sweep.plan_only", "study=<folder>"],
    ("path", "regularizer=l1 sweep.job=0"): ["sweep.job", "the same command again"],
    ("search", "regularizer.älpha=log(1e-5,1e-3)"): ["regularizer.älpha", "key=value"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", SCRIPT_WORDS, ids=lambda case: ascii(" ".join(case))[1:60])
def test_words_of_the_scripts_that_make_no_sense(case, copied, capsys):
    Image.new("RGB", (9, 9)).save(copied / "a.png")
    (copied / "loop.png").symlink_to("loop.png")
    (copied / "empty").mkdir()
    (copied / "pictures").mkdir()
    Image.new("RGB", (9, 9)).save(copied / "pictures" / "a.png")
    script, typed = case
    before = set(copied.rglob("*"))
    assert_refused(called(script, typed.split(), capsys), SCRIPT_WORDS[case], copied)
    assert set(copied.rglob("*")) == before
