"""LLFF captures: ``poses_bounds.npy`` beside ``images``, ``images_4`` or ``images_8``.

A row of ``poses_bounds.npy`` has 17 numbers: a 3 × 5 matrix, row by row, and the nearest and farthest depth seen. The
matrix's columns are the camera's axes **down, right, backward** in the world, its origin, and (height, width, focal)
in pixels of the full-size photograph. Rows go with the image files in order of name. The images are usually smaller
copies; the focal length is scaled to them.

Forward-facing captures (``ndc``) are moved and turned, not scaled, so that the mean of all cameras stands at the origin
and looks along −z, as NDC needs; other captures (``contracted``) keep their world. Every eighth image is held out.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from tslim.data import LoadOptions, geometry, shots
from tslim.data.shots import Shot
from tslim.errors import SceneError
from tslim.scene.scene import Scene

RECOGNISED_BY = "poses_bounds.npy"

NEAR_PLANE = 0.75
"""The NDC near plane lies at this share of the nearest bound, as in the LLFF code: bounds come from sparse points."""


def sniff(folder: Path) -> bool:
    """Whether there is a ``poses_bounds.npy``."""
    return (folder / "poses_bounds.npy").is_file()


def load(folder: Path, options: LoadOptions) -> Scene:
    """Reads the capture; raises ``SceneError``."""
    path = folder / "poses_bounds.npy"
    rows = read_rows(path)
    warnings: list[str] = []
    place, _, rest = shots.image_folder(
        folder, options.downscale, lambda candidate: bool(shots.listed_images(candidate)), warnings
    )
    files = shots.listed_images(place)
    if len(files) != len(rows):
        raise SceneError(
            f"{path}: {len(rows)} poses, but {len(files)} images in {place.name}; they go together by order, so that "
            "none may be missing"
        )
    if len(files) < shots.MIN_SHOTS:
        raise SceneError(f"{path}: {len(files)} images, at least {shots.MIN_SHOTS} are needed")
    poses, sizes, focals, bounds = unpack(rows)
    for file, size, focal in zip(files, sizes, focals, strict=True):
        shots.check_camera(f"{path}: {file.name}", tuple(size), _intrinsics(size, focal))
    found = [
        Shot(str(file.relative_to(folder)), file, pose, (int(size[0]), int(size[1])), _intrinsics(size, focal))
        for file, pose, size, focal in zip(files, poses, sizes, focals, strict=True)
    ]
    shots.check_poses(found, path)
    forward = geometry.faces_forward(poses)
    if forward:
        found = [replace(shot, pose=pose) for shot, pose in zip(found, geometry.recentred(poses), strict=True)]
    near, far = NEAR_PLANE * float(bounds.min()), float(bounds.max())
    all_cameras = shots.cameras_of(found, [s.size for s in found])
    box = geometry.ndc_box(all_cameras, near) if forward else None
    train_shots, test_shots = shots.split(found, options)
    train, test = shots.load_views(train_shots, rest), shots.load_views(test_shots, rest)
    if box is None:
        space = "contracted"
        box, _, far_enough = geometry.surroundings(all_cameras, None)
        far = max(far, far_enough)
    else:
        space = "ndc"
    return Scene(
        name=folder.resolve().name,
        source=str(folder),
        format="llff",
        train=train,
        test=test,
        box=box,
        near=near,
        far=far,
        background=options.background if train.has_alpha() else None,
        space=space,
        warnings=tuple(warnings),
    )


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
