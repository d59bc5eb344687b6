"""Makes images and masks for training from the annotations of another tool.

    seg-l1 convert coco <JSON file or folder> <new folder> [crowd=class]
    seg-l1 convert labelme <folder or JSON file> <new folder>
    seg-l1 convert yolo <data.yaml or its folder> <new folder>
    seg-l1 convert cvat <annotations.xml or its folder> <new folder>

All take [images=<folder>] [missing=skip] [link=true].

Needs the extra `convert`: pip install 'seg-l1[convert]'. Writes images/ and masks/ (in train/,
val/, test/ where the source has splits), classes.txt and preview.png, a picture of up to 16 pairs
to look at. Prints objects and share of the pixels per class, what was skipped, and the command
that trains on the folder. A folder that has files is not written into.

images=<folder>  where the images are, if they are not found beside the annotations
missing=skip     leaves out images that are missing
link=true        links the images in place of copying them
crowd=class      draws COCO's crowd regions with their class; otherwise they are not labeled

Exit codes: 0 done, 1 failed while running, 2 the input was wrong, 130 interrupted.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from seg_l1.cli.arguments import at_home, key_values
from seg_l1.config.commands import assignment, command_line
from seg_l1.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from seg_l1.data.convert.source import Source
    from seg_l1.data.convert.write import Converted

TOOLS = ("coco", "labelme", "yolo", "cvat")
KEYS = ("images", "missing", "link", "crowd")
CHOICES = {
    "missing": ("error", "skip"),
    "link": ("false", "true"),
    "crowd": ("ignore", "class"),
}


def run(words: list[str]) -> int:
    """Writes the folder; returns the exit code."""
    tool, path, folder, typed = _parse(words)
    _check_places(path, folder)
    from seg_l1.data.convert.write import check_empty

    check_empty(folder)
    source = _read(tool, path, typed)
    done = _write(source, folder, typed)
    from seg_l1.data.convert.write import has_train
    from seg_l1.display.converted import converted_text, save_pairs

    save_pairs(folder / "preview.png", done)
    sys.stdout.write(f"{converted_text(done)}\n\n")
    sys.stdout.write(f"the data are in {folder}; look at {folder / 'preview.png'}\n")
    root = assignment("dataset.root", folder)
    if has_train(done):
        sys.stdout.write(f"\nnext:\n  {command_line('train', 'experiment=own', root)}\n")
    else:
        command = command_line("evaluate", "run=<run>", root)
        sys.stdout.write(f"\nthere is no train split; to score a run on these data: {command}\n")
    return 0


def _parse(words: list[str]) -> tuple[str, Path, Path, dict[str, str]]:
    """Returns the tool, the source, the target, and what is given as key=value."""
    keyed = [word for word in words if _is_key(word)]
    plain = [word for word in words if word not in keyed]
    typed = key_values(keyed, KEYS)
    example = command_line("convert", "coco|labelme|yolo|cvat", "<source>", "<new folder>")
    example = example.replace("'", "")
    if plain and plain[0] not in TOOLS:
        hint = did_you_mean(plain[0].lower(), TOOLS)
        raise UserError(f"'{plain[0]}': is no tool; expected {' or '.join(TOOLS)}.{hint} {example}")
    if len(plain) != 3 or not all(plain):
        raise UserError(
            f"give a tool, a source and a new folder, got {len(plain)} words: {example}"
        )
    for key, choices in CHOICES.items():
        if (value := typed.get(key, choices[0])) not in choices:
            raise UserError(f"{key}: got '{value}', expected {' or '.join(choices)}.")
    if "crowd" in typed and plain[0] != "coco":
        raise UserError(f"crowd: {plain[0]} has no crowd regions; leave it out")
    return plain[0], Path(at_home(plain[1])), Path(at_home(plain[2])), typed


def _is_key(word: str) -> bool:
    """Returns whether a word is key=value or a flag; the paths of files may hold a = too."""
    key, equals, _ = word.partition("=")
    return word.startswith("-") or (bool(equals) and key.isidentifier() and not Path(word).exists())


def _check_places(path: Path, folder: Path) -> None:
    if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
        raise UserError(f"{folder}: lies in the source {path}; give another folder, outside of it.")


def _read(tool: str, path: Path, typed: dict[str, str]) -> Source:
    images = Path(typed["images"]) if "images" in typed else None
    if images and not images.is_dir():
        raise UserError(f"images: there is no folder '{images}'.")
    from seg_l1.data.convert.regions import coco_masks

    coco_masks()
    reader = import_module(f"seg_l1.data.convert.{tool}")
    options = {"crowd": typed["crowd"]} if "crowd" in typed else {}
    source: Source = reader.read(path, images, **options)
    return source


def _write(source: Source, folder: Path, typed: dict[str, str]) -> Converted:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    from seg_l1.data.convert.write import write

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bar as progress:
        task = progress.add_task("images", total=len(source.items))

        def on_image(done: int, count: int) -> None:
            progress.update(task, completed=done, total=count)

        return write(
            source,
            folder,
            leave_missing=typed.get("missing") == "skip",
            link=typed.get("link") == "true",
            on_image=on_image,
        )
