"""Shards of two processes (FSDP) against one process with the whole weights."""

from __future__ import annotations

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from seg_l1 import Rule, attach, penalties
from seg_l1.solvers.dual_averaging import DualAveraging
from seg_l1.solvers.factorized import Factorized
from seg_l1.solvers.frozen import Frozen
from seg_l1.solvers.proximal import Proximal
from seg_l1.solvers.subgradient import Subgradient

CASES = {
    f"{solver.__name__}-{type(penalty).__name__}-{kind}": (solver, penalty, kind)
    for solver in (Proximal, Subgradient, DualAveraging, Frozen)
    for penalty in (penalties.L1(), penalties.GroupL1())
    for kind in ("SGD", "Adam")
}
FLAT = [name for name in CASES if "-L1-" in name]
"""What works with the flat shards of `FullyShardedDataParallel`."""


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1))


def train(model, case, clip):
    """30 steps, each process with its half of the batch; clipped where `clip` says so."""
    solver, penalty, kind = CASES[case]
    options = {"lr": 0.05, "momentum": 0.9} if kind == "SGD" else {"lr": 0.01, "eps": 1e-3}
    optimizer = getattr(torch.optim, kind)(model.parameters(), **options)
    attached = attach(optimizer, model, penalty, alpha=0.02, solver=solver)
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(1))
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    x = x[rank::size]
    for _ in range(30):
        optimizer.zero_grad()
        (model(x) - 2 * x[:, :1]).square().mean().backward()
        if clip:
            attached.clip_grad_norm_(0.5)
        optimizer.step()
    attached.flush()


def refusal(model, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    try:
        attach(optimizer, model, alpha=0.1, **options)
    except ValueError as error:
        return str(error)
    return ""


def work(rank, folder):
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.distributed.tensor import DTensor

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found, cpu = {}, {"device_id": torch.device("cpu")}
    for case in CASES:
        model = network()
        for layer in (model[0], model):
            fully_shard(layer)
        train(model, case, clip=True)
        assert all(isinstance(p, DTensor) for p in model.parameters())
        found["fully_shard", case] = [p.full_tensor().detach() for p in model.parameters()]
    for case in FLAT:
        model = FullyShardedDataParallel(network(), use_orig_params=True, **cpu)
        train(model, case, clip=False)
        with FullyShardedDataParallel.summon_full_params(model):
            found["flat", case] = [p.detach().clone() for p in model.parameters()]
    flat = FullyShardedDataParallel(network(), use_orig_params=True, **cpu)
    sharded, across = network(), nn.Sequential(nn.ConvTranspose2d(4, 4, 2))
    for model in (sharded, across):
        fully_shard(model)
    words = {
        "flat groups": refusal(flat, penalty=penalties.GroupL1()),
        "sparse groups": refusal(flat, penalty=penalties.SparseGroupL1()),
        "one flat tensor": refusal(FullyShardedDataParallel(network(), **cpu), rules=[Rule()]),
        "factors": refusal(sharded, solver=Factorized),
        "flat factors": refusal(flat, solver=Factorized),
        "cut channels": refusal(across, penalty=penalties.GroupL1()),
    }
    if rank == 0:
        torch.save((found, words), f"{folder}/found.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads can abort an interpreter that is shut down in order


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    mp.start_processes(work, (folder,), nprocs=2, start_method="spawn")
    return torch.load(folder / "found.pt", weights_only=True)


SHARDED = [*(("fully_shard", case) for case in CASES), *(("flat", case) for case in FLAT)]


@pytest.mark.slow
@pytest.mark.parametrize("case", SHARDED, ids="-".join)
def test_shards_take_the_steps_of_whole_weights(case, found):
    model = network()
    train(model, case[1], clip=case[0] == "fully_shard")
    weights = [p.detach() for p in model.parameters()]
    for one, two in zip(weights, found[0][case], strict=True):
        torch.testing.assert_close(two, one, rtol=0, atol=1e-6)
        if CASES[case[1]][0] is not Subgradient:
            assert torch.equal(one == 0, two == 0)
    assert not torch.equal(weights[0], network()[0].weight)


REMEDIES = {
    "flat groups": "fully_shard",
    "sparse groups": "fully_shard",
    "one flat tensor": "use_orig_params=True",
    "factors": "proximal",
    "flat factors": "proximal",
    "cut channels": "leave it out",
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REMEDIES)
def test_shards_that_cannot_be_penalized_are_refused_with_the_way(case, found):
    assert REMEDIES[case] in found[1][case]
