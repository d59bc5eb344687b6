"""In anybody's loop: `attach`, without anything else of this project."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import seg_l1
from seg_l1 import Rule, attach, load, penalties
from seg_l1.compaction import compact
from seg_l1.solvers import metric
from seg_l1.solvers.dual_averaging import DualAveraging
from seg_l1.solvers.factorized import Factorized
from seg_l1.solvers.proximal import Proximal
from seg_l1.solvers.subgradient import Subgradient

ROOT = Path(__file__).parents[1]
SOLVERS = [Proximal, Subgradient, Factorized, DualAveraging]


def classifier():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)
    )


def batch(seed=0, count=16):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 6, 6, generator=generator), torch.arange(count) % 4


def zeros(net):
    return int(sum((p == 0).sum() for p in net.parameters()))


def test_three_lines_in_a_plain_loop_on_a_torchvision_classifier():
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    model = squeezenet1_1(num_classes=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, eps=1e-5)
    solver = attach(optimizer, model, alpha=1e-4)
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    weights = [entry.tensor for entry in solver.penalized_tensors]
    assert len(weights) == 26
    assert 0.05 < sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights) < 1
    assert all((p != 0).any() for n, p in model.named_parameters() if n.endswith("bias"))


def test_what_the_package_offers_is_listed_and_can_be_had():
    assert set(seg_l1.__all__) <= set(dir(seg_l1))
    assert [getattr(seg_l1, name) for name in seg_l1.__all__] == [
        Rule, attach, compact, load, penalties,
    ]  # fmt: skip
    with pytest.raises(AttributeError, match="no attribute 'atach'"):
        _ = seg_l1.atach


@pytest.mark.slow
def test_an_onnx_file_is_loaded_without_torch():
    code = (
        "import sys; from seg_l1 import load\n"
        "try: load('no.onnx')\n"
        "except Exception as error: print(error)\n"
        "assert 'torch' not in sys.modules and 'hydra' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "no.onnx" in done.stdout, done.stderr


@pytest.mark.slow
def test_neither_hydra_nor_torchvision_is_imported():
    code = (
        "import sys, torch; from seg_l1 import attach, Rule; from seg_l1 import penalties;"
        " net = torch.nn.Linear(3, 2); attach(torch.optim.Adam(net.parameters()), net, alpha=1.0);"
        " bad = {'hydra', 'omegaconf', 'torchvision', 'torchmetrics', 'tensorboard', 'sklearn'};"
        " print(sorted(bad & set(sys.modules))); assert not bad & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_strength_and_scope_can_be_chosen_and_strength_changed():
    net = classifier()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    rules = (Rule("0.weight"), Rule(penalize=False))
    solver = attach(optimizer, net, penalties.GroupL1(), alpha=0.0, rules=rules)
    images, labels = batch()

    def step():
        optimizer.zero_grad()
        cross_entropy(net(images), labels).backward()
        optimizer.step()

    step()
    assert zeros(net) == 0
    solver.strength = 1e3
    step()
    assert zeros(net) == net[0].weight.numel()
    assert [entry.name for entry in solver.penalized_tensors] == ["0.weight"]


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf")])
def test_a_strength_that_is_none_is_refused(alpha):
    net = classifier()
    with pytest.raises(ValueError, match="alpha"):
        attach(torch.optim.SGD(net.parameters(), lr=0.1), net, alpha=alpha)


def test_an_unknown_metric_can_be_registered():
    class Signed(torch.optim.Optimizer):
        """w ← w − lr·g/2, as if by another metric."""

        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(p.grad, alpha=-group["lr"] / 2)

    net = nn.Linear(1, 1, bias=False)
    optimizer = Signed(net.parameters(), lr=0.1)
    with pytest.raises(TypeError, match=r"Signed.*known are.*register"):
        attach(optimizer, net, alpha=1.0)
    metric.prox_step.register(Signed)(lambda optimizer, group, tensor, size, count: size / 2)
    attach(optimizer, net, alpha=0.5)
    nn.init.ones_(net.weight)
    net.weight.grad = torch.full_like(net.weight, -0.5)
    for _ in range(5):
        optimizer.step()
        assert float(net.weight.detach()) == pytest.approx(1.0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_scaled_loss_takes_the_same_steps(solver):
    """Under a GradScaler, whose first step overflows and must change nothing."""
    images, labels = batch()
    nets = [classifier(), classifier()]
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.005, momentum=0.9) for net in nets]
    for net, optimizer in zip(nets, optimizers, strict=True):
        torch.manual_seed(1)
        attach(optimizer, net, alpha=1e-2, solver=solver)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=10_000)
    before = copy.deepcopy(nets[0].state_dict())
    scales = []
    for _ in range(60):
        optimizers[0].zero_grad()
        scaler.scale(8 * cross_entropy(nets[0](images), labels)).backward()
        scaler.unscale_(optimizers[0])
        scaler.step(optimizers[0])
        scaler.update()
        scales.append(scaler.get_scale())
        if len(scales) == 1:
            now = nets[0].state_dict()
            assert all(torch.equal(now[name], before[name]) for name in now)
    skipped = sum(b < a for a, b in zip([2.0**127, *scales], scales, strict=False))
    assert 0 < skipped < 40
    for _ in range(60 - skipped):
        optimizers[1].zero_grad()
        (8 * cross_entropy(nets[1](images), labels)).backward()
        optimizers[1].step()
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_fused_optimizer_that_skips_its_step_skips_the_prox():
    """The scaler calls it even then, and says so by `found_inf`."""
    net = classifier()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1, fused=True)
    for solver in (Proximal, DualAveraging):
        attached = attach(optimizer, net, alpha=1.0, solver=solver)
        before = copy.deepcopy(net.state_dict())
        images, labels = batch()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
        optimizer.zero_grad()
        (scaler.scale(cross_entropy(net(images), labels)) * 1e30).backward()
        scaler.step(optimizer)
        assert all(torch.equal(w, before[name]) for name, w in net.state_dict().items())
        attached.detach()


@pytest.mark.parametrize("solver", [Subgradient, Factorized])
def test_scaled_gradients_are_refused_where_they_would_be_taken_for_true_ones(solver):
    net = classifier()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1, fused=True)
    attach(optimizer, net, alpha=1.0, solver=solver)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(net(batch()[0]).sum()).backward()
    with pytest.raises(ValueError, match="unscale_"):
        scaler.step(optimizer)


def test_under_autocast_weights_and_prox_stay_float32():
    net = classifier()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    attach(optimizer, net, alpha=1e-2)
    images, labels = batch()
    for _ in range(10):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert zeros(net) > 0
    alive = net[3].weight[net[3].weight != 0]
    assert (alive.bfloat16().float() != alive).any()


@pytest.mark.parametrize("solver", [Factorized, DualAveraging])
def test_weights_that_are_loaded_after_attaching_are_the_start(solver):
    net = classifier()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-9)
    attach(optimizer, net, alpha=0.0, solver=solver)
    loaded = {name: w + 1 for name, w in net.state_dict().items()}
    net.load_state_dict(loaded)
    cross_entropy(net(batch()[0]), batch()[1]).backward()
    optimizer.step()
    for name, w in net.state_dict().items():
        torch.testing.assert_close(w, loaded[name], rtol=1e-5, atol=1e-5)


CASES = [(solver, kind) for solver in SOLVERS for kind in ("SGD", "Adam")]


def _train(rank, processes, solver, kind):
    """20 steps on the share of this process; returns the weights."""
    net = classifier().double()
    early = solver in (DualAveraging, Factorized)  # attached before DDP has sent the weights
    with torch.no_grad():
        net[0].weight.add_(rank)
    options = {"lr": 0.05, "momentum": 0.9} if kind == "SGD" else {"lr": 0.01}
    optimizer = getattr(torch.optim, kind)(net.parameters(), **options)
    torch.manual_seed(2 + rank)
    if early:
        attach(optimizer, net, alpha=1e-2, solver=solver)
    model = DistributedDataParallel(net) if processes > 1 else net
    if not early:
        attach(optimizer, model, alpha=1e-2, solver=solver)
    for step in range(20):
        images, labels = batch(step)
        optimizer.zero_grad()
        share = slice(rank, None, processes)
        cross_entropy(model(images[share].double()), labels[share]).backward()
        optimizer.step()
    return net.state_dict()


def _train_all(rank, folder):
    """Trains all cases as one of two processes; rank 0 saves the weights of each."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    weights = [_train(rank, 2, *case) for case in CASES]
    if rank == 0:
        torch.save(weights, f"{folder}/two.pt")
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads can abort an interpreter that is shut down in order


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory):
    """The weights of all cases after the training in two processes."""
    folder = tmp_path_factory.mktemp("two")
    mp.start_processes(_train_all, (folder,), nprocs=2, start_method="spawn")
    return dict(zip(CASES, torch.load(folder / "two.pt", weights_only=True), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def test_two_processes_take_the_steps_of_one(case, trained_by_two):
    one, two = _train(0, 1, *case), trained_by_two[case]
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-6)
        if case[0] in (Proximal, DualAveraging):
            assert torch.equal(one[name] == 0, two[name] == 0)
