"""What all HTML pages have in common; each is one file that needs nothing else."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path


def page_style() -> str:
    """Returns the style sheet of the pages."""
    return Path(__file__).with_name("page.css").read_text("utf-8")


def base64(content: bytes) -> str:
    """Returns a picture as a page holds it, after `data:image/png;base64,`."""
    return b64encode(content).decode()
