"""Every example in a docstring of the package gives what it says."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def modules_with_examples() -> dict[str, int]:
    """Names of the modules that hold examples, and how many lines begin with a prompt in each."""
    found = {}
    for path in sorted((ROOT / "seg_l1").rglob("*.py")):
        prompts = re.findall(r"^\s*>>> ", path.read_text("utf-8"), re.MULTILINE)
        if prompts:
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = len(prompts)
    return found


EXAMPLES = modules_with_examples()


def test_there_are_examples():
    assert sum(EXAMPLES.values()) >= 10


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_a_module_are_right(name):
    """All of them run: one that doctest does not find, as in a nested function, is an error."""
    module = importlib.import_module(name)
    results = doctest.testmod(module, extraglobs={"torch": torch})
    assert results.failed == 0
    assert results.attempted == EXAMPLES[name]
