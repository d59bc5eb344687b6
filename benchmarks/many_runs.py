"""A folder of 10,000 finished runs: how long planning, report and TensorBoard take.

    python benchmarks/many_runs.py [--jobs 10000] [--folder /tmp/many] [--tensorboard]

One small run of 20 epochs is trained; the others are copies of it with other strengths, seeds and
scores, as a sweep of 5 regularizers × strengths × 20 seeds leaves them. Targets for 10,000: a
report within 60 s and 2 GiB, planning within 60 s. Each command is timed as a process of its own.
TensorBoard is timed until it lists all runs, and until it answers with their hyperparameters; its
event files, of which none is changed, are links to that of the run that was trained.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
REGULARIZERS = ("none", "l1", "l2", "group_l1", "mcp")
SEEDS = 20
SMALL = (
    "trainer.epochs=20", "dataset.num_train=16", "dataset.num_val=8", "dataset.num_test=8",
    "model.width=4", "model.depth=2", "trainer.compact=false",
)  # fmt: skip
COPIED = ("environment.json", "model.safetensors", "metrics.csv", "scope.csv")


def alphas(jobs: int) -> list[str]:
    """Returns as many strengths as a sweep of about `jobs` jobs has."""
    count = max(1, jobs // (SEEDS * len(REGULARIZERS)))
    return [f"{1e-6 * 10 ** (3 * index / max(1, count - 1)):.6g}" for index in range(count)]


def typed(jobs: int) -> list[str]:
    """Returns the words of the sweep."""
    seeds = ",".join(map(str, range(SEEDS)))
    swept = [f"regularizer={','.join(REGULARIZERS)}", f"regularizer.alpha={','.join(alphas(jobs))}"]
    return [*swept, f"seed={seeds}", *SMALL]


def timed(*command: str) -> tuple[float, float]:
    """Runs a command; returns its seconds, and the peak memory in MiB of all commands so far."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return time.perf_counter() - started, peak


def simulate(sweep: Path, example: Path) -> None:
    """Writes the runs of a planned sweep: copies of `example`."""
    config = yaml.safe_load((example / "config.yaml").read_text("utf-8"))
    summary = json.loads((example / "summary.json").read_text("utf-8"))
    contents = {name: (example / name).read_bytes() for name in COPIED}
    penalties = {
        path.stem: yaml.safe_load(path.read_text("utf-8"))
        for path in (ROOT / "conf/regularizer").glob("*.yaml")
    }
    draw = random.Random(0)
    plan = json.loads((sweep / "sweep.json").read_text("utf-8"))
    for job in plan["jobs"]:
        if job["same_as"] is not None:
            continue
        words = dict(word.split("=", 1) for word in job["overrides"])
        mine, scores = copy.deepcopy(config), copy.deepcopy(summary)
        mine["seed"] = int(words["seed"])
        mine["regularizer"]["alpha"] = float(words["regularizer.alpha"])
        mine["regularizer"]["name"] = words["regularizer"]
        penalty = penalties[words["regularizer"]]["penalty"]["_target_"]
        mine["regularizer"]["penalty"] = {"_target_": penalty}
        for part in ("best", "last", "test"):
            for key in scores[part]:
                if key.endswith("miou"):
                    scores[part][key] = draw.uniform(0.6, 0.8)
        folder = sweep / job["folder"]
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(mine), encoding="utf-8")
        (folder / "overrides.yaml").write_text(yaml.safe_dump(job["overrides"]), encoding="utf-8")
        (folder / "summary.json").write_text(json.dumps(scores), encoding="utf-8")
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        (folder / "tensorboard").mkdir()
        for path in (example / "tensorboard").iterdir():
            os.link(path, folder / "tensorboard" / path.name)


def tensorboard(folder: Path) -> None:
    """Starts TensorBoard on a folder, and prints how long it takes to know all of its runs."""
    expected = sum(1 for _ in folder.glob("*/tensorboard"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--logdir", str(folder), "--port", str(port), "--host", "127.0.0.1"]
    started = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address, shown = f"http://127.0.0.1:{port}/data", 0
    try:
        while shown < expected:
            time.sleep(1)
            with suppress(OSError):
                found = len(_ask(f"{address}/runs"))
                if shown == 0 < found:
                    print(f"TensorBoard: first runs {time.perf_counter() - started:.0f} s")
                shown = found
        print(f"TensorBoard: {shown} runs {time.perf_counter() - started:.0f} s", flush=True)
        asked = time.perf_counter()
        query = {"startIndex": 0, "sliceSize": 100, "allowedStatuses": ["STATUS_SUCCESS"]}
        groups = _ask(f"{address}/plugin/hparams/session_groups", query)
        seconds = time.perf_counter() - asked
        print(f"HParams: {groups.get('totalSize')} runs {seconds:.0f} s", flush=True)
        print(f"memory {_memory(server.pid):.0f} MiB")
    finally:
        server.terminate()


def _ask(url: str, query: dict[str, Any] | None = None) -> Any:
    data = None if query is None else json.dumps(query).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


def _memory(pid: int) -> float:
    """MiB of a process and of those that it started."""
    total, children = 0.0, [pid]
    while children:
        one = children.pop()
        tasks = Path(f"/proc/{one}/task").glob("*/children")
        children += [int(word) for path in tasks for word in path.read_text().split()]
        status = Path(f"/proc/{one}/status").read_text()
        total += int(status.partition("VmRSS:")[2].split()[0]) / 1024
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--tensorboard", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = chosen.folder or Path(name)
        sweep, example = folder / "sweep", folder / "example"
        if not (sweep / "sweep.json").is_file():
            timed("train.py", *SMALL, f"hydra.run.dir={example}")
            words = [*typed(chosen.jobs), "sweep.plan_only=true", f"hydra.sweep.dir={sweep}"]
            print(f"planning {timed('train.py', '-m', *words)[0]:.1f} s", flush=True)
            simulate(sweep, example)
        seconds, peak = timed("scripts/report.py", str(sweep), f"output={folder / 'report'}")
        print(f"report {seconds:.1f} s, at most {peak:.0f} MiB", flush=True)
        if chosen.tensorboard:
            tensorboard(sweep)


if __name__ == "__main__":
    main()
