"""The three files of a COLMAP model, binary (``.bin``) and text (``.txt``), as plain data.

Layouts as documented by COLMAP, little-endian. Every count is checked against the bytes that are left before anything
is allocated, so that a damaged file is a ``SceneError`` and never a long wait.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tslim.data import shots
from tslim.errors import SceneError
from tslim.scene import lenses

MODELS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE")
"""Lens models that are read, in the order of COLMAP's numbers 0 to 5."""
_N_PARAMETERS = (3, 4, 4, 5, 8, 8)
_OTHER_MODELS = {6: "FULL_OPENCV", 7: "FOV", 8: "SIMPLE_RADIAL_FISHEYE", 9: "RADIAL_FISHEYE", 10: "THIN_PRISM_FISHEYE"}


@dataclass(frozen=True)
class Lens:
    """One entry of COLMAP's cameras file."""

    size: tuple[int, int]
    intrinsics: tuple[float, float, float, float]
    lens: int
    distortion: tuple[float, ...]


@dataclass(frozen=True)
class Posed:
    """One entry of COLMAP's images file: world-to-camera."""

    name: str
    camera: int
    quaternion: tuple[float, float, float, float]
    translation: tuple[float, float, float]


class _Reader:
    """Reads little-endian records and says which file ended too early."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = shots.read_bytes(path)
        self.at = 0

    def take(self, layout: struct.Struct) -> tuple:
        if self.at + layout.size > len(self.data):
            raise SceneError(f"{self.path}: truncated at byte {len(self.data)}; export the COLMAP model again")
        values = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return values

    def count(self, smallest: int, what: str) -> int:
        """A number of records that follow, checked against the bytes that are left."""
        (n,) = self.take(_COUNT)
        left = len(self.data) - self.at
        if n * smallest > left:
            raise SceneError(
                f"{self.path}: announces {n} {what} (at least {n * smallest} bytes), {left} bytes follow; "
                "the file is truncated or damaged"
            )
        return n

    def skip(self, n_bytes: int) -> None:
        if self.at + n_bytes > len(self.data):
            raise SceneError(f"{self.path}: truncated at byte {len(self.data)}; export the COLMAP model again")
        self.at += n_bytes

    def text(self) -> str:
        end = self.data.find(b"\0", self.at, self.at + 4096)
        if end < 0:
            raise SceneError(f"{self.path}: an image name at byte {self.at} has no end; the file is damaged")
        raw, self.at = self.data[self.at : end], end + 1
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise SceneError(f"{self.path}: the image name {raw!r} is not UTF-8; rename the image") from None


_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<iiQQ")
_IMAGE = struct.Struct("<i7di")
_POINT = struct.Struct("<Q3d3BdQ")


def _lens(path: Path, camera: int, model: str | int, width: int, height: int, values: tuple[float, ...]) -> Lens:
    """A camera entry in tslim's terms; ``model`` by name or number."""
    where = f"{path}: camera {camera}"
    if isinstance(model, int):
        name = MODELS[model] if 0 <= model < len(MODELS) else _OTHER_MODELS.get(model, f"number {model}")
    else:
        name = model
    if name not in MODELS:
        raise SceneError(
            f"{where} has the lens model {name[:40]}; accepted: {', '.join(MODELS)} "
            "(COLMAP's image_undistorter makes PINHOLE images)"
        )
    wanted = _N_PARAMETERS[MODELS.index(name)]
    if len(values) != wanted:
        raise SceneError(f"{where}: {name} has {wanted} parameters, found {len(values)}")
    if not all(math.isfinite(v) for v in values):
        raise SceneError(f"{where}: parameters must be finite, found {list(values)}")
    if name in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL"):
        fx = fy = values[0]
        cx, cy, rest = values[1], values[2], values[3:]
    else:
        fx, fy, cx, cy, rest = *values[:4], values[4:]
    if name in ("SIMPLE_PINHOLE", "PINHOLE"):
        lens = lenses.PINHOLE
    else:
        lens = lenses.FISHEYE if name == "OPENCV_FISHEYE" else lenses.RADIAL
    distortion = tuple(rest) + (0.0,) * (8 - len(rest))
    shots.check_camera(where, (width, height), (fx, fy, cx, cy), lens, distortion)
    return Lens((width, height), (fx, fy, cx, cy), lens, distortion)


def read_cameras(path: Path) -> dict[int, Lens]:
    """The cameras file, binary or text by its extension. Raises ``SceneError``."""
    found: dict[int, Lens] = {}
    if path.suffix == ".txt":
        for number, words in _lines(path):
            if len(words) < 5:
                raise SceneError(f"{path}:{number}: {len(words)} words, expected CAMERA_ID MODEL WIDTH HEIGHT PARAMS")
            camera, width, height = (_integer(path, number, words[i]) for i in (0, 2, 3))
            values = tuple(_real(path, number, w) for w in words[4:])
            found[camera] = _lens(path, camera, words[1], width, height, values)
        return found
    reader = _Reader(path)
    for _ in range(reader.count(_CAMERA.size + 24, "cameras")):
        camera, model, width, height = reader.take(_CAMERA)
        if 0 <= model < len(MODELS):
            values = reader.take(struct.Struct(f"<{_N_PARAMETERS[model]}d"))
        else:
            values = ()  # refused by name in _lens: what follows can't be read without knowing the model
        found[camera] = _lens(path, camera, model, width, height, values)
    return found


def read_images(path: Path) -> list[Posed]:
    """The images file (poses), binary or text by its extension, without its 2-D points. Raises ``SceneError``."""
    found: list[Posed] = []
    if path.suffix == ".txt":
        expect_points = False  # every image has two lines; the second (its 2-D points) may be empty
        for number, words in _lines(path, keep_empty=True):
            if expect_points:
                expect_points = False
                continue
            if not words:
                continue
            if len(words) < 10:
                raise SceneError(
                    f"{path}:{number}: {len(words)} words, expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
                )
            values = tuple(_real(path, number, w) for w in words[1:8])
            found.append(Posed(" ".join(words[9:]), _integer(path, number, words[8]), values[:4], values[4:]))
            expect_points = True
    else:
        reader = _Reader(path)
        for _ in range(reader.count(_IMAGE.size + 9, "images")):
            _, *values, camera = reader.take(_IMAGE)
            name = reader.text()
            reader.skip(24 * reader.count(24, f"points of image {name}"))
            found.append(Posed(name, camera, tuple(values[:4]), tuple(values[4:])))
    for posed in found:
        norm = math.sqrt(sum(q * q for q in posed.quaternion)) if all(map(math.isfinite, posed.quaternion)) else 0.0
        if not 0.9 < norm < 1.1 or not all(map(math.isfinite, posed.translation)):
            raise SceneError(f"{path}: the pose of {posed.name} is not a unit quaternion with a finite translation")
    return found


def read_points(path: Path) -> np.ndarray:
    """Positions (p, 3) float64 of the sparse points that at least three images see (all, if these are few)."""
    rows: list[tuple[float, float, float, int]] = []
    if path.suffix == ".txt":
        for number, words in _lines(path):
            if len(words) < 8:
                raise SceneError(f"{path}:{number}: {len(words)} words, expected POINT3D_ID X Y Z R G B ERROR TRACK")
            rows.append((*(_real(path, number, w) for w in words[1:4]), (len(words) - 8) // 2))
    else:
        reader = _Reader(path)
        for _ in range(reader.count(_POINT.size, "points")):
            _, x, y, z, _, _, _, _, track = reader.take(_POINT)
            if track * 8 > len(reader.data) - reader.at:
                raise SceneError(f"{path}: a point's track of {track} images runs past the end; the file is damaged")
            reader.skip(8 * track)
            rows.append((x, y, z, track))
    table = np.asarray(rows, np.float64).reshape(-1, 4)
    table = table[np.isfinite(table).all(1) & (np.abs(table[:, :3]) < 1e6).all(1)]
    well_seen = table[table[:, 3] >= 3]
    return (well_seen if len(well_seen) >= 100 else table)[:, :3]


def _lines(path: Path, keep_empty: bool = False) -> Iterator[tuple[int, list[str]]]:
    """(line number, words) of a COLMAP text file without its comments."""
    try:
        text = shots.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SceneError(f"{path}: not UTF-8 text; a binary COLMAP model has the extension .bin") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.lstrip().startswith("#") and (keep_empty or line.strip()):
            yield number, line.split()


def _integer(path: Path, number: int, word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise SceneError(f"{path}:{number}: expected a whole number, found {word[:40]!r}") from None


def _real(path: Path, number: int, word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise SceneError(f"{path}:{number}: expected a number, found {word[:40]!r}") from None
