"""A photograph and its camera as a data set lists them, before anything is decoded; and what all captures share.

A loader parses its files into ``Shot``s (pure, no pixels), which are split, thinned out and only then loaded, so that
memory is bounded by the pixels that are kept.

Pixels that a mask file blanks get alpha 0. Where ``Scene.background`` is None, such pixels show nothing that is known
and must not be trained on or measured; where it is a colour, they show that colour.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tslim.data import image_file, images, reading
from tslim.data.options import LoadOptions
from tslim.errors import SceneError
from tslim.scene import lenses
from tslim.scene.cameras import ROTATION_TOLERANCE, Cameras
from tslim.scene.scene import Views

MIN_SHOTS = 3
"""Fewer photographs than this, after skipping those that are missing, are not a scene."""

LARGEST_SIDE = 1 << 16
"""Pixels; a larger width or height in a camera file is a mistake."""

_LEAST_FOCAL = 0.03
"""Of a picture's width: less is a focal length that is not in pixels, but in widths, perhaps."""

FARTHEST, FARTHEST_SPREADS = 1e6, 1e3
"""World units from the middle of all cameras, or times their spread if that is more; a camera or point beyond is a
mistake."""
_LARGE, _MANY_SPREADS = 1e5, 1000.0
"""Coordinates are moved to the origin where they are larger than this, or than so many times the cameras' spread:
float32 no longer tells positions well there (geographic coordinates are like that)."""

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
    masks: tuple[image_file.Mask, ...] = ()
    """which pixels show something of use"""


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
    if not (_LEAST_FOCAL * width < fx < 1e4 * width and _LEAST_FOCAL * height < fy < 1e4 * height):
        raise SceneError(f"{where}: focal length {fx:g}, {fy:g} for {width:g}x{height:g} pixels, expected it in pixels")
    if 0 <= cx <= 1 and 0 <= cy <= 1 and min(width, height) > 8:
        raise SceneError(f"{where}: centre {cx:g}, {cy:g} for {width:g}x{height:g} pixels, expected it in pixels")
    if not (-width < cx < 2 * width and -height < cy < 2 * height):
        raise SceneError(f"{where}: centre {cx:g}, {cy:g} lies far outside the {width:g}x{height:g} picture")
    if lens != lenses.PINHOLE and _inversion_error(size, intrinsics, lens, distortion) > 0.1:
        raise SceneError(
            f"{where}: the lens coefficients fold the picture over, so that some pixels have no ray; "
            "check the lens model, or undistort the images (COLMAP's image_undistorter)"
        )


@functools.lru_cache(maxsize=1024)
def _inversion_error(size: tuple[float, float], intrinsics: Intrinsics, lens: int, distortion: tuple[float, ...]):
    return lenses.worst_inversion_error(np.array(size), np.array(intrinsics), lens, np.array(distortion))


def check_poses(shots: Sequence[Shot], source: Path) -> None:
    """Raises ``SceneError`` for the first impossible pose, before any image is decoded."""
    if shots:
        try:
            cameras_of(shots, [s.size for s in shots]).validate([s.name for s in shots], str(source))
        except SceneError as error:
            raise SceneError(f"{error}; leave such frames out, or export them again") from None
    limit = farthest(shots)
    for shot in shots:
        if not np.abs(shot.pose[:, 3]).max() < limit:
            raise SceneError(
                f"{source}: the camera of {shot.name} stands at {shot.pose[:, 3].tolist()}, absurdly far from others; "
                "leave it out"
            )


def farthest(shots: Sequence[Shot]) -> float:
    """How far from the origin a camera or point can be, in world units: see ``FARTHEST``."""
    origins = np.array([shot.pose[:, 3] for shot in shots]).reshape(-1, 3)
    spread = float(np.median(np.abs(origins - np.median(origins, 0)).max(1))) if len(origins) else 0.0
    return max(FARTHEST, FARTHEST_SPREADS * spread) if np.isfinite(spread) else FARTHEST


def unscaled(shots: Sequence[Shot], warnings: list[str]) -> list[Shot]:
    """The shots with rotations for axes of one common length other than 1, as Blender's scaled parents leave them.

    Only the direction of the axes means anything; positions stay. What is no scaled rotation stays, too, for
    ``check_poses`` to refuse.
    """
    found, scales = [], []
    for shot in shots:
        axes = shot.pose[:, :3]
        with np.errstate(all="ignore"):
            scale = float(np.cbrt(np.linalg.det(axes))) if np.isfinite(axes).all() else 0.0
            is_rotation = scale > 0 and np.abs(axes @ axes.T / scale**2 - np.eye(3)).max() < ROTATION_TOLERANCE
        if is_rotation and abs(scale - 1) > 0.5 * ROTATION_TOLERANCE:
            scales.append(scale)
            shot = replace(shot, pose=np.concatenate([axes / scale, shot.pose[:, 3:]], 1))
        found.append(shot)
    if scales:
        some = f"{min(scales):.4g}" if max(scales) - min(scales) < 1e-3 else f"{min(scales):.4g} to {max(scales):.4g}"
        warnings.append(f"the rotations of {len(scales)} cameras have a scale of {some} in them, which is left out")
    return found


def recentring(shots: Sequence[Shot]) -> np.ndarray | None:
    """The point (3,) float64 that should become the origin, since coordinates are too large for float32; or None."""
    origins = np.array([shot.pose[:, 3] for shot in shots]).reshape(-1, 3)
    origins = origins[np.isfinite(origins).all(1)]
    if not len(origins):
        return None
    middle = np.median(origins, 0)
    spread = float(np.median(np.abs(origins - middle).max(1)))
    away = float(np.abs(middle).max())
    if away <= _MANY_SPREADS * spread and (away <= _LARGE or away <= spread):
        return None
    if spread == 0:  # all in one place, wherever that is
        return np.round(middle) if away > _LARGE else None
    return np.round(middle, max(0, -math.floor(math.log10(spread))))


def moved(shots: Sequence[Shot], by: np.ndarray) -> list[Shot]:
    """The shots with ``by`` (3,) added to every camera's position."""
    shift = np.concatenate([np.zeros((3, 3)), by[:, None]], 1)
    return [replace(shot, pose=shot.pose + shift) for shot in shots]


def repeated(train: Sequence[Shot], test: Sequence[Shot]) -> list[Shot]:
    """The test shots that are training shots, too: the same file, or the same view under another name."""
    files = {shot.file.resolve() for shot in train}
    poses = {np.round(shot.pose, 6).tobytes() for shot in train}
    return [s for s in test if s.file.resolve() in files or np.round(s.pose, 6).tobytes() in poses]


def require_images(n_found: int, listed: int, first_missing: str | None, source: Path, warnings: list[str]) -> None:
    """One warning for all images that are missing; raises ``SceneError`` if too few are left."""
    if listed > n_found:
        first = f" (the first is {first_missing[:100]})" if first_missing else ""
        if n_found < MIN_SHOTS:
            raise SceneError(
                f"{source}: {listed - n_found} of {listed} images are missing{first}; at least {MIN_SHOTS} are needed"
            )
        warnings.append(f"{listed - n_found} of the {listed} listed images are missing and were skipped{first}")
    elif n_found < MIN_SHOTS:
        some = f"{n_found} image{'s' * (n_found != 1)} with poses"
        raise SceneError(f"{source}: {some}, at least {MIN_SHOTS} are needed")


def split(shots: Sequence[Shot], options: LoadOptions) -> tuple[list[Shot], list[Shot]]:
    """(train, test) where the data set has no split: every eighth by name, the first among them, is for the test."""
    train, test = reading.hold_out(sorted(shots, key=lambda shot: shot.name))
    return reading.evenly(train, options.max_images), reading.evenly(test, options.max_images)


def cameras_of(shots: Sequence[Shot], sizes: Sequence[tuple[int, int]]) -> Cameras:
    """The cameras of photographs whose pictures have the given sizes (scaled copies of ``Shot.size``)."""
    if not shots:
        return Cameras.none()
    pixels = np.asarray(sizes, np.float64).reshape(-1, 2)
    scale = pixels / np.array([s.size for s in shots], np.float64)
    intrinsics = np.array([s.intrinsics for s in shots]) * np.concatenate([scale, scale], 1)
    lens, distortion = np.array([s.lens for s in shots]), np.array([s.distortion for s in shots])
    return Cameras(np.stack([s.pose for s in shots]), intrinsics, pixels, lens, distortion)


def load_views(shots: Sequence[Shot], downscale: int = 1) -> Views:
    """Decodes the photographs, ``downscale`` times smaller, and fits the cameras to what was found.

    A file may be a smaller or larger copy of the picture that the intrinsics are for. It is turned by its EXIF data
    only where that gives the right proportions: the tools that find poses look at the pixels as they are stored.
    Raises ``SceneError`` for a file of other proportions, or one that can't be decoded.
    """
    if not shots:
        return Views.none()
    sizes = [_size_in_file(shot) for shot in shots]
    masks = [shot.masks for shot in shots]
    packed = images.load_pixels(
        [shot.file for shot in shots], downscale=downscale, sizes=sizes, masks=masks, orient="fit"
    )
    cameras = cameras_of(shots, sizes)
    return packed.views(cameras if downscale == 1 else cameras.scaled(1 / downscale), [s.name for s in shots])


def _size_in_file(shot: Shot) -> tuple[int, int]:
    header = image_file.read_header(shot.file)
    if _same_proportions(header.size, shot.size):
        return header.size
    turned = header.size[::-1]
    if header.orientation >= 5 and _same_proportions(turned, shot.size):
        return turned
    raise SceneError(
        f"{shot.file}: {header.size[0]}x{header.size[1]} pixels, but its camera is for {shot.size[0]}x{shot.size[1]} "
        + ("(are width and height swapped?)" if _same_proportions(turned, shot.size) else "(a scaled copy would do)")
    )


def _same_proportions(size: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether one is a scaled copy of the other, up to rounding to whole pixels."""
    scale = math.sqrt(size[0] * size[1] / (wanted[0] * wanted[1]))
    slack = 1.0 if scale < 1 else scale
    return abs(size[0] - scale * wanted[0]) <= slack and abs(size[1] - scale * wanted[1]) <= slack


def read_bytes(path: Path) -> bytes:
    """A file's contents; raises ``SceneError`` if they cannot be had."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise SceneError(f"{path}: no such file") from None
    except (OSError, MemoryError) as error:
        raise SceneError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'too large'})") from None
