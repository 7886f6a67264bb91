"""LLFF captures: ``poses_bounds.npy`` beside ``images``, ``images_4`` or ``images_8``.

A row of ``poses_bounds.npy`` has 17 numbers: a 3 × 5 matrix, row by row, and the nearest and farthest depth seen. The
matrix's columns are the camera's axes **down, right, backward** in the world, its origin, and (height, width, focal)
in pixels of the full-size photograph. Rows go with the image files in order of name. The images are usually smaller
copies; the focal length is scaled to them.

Every eighth image is held out. Forward-facing captures go to NDC, others to a contracted space.
"""

from pathlib import Path

import numpy as np

from tslim.data import pictures, shots
from tslim.data.capture import Capture
from tslim.data.masks import Masks
from tslim.data.options import LoadOptions
from tslim.data.shots import Shot
from tslim.data.spaces import Region
from tslim.errors import SceneError

RECOGNISED_BY = "poses_bounds.npy"


def sniff(folder: Path) -> bool:
    """Whether there is a ``poses_bounds.npy``."""
    return (folder / "poses_bounds.npy").is_file()


def count(folder: Path) -> int:
    """How many images the table is for; 0 where it can't be read."""
    try:
        return len(read_rows(folder / RECOGNISED_BY))
    except SceneError:
        return 0


def load(folder: Path, options: LoadOptions) -> Capture:
    """Reads the capture; raises ``SceneError``."""
    path = folder / "poses_bounds.npy"
    rows = read_rows(path)
    warnings: list[str] = []
    notes: list[str] = []
    known = pictures.places(folder)
    fitting = [place for place in known if len(place.pictures()) == len(rows)]
    if not fitting:
        there = ", ".join(f"{len(p.pictures())} images in {p.path.relative_to(folder)}" for p in known[:6])
        raise SceneError(
            f"{path}: {len(rows)} poses, but {there or 'no images'}; poses and images go together by order, so that "
            "none may be missing or too many in the folder images (or images_2, images_4, images_8)"
        )
    if len(rows) < shots.MIN_SHOTS:
        raise SceneError(f"{path}: {len(rows)} images, at least {shots.MIN_SHOTS} are needed")
    place = pictures.fitting(fitting, options.downscale, warnings)
    files = place.pictures()
    poses, sizes, focals, bounds = unpack(rows)
    masks = Masks(folder, place.path, place.factor)
    found = []
    for file, pose, size, focal in zip(files, poses, sizes, focals, strict=True):
        shots.check_camera(f"{path}: {file.name}", tuple(size), _intrinsics(size, focal))
        name = file.relative_to(folder).as_posix()
        mask = masks.find(file.relative_to(place.path).as_posix(), file)
        found.append(Shot(name, file, pose, (int(size[0]), int(size[1])), _intrinsics(size, focal), masks=mask))
    masks.say(found, warnings, notes)
    train, test = shots.split(found, options)
    return Capture(
        folder, "llff", path, train, test,
        region=Region(bounds=(float(bounds.min()), float(bounds.max()))),
        downscale=max(1, round(options.downscale / place.factor)),
        warnings=tuple(warnings),
        notes=(f"photographs in {place.name}", *notes),
    )  # fmt: skip


def read_rows(path: Path) -> np.ndarray:
    """The (n, 17) float64 table; raises ``SceneError`` if the file is another array, damaged, or holds NaN."""
    try:
        # A map allocates nothing, so that a header that lies about the size is harmless.
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise SceneError(f"{path}: no such file") from None
    except Exception as error:  # numpy parses the header as Python: a damaged one can fail in any way
        raise SceneError(f"{path}: not a readable .npy array ({str(error)[:80]})") from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != 17 or rows.dtype.kind not in "fiu":
        shape = getattr(rows, "shape", None)
        raise SceneError(f"{path}: an array of shape {shape}, expected (images, 17) numbers")
    rows = np.array(rows, np.float64)
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(bad):
        raise SceneError(f"{path}: NaN or infinity in row {bad[0]}")
    bad = np.flatnonzero(~((rows[:, 15] > 0) & (rows[:, 15] < rows[:, 16])))
    if len(bad):
        near, far = rows[bad[0], 15:]
        raise SceneError(f"{path}: row {bad[0]} has the depth bounds {near:g} and {far:g}, expected 0 < near < far")
    return rows


def unpack(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(poses (n, 3, 4) with OpenGL axes, sizes (n, 2) width and height, focals (n,), bounds (n, 2)) of the table."""
    matrices = rows[:, :15].reshape(-1, 3, 5)
    down, right, back, origin = (matrices[:, :, i] for i in range(4))
    poses = np.stack([right, -down, back, origin], 2)
    height, width, focal = matrices[:, :, 4].T
    return poses, np.stack([width, height], 1), focal, rows[:, 15:]


def _intrinsics(size: np.ndarray, focal: float) -> shots.Intrinsics:
    return float(focal), float(focal), float(size[0]) / 2, float(size[1]) / 2
