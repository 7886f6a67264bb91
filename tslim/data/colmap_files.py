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

from tslim.data import reading, shots
from tslim.errors import SceneError, short
from tslim.scene import lenses

_ONE_FOCAL, _TWO_FOCALS = "f cx cy", "fx fy cx cy"
MODELS = {
    "SIMPLE_PINHOLE": (0, lenses.PINHOLE, _ONE_FOCAL, ""),
    "PINHOLE": (1, lenses.PINHOLE, _TWO_FOCALS, ""),
    "SIMPLE_RADIAL": (2, lenses.RADIAL, _ONE_FOCAL, "k1"),
    "RADIAL": (3, lenses.RADIAL, _ONE_FOCAL, "k1 k2"),
    "OPENCV": (4, lenses.RADIAL, _TWO_FOCALS, "k1 k2 p1 p2"),
    "OPENCV_FISHEYE": (5, lenses.FISHEYE, _TWO_FOCALS, "k1 k2 k3 k4"),
    "FULL_OPENCV": (6, lenses.RADIAL, _TWO_FOCALS, "k1 k2 p1 p2 k3 k4 k5 k6"),
    "SIMPLE_RADIAL_FISHEYE": (8, lenses.FISHEYE, _ONE_FOCAL, "k1"),
    "RADIAL_FISHEYE": (9, lenses.FISHEYE, _ONE_FOCAL, "k1 k2"),
    "THIN_PRISM_FISHEYE": (10, lenses.FISHEYE, _TWO_FOCALS, "k1 k2 p1 p2 k3 k4 s1 s2"),
    "SIMPLE_FISHEYE": (14, lenses.FISHEYE, _ONE_FOCAL, ""),
    "FISHEYE": (15, lenses.FISHEYE, _TWO_FOCALS, ""),
    "EQUIRECTANGULAR": (17, lenses.EQUIRECTANGULAR, "w h", ""),
}
"""Lens models that are read: COLMAP's number, the kind of lens, and the parameters in COLMAP's order."""
_OTHERS = {7: "FOV", 11: "RAD_TAN_THIN_PRISM_FISHEYE", 12: "SIMPLE_DIVISION", 13: "DIVISION", 16: "EUCM"}
_NAMES = {number: name for name, (number, *_) in MODELS.items()} | _OTHERS


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
    number: int
    """by which the tracks of points mean it"""
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
    name = _NAMES.get(model, f"number {model}") if isinstance(model, int) else model
    if name not in MODELS:
        raise SceneError(
            f"{where} has the lens model {name[:40]}; accepted: {', '.join(MODELS)} "
            "(COLMAP's image_undistorter makes PINHOLE images)"
        )
    _, lens, focals, coefficients = MODELS[name]
    wanted = _n_parameters(name)
    if len(values) != wanted:
        raise SceneError(f"{where}: {name} has {wanted} parameters, found {len(values)}")
    if not all(math.isfinite(v) for v in values):
        raise SceneError(f"{where}: parameters must be finite, found {list(values)}")
    if lens == lenses.EQUIRECTANGULAR:
        fx, fy, cx, cy = lenses.all_around(width, height)
    else:
        fx, fy, cx, cy = (values[0], *values[:3]) if focals == _ONE_FOCAL else values[:4]
    named = dict(zip(coefficients.split(), values[len(focals.split()) :], strict=True))
    lens, distortion = lenses.of_coefficients(lens, named)
    shots.check_camera(where, (width, height), (fx, fy, cx, cy), lens, distortion)
    return Lens((width, height), (fx, fy, cx, cy), lens, distortion)


def _n_parameters(name: str) -> int:
    return sum(len(part.split()) for part in MODELS[name][2:])


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
        name = _NAMES.get(model)
        # An unknown model is refused by name in _lens: what follows can't be read without knowing it.
        values = reader.take(struct.Struct(f"<{_n_parameters(name)}d")) if name in MODELS else ()
        found[camera] = _lens(path, camera, model, width, height, values)
    return found


def read_images(path: Path) -> list[Posed]:
    """The images file (poses), binary or text by its extension, without its 2-D points. Raises ``SceneError``."""
    found: list[Posed] = []
    if path.suffix == ".txt":
        after_image = False  # COLMAP writes a second line (2-D points, perhaps none) for each image, others don't
        for number, words in _lines(path, keep_empty=True, words=9):  # a name may have spaces in it
            if after_image and _is_line_of_points(" ".join(words).split()):
                after_image = False
                continue
            if not words:
                continue
            if len(words) < 10:
                raise SceneError(
                    f"{path}:{number}: {len(words)} words, expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
                )
            qw, qx, qy, qz, tx, ty, tz = (_real(path, number, w) for w in words[1:8])
            image, camera = (_integer(path, number, words[i]) for i in (0, 8))
            found.append(Posed(words[9], image, camera, (qw, qx, qy, qz), (tx, ty, tz)))
            after_image = True
    else:
        reader = _Reader(path)
        for _ in range(reader.count(_IMAGE.size + 9, "images")):
            image, qw, qx, qy, qz, tx, ty, tz, camera = reader.take(_IMAGE)
            name = reader.text()
            reader.skip(24 * reader.count(24, f"points of image {short(name)}"))
            found.append(Posed(name, image, camera, (qw, qx, qy, qz), (tx, ty, tz)))
    for posed in found:
        norm = math.sqrt(sum(q * q for q in posed.quaternion)) if all(map(math.isfinite, posed.quaternion)) else 0.0
        if not 0.9 < norm < 1.1 or not all(map(math.isfinite, posed.translation)):
            raise SceneError(
                f"{path}: the pose of {short(posed.name)} is not a unit quaternion with a finite translation"
            )
    return found


def _is_line_of_points(words: list[str]) -> bool:
    """Whether an images file's line lists 2-D points (x y id, any number of them) and not an image."""
    try:
        [float(word) for word in words]
    except ValueError:
        return False
    return len(words) % 3 == 0


def count_images(path: Path) -> int:
    """How many images an images file lists, without reading them; 0 for a file that can't be read."""
    try:
        if path.suffix == ".bin":
            with path.open("rb") as file:
                return _COUNT.unpack(file.read(_COUNT.size))[0]
        return len(read_images(path))
    except (SceneError, OSError, struct.error):
        return 0


@dataclass(frozen=True, eq=False)
class Points:
    """The points3D file: sparse points, and which images show them."""

    positions: np.ndarray
    """(p, 3) float64"""
    tracks: np.ndarray
    """(k, 2) int64: the number of an image (``Posed.number``) and of a point that it shows, from 0"""


def read_points(path: Path) -> Points:
    """The sparse points that at least three images see (all, if these are few). Raises ``SceneError``."""
    rows: list[tuple[float, float, float]] = []
    tracks: list[np.ndarray] = []
    if path.suffix == ".txt":
        for number, words in _lines(path):
            if len(words) < 4:
                raise SceneError(f"{path}:{number}: {len(words)} words, expected POINT3D_ID X Y Z R G B ERROR TRACK")
            x, y, z = (_real(path, number, w) for w in words[1:4])
            rows.append((x, y, z))  # other exporters leave out colour, error or track
            tracks.append(np.array([_integer(path, number, word) for word in words[8:-1:2]], np.int64))
    else:
        reader = _Reader(path)
        for _ in range(reader.count(_POINT.size, "points") if reader.data else 0):  # an empty file stands for none
            _, x, y, z, _, _, _, _, track = reader.take(_POINT)
            if track * 8 > len(reader.data) - reader.at:
                raise SceneError(f"{path}: a point's track of {track} images runs past the end; the file is damaged")
            rows.append((x, y, z))
            tracks.append(np.frombuffer(reader.data, "<i4", 2 * track, reader.at)[::2].astype(np.int64))
            reader.skip(8 * track)
    positions = np.asarray(rows, np.float64).reshape(-1, 3)
    finite = np.isfinite(positions).all(1)
    well_seen = finite & (np.array([len(track) for track in tracks], np.int64) >= 3)
    kept = np.flatnonzero(well_seen if well_seen.sum() >= 100 else finite)
    images = np.concatenate([tracks[i] for i in kept]) if len(kept) else np.zeros(0, np.int64)
    point = np.repeat(np.arange(len(kept)), [len(tracks[i]) for i in kept])
    return Points(positions[kept], np.unique(np.stack([images, point], 1), axis=0))


def _lines(path: Path, keep_empty: bool = False, words: int = -1) -> Iterator[tuple[int, list[str]]]:
    """(line number, words) of a COLMAP text file without its comments; after ``words`` words the rest is one."""
    try:
        text = reading.decoded(shots.read_bytes(path))
    except UnicodeDecodeError:
        raise SceneError(f"{path}: not UTF-8 text; a binary COLMAP model has the extension .bin") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.lstrip().startswith("#") and (keep_empty or line.strip()):
            yield number, line.strip().split(None, words)


def _integer(path: Path, number: int, word: str) -> int:
    try:
        found = int(word.removesuffix(".0"))
    except ValueError:
        raise SceneError(f"{path}:{number}: expected a whole number, found {word[:40]!r}") from None
    if not abs(found) < 2**63:
        raise SceneError(f"{path}:{number}: {word[:40]} is too large a number")
    return found


def _real(path: Path, number: int, word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise SceneError(f"{path}:{number}: expected a number, found {word[:40]!r}") from None
