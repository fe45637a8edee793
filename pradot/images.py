"""Images: finding, reading and resizing them, with one rule each for depth, colour and orientation."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from pradot.errors import PradotError, printable
from pradot.files import plain_file
from pradot.folders import describe_folder, visible

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""File endings taken for images, in any case."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are read, whatever a file's ending: none for which Pillow would start another program."""

MAX_PIXELS = 89_478_485
"""Of an image, such as 20,000 x 4,000: beyond it Pillow warns of files that unpack to far more than they hold."""

READING = 2
"""Counted up whenever `read_image` or `resize_image` gives other values for the same file: kept features are made again."""


class ImageError(PradotError):
    """An image cannot be read; the message names it."""


def read_image(image: str | Path | Image.Image | np.ndarray) -> np.ndarray:
    """Read an image as RGB in [0, 1].

    Parameters
    ----------
    image : str, Path, PIL.Image.Image or np.ndarray
        A file or PIL image of any colour mode, or an array `(height, width)` or `(height, width, 3)`, the channels
        red, green, blue, of dtype uint8, uint16, bool, or float in [0, 1].

    Returns
    -------
    np.ndarray
        `(height, width, 3)`, float32 in [0, 1], never sharing memory with `image`.

    Raises
    ------
    ImageError
        If the file is missing, empty, cut short, no image of the `FORMATS`, or has more than `MAX_PIXELS` pixels, or if values
        or shape are none of those above. An image is never skipped.

    Notes
    -----
    - 8 bit values are divided by 255 and 16 bit values by 65535; images of 32 bit integers are taken for 16 bit ones
      and must lie in 0 to 65535; images of 32 bit floats must lie in [0, 1]. Pillow keeps only the upper 8 bits of
      16 bit *colour* files.
    - Grey becomes three equal channels; transparency is dropped; of several pages or frames the first is read.
    - The EXIF orientation is applied, so height and width are those of the upright image.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if not isinstance(image, str | os.PathLike | Image.Image):
        raise ImageError(f"An image must be a path, a PIL image or a numpy array, not {type(image).__name__}.")
    return _read(image, _from_pil)


def read_mask_file(path: str | Path) -> np.ndarray:
    """Read a mask: the largest channel of `read_image`, without making three channels of a grey file first.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    np.ndarray
        `(height, width)`, float32 in [0, 1].

    Raises
    ------
    ImageError
        As for `read_image`.
    """
    return _read(path, _mask_from_pil)


def _read(image: str | os.PathLike | Image.Image, convert: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """Convert a file or PIL image; whatever goes wrong is said with its name."""
    name = image if isinstance(image, str | os.PathLike) else getattr(image, "filename", "") or "given as a PIL image"
    try:
        if isinstance(image, Image.Image):
            return convert(image)
        with _opened(image) as opened:
            return convert(opened)
    except Exception as error:  # broken files make Pillow's decoders raise nearly anything
        raise unreadable(name, error) from error


def image_shape(path: str | Path) -> tuple[int, int]:
    """Height and width in pixels of an image file, upright as `read_image` gives it, without decoding the pixels.

    Raises
    ------
    ImageError
        If the file is missing, no image or too large a one.
    """
    try:
        with _opened(path) as opened:
            width, height = opened.size
            orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
            turned = orientation in (5, 6, 7, 8) and opened.format != "TIFF"  # of a TIFF, Pillow gives the upright size
    except Exception as error:  # as above
        raise unreadable(path, error) from error
    return (width, height) if turned else (height, width)


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    """The image of a plain file, its pixels not decoded yet."""
    plain_file(path)
    with Image.open(path, formats=FORMATS) as opened:
        width, height = opened.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"it has {width} x {height} pixels, and at most {MAX_PIXELS} are read; cut or shrink it")
        yield opened


def unreadable(name: str | os.PathLike, error: Exception) -> ImageError:
    """The error that names an image or another file of the data, and says in a few words why it cannot be read."""
    if isinstance(error, FileNotFoundError):
        reason = "there is no such file"
    elif isinstance(error, UnidentifiedImageError):
        is_empty = os.path.getsize(name) == 0
        kinds = ", ".join(FORMATS)
        reason = "the file is empty (0 bytes)" if is_empty else f"its content is in no image format that is read ({kinds})"
    elif isinstance(error, Image.DecompressionBombError):
        reason = f"it has more than the {MAX_PIXELS} pixels that are read; cut or shrink it"
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    else:
        reason = str(error) or type(error).__name__
    return ImageError(f"Cannot read the image {printable(name)}: {reason}. Replace it or take it out of the data.")


def resize_image(image: np.ndarray, size: int) -> torch.Tensor:
    """Resize an image straight to a square, bilinearly with antialiasing and without cropping, as the paper does.

    Parameters
    ----------
    image : np.ndarray
        `(height, width, 3)`, as `read_image` gives it.
    size : int
        Side of the square in pixels.

    Returns
    -------
    torch.Tensor
        `(3, size, size)`, float32 in [0, 1], contiguous, never sharing memory with `image`.
    """
    tensor = torch.from_numpy(np.array(image.transpose(2, 0, 1), dtype=np.float32, order="C"))  # (3, height, width)
    resized = F.resize(tensor, [size, size], interpolation=InterpolationMode.BILINEAR, antialias=True)  # (3, size, size)
    return resized.clamp_(0, 1)  # weights of pixels sum to 1 but for rounding


def find_images(folder: str | Path) -> list[Path]:
    """List the images lying directly in a folder, in natural order (2.png before 10.png) on every machine.

    Hidden files (name starting with a dot) and files of other endings than `IMAGE_SUFFIXES` are left out.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    list of Path
        At least one.

    Raises
    ------
    PradotError
        If there is no such folder or no image in it; the message says what was found instead.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PradotError(f"No folder of images at {folder}: {describe_folder(folder)}.")
    images = [path for path in visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()]
    if not images:
        raise PradotError(
            f"No images in {folder}: {describe_folder(folder)}; "
            f"expected files ending in {', '.join(IMAGE_SUFFIXES)} (any case) directly in it."
        )
    return images


def list_images(images: Iterable) -> list:
    """List images given as paths, PIL images or arrays; refuse one alone, whose letters or rows would be taken for images.

    Parameters
    ----------
    images : iterable of paths, PIL images or arrays

    Returns
    -------
    list

    Raises
    ------
    PradotError
        If `images` is one path or image, or nothing that can be gone through.
    """
    if isinstance(images, str | os.PathLike):
        raise PradotError(
            f"A list of images is needed, not the one path {images}: for the images of a folder give "
            "pradot.images.find_images(FOLDER), for one image [FILE]."
        )
    is_one = isinstance(images, Image.Image) or (
        isinstance(images, np.ndarray) and (images.ndim < 3 or (images.ndim == 3 and images.shape[2] <= 4))
    )
    if is_one or not isinstance(images, Iterable):
        found = f"an array of shape {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise PradotError(f"A list of images is needed, not {found}: for one image give [IMAGE].")
    return list(images)


def _from_pil(image: Image.Image) -> np.ndarray:
    """Turn a PIL image into RGB in [0, 1]; raises whatever Pillow raises, or ValueError for values out of range."""
    if 0 in image.size:
        raise ValueError("it has no pixels")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # I;16 in its byte orders, and I: 32 bit integers
        grey = np.asarray(image)  # (height, width)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"32 bit integers must lie in 0 to 65535, found {grey.min()} to {grey.max()}")
        return _three_channels(grey.astype(np.float32) / np.float32(65535))
    if image.mode == "F":
        return _three_channels(_unit_range(np.asarray(image)))
    return np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)  # (height, width, 3)


def _mask_from_pil(image: Image.Image) -> np.ndarray:
    if image.mode not in ("1", "L") or 0 in image.size:
        return _from_pil(image).max(axis=2)  # (height, width)
    return np.asarray(ImageOps.exif_transpose(image).convert("L"), dtype=np.float32) / np.float32(255)  # (height, width)


def _from_array(array: np.ndarray) -> np.ndarray:
    name = f"the array of shape {array.shape} and dtype {array.dtype}"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or array.size == 0:
        raise ImageError(f"Cannot take {name} for an image: expected (height, width) or (height, width, 3), not empty.")
    if array.dtype == np.uint8:
        values = array.astype(np.float32) / np.float32(255)
    elif array.dtype == np.uint16:
        values = array.astype(np.float32) / np.float32(65535)
    elif array.dtype == bool:
        values = array.astype(np.float32)
    elif array.dtype.kind == "f":
        try:
            values = _unit_range(array)
        except ValueError as error:
            raise ImageError(f"Cannot take {name} for an image: {error}.") from error
    else:
        raise ImageError(f"Cannot take {name} for an image: convert it to uint8, uint16, bool, or float in [0, 1].")
    return values if values.ndim == 3 else _three_channels(values)


def _unit_range(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError("some values are NaN or infinite")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"floats must lie in [0, 1], found {values.min():.9g} to {values.max():.9g}; rescale or clip")
    return values.astype(np.float32)


def _three_channels(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)  # (height, width) -> (height, width, 3)
