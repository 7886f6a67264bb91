"""COLMAP reconstructions: ``sparse/0/{cameras,images,points3D}`` as ``.bin`` or ``.txt`` beside the ``images`` folder.

Conventions. COLMAP stores world-to-camera as a quaternion (w, x, y, z) and a translation, for OpenCV cameras (x right,
y down, z forward), with pixel centres at +0.5; here they become OpenGL camera-to-world in COLMAP's own world. Its scale
is arbitrary and is kept; so is its orientation, until ``tslim.data.orientation`` finds a better one. Photographs that
COLMAP could not place have no pose and are skipped. The scene is taken for a capture of everything around
(``contracted``), its box found from cameras and sparse points.
"""

from pathlib import Path

import numpy as np

from tslim.data import LoadOptions, colmap_files, geometry, images, shots
from tslim.data.colmap_files import Posed
from tslim.data.shots import Shot
from tslim.errors import SceneError
from tslim.scene.scene import Scene

RECOGNISED_BY = "sparse/0/cameras.bin or .txt"


def model_folder(root: Path) -> Path | None:
    """Where the reconstruction lies in a scene folder, if it is one."""
    for folder in (root / "sparse" / "0", root / "sparse", root / "colmap" / "sparse" / "0", root):
        if any((folder / f"cameras.{ext}").is_file() for ext in ("bin", "txt")):
            if any((folder / f"images.{ext}").is_file() for ext in ("bin", "txt")):
                return folder
    return None


def sniff(folder: Path) -> bool:
    """Whether there is a reconstruction, or a place for one."""
    return model_folder(folder) is not None or (folder / "sparse").is_dir()


def load(folder: Path, options: LoadOptions) -> Scene:
    """Reads the reconstruction and its photographs; raises ``SceneError``."""
    model = model_folder(folder)
    if model is None:
        raise SceneError(f"{folder / 'sparse' / '0'}: no cameras and images file (.bin or .txt) of a COLMAP model")
    warnings: list[str] = []
    if (folder / "sparse" / "1").is_dir():
        warnings.append("COLMAP made several models of this capture; sparse/0 is read, which may lack a part of it")
    found, rest = _shots(folder, model, options, warnings)
    points_file = _either(model, "points3D")
    points = None
    if points_file is None:
        warnings.append(f"no points3D.bin or .txt in {model}: box and ray limits are guessed from the cameras alone")
    else:
        points = colmap_files.read_points(points_file)
        points = points if len(points) else None
    train_shots, test_shots = shots.split(found, options)
    train, test = shots.load_views(train_shots, rest), shots.load_views(test_shots, rest)
    box, near, far = geometry.surroundings(train.cameras, points)
    return Scene(
        name=folder.resolve().name,
        source=str(folder),
        format="colmap",
        train=train,
        test=test,
        box=box,
        near=near,
        far=far,
        background=options.background if train.has_alpha() and not any(s.mask for s in train_shots) else None,
        space="contracted",
        points=None if points is None else points.astype(np.float32),
        warnings=tuple(warnings),
    )


def _shots(folder: Path, model: Path, options: LoadOptions, warnings: list[str]) -> tuple[list[Shot], int]:
    """The posed photographs that are there, and what is left to downscale."""
    cameras_file, images_file = _either(model, "cameras"), _either(model, "images")
    cameras = colmap_files.read_cameras(cameras_file)
    posed = colmap_files.read_images(images_file)
    if not posed:
        raise SceneError(f"{images_file}: no image has a pose")

    def usable(candidate: Path) -> bool:
        return any(images.find_image(candidate, p.name, images_file) is not None for p in posed)

    place, _, rest = shots.image_folder(folder, options.downscale, usable, warnings)
    found, missing, seen = [], [], set()
    poses = _camera_to_world(posed)
    for entry, pose in zip(posed, poses, strict=True):
        if entry.name in seen:
            raise SceneError(f"{images_file}: lists {entry.name} twice; each image may have one pose")
        seen.add(entry.name)
        if entry.camera not in cameras:
            raise SceneError(
                f"{images_file}: {entry.name} was taken with camera {entry.camera}, {cameras_file} lacks it"
            )
        file = images.find_image(place, entry.name, images_file)
        if file is None:
            missing.append(entry.name)
            continue
        c = cameras[entry.camera]
        mask = shots.find_mask(folder, entry.name)
        found.append(Shot(entry.name, file, pose, c.size, c.intrinsics, c.lens, c.distortion, mask))
    shots.check_enough(len(found), len(posed), missing[0] if missing else None, images_file, warnings)
    shots.check_poses(found, images_file)
    unplaced = len(shots.listed_images(place)) - len([s for s in found if s.file.parent == place])
    if unplaced > 0:
        warnings.append(f"{unplaced} images in {place.name} have no pose in the COLMAP model and were skipped")
    return found, rest


def _either(model: Path, name: str) -> Path | None:
    """The file of that name, binary for preference."""
    return next((path for ext in ("bin", "txt") if (path := model / f"{name}.{ext}").is_file()), None)


def _camera_to_world(posed: list[Posed]) -> np.ndarray:
    """(n, 3, 4) OpenGL poses: R_cw = R_wcᵀ, origin = −R_wcᵀ t."""
    turn = geometry.rotations(np.array([p.quaternion for p in posed])).transpose(0, 2, 1)
    origin = -turn @ np.array([p.translation for p in posed])[:, :, None]
    return geometry.opengl_from_opencv(np.concatenate([turn, origin], 2))
