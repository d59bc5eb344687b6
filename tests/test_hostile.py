"""Wrong input of every kind: named with its remedy, exit code 2, nothing left behind.

Data are in `test_hostile_data.py`; what people mistype most is in `test_cli.py`.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from seg_l1.cli.main import main
from seg_l1.config import limits
from seg_l1.config.compose import CONF, compose_plain, config_groups
from seg_l1.config.words import quoted
from seg_l1.errors import UserError
from seg_l1.runs.trust import TARGETS, TRUST
from seg_l1.training.build import build, load_data
from tests.support.refusals import assert_refused, called
from tests.support.runs import TINY

pytestmark = pytest.mark.usefixtures("composed_once")


LONG = "x" * 20_000
NUMBER, WHOLE, TEXT, FOLDER = "a number", "a whole number", "a text", "a folder"

# what is typed -> what is expected instead; the key is named too
VALUES = {
    "seed=1.5": WHOLE,
    "seed=-1": "at least 0",
    "seed=100000000000000000000": WHOLE,
    "seed=1e3": WHOLE,
    "seed=null": WHOLE,
    "seed=": WHOLE,
    "seed='1'": WHOLE,
    "seed=[1]": WHOLE,
    "seed={a: 1}": WHOLE,
    "seed=true": WHOLE,
    "seed=inf": WHOLE,
    "seed=１": WHOLE,
    "seed=😀": WHOLE,
    "seed=\n1": WHOLE,
    "seed=\udc80": WHOLE,
    f"seed={LONG[:9000]}": WHOLE,
    f"seed={'[' * 200 + ']' * 200}": WHOLE,
    f"seed={'{a:' * 100}1{'}' * 100}": WHOLE,
    "seed=[1,2": WHOLE,
    "seed=int(x)": WHOLE,
    "seed=nope(1)": WHOLE,
    "device=": TEXT,
    "device=[cpu]": TEXT,
    "device={a: 1}": TEXT,
    "traceback=maybe": "true or false",
    "limit.train=0": "at least 1",
    "limit.val=1.0": WHOLE,
    "limit.val_is_train=yes": "true or false",
    "sweep.on_error=ignore": "continue, stop",
    "model.width=0": "at least 1",
    "model.width=1.5": WHOLE,
    "model.width=1e9": WHOLE,
    "model.width=100000000000": "at most 4096",
    "model.depth=0": "at least 1",
    "model.depth=99": "at most 12",
    "model.depth=12": "at most 8192",
    "model.growth=0.5": "at least 1",
    "model.growth=1e30": "below 16",
    "model.growth=nan": NUMBER,
    "model.norm=null": "batch, group, none",
    "model.norm=[batch]": "batch, group, none",
    "model.dropout=1": "below 1",
    "dataset.num_classes=0": "from 1 to 254",
    "dataset.image_size=[48]": "a list of 2",
    "dataset.image_size=[48,4]": "at least 8",
    "dataset.image_size=[48,inf]": WHOLE,
    "dataset.image_size=[48,'48']": WHOLE,
    "dataset.image_size=[48,true]": WHOLE,
    "dataset.image_size={h: 48}": "a list of 2",
    "dataset.image_size=[100000000,100000000]": "at most 32768",
    "dataset.num_train=0": "at least 1",
    "dataset.num_test=-1": "at least 1",
    "dataset.digits_per_scene=[6]": "a list of 2",
    "dataset.digits_per_scene=[100000,100000]": "at most 1000",
    "dataset.digit_size=[3,8]": "at least 4",
    "dataset.batch_size=null": WHOLE,
    "dataset.batch_size=0": "at least 1",
    "dataset.workers=-1": "at least 0",
    "dataset.workers=100000000": "at most 256",
    "dataset.class_weights=5": "a list",
    "dataset.class_weights=[-1]": "at least 0",
    "dataset.class_weights=[1,a]": NUMBER,
    "dataset.class_weights=[nan]": NUMBER,
    "dataset.class_weights=inversed": "inverse, median",
    "optimizer.lr=0": "above 0",
    "optimizer.lr=-inf": "above 0",
    "optimizer.lr=1e-400": "above 0",
    "optimizer.lr=1e308": "below 1e+30",
    "optimizer.lr=0.1.2": NUMBER,
    "optimizer.lr='0.1'": NUMBER,
    "optimizer.lr=$HOME": NUMBER,
    "optimizer.lr=0x10": NUMBER,
    "optimizer.lr=${nope}": "give that key a value",
    "optimizer.lr=${optimizer.lr}": "Recursive",
    "optimizer.lr=${oc.env:NO_SUCH_VARIABLE}": "NO_SUCH_VARIABLE",
    "++optimizer.lr=x": NUMBER,
    "optimizer.betas=[0.9]": "a list of 2",
    "optimizer.betas=[0.9,1]": "below 1",
    "optimizer.eps=0": "above 0",
    "optimizer.weight_decay=-1": "at least 0",
    "optimizer.amsgrad=1": "true or false",
    "scheduler.warmup=2": "from 0 to 1",
    "scheduler.final=inf": NUMBER,
    "scheduler.power=x": NUMBER,
    "regularizer.alpha=-1": "at least 0",
    "regularizer.alpha=nan": NUMBER,
    "regularizer.alpha=true": NUMBER,
    "regularizer.alpha=": NUMBER,
    "regularizer.alpha=1e400": NUMBER,
    "regularizer.alpha=1e-5x": NUMBER,
    "regularizer.alpha=−1": NUMBER,
    "regularizer.alpha=1e-5;": NUMBER,
    "regularizer.alpha==1": NUMBER,
    "regularizer.alpha={}": NUMBER,
    "regularizer.lam=-1": "at least 0",
    "regularizer.l1_ratio=1.5": "from 0 to 1",
    "regularizer.mode=decoupled": "regularizer=l2",
    "regularizer.knot=0": "above 0",
    "regularizer.depth=1": "at least 2",
    "regularizer.depth=1000": "at most 64",
    "regularizer.dropout=1": "below 1",
    "regularizer.drop_connect=-0.1": "at least 0",
    "regularizer.schedule=step": "constant, linear, cosine, decay",
    "regularizer.solver=magic": "proximal, subgradient",
    "regularizer.schedule_epochs=inf": NUMBER,
    "regularizer.scope=[]": "a list of rules",
    "regularizer.scope=all": "a list of rules",
    "regularizer.scope={name: '*'}": "a list of rules",
    "regularizer.scope=[null]": "name, types, penalize, factor",
    "regularizer.scope=[{name: '*', penalize: 3}]": "true or false",
    "regularizer.scope=[{name: 5}]": TEXT,
    "regularizer.scope=[{types: Conv2d}]": "a list",
    "regularizer.scope=[{nmae: '*'}]": "nmae",
    "regularizer.scope=[{name: '*', factor: inf}]": "above 0",
    "trainer.epochs=99999999999999999999": WHOLE,
    "trainer.epochs=0": "at least 1",
    "trainer.precision=fp8": "fp32, bf16, fp16",
    "trainer.accumulate=0": "at least 1",
    "trainer.clip_norm=nan": NUMBER,
    "trainer.tile=[32,32]": "at least 64",
    "trainer.tile=512": "a list of 2",
    "trainer.tile_overlap=0.99": "from 0 to 0.75",
    "trainer.threads=100000000": "at most 1024",
    "trainer.boundary_tolerance=1000000": "at most 100",
    "trainer.pictures=0": "at least 1",
    "hydra.run.dir=": FOLDER,
    "hydra.run.dir=null": FOLDER,
    "hydra.mode=MULTIRUN": "-m",
    "hydra.searchpath=5": "a list",
    "resume=": FOLDER.replace("a ", ""),
    "resume=null": FOLDER,
    "resume=[x]": FOLDER,
    "resume=a,b": FOLDER,
    "~resume": FOLDER,
    "resume_sweep=x": "-m",
}


@pytest.mark.parametrize("typed", VALUES, ids=lambda typed: ascii(typed)[1:40])
def test_a_value_that_makes_no_sense_is_named_with_what_is_expected(typed, command, tmp_path):
    key = typed.lstrip("+~").partition("=")[0]
    key = key.replace("model.depth", "depth")
    assert_refused(command(typed), [key, VALUES[typed]], tmp_path)


# what is typed -> words of the message
WORDS = {
    ("regularizer=l3",): ["regularizer", "'l3'", "Did you mean 'l"],
    ("regularizor=l1",): ["regularizor", "Did you mean 'regularizer'?"],
    ("+regularizer.alhpa=1",): ["alhpa", "Did you mean 'regularizer.alpha'?"],
    ("++trainer.epoch=1",): ["Did you mean 'trainer.epochs'?"],
    ("regularizer.alpha=1,2",): ["regularizer.alpha=1,2", "-m"],
    ("regularizer.schedule=linear", "regularizer.schedule_epochs=99"): ["trainer.epochs"],
    ("optimizer=sgd", "optimizer.momentum=1"): ["optimizer.momentum", "below 1"],
    ("+optimizer.params=3",): ["optimizer.params"],
    ("~trainer.epochs",): ["trainer.epochs", "optimizer"],
    ("dataset=camvid",): ["dataset.root"],
    ("dataset=folder", "dataset.root=nowhere"): ["nowhere", "dataset.root"],
    ("resume=nowhere",): ["nowhere", "outputs/runs"],
    ("foo",): ["foo", "key=value"],
    ("-m", "regularizer=l1,l9"): ["'l9'"],
    ("-m", "dataset=folder", "dataset.root=nowhere"): ["nowhere", "dataset.root"],
    ("-m", "resume=nowhere"): ["nowhere"],
    ("--config-dir", "nowhere"): ["--config-dir", "nowhere"],
    ("augmentation.crop=[32,32]",): ["augmentation.crop: belongs to", "augmentation=strong"],
    ("-m", "augmentation=strong,none", "augmentation.crop=[8,8]"): ["augmentation.crop", "strong"],
    ("model=lraspp_mobilenet_v3_large", "model.aux=true"): ["model.aux: belongs", "fcn_resnet50"],
    ("dataset=oxford_pet", "dataset.extra=sbd"): ["dataset.extra: belongs to dataset=voc"],
    ("dataset.root=x",): ["dataset.root: belongs to", "dataset=folder"],
    ("-m", "dataset=digits,mnist", "dataset.num_train=3"): ["dataset.num_train", "dataset=digits"],
    ("loss.gamma=2",): ["loss.gamma: belongs to loss=focal"],
    ("model.hidden=4",): ["model.hidden: belongs to model=seed_cnn"],
    ("optimizer.momentum=0.5",): ["optimizer.momentum: belongs to optimizer=sgd"],
    ("regularizer.penalty.knot=1",): ["regularizer.penalty.knot: belongs to regularizer=mcp"],
    ("optimizer.foreach=true",): ["optimizer.foreach", "+optimizer.foreach=true"],
    ("optimizer.momntum=0.5",): ["Did you mean 'optimizer.momentum'?"],
    ("epochs=3",): ["Did you mean 'trainer.epochs'?"],
    ("lr=3",): ["Did you mean 'optimizer.lr'?"],
    ("limit={trian: 3}",): ["limit.trian", "Did you mean 'limit.train'?"],
    ("regularizer.alpha.x=1",): ["regularizer.alpha.x", "Did you mean 'regularizer.alpha'?"],
    ("trainer.trainer.epochs=3",): ["Did you mean 'trainer.epochs'?"],
    ("sweep=5",): ["sweep", "holds keys", "sweep.on_error"],
    ("regularizer.penalty=null",): ["regularizer.penalty", "holds keys"],
    ("+model._args_=[1]",): ["model._args_", "no key"],
    ("+model._partial_=true",): ["model._partial_", "no key"],
    ("+model.in_channels=3",): ["model.in_channels", "no key"],
    ("+optimizer.differentiable=true",): ["optimizer.differentiable", "no key"],
    ("~optimizer",): ["~optimizer", "~optimizer.betas"],
    ("~optimizer.lr",): ["~optimizer.lr", "~optimizer.betas"],
    ("~optimizer._target_",): ["~optimizer._target_"],
    ("~model=unet",): ["~model=unet", "only arguments"],
    ("~hydra.run",): ["hydra.run", "deletion"],
    ("hydra=1",): ["must be a string"],
    ("hydra.nope=1",): ["hydra.nope", "not in"],
    ("hydra.run.dir=/proc/x",): ["/proc/x", "cannot be written"],
    ("-m", "seed=0,1", "hydra.sweep.dir=/proc/x"): ["/proc/x", "cannot be written"],
    ("hydra/launcher=nope",): ["hydra/launcher/nope"],
    ("model=",): ["model: there is no option ''", "unet"],
    ("model=null",): ["model: there is no option 'null'"],
    ("model=[unet]",): ["model: there is no option", "Did you mean 'unet'?"],
    ("model={a: 1}",): ["model: there is no option"],
    ("model=../model/unet",): ["model: there is no option"],
    ("model=ünet",): ["'ünet'", "Did you mean 'unet'?"],
    ("model@foo=unet",): ["model@foo=unet", "write model=<option>"],
    ("model/foo=unet",): ["model/foo", "Did you mean 'model'?"],
    ("debug=",): ["debug: there is no option ''", "overfit"],
    ("experiment=none,article",): ["experiment=none,article", "-m"],
    (LONG,): ["20000 letters", "at most 10000"],
    (f"{LONG}=1",): ["20002 letters", "at most 10000"],
    ("a." * 4000 + "b=1",): ["no key or group", "a.a.a"],
    ("sèed=1",): ["sèed=1", "key=value"],
    ("regularizer.alpha:1",): ["regularizer.alpha:1", "key=value"],
    ("regularizer..alpha=1",): ["regularizer..alpha", "key=value"],
    ("regularizer[alpha]=1",): ["regularizer[alpha]", "key=value"],
    ("regularizer.alpha =1",): ["regularizer.alpha =1", "key=value"],
    ("seed=\"'",): ["seed=", "cannot be read"],
    ("optimizer.lr=${",): ["optimizer.lr", "viable"],
    ("",): ["''", "key=value"],
    ("=1",): ["=1", "key=value"],
    ("+",): ["+", "key=value"],
    ("-m", "seed=range(0,3,0)"): ["seed=range(0,3,0)", "key=a,b,c"],
    ("-m", "seed=range(0,1000000000000)"): ["seed=range", "at most 10000 jobs"],
    ("-m", "seed=range(0,1000)", "dataset.seed=range(0,1000)"): ["at most 10000 jobs"],
    ("-m", "seed=glob(*)"): ["seed=glob(*)", "key=a,b,c"],
    ("-m", "seed=1,1,x"): ["seed", "'x'", "whole number"],
    ("-m", "seed=choice()"): ["seed", "'choice()'"],
    ("-m", "nope=1,2"): ["no key or group 'nope'"],
    ("-m", "model.width=4,-1"): ["model.width", "-1"],
    ("-m", "regularizer.alpha=logspace(-300,400,3)"): ["logspace(-300,400,3)", "such as"],
    ("-m", "regularizer.alpha=logspace(-5,-3,1000000000)"): ["logspace", "such as"],
    ("-m", "regularizer.alpha=logspace(-5,-3,3),1"): ["logspace", "such as"],
    ("-m", "resume_sweep="): ["resume_sweep", "outputs/sweeps"],
    ("-m", "resume_sweep=a,b"): ["resume_sweep=a,b", "a folder"],
    ("-m", "resume_sweep=5"): ["'5'", "outputs/sweeps"],
    ("-m", "hydra.sweep.dir=", "seed=1,2"): ["hydra.sweep.dir", "a folder"],
    ("--cfg",): ["--cfg", "--help"],
    ("--cfg", "nope"): ["--cfg", "'job'"],
    ("--cfg", "job", "nope=1"): ["no key or group 'nope'"],
    ("--info", "nope"): ["--info", "'config'"],
    ("--multirun=1",): ["--multirun", "--help"],
    ("--resolve",): ["--resolve", "--cfg job"],
    ("--shell-completion",): ["--shell-completion", "install=<shell>"],
    ("--config-path", "nope"): ["--config-path", "--config-dir"],
    ("--config-name", "nope"): ["--config-name", "experiment/"],
    ("--experimental-rerun", "nope"): ["--experimental-rerun", "resume="],
    ("--config-dir",): ["--config-dir", "--help"],
    ("-x",): ["-x", "--help"],
}  # fmt: skip


@pytest.mark.parametrize("typed", WORDS, ids=lambda typed: ascii(" ".join(typed))[1:50])
def test_words_that_make_no_sense_get_a_hint(typed, command, tmp_path):
    assert_refused(command(*typed), WORDS[typed], tmp_path)


# what is refused only when the data are there or the objects are built
BUILT = {
    ("dataset.image_size=[12,12]",): ["digit_size"],
    ("model=seed_cnn", "model.image_size=[32,32]"): ["model", "(32, 32)", "(48, 48)"],
    ("optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"): ["optimizer", "esterov"],
    ("optimizer._target_=torch.optim.RMSprop", "~optimizer.betas", "~optimizer.amsgrad"): [
        "RMSprop", "known are Adam, AdamW, SGD"],
    ("regularizer.scope=[{name: nothing}]",): ["regularizer.scope"],
    ("device=meta",): ["device", "meta"],
    ("dataset.class_weights=[1,2]",): ["dataset.class_weights: 2 numbers for 11 classes"],
    ("dataset.class_weights=[]",): ["dataset.class_weights: 0 numbers for 11 classes"],
    ("loss.class_weights=[1,2]",): ["loss.class_weights: 2 numbers for 11 classes"],
    ("dataset.class_weights=[0,0,0,0,0,0,0,0,0,0,0]",): ["dataset.class_weights", "all are 0"],
    ("loss=tversky", "loss.fp_weight=0", "loss.fn_weight=0"): ["loss", "fp_weight"],
    ("dataset.num_classes=12",): ["dataset", "num_classes is 11"],
    ("dataset.image_size=null",): ["dataset", "image_size"],
    ("dataset.image_size=[32768,32768]", "dataset.num_train=1000000"): ["dataset", "smaller sizes"],
    ("dataset.num_train=1000000000000000",): ["dataset", "memory", "smaller sizes"],
    ("dataset.digits_per_scene=[9,6]",): ["digits_per_scene", "[smallest, largest]"],
    ("dataset.digit_size=[100,100]",): ["digit_size 100", "image_size"],
    ("augmentation=light", "augmentation.scale=[1.1,0.9]"): ["scale", "[smallest, largest]"],
    ("model._target_=os.system",): ["model._target_", "os.system", "blocklisted"],
    ("model._target_=nope.Nope",): ["model._target_", "nope.Nope"],
    ("model._target_=null",): ["model._target_", "callable"],
    ("model._target_=builtins.print",): ["model (print)", "width"],
    ("regularizer.penalty._target_=5",): ["regularizer.penalty._target_", "'5'"],
    ("regularizer.scope=[{name: '*', penalize: false}]",): ["scope", "regularizer=none"],
    ("regularizer.scope=[{name: '*', types: [Nope]}]",): ["regularizer.scope", "penalize: false"],
    ("regularizer=bridge", "regularizer.solver=proximal"): ["solver", "use the factorized"],
    ("regularizer=l2", "regularizer.mode=decoupled", "regularizer.solver=subgradient"): [
        "regularizer.solver", "use proximal"],
    ("+optimizer.maximize=true",): ["regularizer.solver", "maximize"],
    ("device=cpu:x",): ["device", "cpu:x"],
    ("device=cpü",): ["device", "cpü"],
}  # fmt: skip


@pytest.mark.parametrize("typed", BUILT, ids=lambda typed: ascii(" ".join(typed))[1:50])
def test_what_cannot_be_built_is_refused_before_anything_is_written(typed, command, tmp_path):
    tiny = [word for word in TINY if word.split("=")[0] not in " ".join(typed)]
    assert_refused(command(*tiny, *typed), BUILT[typed], tmp_path)


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("dataset.root=Straße 1", "Straße 1"),
        ("dataset.root=my images (2), new", "my images (2), new"),
        ("dataset.root=/a=b/[c]", "/a=b/[c]"),
        ("dataset.root=it's; done", "it's; done"),
        ("dataset.group_pattern=^([^_]+)_", "^([^_]+)_"),
    ],
)
def test_a_text_needs_no_quotes(typed, value):
    assert quoted(quoted(typed)) == quoted(typed)
    key = typed.partition("=")[0].split(".")[1]
    config = compose_plain([quoted("dataset=folder"), "dataset.root=x", quoted(typed)])
    assert config["dataset"][key] == value


GLOBAL = "# @package _global_\n"
DEEP = "{a: " * 300 + "1" + "}" * 300

# content of experiment/mine.yaml -> words of the message
YAML = {
    "trainer: [\n": ["mine.yaml", "line 3"],
    "trainer:\n\tepochs: 1\n": ["mine.yaml", "line 3", "\\t"],
    "a: &a\n  b: *a\n": ["mine.yaml", "refers to itself"],
    f"a: {DEEP}\n": ["mine.yaml", "nested too deeply"],
    "trainer:\n  epochs: 1\n  epochs: 2\n": ["mine.yaml", "duplicate key epochs"],
    "seed: 1\nseed: 2\n": ["mine.yaml", "duplicate key seed"],
    "a: *b\n": ["mine.yaml", "alias"],
    "? [1, 2]\n: 3\n": ["mine.yaml", "key"],
    "null: 3\n": ["mine.yaml", "key"],
    "a: \udcff": ["mine.yaml", "utf-8"],
    "seed: !!python/object/apply:os.mkdir ['owned']\n": ["mine.yaml", "os.mkdir"],
    "seed: !nope 3\n": ["mine.yaml", "!nope"],
    "defaults:\n  - nope\n": ["experiment/mine", "experiment/nope"],
    "defaults:\n  - override /model: nope\n": ["model/nope"],
    "defaults:\n  - mine\n": ["defaults list", "refers to itself"],
    "defaults: 5\n": ["experiment/mine", "must be a list"],
    "trainer:\n  epochs: ${trainer.epochs}\n": ["trainer.epochs", "Recursive"],
    "trainer:\n  epochs: ${nope}\n": ["trainer.epochs", "'nope'", "give that key a value"],
    "trainer:\n  epohcs: 3\n": ["trainer.epohcs", "Did you mean 'trainer.epochs'?"],
    "trainer:\n  1: 3\n": ["trainer.1", "nothing reads"],
    "trainr:\n  epochs: 3\n": ["trainr", "Did you mean 'trainer'?"],
    "sede: 3\n": ["sede", "Did you mean 'seed'?"],
    "regularizer:\n  alhpa: 3\n": ["regularizer.alhpa", "Did you mean 'regularizer.alpha'?"],
    "trainer: 5\n": ["trainer: got 5", "keys"],
    "trainer: null\n": ["trainer: got None", "keys"],
    "model: unet\n": ["model: got 'unet'", "keys"],
    "regularizer:\n  penalty: 5\n": ["regularizer.penalty", "_target_"],
    "regularizer:\n  scope: 5\n": ["regularizer.scope", "a list of rules"],
    "regularizer:\n  alpha: {a: 1}\n": ["regularizer.alpha", NUMBER],
    "seed: 2026-01-01\n": ["seed", WHOLE],
    "seed: .nan\n": ["seed", WHOLE],
    "model:\n  widht: 3\n": ["model (UNet)", "widht"],
    "dataset:\n  imagesize: [48, 48]\n": ["dataset (load)", "imagesize"],
    "model:\n  _target_: os.system\n": ["model._target_", "os.system"],
}


def write_own(folder, files):
    for name, text in files.items():
        path = folder / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", errors="surrogateescape")


@pytest.mark.parametrize("text", YAML, ids=lambda text: ascii(text)[1:50])
def test_a_yaml_of_ones_own_that_is_wrong_is_named(text, command, tmp_path):
    write_own(tmp_path, {"experiment/mine.yaml": GLOBAL + text})
    typed = ["--config-dir", "own", "experiment=mine", "dataset.num_train=4", "dataset.num_val=4"]
    assert_refused(command(*typed), YAML[text], tmp_path)


# files -> what is typed, words of the message
OWN_OPTIONS = {
    "no package": (
        {"experiment/mine.yaml": "seed: 3\n"}, "experiment=mine", ["experiment", "@package"]),
    "other suffix": (
        {"experiment/mine.yml": "seed: 3\n"}, "experiment=mine", ["no option 'mine'"]),
    "a trainer without keys": (
        {"trainer/fast.yaml": "epochs: 1\n"}, "trainer=fast", ["trainer.", "missing", "defaults"]),
    "a model without target": (
        {"model/mine.yaml": "width: 4\n"}, "model=mine", ["model", "_target_"]),
    "a model with a wrong value": (
        {"model/mine.yaml": "_target_: seg_l1.models.unet.UNet\ndepth: x\n"}, "model=mine",
        ["model.depth", WHOLE]),
    "a dataset without keys": (
        {"dataset/mine.yaml": "_target_: seg_l1.data.digits.load\n"}, "dataset=mine",
        ["dataset.class_weights", "give that key a value"]),
    "a regularizer without keys": (
        {"regularizer/mine.yaml": "penalty: {_target_: seg_l1.penalties.L1}\n"},
        "regularizer=mine", ["regularizer.dropout", "give that key a value"]),
    "a group that there is not": (
        {"unknown/a.yaml": "x: 1\n"}, "unknown=a", ["unknown"]),
    "two files that name each other": (
        {"experiment/mine.yaml": "defaults: [other]\n",
         "experiment/other.yaml": "defaults: [mine]\n"}, "experiment=mine", ["refers to itself"]),
}  # fmt: skip


@pytest.mark.parametrize("case", OWN_OPTIONS)
def test_options_of_ones_own_that_are_wrong_are_named(case, command, tmp_path):
    files, typed, words = OWN_OPTIONS[case]
    write_own(tmp_path, files)
    assert_refused(command("--config-dir", "own", typed), words, tmp_path)


@pytest.mark.parametrize("kind", ["loop", "folder"])
def test_a_yaml_that_is_no_file_is_named(kind, command, tmp_path):
    path = tmp_path / "own" / "experiment" / "mine.yaml"
    path.parent.mkdir(parents=True)
    if kind == "loop":
        path.symlink_to(path.name)
    else:
        path.mkdir()
    result = command("--config-dir", "own", "experiment=mine")
    assert_refused(result, ["mine.yaml", "symbolic" if kind == "loop" else "directory"], tmp_path)


def test_yaml_of_ones_own_works(command, tmp_path):
    """Own names for interpolations, an option that builds on another, an empty file."""
    files = {
        "experiment/mine.yaml": GLOBAL + "base_rate: 0.02\noptimizer:\n  lr: ${base_rate}\n",
        "trainer/fast.yaml": "defaults: [default, _self_]\nepochs: 1\n",
        "debug/nothing.yaml": "",
    }
    write_own(tmp_path, files)
    tiny = [word for word in TINY if "epochs" not in word]
    typed = ["--config-dir", "own", "experiment=mine", "trainer=fast", "debug=nothing"]
    code, _, err = command(*typed, *tiny, "hydra.run.dir=run")
    assert (code, err) == (0, "")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["optimizer"]["lr"] == 0.02
    assert config["trainer"]["epochs"] == 1


class Evil:
    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, one of another model, and a sweep of two jobs."""
    folder = tmp_path_factory.mktemp("made")
    tiny = [*TINY, "trainer.epochs=1", "trainer.kkt_every=null"]
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["train", *tiny, "hydra.run.dir=run"]) == 0
        assert main(["train", *tiny, "model.depth=2", "hydra.run.dir=other"]) == 0
        assert main(["train", "-m", *tiny, "seed=0,1", "hydra.sweep.dir=sweep"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def copied(made, command, tmp_path):
    """The same in the folder of the test."""
    unread = shutil.ignore_patterns("tensorboard", "*.png")  # ten times as much as the rest
    shutil.copytree(made, tmp_path, ignore=unread, dirs_exist_ok=True)
    return tmp_path


def both(change):
    """A change of both checkpoints of a run."""
    return lambda run: [change(path) for path in sorted((run / "checkpoints").iterdir())]


def cut(path):
    path.write_bytes(path.read_bytes()[:3000])


def linked_to_itself(path):
    path.unlink()
    path.symlink_to(path.name)


def rewritten(name, change):
    """A change of the content of one checkpoint."""

    def apply(run):
        path = run / "checkpoints" / name
        state = torch.load(path, weights_only=True)
        change(state)
        torch.save(state, path)

    return apply


def placed(run, source, target):
    shutil.copy(run.parent / source, run / "checkpoints" / target)


def calls(name):
    return lambda state: state["config"]["model"].update(_target_=name)


WHOLE_FILES = {
    "truncated": (both(cut), "is not a checkpoint"),
    "zero bytes": (both(lambda path: path.write_bytes(b"")), "is not a checkpoint"),
    "a text": (both(lambda path: path.write_text("hello")), "is not a checkpoint"),
    "random bytes": (both(lambda path: path.write_bytes(bytes(range(256)))), "is not a checkpoint"),
    "code in a zip": (
        both(lambda path: torch.save({"model": Evil()}, path)), "is not a checkpoint"),
    "code in a pickle": (
        both(lambda path: path.write_bytes(pickle.dumps(Evil()))), "is not a checkpoint"),
    "a list": (both(lambda path: torch.save([1, 2], path)), "is not a checkpoint"),
    "a tensor": (both(lambda path: torch.save(torch.zeros(3), path)), "is not a checkpoint"),
    "no keys": (both(lambda path: torch.save({}, path)), "does not fit"),
    "weights alone": (
        both(lambda path: torch.save(torch.nn.Linear(2, 2).state_dict(), path)), "does not fit"),
    "missing": (both(lambda path: path.unlink()), "is missing"),
    "a link to itself": (both(linked_to_itself), "is missing"),
    "safetensors": (
        both(lambda path: shutil.copy(path.parents[1] / "model.safetensors", path)),
        "is not a checkpoint"),
}  # fmt: skip

BEST = {
    **{f"without {key}": (rewritten("best.pt", lambda s, key=key: s.pop(key)), "it lacks")
       for key in ("config", "classes", "mean", "std", "model")},
    "a config of nothing": (rewritten("best.pt", lambda s: s.update(config={})), "it lacks"),
    "a config of 5": (rewritten("best.pt", lambda s: s.update(config=5)), "does not fit"),
    "classes of 5": (rewritten("best.pt", lambda s: s.update(classes=5)), "does not fit"),
    "one channel": (rewritten("best.pt", lambda s: s.update(mean=[0.5])), "does not fit"),
    "no weights": (rewritten("best.pt", lambda s: s.update(model={})), "Missing key"),
    "weights of 5": (rewritten("best.pt", lambda s: s.update(model=5)), "does not fit"),
    "weights of another model": (
        rewritten("best.pt", lambda s: s["config"]["model"].update(depth=2)), "does not fit"),
    "no trainer": (rewritten("best.pt", lambda s: s["config"].update(trainer={})), "it lacks"),
    "last.pt": (lambda run: placed(run, "run/checkpoints/last.pt", "best.pt"), "it lacks"),
    "os.mkdir": (rewritten("best.pt", calls("os.mkdir")), "'os.mkdir'"),
    "a module's import": (rewritten("best.pt", calls("seg_l1.training.run.os.mkdir")),
                          "SEG_L1_TRUST=1"),
    "a room that removes": (rewritten("best.pt", calls("seg_l1.experiments.jobs._clear")),
                            "SEG_L1_TRUST=1"),
    "a call inside": (
        rewritten("best.pt", lambda s: s["config"]["model"].update(
            norm={"_target_": "os.mkdir", "_args_": ["owned"]})), "model.norm._target_"),
}  # fmt: skip

LAST = {
    **{f"without {key}": (rewritten("last.pt", lambda s, key=key: s.pop(key)), "does not fit")
       for key in ("loop", "random", "elapsed", "fingerprint")},
    **{f"loop without {key}": (rewritten("last.pt", lambda s, key=key: s["loop"].pop(key)), key)
       for key in ("model", "optimizer", "solver", "epoch", "step")},
    **{f"loop, a text as {key}": (
        rewritten("last.pt", lambda s, key=key: s["loop"].update({key: "x"})), "does not fit")
       for key in ("model", "optimizer", "epoch", "step", "best_miou")},
    **{f"random, a text as {key}": (
        rewritten("last.pt", lambda s, key=key: s["random"].update({key: "x"})), "does not fit")
       for key in ("python", "numpy", "torch")},
    "a loop of 5": (rewritten("last.pt", lambda s: s.update(loop=5)), "does not fit"),
    "a time that is none": (rewritten("last.pt", lambda s: s.update(elapsed="x")), "does not fit"),
    "another model": (
        lambda run: placed(run, "other/checkpoints/last.pt", "last.pt"), "does not fit"),
    "best.pt": (lambda run: placed(run, "run/checkpoints/best.pt", "last.pt"), "it lacks"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", [*WHOLE_FILES, *LAST])
def test_a_checkpoint_that_is_none_cannot_go_on(case, command, copied):
    damage, words = (WHOLE_FILES | LAST)[case]
    damage(copied / "run")
    result = command("resume=run", "trainer.epochs=2")
    assert_refused(result, ["last.pt", words, "outputs/runs" if "missing" in words else ""], copied)
    assert not (copied / "run" / "owned").exists()


@pytest.mark.parametrize("script", ["evaluate", "predict"])
@pytest.mark.parametrize("case", [*WHOLE_FILES, *BEST])
def test_weights_that_are_none_are_not_used(case, script, copied, capsys):
    damage, words = (WHOLE_FILES | BEST)[case]
    damage(copied / "run")
    Image.new("RGB", (9, 9)).save(copied / "a.png")
    typed = ["run=run"] if script == "evaluate" else ["run=run", "input=a.png", "output=o"]
    assert_refused(called(script, typed, capsys), ["best.pt", words], copied)
    assert not (copied / "o").exists()


def test_a_class_of_ones_own_is_built_for_those_who_trust_it(copied, capsys, monkeypatch):
    def renamed(state):
        state["config"]["model"]["_target_"] = "tests.test_hostile.OwnUNet"

    rewritten("best.pt", renamed)(copied / "run")
    assert called("evaluate", ["run=run"], capsys)[0] == 2
    monkeypatch.setenv(TRUST, "1")
    assert called("evaluate", ["run=run"], capsys)[0] == 0


def OwnUNet(**arguments):
    from seg_l1.models.unet import UNet

    return UNet(**arguments)


@pytest.mark.parametrize("group", TARGETS)
def test_what_conf_names_may_be_called_from_a_file(group):
    found = [
        name
        for path in (CONF / group.split(".")[0]).glob("*.yaml")
        for name in re.findall(r"_target_: (\S+)", path.read_text("utf-8"))
    ]
    assert found
    assert all(re.fullmatch(TARGETS[group], name.replace("null", "None")) for name in found)


def edited(change):
    """A change of config.yaml."""

    def apply(run):
        config = yaml.safe_load((run / "config.yaml").read_text())
        change(config)
        (run / "config.yaml").write_text(yaml.safe_dump(config))

    return apply


def filled(name, content):
    return lambda run: (run / name).write_bytes(content)


RUN_FILES = {
    "config: empty": (filled("config.yaml", b""), ["config.yaml", "missing", "keys"]),
    "config: a list": (filled("config.yaml", b"- 1"), ["config.yaml", "is not a configuration"]),
    "config: a number": (filled("config.yaml", b"5"), ["config.yaml", "is not a configuration"]),
    "config: broken": (filled("config.yaml", b"a: ["), ["config.yaml", "is not a configuration"]),
    "config: bytes": (filled("config.yaml", b"\xff\xfe"), ["config.yaml", "utf-8"]),
    "config: recursive": (filled("config.yaml", b"a: &a [*a]"), ["config.yaml", "recursion"]),
    "config: code": (
        filled("config.yaml", b"seed: !!python/object/apply:os.mkdir ['owned']"),
        ["config.yaml", "os.mkdir"]),
    "config: no trainer": (edited(lambda c: c.pop("trainer")), ["config.yaml: trainer"]),
    "config: no epochs": (
        edited(lambda c: c["trainer"].pop("epochs")), ["config.yaml: trainer.epochs", "missing"]),
    "config: no seed": (edited(lambda c: c.pop("seed")), ["config.yaml: seed", "missing"]),
    "config: a negative alpha": (
        edited(lambda c: c["regularizer"].update(alpha=-1)), ["config.yaml: regularizer.alpha"]),
    "config: another width": (
        edited(lambda c: c["model"].update(width=5)), ["last.pt", "does not fit"]),
    "config: other data": (
        edited(lambda c: c["dataset"].update(num_train=17)), ["last.pt", "other data"]),
    "config: another optimizer": (
        edited(lambda c: c["optimizer"].update(_target_="torch.optim.SGD")), ["optimizer"]),
    "config: a call": (
        edited(lambda c: c["loss"].update(_target_="os.mkdir")), ["config.yaml", "'os.mkdir'"]),
    "overrides: empty": (filled("overrides.yaml", b""), ["overrides.yaml", "'[]'"]),
    "overrides: keys": (filled("overrides.yaml", b"x: 1"), ["overrides.yaml", "'[]'"]),
    "overrides: a number": (filled("overrides.yaml", b"5"), ["overrides.yaml", "copy"]),
    "overrides: broken": (filled("overrides.yaml", b"a: ["), ["overrides.yaml", "copy"]),
    "metrics: empty": (filled("metrics.csv", b""), ["metrics.csv", "0 of 1 epochs"]),
    "metrics: a header": (filled("metrics.csv", b"epoch\n"), ["metrics.csv", "0 of 1 epochs"]),
    "metrics: a text": (filled("metrics.csv", b"epoch,a\n1,x\n"), ["metrics.csv", "'x'"]),
    "metrics: bytes": (filled("metrics.csv", b"\xff\x00"), ["metrics.csv", "copy"]),
    "metrics: no epoch": (filled("metrics.csv", b"a,b\n1,2\n"), ["metrics.csv", "it lacks"]),
}  # fmt: skip


@pytest.mark.parametrize("case", RUN_FILES)
def test_a_run_with_a_damaged_file_cannot_go_on(case, command, copied):
    damage, words = RUN_FILES[case]
    damage(copied / "run")
    words = [word for word in words if case != "config: empty" or word == "config.yaml"]
    assert_refused(command("resume=run", "trainer.epochs=2"), words, copied)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_a_finished_run_with_a_damaged_summary_says_so(content, command, copied):
    (copied / "run" / "summary.json").write_bytes(content)
    assert_refused(command("resume=run"), ["summary.json", "does not fit"], copied)


def first_job(**change):
    return lambda plan: plan["jobs"][0].update(change)


PLANS = {
    "empty": b"",
    "no keys": b"{}",
    "a list": b"[]",
    "bytes": b"\xff",
    "jobs are a number": b'{"typed": [], "jobs": 5}',
    "no jobs": b'{"typed": [], "jobs": []}',
    "half a job": b'{"typed": ["seed=0,1"], "jobs": [{"index": 0}]}',
    "words are a number": lambda plan: plan.update(typed=5),
    "a word is a number": lambda plan: plan.update(typed=[5]),
    "a flag": lambda plan: plan.update(typed=["--config-dir=.", "seed=0,1"]),
    "a word of hydra": lambda plan: plan.update(
        typed=["+hydra.callbacks.x._target_=os.mkdir", "seed=0,1"]
    ),
    "a folder above": first_job(folder="../precious"),
    "a folder of its own": first_job(folder="/precious"),
    "the folder of the sweep": first_job(folder="."),
    "the folder above": first_job(folder=".."),
    "a folder is a number": first_job(folder=5),
    "another index": first_job(index=7),
    "the same as a later one": first_job(same_as=1),
    "the same as none": first_job(same_as=-3),
    "swept is a number": first_job(swept=5),
    "a call": lambda plan: plan.update(typed=["loss._target_=os.mkdir", "seed=0,1"]),
}


@pytest.mark.parametrize("case", PLANS)
def test_a_sweep_with_a_damaged_plan_cannot_go_on(case, command, copied):
    precious = copied / "precious"
    precious.mkdir()
    (precious / "file").touch()
    file = copied / "sweep" / "sweep.json"
    plan = json.loads(file.read_text())
    if callable(PLANS[case]):
        PLANS[case](plan)
    file.write_bytes(json.dumps(plan).encode() if callable(PLANS[case]) else PLANS[case])
    words = ["sweep.json", "os.mkdir"] if case == "a call" else ["sweep.json", "outputs/sweeps"]
    assert_refused(command("-m", "resume_sweep=sweep"), words, copied)
    assert (precious / "file").exists()


def test_a_study_that_would_call_something_cannot_go_on(copied, capsys):
    from optuna import create_study

    (copied / "study").mkdir()
    words = {"regularizer.alpha": "log(1e-5,1e-3)", "loss._target_": "os.mkdir"}
    study = create_study(storage=f"sqlite:///{copied}/study/study.db", study_name="search")
    study.set_user_attr("words", {**words, "trials": "1", "objectives": "miou", "pruner": "none"})
    study._storage._backend.remove_session()
    study._storage._backend.engine.dispose()
    result = called("search", ["study=study"], capsys)
    assert_refused(result, ["study.db", "_target_", "SEG_L1_TRUST=1"], copied)


def test_a_sweep_with_a_damaged_job_names_its_file(command, copied):
    (job,) = copied.glob("sweep/0_*")
    (job / "config.yaml").write_text("a: [")
    words = ["config.yaml", "is not a configuration"]
    assert_refused(command("-m", "resume_sweep=sweep"), words, copied)


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
    ("predict", "run=run input=pictures output=pictures/o"): ["output", "another place"],
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
    ("search", "regularizer.älpha=log(1e-5,1e-3)"): ["regularizer.älpha", "key=value"],
}  # fmt: skip


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


@pytest.mark.parametrize(
    "damage",
    [
        lambda sweep, job: (job / "summary.json").write_text("{"),
        lambda sweep, job: (job / "summary.json").write_text("[]"),
        lambda sweep, job: (job / "config.yaml").write_text("a: ["),
        lambda sweep, job: (job / "environment.json").write_text("{"),
        lambda sweep, job: (job / "overrides.yaml").write_text("5"),
        lambda sweep, job: (job / "metrics.csv").write_text("x"),
        lambda sweep, job: (sweep / "sweep.json").write_text("{"),
    ],
    ids=["summary", "list", "config", "environment", "overrides", "metrics", "plan"],
)
@pytest.mark.slow
def test_a_report_is_written_of_what_can_be_read(damage, copied, capsys):
    sweep = copied / "sweep"
    damage(sweep, next(sweep.glob("0_*")))
    code, _, err = called("report", ["sweep", "output=o"], capsys)
    assert (code, err) == (0, "")
    assert (copied / "o" / "report.html").is_file()


def test_a_report_reads_nothing_outside_of_the_sweep(copied, capsys):
    (copied / "sweep" / "sweep.json").write_text(
        json.dumps({"typed": [], "jobs": [{"folder": str(copied / "run")}]})
    )
    shutil.rmtree(next(copied.glob("sweep/0_*")))
    shutil.rmtree(next(copied.glob("sweep/1_*")))
    words = ["sweep", "no completed run"]
    assert_refused(called("report", ["sweep"], capsys), words, copied)


def options(group, without=()):
    names = {path.stem for path in (CONF / group).glob("*.yaml")}
    return st.sampled_from(sorted(n for n in names - {*without} if not n.startswith("_")))


NETWORKS = {
    "unet": ["width", "depth", "growth", "norm"],
    "flat_unet": ["width", "depth", "norm"],
    "segnet": ["width", "depth", "norm"],
    "seed_cnn": ["width", "hidden"],
}


def number(low, high):
    return st.floats(low, high, allow_subnormal=False)  # a run makes them 0


KEYS = {
    "model.width": st.integers(1, 6),
    "model.depth": st.integers(1, 4),
    "model.growth": number(1, 2),
    "model.norm": st.sampled_from(["batch", "group", "none"]),
    "model.hidden": st.integers(1, 20),
    "dataset.batch_size": st.integers(1, 5),
    "dataset.class_weights": st.sampled_from(["null", "inverse", "median"]),
    "optimizer.lr": number(1e-6, 1e-2),
    "optimizer.weight_decay": number(0, 0.1),
    "scheduler.warmup": number(0, 1),
    "scheduler.final": number(0, 1),
    "regularizer.alpha": number(0, 1e-2),
    "regularizer.lam": number(0, 10),
    "regularizer.l1_ratio": number(0, 1),
    "regularizer.knot": number(1e-3, 10),
    "regularizer.epsilon": number(1e-3, 10),
    "regularizer.depth": st.integers(2, 5),
    "regularizer.dropout": number(0, 0.9),
    "regularizer.drop_connect": number(0, 0.9),
    "regularizer.solver": st.sampled_from(
        ["proximal", "subgradient", "factorized", "dual_averaging"]
    ),
    "regularizer.schedule": st.sampled_from(["constant", "linear", "cosine", "decay"]),
    "regularizer.schedule_epochs": st.integers(0, 1),
    "trainer.accumulate": st.integers(1, 3),
    "trainer.clip_norm": st.one_of(st.just("null"), number(1e-3, 10)),
    "trainer.clip_value": st.one_of(st.just("null"), number(1e-3, 10)),
    "trainer.precision": st.sampled_from(["fp32", "bf16"]),
    "trainer.channels_last": st.booleans(),
    "trainer.tile": st.sampled_from(["null", "[64,64]"]),
    "limit.train": st.one_of(st.just("null"), st.integers(1, 8)),
}


@st.composite
def typed_words(draw):
    """Overrides of which each alone is valid."""
    network = draw(st.sampled_from(sorted(NETWORKS)))
    words = [f"model={network}"]
    for group in ("loss", "optimizer", "scheduler", "regularizer", "augmentation"):
        words.append(f"{group}={draw(options(group))}")
    chosen = draw(st.sets(st.sampled_from(sorted(KEYS)), max_size=10))
    own = {f"model.{name}" for name in NETWORKS[network]}
    kept = sorted(key for key in chosen if not key.startswith("model.") or key in own)
    return words + [f"{key}={str(draw(KEYS[key])).lower()}" for key in kept]


SCENES = [
    "dataset.num_train=8", "dataset.num_val=4", "dataset.num_test=4", "dataset.image_size=[24,32]",
    "dataset.digit_size=[8,10]", "dataset.digits_per_scene=[1,3]", "trainer.epochs=2",
]  # fmt: skip


def takes_a_step(words):
    """Whether the configuration is carried out; what is refused must be refused in a line."""
    config = compose_plain([*SCENES, "model.width=4", *words])
    try:
        limits.check(config)
        loop = build(config, load_data(config)).loop
    except UserError as error:
        assert "\n" not in str(error)
        assert str(error).split(".")[0] in {*config_groups(), "loss (Dice)"}
        return False
    before = [p.detach().clone() for p in loop.model.parameters()]
    batches = loop.train.epoch()
    loop._train_step([next(batches)])
    after = list(loop.model.parameters())
    assert all(torch.isfinite(p).all() for p in after)
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    row, _ = loop.evaluate(loop.val)
    assert 0 <= row["pixel_accuracy"] <= 1
    return True


@pytest.mark.slow
def test_everything_that_composes_takes_a_step():
    """What cannot be carried out together is refused before the first step; most can be."""
    carried_out = []

    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(words=typed_words())
    def attempt(words):
        carried_out.append(takes_a_step(words))

    attempt()
    assert len(carried_out) >= 60
    assert sum(carried_out) >= len(carried_out) / 2
