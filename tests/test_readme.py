"""The Python examples of README.md and docs/ run as they are printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.examples import Block, blocks, run
from tests.support.forks import Forked

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_EXAMPLES = [
    page
    for page in PAGES
    if any("no-run" not in block.flags for block in blocks(page.read_text("utf-8")))
]


def test_there_are_examples():
    assert WITH_EXAMPLES


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page, tmp_path):
    """In a process of their own: one may register the metric of an optimizer, for example."""
    ended = Forked(
        [str(page)], folder=tmp_path, command=lambda words: run(Path(words[0])) or 0
    ).wait()
    assert ended.code == 0, ended.err


def test_an_example_that_raises_is_reported_by_its_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("A page.\n\n```python\nmodel(images)\nraise ValueError('wrong')\n```\n")
    with pytest.raises(ValueError, match="wrong") as caught:
        run(page)
    last = caught.traceback[-1]
    assert (Path(last.path), last.lineno + 1) == (page, 5)


def test_a_warning_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nimport warnings\nwarnings.warn('old', FutureWarning)\n```\n")
    with pytest.raises(FutureWarning, match="old"):
        run(page)


def test_blocks_are_skipped_or_continued_where_the_fence_says_so(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\n```\n```python continue\nx += 1\n```\n"
        "```python no-run\nraise ValueError\n```\n```python continue\nassert x == 2\n```\n"
        "```python\nassert 'x' not in globals()\n```\n"
    )
    run(page)


def test_python_blocks_are_found_in_lists_too_and_others_are_not():
    text = "```\na\n```\n- item\n\n  ```python\n  if b:\n      c\n  ```\n\n```yaml\nd: e\n```\n"
    assert blocks(text) == [Block("if b:\n    c\n", 7, frozenset())]
    with pytest.raises(ValueError, match=r"line 1.*norun"):
        blocks("```python norun\n```\n")
