"""What a file or folder looks like, for the message that it is not what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seg_l1.data.convert.source import read_json
from seg_l1.errors import UserError

EXPECTED = {
    "coco": "a JSON file of COCO's instances (images, annotations, categories), or a folder with"
    " such files",
    "labelme": "a JSON file of LabelMe (shapes, imagePath), or a folder with such files",
    "yolo": "the data.yaml of a YOLO data set (names, train, val), or its folder",
    "cvat": "annotations.xml of 'CVAT for images 1.1', or its folder",
}
"""The tools, and what is read of each."""


def refuse(path: Path, tool: str, content: Any = None) -> UserError:
    """Returns the error that `path` is not what `tool` writes, with what it looks like.

    Args:
        content: what is in it, where it is JSON and was read.
    """
    if not path.exists():
        return UserError(f"{path}: there is no such file or folder; expected {EXPECTED[tool]}.")
    other, words = _looks_like(path, content)
    hint = f" {words}" if words else ""
    if other and other != tool:
        hint += f" Give {other} in place of {tool}."
    return UserError(f"{path}: is not {EXPECTED[tool]}.{hint}")


def _looks_like(path: Path, content: Any) -> tuple[str, str]:
    """Returns the tool whose file it seems to be, or "", and a sentence about it."""
    if path.is_dir():
        return _folder(path)
    suffix = path.suffix.lower()
    if suffix in (".zip", ".gz", ".tar", ".7z", ".rar"):
        return "", "It is an archive: unpack it, and give the folder."
    if suffix in (".yaml", ".yml"):
        return "yolo", "It looks like YOLO."
    if suffix == ".xml":
        return _xml(path)
    if suffix == ".txt":
        return "yolo", "It looks like YOLO, whose data.yaml is to be given."
    if suffix != ".json":
        return "", ""
    return _json(path, content)


def _folder(path: Path) -> tuple[str, str]:
    files = [file for depth in ("*", "*/*") for file in sorted(path.glob(depth)) if file.is_file()]
    order = {".yaml": 0, ".yml": 0, ".xml": 1, ".json": 2, ".zip": 3}
    telling = [file for file in files if file.suffix.lower() in order]
    for file in sorted(telling, key=lambda file: order[file.suffix.lower()])[:1]:
        tool, words = _looks_like(file, None)
        return tool, f"It holds {file.relative_to(path)}. {words}".rstrip()
    if not files:
        return "", "It holds no files."
    if any(file.suffix.lower() == ".txt" for file in files):
        return "yolo", "It holds .txt files, as YOLO's labels are; those need a data.yaml."
    return "", f"It holds {files[0].relative_to(path)} and no annotations."


def _xml(path: Path) -> tuple[str, str]:
    with open(path, "rb") as file:
        head = file.read(1 << 20)
    if b"<track" in head:
        video = "It is 'CVAT for video 1.1': export it as 'CVAT for images 1.1', which has a"
        return "", f"{video} picture per frame."
    if b"<annotations" in head:
        return "cvat", "It looks like CVAT."
    if b"<annotation" in head and b"<bndbox" in head:
        return "", "It looks like Pascal VOC, whose boxes are no masks."
    return "", ""


def _json(path: Path, content: Any) -> tuple[str, str]:
    if content is None:
        try:
            content = read_json(path)
        except UserError:
            return "", "It is no JSON."
    if isinstance(content, list):
        return "", "It holds a list, as COCO's results do."
    if not isinstance(content, dict):
        return "", ""
    if "shapes" in content:
        return "labelme", "It looks like LabelMe."
    if "_via_img_metadata" in content:
        return "", "It looks like VIA: export it there as COCO."
    annotations = content.get("annotations")
    if isinstance(annotations, list) and annotations and isinstance(annotations[0], dict):
        if "segments_info" in annotations[0]:
            return "", "It looks like COCO's panoptic annotations."
        if "caption" in annotations[0]:
            return "", "It looks like COCO's captions."
    if isinstance(content.get("images"), list) and isinstance(annotations, list):
        lacking = "" if "categories" in content else ", but lacks categories"
        return "coco", f"It looks like COCO{lacking}."
    return "", f"It holds the keys {', '.join(map(str, [*content][:5])) or '(none)'}."
