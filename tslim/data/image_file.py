"""One image file: what it says of itself, its pixels upright and smaller, and masks."""

import contextlib
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from tslim.errors import SceneError, TslimError

FILE_KINDS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""Image formats that are decoded, recognised by contents, not by name. The names are Pillow's; its JPEG includes the
MPO that some phones write."""

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Endings of image files' names, in lower case."""

Orient = Literal["never", "always", "fit"]
"""Turn photographs upright as their EXIF data say: never; always; or only where that gives the expected size."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to what makes the picture upright; 5 to 8 swap width and height."""
_TURNED_BACK = {6: 8, 8: 6}
"""EXIF orientation to the one whose turn is the reverse, where it isn't its own."""
_EXIF_ORIENTATION = 0x0112

Size = tuple[int, int]


@dataclass(frozen=True)
class Mask:
    """A picture that says which pixels of a photograph show something of use."""

    path: Path
    inverted: bool = False
    """black is kept instead of left out"""


@dataclass(frozen=True)
class Header:
    """What an image file says about itself before it is decoded."""

    size: Size
    orientation: int
    """EXIF orientation, 1 to 8; 1 is upright."""

    def turn(self, orient: Orient, expected: Size | None = None) -> int:
        """The EXIF orientation to undo, 1 for none; ``expected`` is the (width, height) that "fit" tries to meet."""
        if orient == "always":
            return self.orientation
        turned = self.size[::-1]
        fits = expected is not None and self.size != tuple(expected) and turned == tuple(expected)
        return self.orientation if orient == "fit" and self.orientation >= 5 and fits else 1

    def oriented(self, orient: Orient, expected: Size | None = None) -> Size:
        """(width, height) after that turn."""
        return self.size[::-1] if self.turn(orient, expected) >= 5 else self.size


def read_header(path: Path) -> Header:
    """Size and orientation without decoding; raises ``SceneError``."""
    with _opened(path) as image, _quiet:
        size = image.size
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow gives the size of a TIFF as it is upright
            size = (image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH])
        return Header(size, _orientation(image))


def _orientation(image: Image.Image) -> int:
    """What the EXIF data of an open picture say, 1 (upright) where they say nothing or are damaged."""
    if image.format not in ("JPEG", "MPO", "TIFF", "WEBP", "PNG"):
        return 1
    try:
        orientation = int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged EXIF data say nothing about the pixels
        return 1
    return orientation if orientation in _TURNS else 1


def load_rgba(path: Path, *, downscale: int = 1, turn: int = 1) -> np.ndarray:
    """(h, w, 4) uint8, straight alpha; ``turn`` is the EXIF orientation to undo. Raises ``SceneError``."""
    with _decoded(path) as image:
        opaque = "A" not in image.getbands() and "transparency" not in image.info
        image = _eight_bit(image, path)
        if turn in _TURNS:
            image = image.transpose(_TURNS[turn])
        if opaque and downscale > 1:
            image = image.convert("RGB")
            width, height = (s // downscale for s in image.size)
            image = image.reduce(downscale, (0, 0, width * downscale, height * downscale))
        rgba = np.array(image.convert("RGBA"))
    return rgba if opaque else area_downscale(rgba, downscale)


def area_downscale(rgba: np.ndarray, factor: int) -> np.ndarray:
    """Averages blocks of factor × factor pixels of (h, w, 4) uint8, weighting colours by alpha (premultiplied).

    Rows and columns that do not fill a block, on the right and below, are dropped.
    """
    if factor == 1:
        return rgba
    height, width = rgba.shape[0] // factor, rgba.shape[1] // factor
    sums = np.uint32 if factor <= 256 else np.uint64
    alpha = np.zeros((height, width), sums)
    colour = np.zeros((height, width, 3), sums)
    for dy in range(factor):
        for dx in range(factor):
            part = rgba[dy : height * factor : factor, dx : width * factor : factor].astype(sums)
            alpha += part[..., 3]
            colour += part[..., :3] * part[..., 3:]
    result = np.empty((height, width, 4), np.uint8)
    result[..., :3] = (colour + alpha[..., None] // 2) // np.maximum(alpha, 1)[..., None]
    result[..., 3] = (alpha + factor * factor // 2) // (factor * factor)
    return result


def load_mask(mask: Mask, size: Size, turn: int = 1) -> np.ndarray:
    """(h, w) uint8: 255 where the photograph of ``size`` (width, height) counts, 0 where it doesn't.

    Masks come as 0 and 255, as 0 and 1, with a label's number or colour for what counts, in grey with soft edges, in
    8 or 16 bits, or as the alpha of a picture of one colour; of the photograph's size, or of another with the same
    proportions. Raises ``SceneError`` for other proportions.
    """
    with _decoded(mask.path) as image:
        is_jpeg = image.format in ("JPEG", "MPO")
        if image.mode.startswith("I") or image.mode == "F":
            values = np.asarray(image).astype(np.float64)
            values = values * (255 / 65535) if values.max(initial=0) > 255 else values
        elif "A" in image.getbands() and len(np.unique(np.asarray(image.getchannel("A")))) > 1:
            values = np.asarray(image.getchannel("A")).astype(np.float64)
        else:
            values = np.asarray(image.convert("RGB")).max(-1).astype(np.float64)
    if values.max(initial=0) < 128 and not is_jpeg:  # numbers or dark colours of labels; a JPEG has noise in its black
        values = np.where(values > 0, 255.0, 0.0)
    mask_image = Image.fromarray(np.round(255 - values if mask.inverted else values).clip(0, 255).astype(np.uint8))
    if mask.inverted:  # everything but black is left out, as soft edges of a mover are
        mask_image = mask_image.point(lambda v: 255 if v > (127 if is_jpeg else 254) else 0)
    if turn in _TURNS and mask_image.size != tuple(size):
        mask_image = mask_image.transpose(_TURNS[turn])
    if mask_image.size != tuple(size):
        width, height = mask_image.size
        if abs(width * size[1] - height * size[0]) > max(width, height, *size):
            raise SceneError(f"{mask.path}: the mask is {width}x{height} pixels, its image {size[0]}x{size[1]}")
        mask_image = mask_image.resize((int(size[0]), int(size[1])), Image.Resampling.BOX)
    return np.asarray(mask_image)


@contextlib.contextmanager
def _decoded(path: Path) -> Iterator[Image.Image]:
    """A picture with its pixels as they are stored.

    Whatever goes wrong inside the block becomes ``SceneError``: Pillow's decoders raise anything on damaged bytes,
    ``MemoryError`` where these claim to be many.
    """
    with _opened(path) as image:
        try:
            with _quiet:
                orientation = _orientation(image)
                image.load()
                if orientation != 1 and _orientation(image) == 1:  # Pillow turns TIFFs upright, and no other kind
                    yield image.transpose(_TURNS[_TURNED_BACK.get(orientation, orientation)])
                else:
                    yield image
        except TslimError:
            raise
        except Exception as error:
            raise SceneError(f"{path}: damaged or truncated image ({_error_text(error)})") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A picture whose pixels are not read yet. Raises ``SceneError``."""
    try:
        with _quiet:
            # Given a name, Pillow maps some TIFFs into memory, with their upright size in place of the stored one.
            file = path.open("rb")
            try:
                image = Image.open(file, formats=FILE_KINDS)
            except BaseException:
                file.close()
                raise
    except FileNotFoundError:
        raise SceneError(f"{path}: image missing") from None
    except IsADirectoryError:
        raise SceneError(f"{path}: a folder, expected an image") from None
    except UnidentifiedImageError:
        raise SceneError(f"{path}: {_what_it_is(path)}") from None
    except Image.DecompressionBombError as error:
        raise SceneError(f"{path}: too large ({error})") from None
    except Exception as error:  # its readers of headers raise anything
        raise SceneError(f"{path}: cannot be read ({_error_text(error)})") from None
    with file, image:
        if min(image.size) < 1:
            raise SceneError(f"{path}: an image of zero size ({image.size[0]}x{image.size[1]})")
        yield image


def _what_it_is(path: Path) -> str:
    """What a file is that is no picture of a kind that is read, and what to do about it."""
    with path.open("rb") as file:
        head = file.read(64)
    if head[4:8] == b"ftyp":
        kind = head[8:12].decode("ascii", "replace").upper()
        return f"a {kind} picture, whatever its name says; convert it to JPEG or PNG"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer to a file in Git LFS; 'git lfs pull' fetches it"
    what = "not an image, or its beginning is damaged" if head else "empty file"
    return f"{what}; readable are PNG, JPEG, WebP, BMP and TIFF"


def _error_text(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it claims more than there is memory for"
    return " ".join(str(error).split())[:200] or type(error).__name__


class _Quiet:
    """While entered, by any number of threads: no warnings of Pillow's, which would show users a line of its source.

    How much memory pixels take is looked at before they are decoded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._filters = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._threads == 0:
                self._filters.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            self._threads += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._threads -= 1
            if self._threads == 0:
                self._filters.close()


_quiet = _Quiet()


def _eight_bit(image: Image.Image, path: Path) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey
        return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise SceneError(f"{path}: floating-point pixels, expected 8 or 16 bits a channel")
    return image
