"""The folders of configuration files, with the groups in them and the options of each."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

CONF = next(
    folder
    for folder in (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf")
    if folder.is_dir()
)
"""The configuration: inside the package in a wheel, beside it in a checkout."""


def config_groups(*folders: Path) -> list[str]:
    """Returns the names of the groups of `conf/`, or of several such folders."""
    return sorted({path.name for folder in folders or (CONF,) for path in folder.iterdir()
                   if path.is_dir() and not path.name.startswith(("_", "."))})  # fmt: skip


def group_options(group: str, *folders: Path) -> list[str]:
    """Returns the options of a group of `conf/`, or of several such folders."""
    paths = [path for folder in folders or (CONF,) for path in (folder / group).glob("*.yaml")]
    return sorted({path.stem for path in paths if not path.stem.startswith("_")})


def config_folders(flags: Namespace) -> list[Path]:
    """Returns `conf/`, and the user's --config-dir where there is one."""
    return [CONF, *([Path(flags.config_dir)] if flags.config_dir else [])]


def config_words(flags: Namespace) -> list[str]:
    """Returns the flag --config-dir as a word that holds in any folder, or nothing."""
    return [f"--config-dir={Path(flags.config_dir).absolute()}"] if flags.config_dir else []
