"""Saves images of other formats, more bits or several pages as PNG with 8 bits per channel.

TIFFs of 2, 5 or more bands become TIFFs of 16 bits (LOW to HIGH become 0 to 65535), unless they
hold whole numbers in that range, which training reads as they are (dataset.channels).

    python -m seg_l1.data.to_png <folder> [--masks] [--range LOW HIGH]

Files of 8 bits that training can read are left alone. For the others, in the folder and below,
<name>.png is written, or <name>_000.png and so on for the pages of a TIFF or the slices of a
volume; the original is kept as <file>.original. Values from LOW to HIGH become 0 to 255. By default
LOW is the smallest 0.1 percentile of any file, and HIGH the largest 99.9 percentile. Both are
printed; pass them as --range for new images. With --masks values are class ids, and are kept.

DICOM needs pydicom, NIfTI nibabel, MetaImage and NRRD SimpleITK, and a TIFF of several bands with
more than 8 bits tifffile; a missing one is named.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from seg_l1.data.images import CONVERTIBLE, SUFFIXES, open_picture, stem_of, suffix_of
from seg_l1.data.raster import deep_png
from seg_l1.data.tiff import Layout, layout_of, read_tiff, write_tiff
from seg_l1.errors import UserError, first_line

PACKAGES = {
    "DICOM": "pydicom",
    "NIfTI": "nibabel",
    "MetaImage": "SimpleITK",
    "NRRD": "SimpleITK",
    "TIFF": "tifffile",
}
"""The package that reads a format, where numpy, Pillow and torchvision do not."""


def to_png(
    folder: Path, *, masks: bool = False, limits: tuple[float, float] | None = None
) -> tuple[list[Path], tuple[float, float] | None]:
    """Converts the files below `folder` that training cannot read.

    Args:
        masks: keep the values, which must be whole numbers from 0 to 255.
        limits: (low, high), the values that become 0 and 255.

    Returns:
        The files that were written, and the limits that were used; None where nothing was scaled.

    Raises:
        UserError: naming a file that cannot be converted; files before it may already have been
            converted, and their originals renamed.
    """
    files = [path for path in sorted(folder.rglob("*")) if _is_unread(path, masks)]
    if not masks and limits is None:
        ranges = [_range(pixels) for path in files for pixels in read(path) if _is_deep(pixels)]
        if ranges:
            limits = (min(low for low, _ in ranges), max(high for _, high in ranges))
    written = []
    for path in files:
        pages = [_scaled(page, path, None if masks else limits) for page in read(path)]
        names = [f"{stem_of(path)}_{index:03d}.png" for index in range(len(pages))]
        targets = [path.with_name(name) for name in names]
        if len(pages) == 1:
            suffix = "tif" if _has_bands(pages[0]) else "png"
            targets = [path.with_name(f"{stem_of(path)}.{suffix}")]
        for target in targets:
            if target.exists() and target != path:
                raise UserError(f"{target}: exists already, so {path.name} is not converted")
        path.rename(path.with_name(f"{path.name}.original"))
        for target, page in zip(targets, pages, strict=True):
            if _has_bands(page):
                write_tiff(target, page)
            else:
                Image.fromarray(page).save(target)
        written += targets
    return written, limits


def _is_unread(path: Path, mask: bool) -> bool:
    if path.name.startswith(".") or not path.is_file():
        return False
    if suffix_of(path) in SUFFIXES:
        try:
            open_picture(path, mask=mask)
        except UserError as error:
            return "to_png" in str(error) and (mask or not _is_read_as_it_is(path))
        return False
    return suffix_of(path) in CONVERTIBLE


def _is_read_as_it_is(path: Path) -> bool:
    """Returns whether a file is a TIFF of other bands than PNG has, which training reads."""
    try:
        layout = layout_of(path, 1)
        return _beyond_png(layout) and read_tiff(path, layout.bands).bands > 1
    except Exception:  # what is wrong is reported when the file is converted
        return False


def _beyond_png(layout: Layout) -> bool:
    return not layout.of_pages and layout.bands not in (1, 3, 4)


def _has_bands(pixels: np.ndarray) -> bool:
    """Returns whether an array (H, W) or (H, W, C) has more, or other, bands than a PNG."""
    return pixels.ndim == 3 and pixels.shape[2] not in (3, 4)


def read(path: Path) -> list[np.ndarray]:
    """Returns the pictures of a file, each (H, W) or (H, W, C), with the values that are stored.

    Raises:
        UserError: if it cannot be read, or if the package that does so is missing.
    """
    kind = CONVERTIBLE.get(suffix_of(path), "")
    try:
        if kind in _READERS:
            return _READERS[kind](path)
        with Image.open(path) as picture:
            if picture.format == "PNG" and picture.mode in ("RGB", "RGBA"):
                return [deep_png(path)]
            if picture.format == "PPM":
                return [_netpbm(path.read_bytes())]
            pages = list(_pages(picture))
            return pages or _tiff(path)
    except UserError:
        raise
    except Exception as error:
        if suffix_of(path) in (".tif", ".tiff") and not kind:
            return _tiff(path)
        raise UserError(f"{path}: cannot be converted ({first_line(error)})") from error


def _pages(picture: Image.Image) -> Iterator[np.ndarray]:
    """Yields the pages of a file; nothing where Pillow would drop bits of several bands."""
    for page in ImageSequence.Iterator(picture):
        bits = page.tag_v2.get(258, (8,)) if page.format == "TIFF" else (8,)  # type: ignore[attr-defined]
        if len(bits) > 1 and max(bits) > 8:
            return
        yield np.array(page)


def _netpbm(content: bytes) -> np.ndarray:
    """Returns the values of a PGM or PPM file, of which Pillow would keep 8 bits."""
    header = re.match(rb"(P[2356])" + 3 * rb"(?:\s|#[^\n]*\n)+(\d+)" + rb"\s", content)
    if header is None:
        raise ValueError("its header is damaged")
    width, height, largest = (int(word) for word in header.groups()[1:])
    kind, rest = header[1], content[header.end() :]
    if kind in (b"P2", b"P3"):
        values = np.array(rest.split(), dtype=np.int64)
    else:
        values = np.frombuffer(rest, dtype=np.uint8 if largest < 256 else ">u2")
    shape = (height, width) if kind in (b"P2", b"P5") else (height, width, 3)
    return values[: math.prod(shape)].reshape(shape)


def _package(name: str, kind: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise UserError(f"{kind}: reading it needs {name}; type 'pip install {name}'") from None


def _tiff(path: Path) -> list[np.ndarray]:
    try:
        package = _package("tifffile", "TIFF")
        with suppress(ValueError):
            layout = layout_of(path, 1)
            if layout.axis is not None and _beyond_png(layout):
                pixels = package.imread(path, series=0).reshape(layout.lengths)
                return [np.moveaxis(pixels, layout.axis, -1)]
        return _slices(np.asarray(package.imread(path)))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: cannot be converted ({first_line(error)})") from error


def _dicom(path: Path) -> list[np.ndarray]:
    data = _package("pydicom", "DICOM").dcmread(path)
    pixels = np.asarray(data.pixel_array)
    if data.get("PhotometricInterpretation") == "MONOCHROME1":  # the largest value is black
        pixels = pixels.max() - pixels
    return [pixels] if pixels.ndim == 2 or data.SamplesPerPixel > 1 else list(pixels)


def _nifti(path: Path) -> list[np.ndarray]:
    volume = np.asarray(_package("nibabel", "NIfTI").load(path).dataobj).squeeze()
    if volume.ndim not in (2, 3):
        raise ValueError(f"it has the shape {volume.shape}, expected two or three axes")
    pages = [volume] if volume.ndim == 2 else list(np.moveaxis(volume, -1, 0))
    return [page.T for page in pages]  # NIfTI's first axis is x


def _itk(path: Path) -> list[np.ndarray]:
    package = _package("SimpleITK", "MetaImage and NRRD")
    image = package.ReadImage(str(path))
    pixels = package.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        return _slices(pixels)
    return [pixels] if pixels.ndim == 2 else list(pixels)


def _numpy(path: Path) -> list[np.ndarray]:
    return _slices(np.load(path, allow_pickle=False))


_READERS: dict[str, Callable[[Path], list[np.ndarray]]] = {
    "NumPy": _numpy,
    "DICOM": _dicom,
    "NIfTI": _nifti,
    "MetaImage": _itk,
    "NRRD": _itk,
}


def _slices(pixels: np.ndarray) -> list[np.ndarray]:
    """Returns the pictures of an array: (H, W), (H, W, 3 or 4), (3, H, W), or (D, ...)."""
    pixels = pixels.squeeze()
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] in (3, 4)):
        return [pixels]
    if pixels.ndim == 3 and pixels.shape[0] == 3:
        return [np.moveaxis(pixels, 0, -1)]
    if pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[-1] in (3, 4)):
        return list(pixels)
    raise ValueError(f"it has the shape {pixels.shape}, expected (H, W), (H, W, 3) or (D, H, W)")


def _is_deep(pixels: np.ndarray) -> bool:
    return pixels.dtype not in (np.uint8, np.bool_)


def _range(pixels: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(pixels[np.isfinite(pixels)], [0.1, 99.9])
    return float(low), float(high)


def _scaled(pixels: np.ndarray, path: Path, limits: tuple[float, float] | None) -> np.ndarray:
    """Returns uint8 pixels: `limits` become 0 and 255; None keeps the values.

    Images of other bands than PNG has become uint16, `limits` 0 and 65535.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if limits is None or not _is_deep(pixels):
        kept = pixels.astype(np.uint8)
        if not np.array_equal(kept, pixels):
            raise UserError(
                f"{path}: holds values from {pixels.min()} to {pixels.max()}; masks are whole"
                " numbers from 0 to 255"
            )
        return kept
    low, high = limits
    share = (pixels.astype(np.float64) - low) / max(high - low, 1e-12)
    kind, top = (np.uint16, 65535) if _has_bands(pixels) else (np.uint8, 255)
    return np.round(top * np.nan_to_num(share).clip(0, 1)).astype(kind)


def main(words: Sequence[str]) -> int:
    """Converts a folder; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m seg_l1.data.to_png",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--masks", action="store_true", help="values are class ids")
    parser.add_argument("--range", type=float, nargs=2, metavar=("LOW", "HIGH"))
    typed = parser.parse_args(words)
    if not typed.folder.is_dir():
        sys.stderr.write(f"error: there is no folder '{typed.folder}'\n")
        return 2
    limits = None if typed.range is None else (typed.range[0], typed.range[1])
    try:
        written, used = to_png(typed.folder, masks=typed.masks, limits=limits)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{len(written)} files written; the originals are kept as *.original\n")
    if used is not None:
        top = "255 (65535 in TIFFs)" if any(path.suffix == ".tif" for path in written) else "255"
        low, high = (f"{value:g}" for value in used)
        sys.stdout.write(f"values from {low} to {high} became 0 to {top} (--range {low} {high})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
