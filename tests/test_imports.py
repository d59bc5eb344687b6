"""The rooms import each other in one direction, and hydra stays at the door."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ORDER = [
    "errors", "signals", "limits", "prox", "penalties", "schedules", "scope", "solvers", "library",
    "noise",
    "distributed", "data", "models", "losses", "certificate", "ledger", "metrics", "sparsity",
    "checkpoints", "artifacts", "tiles", "pictures", "board", "evaluation", "loop", "display",
    "build", "recorder", "run", "prediction", "plots", "report", "sweep", "jobs", "sweep_screen",
    "overrides", "planning", "launch", "search", "path", "resume", "callback", "cli", "scripting",
]  # fmt: skip
HYDRA_ROOMS = {"build", "overrides", "planning", "launch", "resume", "callback", "cli"}


def imports(path):
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms():
    for path in sorted((ROOT / "seg_l1").rglob("*.py")):
        parts = path.relative_to(ROOT / "seg_l1").with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def test_every_room_has_its_place():
    assert {room for room, _ in rooms()} == set(ORDER)


def test_no_room_imports_one_further_down():
    for room, path in rooms():
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "seg_l1" and len(parts) > 1 and parts[1] in ORDER:
                assert ORDER.index(parts[1]) <= ORDER.index(room), f"{path} imports {name}"


def test_hydra_is_known_at_the_door_only():
    for room, path in rooms():
        known = {name.split(".")[0] for name in imports(path)} & {"hydra", "omegaconf"}
        assert not known or room in HYDRA_ROOMS, path


def test_help_and_typos_answer_without_torch():
    code = (
        "import sys; from seg_l1.cli import main;"
        " assert main(['--help']) == 0; assert main(['regularizer=l3']) == 2;"
        " assert main(['regularizer.alpha=-1']) == 2; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
