"""Packages import each other in one direction, and hydra stays with the configuration."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = [
    ["errors", "schedules", "prox"],
    ["penalties", "scope", "distributed", "data"],
    ["solvers", "models", "runs"],
    ["losses", "config"],
    ["metrics"],
    ["compaction"],
    ["display"],
    ["deployment"],
    ["training", "report"],
    ["experiments"],
    ["cli"],
]
"""Each package or module imports from the layers above its own, and from itself."""

LAYER = {name: index for index, names in enumerate(LAYERS) for name in names}
HYDRA = {"runs.files", "config", "training.instantiate", "experiments", "cli"}
"""Where hydra or omegaconf may be imported."""


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


def modules():
    for path in sorted((ROOT / "seg_l1").rglob("*.py")):
        parts = path.relative_to(ROOT / "seg_l1").with_suffix("").parts
        if parts != ("__init__",):
            yield parts, path


def test_every_module_has_its_layer():
    assert {parts[0] for parts, _ in modules()} == set(LAYER)


def test_imports_point_to_earlier_layers():
    for parts, path in modules():
        for name in imports(path):
            _, _, inside = name.partition("seg_l1.")
            other = inside.split(".")[0]
            if name.startswith("seg_l1.") and other in LAYER and other != parts[0]:
                assert LAYER[other] < LAYER[parts[0]], f"{path} imports {name}"


def test_hydra_is_imported_where_configurations_are_made():
    importing = {
        ".".join(parts)
        for parts, path in modules()
        if {name.split(".")[0] for name in imports(path)} & {"hydra", "omegaconf"}
    }
    allowed = {name: {name, name.split(".")[0]} & HYDRA for name in importing}
    assert all(allowed.values()), allowed
    assert set().union(*allowed.values()) == HYDRA


def test_undocumented_parts_of_hydra_are_used_in_one_module():
    users = {".".join(parts) for parts, path in modules() if "hydra._internal" in path.read_text()}
    assert users == {"config.hydra_internals"}


def test_help_and_typos_answer_without_torch():
    code = """
import sys
from seg_l1.cli.main import COMMANDS, main

assert main([]) == main(["--help"]) == 0
assert main(["trian"]) == 2
for command in COMMANDS:
    assert main([command, "--help"]) == 0, command
for command in ("train", "path"):
    assert main([command, "regularizer=l3"]) == main([command, "trainer.epochs=-1"]) == 2, command
for command in ("report", "evaluate", "export", "predict"):
    assert main([command, "outptu=x"]) == 2, command
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
