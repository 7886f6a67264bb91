"""A photograph and its camera as a data set lists them, before anything is decoded; and what all captures share.

A loader parses its files into ``Shot``s (pure, no pixels), which are split, thinned out and only then loaded, so that
memory is bounded by the pixels that are kept.

Pixels that a mask file blanks get alpha 0. Where ``Scene.background`` is None, such pixels show nothing that is known
and must not be trained on or measured; where it is a colour, they show that colour.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tslim.data import LoadOptions, images, reading
from tslim.errors import SceneError
from tslim.scene import lenses
from tslim.scene.cameras import Cameras
from tslim.scene.scene import Views

MIN_SHOTS = 3
"""Fewer photographs than this, after skipping those that are missing, are not a scene."""

LARGEST_SIDE = 1 << 16
"""Pixels; a larger width or height in a camera file is a mistake."""

FARTHEST = 1e6
"""World units; beyond, float32 no longer tells a camera's position well (geographic coordinates must be recentred)."""

Intrinsics = tuple[float, float, float, float]
PINHOLE = (0.0,) * 8


@dataclass(frozen=True, eq=False)
class Shot:
    """One posed photograph that is there to be read."""

    name: str
    file: Path
    pose: np.ndarray
    """(3, 4) float64 camera-to-world, OpenGL axes."""
    size: tuple[int, int]
    """width, height that ``intrinsics`` refer to; the file may be a scaled copy of that picture."""
    intrinsics: Intrinsics
    """fx, fy, cx, cy in pixels of ``size``."""
    lens: int = lenses.PINHOLE
    distortion: tuple[float, ...] = PINHOLE
    mask: Path | None = None
    """grey image; black means that the pixel shows nothing of use"""


def check_camera(
    where: str,
    size: tuple[float, float],
    intrinsics: Intrinsics,
    lens: int = lenses.PINHOLE,
    distortion: tuple[float, ...] = PINHOLE,
) -> None:
    """Raises ``SceneError``, beginning with ``where``, for a camera that no photograph can come from."""
    values = (*size, *intrinsics, *distortion)
    if not all(math.isfinite(v) for v in values):
        raise SceneError(f"{where}: NaN or infinity among size, focal length, centre and distortion")
    width, height = size
    fx, fy, cx, cy = intrinsics
    if not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE) or width % 1 or height % 1:
        raise SceneError(f"{where}: image size {width:g}x{height:g}, expected whole numbers from 1 to {LARGEST_SIDE}")
    if not (1e-3 * width < fx < 1e4 * width and 1e-3 * height < fy < 1e4 * height):
        raise SceneError(f"{where}: focal length {fx:g}, {fy:g} for {width:g}x{height:g} pixels, expected it in pixels")
    if not (-width < cx < 2 * width and -height < cy < 2 * height):
        raise SceneError(f"{where}: centre {cx:g}, {cy:g} lies far outside the {width:g}x{height:g} picture")
    if lens != lenses.PINHOLE and _inversion_error(size, intrinsics, lens, distortion) > 0.1:
        raise SceneError(
            f"{where}: the lens coefficients fold the picture over, so that some pixels have no ray; "
            "check the lens model, or undistort the images"
        )


@functools.lru_cache(maxsize=1024)
def _inversion_error(size: tuple[float, float], intrinsics: Intrinsics, lens: int, distortion: tuple[float, ...]):
    return lenses.worst_inversion_error(size, intrinsics, lens, np.array(distortion))


def check_poses(shots: Sequence[Shot], source: Path) -> None:
    """Raises ``SceneError`` for the first impossible pose, before any image is decoded."""
    if shots:
        cameras_of(shots, [s.size for s in shots]).validate([s.name for s in shots], str(source))
    for shot in shots:
        if not np.abs(shot.pose[:, 3]).max() < FARTHEST:
            raise SceneError(f"{source}: the camera of {shot.name} stands at {shot.pose[:, 3].tolist()}, absurdly far")


def check_enough(kept: int, listed: int, first_missing: str | None, source: Path, warnings: list[str]) -> None:
    """One warning for all images that are missing; raises ``SceneError`` if too few are left."""
    if listed > kept:
        first = f" (the first is {first_missing[:100]})" if first_missing else ""
        if kept < MIN_SHOTS:
            raise SceneError(
                f"{source}: {listed - kept} of {listed} images are missing{first}; at least {MIN_SHOTS} are needed"
            )
        warnings.append(f"{listed - kept} of the {listed} listed images are missing and were skipped{first}")
    elif kept < MIN_SHOTS:
        raise SceneError(f"{source}: {kept} images with poses, at least {MIN_SHOTS} are needed")


def split(shots: Sequence[Shot], options: LoadOptions) -> tuple[list[Shot], list[Shot]]:
    """(train, test) where the data set has no split: every eighth by name, the first among them, is for the test."""
    train, test = reading.hold_out(sorted(shots, key=lambda shot: shot.name))
    return reading.evenly(train, options.max_images), reading.evenly(test, options.max_images)


def cameras_of(shots: Sequence[Shot], sizes: Sequence[tuple[int, int]]) -> Cameras:
    """The cameras of photographs whose pictures have the given sizes (scaled copies of ``Shot.size``)."""
    if not shots:
        return Cameras.none()
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
    scale = sizes / np.array([s.size for s in shots], np.float64)
    intrinsics = np.array([s.intrinsics for s in shots]) * np.concatenate([scale, scale], 1)
    lens = [s.lens for s in shots]
    return Cameras(np.stack([s.pose for s in shots]), intrinsics, sizes, lens, [s.distortion for s in shots])


def load_views(shots: Sequence[Shot], downscale: int = 1) -> Views:
    """Decodes the photographs, ``downscale`` times smaller, and fits the cameras to what was found.

    A file may be a smaller or larger copy of the picture that the intrinsics are for. It is turned by its EXIF data
    only where that gives the right proportions: the tools that find poses look at the pixels as they are stored.
    Raises ``SceneError`` for a file of other proportions, or one that can't be decoded.
    """
    if not shots:
        return Views.none()
    sizes = [_size_in_file(shot) for shot in shots]
    masks = [shot.mask for shot in shots]
    photographs = images.load_pixels(
        [shot.file for shot in shots], downscale=downscale, sizes=sizes, masks=masks, orient="fit"
    )
    cameras = cameras_of(shots, sizes)
    return photographs.views(cameras if downscale == 1 else cameras.scaled(1 / downscale), [s.name for s in shots])


def _size_in_file(shot: Shot) -> tuple[int, int]:
    header = images.read_header(shot.file)
    if _same_proportions(header.size, shot.size):
        return header.size
    turned = header.size[::-1]
    if header.orientation >= 5 and _same_proportions(turned, shot.size):
        return turned
    raise SceneError(
        f"{shot.file}: {header.size[0]}x{header.size[1]} pixels, but its camera is for {shot.size[0]}x{shot.size[1]} "
        "(a scaled copy would do)"
    )


def _same_proportions(size: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether one is a scaled copy of the other, up to rounding to whole pixels."""
    scale = math.sqrt(size[0] * size[1] / (wanted[0] * wanted[1]))
    slack = 1.0 if scale < 1 else scale
    return abs(size[0] - scale * wanted[0]) <= slack and abs(size[1] - scale * wanted[1]) <= slack


def image_folder(
    folder: Path, downscale: int, usable: Callable[[Path], bool], warnings: list[str]
) -> tuple[Path, int, int]:
    """The folder to take images from, how much smaller these are than the capture, and what is left to downscale.

    Captures often keep copies in ``images_2``, ``images_4`` and ``images_8``. The smallest one from which the wanted
    size can be reached is taken; where the full images are absent, the largest copy, with a warning. ``usable`` decides
    whether a folder counts. Raises ``SceneError`` if there is none.
    """
    found = {1: folder / "images"}
    for path in sorted(folder.glob("images_*")):
        factor = path.name[len("images_") :]
        if factor.isdecimal() and 1 < int(factor) <= 64:
            found[int(factor)] = path
    factors = sorted(factor for factor, path in found.items() if path.is_dir() and usable(path))
    if not factors:
        raise SceneError(f"{folder}: no folder images (or images_2, images_4, images_8) with the photographs in it")
    fitting = [factor for factor in factors if downscale % factor == 0]
    factor = max(fitting) if fitting else factors[0]
    rest = max(1, round(downscale / factor))
    if not fitting:
        warnings.append(
            f"the images are those of {found[factor].name}, {factor * rest} times smaller than the capture "
            f"(asked for: {downscale}); larger ones are not there"
        )
    return found[factor], factor, rest


def listed_images(folder: Path) -> list[Path]:
    """The image files directly in a folder, by name."""
    endings = {extension.lower() for extension in images.EXTENSIONS}
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in endings and not path.name.startswith("."))


def find_mask(folder: Path, name: str) -> Path | None:
    """COLMAP's habit: ``masks/NAME.png`` for the image ``NAME`` (with its extension, or instead of it)."""
    for candidate in (folder / "masks" / f"{name}.png", (folder / "masks" / name).with_suffix(".png")):
        if candidate.is_file():
            return candidate
    return None


def read_bytes(path: Path) -> bytes:
    """A file's contents; raises ``SceneError`` if they cannot be had."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise SceneError(f"{path}: no such file") from None
    except (OSError, MemoryError) as error:
        raise SceneError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'too large'})") from None
