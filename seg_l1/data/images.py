"""Image files: which formats are read, what a file may hold, and the remedy for the others."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.Image import Image as Picture
from scipy.io import loadmat

from seg_l1.data.raster import Raster
from seg_l1.data.resample import resize_picture
from seg_l1.errors import UserError, first_line

if TYPE_CHECKING:  # torch is imported where it is used: ONNX files are predicted without it
    from torch import Tensor

SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pbm", ".pgm", ".ppm",
}  # fmt: skip
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
"""The formats that Pillow may read; it knows others, one of which starts a program."""

CONVERTIBLE = {
    ".npy": "NumPy",
    ".dcm": "DICOM",
    ".dicom": "DICOM",
    ".nii": "NIfTI",
    ".nii.gz": "NIfTI",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
    ".nrrd": "NRRD",
    ".jp2": "JPEG 2000",
    ".j2k": "JPEG 2000",
}
"""Suffixes of the formats that `to_png` saves as PNG."""

FOREIGN = {
    ".npz": "NumPy archive",
    ".mat": "MATLAB",
    ".h5": "HDF5",
    ".hdf5": "HDF5",
    ".zarr": "Zarr",
    ".heic": "HEIF",
    ".heif": "HEIF",
    ".avif": "AVIF",
    ".svg": "SVG",
    ".psd": "Photoshop",
    ".xcf": "GIMP",
    ".exr": "OpenEXR",
    ".hdr": "Radiance",
    ".dng": "camera raw",
    ".cr2": "camera raw",
    ".nef": "camera raw",
    ".arw": "camera raw",
    ".svs": "Aperio",
    ".czi": "Zeiss",
    ".nd2": "Nikon",
    ".lif": "Leica",
    ".pdf": "PDF",
}
"""Suffixes of other formats of images, which the program that wrote them can export."""

MOST_PIXELS = 2**30
MODES = {"1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"}
"""The modes of Pillow that become RGB or gray."""


class _Convertible(ValueError):
    """What is wrong with a file that `to_png` can mend."""


def suffix_of(path: Path) -> str:
    """Returns the suffix of a file name in lower case; `.nii.gz` is one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def stem_of(path: Path) -> str:
    """Returns the file name without `suffix_of`."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def foreign_format(path: Path) -> str | None:
    """Returns the name of a format of images that cannot be read, by the suffix; None for others.

    The format of the files that have no suffix is not looked for.
    """
    return (CONVERTIBLE | FOREIGN).get(suffix_of(path))


def remedy(path: Path, *, mask: bool = False) -> str:
    """Returns a sentence that says how `path` is saved in a format that can be read."""
    if suffix_of(path) in FOREIGN:
        return "Export it as PNG or TIFF with 8 bits per channel."
    option = " --masks" if mask else ""
    command = f"python -m seg_l1.data.to_png {shlex.quote(str(path.parent))}{option}"
    return f"'{command}' saves it as PNG and keeps the original."


def open_picture(path: Path, upright: bool = True, *, mask: bool = False) -> Picture:
    """Reads an image, or a mask of SBD (.mat).

    Args:
        upright: whether to apply the EXIF orientation.
        mask: whether the values are class ids, which must not be scaled.

    Raises:
        UserError: if it cannot be read.
    """
    Image.MAX_IMAGE_PIXELS = None  # the user's own files may be large
    advice = "Replace it, or take it away."
    try:
        if path.suffix == ".mat":  # a mask of SBD, as torchvision's SBDataset reads it
            return Image.fromarray(loadmat(path)["GTcls"][0]["Segmentation"][0])
        picture: Picture
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise ValueError(f"it has more than {MOST_PIXELS} pixels")
            _check_pages(picture)
            largest = largest_value(picture)
            if largest > 255 or picture.mode[0] in "IF":
                bits = f"{largest.bit_length()} bits per channel, " if largest > 255 else ""
                raise _Convertible(f"it has {bits}mode {picture.mode}; expected 8 bits")
            if picture.mode not in MODES:
                raise _Convertible(f"it has mode {picture.mode}, expected grayscale or RGB")
            picture.load()
            picture = unscaled(picture) if mask else picture
            return ImageOps.exif_transpose(picture) if upright else picture
    except _Convertible as error:
        reason, advice = str(error), remedy(path, mask=mask)
    except UnidentifiedImageError:
        reason = "it is no picture" if path.stat().st_size else "it is empty"
        if foreign_format(path):
            reason, advice = f"it is {foreign_format(path)}", remedy(path, mask=mask)
        elif is_tiff(path):
            reason = "a TIFF of this kind of bands is not supported, expected 1 or 3 of 8 bits"
            advice = remedy(path, mask=mask)
    except Exception as error:
        reason = getattr(error, "strerror", None) or first_line(error)
    raise UserError(f"{path}: cannot be read as an image ({reason}). {advice}")


def unscaled(picture: Picture) -> Picture:
    """Returns a gray picture of less than 8 bits with the values of the file; Pillow scales them.

    Pictures of other formats and modes are returned as they are.
    """
    if picture.format not in ("PPM", "PNG") or picture.mode != "L":
        return picture
    largest = largest_value(picture)
    if largest >= 255:
        return picture
    return picture.point([round(value * largest / 255) for value in range(256)])


def _check_pages(picture: Picture) -> None:
    """Refuses files of several pictures, but for smaller copies of the first one.

    The first picture of a camera's MPO is the image. Further pages of a TIFF may be overviews
    (tag 254, bit 0; or 2 in the older tag 255) or transparency masks (bit 2).
    """
    frames = getattr(picture, "n_frames", 1)
    if frames == 1 or picture.format == "MPO":
        return
    if picture.format != "TIFF":
        raise ValueError(f"it holds {frames} pictures, expected one")
    pages = 1
    for index in range(1, frames):
        picture.seek(index)
        tags = picture.tag_v2  # type: ignore[attr-defined]
        pages += not (tags.get(254, 0) & 5 or tags.get(255) == 2)
    picture.seek(0)
    if pages > 1:
        raise _Convertible(f"it holds {pages} pictures (pages), expected one")


def largest_value(picture: Picture) -> int:
    """Returns the largest value that a channel of the file can hold; Pillow may keep fewer bits."""
    if picture.format == "TIFF":
        bits = picture.tag_v2.get(258, (8,))  # type: ignore[attr-defined]
        return 2 ** max(bits if isinstance(bits, tuple) else (bits,)) - 1
    if picture.format not in ("PNG", "PPM") or not picture.filename:  # type: ignore[attr-defined]
        return 255
    with open(picture.filename, "rb") as file:  # type: ignore[attr-defined]
        head = file.read(4096)
    if picture.format == "PNG":
        return 2 ** head[24] - 1  # the bit depth in IHDR
    lines = b"\n".join(line.partition(b"#")[0] for line in head.splitlines())
    words = lines.split(maxsplit=4)  # such as P5, width, height, largest value
    return 1 if words[0] in (b"P1", b"P4") else int(words[3])


def is_tiff(path: Path) -> bool:
    """Returns whether a file begins as TIFF and BigTIFF do."""
    with open(path, "rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def as_tensor(image: Picture | Raster, channels: int, image_size: tuple[int, int] | None) -> Tensor:
    """Returns `as_pixels` as a tensor."""
    import torch

    return torch.from_numpy(as_pixels(image, channels, image_size))


def as_pixels(
    image: Picture | Raster, channels: int, image_size: tuple[int, int] | None
) -> np.ndarray:
    """Returns pixels (channels, H, W), resized (bilinear) if a size is given.

    They are uint8, or uint16 where the image has 16 bits. A picture becomes grayscale or RGB.

    Raises:
        UserError: if it has other bands.
    """
    height, width = image_size or (image.height, image.width)
    if isinstance(image, Raster):
        if image.bands != channels:
            raise UserError(f"the image has {image.bands} bands, expected {channels}")
        return np.ascontiguousarray(np.moveaxis(image.resized((height, width)).pixels, -1, 0))
    if channels not in (1, 3):
        raise UserError(f"the image has {len(image.getbands())} bands, expected {channels}")
    if image.mode == "LAB":  # Pillow converts it to RGB alone
        image = image.convert("RGB")
    image = image.convert("RGB" if channels == 3 else "L")
    pixels = np.array(resize_picture(image, (height, width)))
    return np.moveaxis(pixels.reshape(height, width, channels), -1, 0)


def dropped_bands(paths: Sequence[Path]) -> list[str]:
    """Returns a note if images, all of which can be read, have bands that training does not see.

    An alpha band is counted where it is not fully opaque.
    """
    import torch

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        found = Counter(word for word in pool.map(_dropped, paths) if word)
    return [f"{count} of {len(paths)} images have {what}" for what, count in sorted(found.items())]


def _dropped(path: Path) -> str | None:
    try:
        picture = Image.open(path, formats=FORMATS)
    except OSError:  # bands that Pillow does not know are all read
        return None
    with picture:
        tags = getattr(picture, "tag_v2", {})
        bands = max(tags.get(277, 1), len(picture.getbands()))
        if picture.mode == "CMYK":
            return "the bands CMYK, converted to RGB"
        if picture.mode in ("LA", "PA", "RGBA") and bands <= 4:
            opaque = picture.getchannel("A").getextrema()[0] == 255
            return None if opaque else "an alpha band, which is dropped"
        if bands > 3:
            return (
                f"{bands} bands, of which those after the third are dropped"
                f" (dataset.channels={bands} reads all)"
            )
    return None
