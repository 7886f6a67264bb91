"""NSVF and Tanks-and-Temples scenes: ``intrinsics.txt``, ``bbox.txt``, ``pose/`` and ``rgb/``.

``pose/NAME.txt`` is the 4 × 4 camera-to-world matrix, OpenCV axes (x right, y down, z forward), of ``rgb/NAME.png``.
NAMEs that begin with ``0_`` are for training, with ``1_`` for validation or test, with ``2_`` for test; where there are
``2_``, ``1_`` is left out. Without such beginnings every eighth image is held out. ``intrinsics.txt`` is a 4 × 4 (or
3 × 3) matrix for all images, or NSVF's older form, whose first line is ``focal cx cy``. ``bbox.txt`` has the box's
smallest and largest corner (and the size of NSVF's voxels, which is not used); it is taken as it is. Where it is absent
(Tanks and Temples of NeRF++ and others), the photographs decide.
"""

from pathlib import Path

import numpy as np

from tslim.data import geometry, image_file, pictures, reading, shots
from tslim.data.capture import Capture
from tslim.data.masks import Masks
from tslim.data.options import LoadOptions
from tslim.data.shots import Shot
from tslim.data.spaces import Region
from tslim.errors import SceneError

RECOGNISED_BY = "pose/, rgb/ and intrinsics.txt"


def sniff(folder: Path) -> bool:
    """Whether there are the folders ``pose`` and ``rgb``, or one of them with ``intrinsics.txt``."""
    parts = ((folder / "pose").is_dir(), (folder / "rgb").is_dir(), (folder / "intrinsics.txt").is_file())
    return sum(parts) >= 2


def load(folder: Path, options: LoadOptions) -> Capture:
    """Reads the scene; raises ``SceneError``."""
    warnings: list[str] = []
    notes: list[str] = []
    found = _shots(folder, warnings, notes)
    region = Region()
    if (folder / "bbox.txt").is_file():
        region = Region(box=read_box(folder / "bbox.txt"), source="bbox.txt")
    else:
        warnings.append("no bbox.txt: whether there is an object in a box is guessed from the photographs (--space)")
    train, test = _split(found, folder, options)
    return Capture(
        folder, "nsvf", folder / "pose", train, test,
        region=region, downscale=options.downscale, warnings=tuple(warnings), notes=tuple(notes),
    )  # fmt: skip


def _shots(folder: Path, warnings: list[str], notes: list[str]) -> list[Shot]:
    """Every image that has a pose, by name."""
    for name in ("pose", "rgb"):
        if not (folder / name).is_dir():
            raise SceneError(f"{folder / name}: no such folder; expected pose/NAME.txt for every rgb/NAME.png")
    posed = {path.stem: path for path in sorted((folder / "pose").glob("*.txt"))}
    tree = pictures.Tree(folder / "rgb")
    files = {name: file for name in posed if (file := tree.find(name)) is not None and not pictures.is_mask(file.name)}
    missing = next((name for name in posed if name not in files), None)
    shots.require_images(len(files), len(posed), missing, folder / "rgb", warnings)
    unplaced = sum(not pictures.is_mask(name) for name in tree.files) - len(files)
    if unplaced > 0:
        warnings.append(f"{unplaced} images in rgb have no file in pose and were skipped")
    intrinsics = read_intrinsics(folder / "intrinsics.txt")
    masks = Masks(folder, folder / "rgb")
    found = []
    for name, file in files.items():
        size = image_file.read_header(file).size
        shots.check_camera(f"{folder / 'intrinsics.txt'} for {file.name}", size, intrinsics)
        pose = geometry.opengl_from_opencv(read_pose(posed[name])[None])[0]
        found.append(Shot(name, file, pose, size, intrinsics, masks=masks.find(file.name, file)))
    masks.say(found, warnings, notes)
    return found


def _split(found: list[Shot], folder: Path, options: LoadOptions) -> tuple[list[Shot], list[Shot]]:
    groups = {digit: [shot for shot in found if shot.name.startswith(f"{digit}_")] for digit in "012"}
    if sum(map(len, groups.values())) < len(found):
        return shots.split(found, options)
    if not groups["0"]:
        raise SceneError(f"{folder / 'rgb'}: no training images (with a pose): none begins with 0_")
    test = groups["2"] or groups["1"]
    return reading.evenly(groups["0"], options.max_images), reading.evenly(test, options.max_images)


def read_intrinsics(path: Path) -> shots.Intrinsics:
    """(fx, fy, cx, cy) in pixels; raises ``SceneError``."""
    rows = _numbers(path)
    widths = [len(row) for row in rows]
    if widths[:3] in ([3, 3, 3], [4, 4, 4]):
        if np.abs(np.array(rows[2][:3]) - (0, 0, 1)).max() > 1e-6 or abs(rows[1][0]) > 1e-6:
            raise SceneError(f"{path}: not a camera matrix (its third row is 0 0 1, its second begins with 0)")
        return rows[0][0], rows[1][1], rows[0][2], rows[1][2]
    if widths and widths[0] in (3, 4) and (len(rows) == 1 or widths[1] < 4):
        focal, cx, cy = rows[0][:3]
        return focal, focal, cx, cy
    raise SceneError(f"{path}: expected a 4x4 or 3x3 matrix, or a first line with focal length, cx and cy")


def read_box(path: Path) -> np.ndarray:
    """(2, 3) smallest and largest corner; raises ``SceneError``."""
    values = [value for row in _numbers(path) for value in row]
    if len(values) not in (6, 7):
        raise SceneError(f"{path}: {len(values)} numbers, expected x y z of two corners and perhaps a voxel size")
    box = np.array(values[:6]).reshape(2, 3)
    if not (box[0] < box[1]).all():
        raise SceneError(f"{path}: the box {box.tolist()} has no volume; the smallest corner comes first")
    if np.ptp(box, axis=0).max() > shots.FARTHEST:
        raise SceneError(f"{path}: the box {box.tolist()} is absurdly large")
    return box


def read_pose(path: Path) -> np.ndarray:
    """(3, 4) OpenCV camera-to-world; raises ``SceneError``."""
    values = [value for row in _numbers(path) for value in row]
    if len(values) not in (12, 16):
        raise SceneError(f"{path}: {len(values)} numbers, expected a 4x4 camera-to-world matrix")
    return np.array(values).reshape(-1, 4)[:3]


def _numbers(path: Path) -> list[list[float]]:
    """The finite numbers of a text file, line by line, empty lines left out."""
    data = shots.read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
        rows = [[float(word) for word in line.replace(",", " ").split()] for line in text.splitlines()]
    except ValueError as error:
        raise SceneError(f"{path}: expected numbers only ({str(error)[:80]})") from None
    rows = [row for row in rows if row]
    if not all(np.isfinite(value) for row in rows for value in row):
        raise SceneError(f"{path}: NaN or infinity among the numbers")
    return rows
