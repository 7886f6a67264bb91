"""The photographs that cameras are to be found of: a folder of pictures, or the sharp frames of a video."""

import shutil
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tslim import files
from tslim.data import image_file
from tslim.data.image_file import ENDINGS
from tslim.data.pictures import VIDEOS, pictures_below
from tslim.errors import SceneError

_AS_THEY_ARE = (".jpg", ".jpeg", ".png")
"""Pictures that are copied; others are written as PNG, which every loader reads."""


@dataclass(frozen=True)
class Collected:
    """What lies in the data set's ``images/`` now."""

    names: tuple[str, ...]
    unreadable: tuple[str, ...]
    """pictures that were left out, since they cannot be decoded"""
    in_order: bool
    """whether neighbours in the list are neighbours in space: the frames of a video"""


def is_video(source: Path) -> bool:
    """Whether a path is a video file, by its name."""
    return source.is_file() and source.suffix.lower() in VIDEOS


def collect(source: Path, images: Path, *, frames: int) -> Generator[tuple[int, int], None, Collected]:
    """Puts the photographs of ``source``, a folder or a video, into the folder ``images``.

    Yields how many are done, and of how many; returns what is there.

    Pictures that are already there stay, so that an interrupted run goes on. Those that EXIF says lie on their side are
    turned: who reads them later does not look at EXIF.

    Args:
        frames: how many frames of a video to take.

    Raises:
        SceneError: nothing to read, or fewer than three readable pictures.
    """
    if is_video(source):
        names = tuple(f"{source.stem}_{i:04}.jpg" for i in range(frames))
        unreadable: list[str] = []
        if not all((images / name).exists() for name in names):
            for done, frame in enumerate(sharpest_frames(source, frames)):
                _write_frame(frame, images / names[done])
                yield done + 1, frames
            names = tuple(name for name in names if (images / name).exists())
    elif source.is_dir():
        own, whole = images.resolve(), source.resolve()
        paths = [p for p in pictures_below(source) if own not in (whole / p.relative_to(source)).parents]
        if not paths:
            raise SceneError(f"{source}: no pictures in it (looked for {', '.join(ENDINGS)})")
        kept, unreadable = [], []
        for done, path in enumerate(paths):
            name = _flat_name(path.relative_to(source))
            try:
                _put(path, images / name)
                kept.append(name)
            except SceneError:
                unreadable.append(str(path.relative_to(source)))
            yield done + 1, len(paths)
        names = tuple(kept)
    else:
        raise SceneError(f"{source}: expected a folder of pictures or a video ({', '.join(VIDEOS)})")
    if len(names) < 3:
        raise SceneError(
            f"{source}: {len(names)} readable pictures; finding cameras needs 3 at least, better 30 to 150"
        )
    return Collected(names, tuple(unreadable), in_order=is_video(source))


def _flat_name(relative: Path) -> str:
    """A name without folders, that says which folder it was in, and ends as it will be written."""
    suffix = relative.suffix if relative.suffix.lower() in _AS_THEY_ARE else ".png"
    return "_".join(relative.with_suffix("").parts) + suffix


def _put(path: Path, target: Path) -> None:
    """Copies a picture, upright and with 8 bits a channel. Raises ``SceneError`` for one that cannot be decoded."""
    from PIL import Image

    if target.exists():
        return
    orientation = image_file.read_header(path).orientation
    rgba = image_file.load_rgba(path, turn=orientation)
    with files.replacing(target) as temporary:
        if orientation == 1 and target.suffix == path.suffix:
            shutil.copyfile(path, temporary)
            return
        opaque = target.suffix.lower() != ".png" or (rgba[..., 3] == 255).all()
        Image.fromarray(rgba[..., :3] if opaque else rgba).save(temporary, quality=95)


def sharpest_frames(video: Path, n: int) -> Iterator[np.ndarray]:
    """Cuts a video into n parts of equal length, and yields the sharpest frame (h, w, 3) uint8 of each.

    Raises ``SceneError`` for a file that cannot be read as a video.
    """
    import imageio.v3 as iio

    try:
        found = iio.immeta(video, plugin="FFMPEG")
        total = max(int(found["duration"] * found["fps"]), 1)
        best: tuple[float, np.ndarray] | None = None
        part = 0
        for number, frame in enumerate(iio.imiter(video, plugin="FFMPEG")):
            if min(number * n // total, n - 1) != part and best is not None:
                yield best[1]
                best, part = None, min(number * n // total, n - 1)
            sharp = sharpness(frame)
            if best is None or sharp > best[0]:
                best = (sharp, frame)
        if best is not None:
            yield best[1]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SceneError(
            f"{video}: cannot be read as a video ({(str(error).splitlines() or ['?'])[0][:200]})"
        ) from None


def _write_frame(frame: np.ndarray, target: Path) -> None:
    from PIL import Image

    with files.replacing(target) as temporary:
        Image.fromarray(frame).save(temporary, quality=95)


def sharpness(frame: np.ndarray) -> float:
    """How much fine detail a picture (h, w, 3) uint8 has: the variance of its Laplacian. Motion blur lowers it."""
    grey = frame[::2, ::2].astype(np.float32).mean(-1)
    laplacian = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return float(laplacian.var())
