"""Limits that keep the code readable: few names, few layers, short files and functions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "seg_l1"
FILES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "scripts").glob("*.py"), ROOT / "train.py"])


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def body_lines(function: ast.FunctionDef, lines: list[str]) -> int:
    """Lines of a function without its signature, docstring, comments and blank lines."""
    body = function.body
    if ast.get_docstring(function, clean=False) is not None:
        body = body[1:]
    if not body:
        return 0
    inside = lines[body[0].lineno - 1 : body[-1].end_lineno]
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in inside)


def test_the_top_of_the_package_has_at_most_20_names():
    ignored = {"__init__.py", "__pycache__", "conf"}
    names = {path.name for path in PACKAGE.iterdir()} - ignored
    assert 10 <= len(names) <= 20, sorted(names)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_are_short(path):
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) <= 300
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert body_lines(node, lines) <= 45, f"{node.name}, line {node.lineno}"


def test_private_modules_of_hydra_are_used_in_one_file():
    users = [path for path in FILES if "hydra._internal" in path.read_text("utf-8")]
    assert len(users) <= 1, users
