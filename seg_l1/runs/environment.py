"""The environment of a run, which a rerun would have to match."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from seg_l1 import distributed


def environment(
    seed: int, device: torch.device, fingerprint: str, classes: Sequence[str]
) -> dict[str, Any]:
    """Versions, git commit, device, seed, data fingerprint, classes, for `environment.json`."""
    versions: dict[str, str | None] = {}
    for package in ("seg_l1", "torch", "torchvision", "hydra-core", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "versions": versions,
        "git": _git(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "processes": distributed.size(),
        "seed": seed,
        "data_fingerprint": fingerprint,
        "classes": [*classes],
    }


def _git() -> dict[str, Any]:
    def ask(*words: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", "-C", str(Path(__file__).parent), *words],
                capture_output=True, text=True, timeout=10, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout.strip()

    status = ask("status", "--porcelain")
    return {"commit": ask("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}
