"""The documentation: links that lead somewhere, a short README, a current list of keys."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


def test_the_readme_has_at_most_180_lines():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 180


def test_the_list_of_keys_is_current():
    generated = runpy.run_path(str(ROOT / "docs" / "generate_keys.py"))["page"]()
    current = (ROOT / "docs" / "keys.md").read_text("utf-8")
    assert generated == current, "run python docs/generate_keys.py"


def test_every_key_of_the_default_configuration_is_listed():
    from seg_l1.config import compose, identity

    listed = (ROOT / "docs" / "keys.md").read_text("utf-8")
    for key, _ in identity.flatten(compose.compose_plain([])):
        internal = re.search(r"_target_|^regularizer\.(penalty|name)\b|^(experiment|debug)\b", key)
        assert internal or f"`{key}`" in listed, key
