"""instant-ngp and nerfstudio captures: one ``transforms.json`` that lists images, poses and lenses.

``frames`` is a list of ``file_path`` (relative to the json) and ``transform_matrix`` (camera-to-world, OpenGL axes).
The lens is given for all frames at the top, or in a frame, which then overrides it: ``fl_x``, ``fl_y``, ``cx``, ``cy``,
``w``, ``h`` in pixels (or ``camera_angle_x``, ``camera_angle_y``, radians), ``camera_model`` or ``is_fisheye``, and the
coefficients ``k1 k2 k3 p1 p2`` (radial-tangential) or ``k1 k2 k3 k4`` (fisheye). ``mask_path`` names a mask.
At the top, ``ply_file_path`` names a cloud of sparse points.

Poses are used as they stand. nerfstudio's ``applied_transform`` tells how the world was turned when the file was
written; the poses already contain it, so it changes nothing here.

``train_filenames``, ``val_filenames`` and ``test_filenames`` split the frames; without them every eighth is held out.
``aabb_scale`` of at most 1 means an object inside instant-ngp's unit cube, images with an alpha channel an object that
the cameras surround; anything else is a capture of everything around (``contracted``).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from tslim.data import LoadOptions, geometry, images, ply, reading, shots
from tslim.data.shots import Shot
from tslim.errors import SceneError
from tslim.scene import lenses
from tslim.scene.scene import Scene

RECOGNISED_BY = "transforms.json"

MODELS = {
    **dict.fromkeys(
        ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "PERSPECTIVE"), lenses.POLYNOMIAL
    ),
    "FULL_OPENCV": lenses.RADIAL,
    **dict.fromkeys(("OPENCV_FISHEYE", "FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"), lenses.FISHEYE),
    "EQUIRECTANGULAR": lenses.EQUIRECTANGULAR,
}
"""``camera_model`` to lens. k4 is nerfstudio's and Metashape's r⁸ except in FULL_OPENCV, where k4 k5 k6 are OpenCV's
denominator."""
COEFFICIENTS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")

NGP_SCALE, NGP_OFFSET = 0.33, 0.5
"""instant-ngp maps a position p to p·scale + offset, into its unit cube [0, 1]³; the json may say otherwise."""


def sniff(folder: Path) -> bool:
    """Whether there is a ``transforms.json``."""
    return (folder / "transforms.json").is_file()


def load(folder: Path, options: LoadOptions) -> Scene:
    """Reads the capture; raises ``SceneError``."""
    path = folder / "transforms.json"
    warnings: list[str] = []
    data = reading.read_json(path)
    found = _shots(folder, path, data, warnings)
    train_shots, test_shots = _split(found, path, data, options, warnings)
    train = shots.load_views(train_shots, options.downscale)
    test = shots.load_views(test_shots, options.downscale)
    has_masks = any(shot.mask is not None for shot in train_shots)
    has_alpha = not has_masks and train.has_alpha()
    space, box = _region(data, path, has_alpha)
    points = _points(folder, path, data, warnings)
    if space == "box":
        box = geometry.object_box(train.cameras) if box is None else box
        near, far = geometry.limits_of_box(train.cameras, box)
    else:
        box, near, far = geometry.surroundings(train.cameras, points)
    return Scene(
        name=folder.resolve().name,
        source=str(folder),
        format="transforms",
        train=train,
        test=test,
        box=box,
        near=near,
        far=far,
        background=options.background if has_alpha else None,
        space=space,
        points=None if points is None else points.astype(np.float32),
        warnings=tuple(warnings),
    )


def _shots(folder: Path, path: Path, data: dict[str, Any], warnings: list[str]) -> list[Shot]:
    """Every frame whose image is there, by name."""
    found: list[Shot] = []
    missing: list[str] = []
    seen: set[str] = set()
    listed = reading.frames(data, path)
    for frame in listed:
        name = frame["file_path"]
        if name in seen:
            raise SceneError(f"{path}: lists {name} twice; each image may have one pose")
        seen.add(name)
        pose = reading.pose(frame, path)
        file = _inside(folder, name, path)
        if file is None:
            missing.append(name)
            continue
        size, intrinsics, lens, distortion = _lens(data, frame, file, f"{path}: frame {name}")
        mask = _mask(folder, frame, path)
        found.append(Shot(name, file, pose, size, intrinsics, lens, distortion, mask))
    shots.check_enough(len(found), len(listed), missing[0] if missing else None, path, warnings)
    shots.check_poses(found, path)
    return sorted(found, key=lambda shot: shot.name)


def _inside(folder: Path, name: str, path: Path) -> Path | None:
    """The image's file, or None; absolute paths are taken if they point into the scene's folder."""
    if Path(name).is_absolute():
        try:
            name = str(Path(name).relative_to(folder.absolute()))
        except ValueError:
            pass  # find_image refuses it
    return images.find_image(folder, name, path)


def _mask(folder: Path, frame: dict[str, Any], path: Path) -> Path | None:
    name = frame.get("mask_path")
    if name is None:
        return None
    if not isinstance(name, str):
        raise SceneError(f"{path}: frame {frame['file_path']}: mask_path is not a file name")
    file = _inside(folder, name, path)
    if file is None:
        raise SceneError(f"{path}: frame {frame['file_path']}: its mask {name} is missing")
    return file


def _lens(data: dict[str, Any], frame: dict[str, Any], file: Path, where: str):
    """(size, intrinsics, lens, distortion) of a frame: its own values, else those for all."""

    def value(key: str, default: float | None = None) -> float:
        holder = frame if key in frame else data
        if key not in holder and default is not None:
            return default
        return reading.number(holder, key, where)

    def given(key: str) -> bool:
        return key in frame or key in data

    size = (value("w"), value("h")) if given("w") and given("h") else images.read_header(file).size
    lens, distortion = _distortion(data, frame, value, where)
    own_angle = "camera_angle_x" in frame and "fl_x" not in frame
    if lens == lenses.EQUIRECTANGULAR:  # the picture is all around: nothing of its angles is left to say
        intrinsics = (size[0] / (2 * math.pi), size[1] / math.pi, size[0] / 2, size[1] / 2)
        shots.check_camera(where, size, intrinsics, lens, distortion)
        return (int(size[0]), int(size[1])), intrinsics, lens, distortion
    if given("fl_x") and not own_angle:
        fx = value("fl_x")
        fy = value("fl_y", fx)
    elif given("camera_angle_x"):
        fx = _focal(size[0], value("camera_angle_x"), f"{where}: camera_angle_x")
        fy = _focal(size[1], value("camera_angle_y"), f"{where}: camera_angle_y") if given("camera_angle_y") else fx
    else:
        raise SceneError(f"{where}: no focal length; expected fl_x (pixels) or camera_angle_x (radians)")
    intrinsics = (fx, fy, value("cx", size[0] / 2), value("cy", size[1] / 2))
    shots.check_camera(where, size, intrinsics, lens, distortion)
    return (int(size[0]), int(size[1])), intrinsics, lens, distortion


def _distortion(data: dict[str, Any], frame: dict[str, Any], value, where: str) -> tuple[int, tuple[float, ...]]:
    given = {key: value(key, 0.0) for key in COEFFICIENTS}
    model = frame.get("camera_model", data.get("camera_model"))
    if model is None:
        flags = ("is_fisheye", "OPENCV_FISHEYE"), ("equirectangular", "EQUIRECTANGULAR")
        model = next((name for key, name in flags if frame.get(key, data.get(key))), "OPENCV")
    if not isinstance(model, str) or model not in MODELS:
        raise SceneError(f"{where}: unknown camera_model {str(model)[:40]}; accepted: {', '.join(MODELS)}")
    try:
        return lenses.of_coefficients(MODELS[model], given)
    except ValueError as error:
        raise SceneError(
            f"{where}: the lens coefficients {error} with camera_model {model}, which has none of these; "
            "FULL_OPENCV has k1 to k6, p1, p2, the other models k1 to k4, p1, p2"
        ) from None


def _focal(pixels: float, angle: float, where: str) -> float:
    if not 0 < angle < math.pi:
        raise SceneError(f"{where} is {angle:g}, expected radians between 0 and 3.14")
    return 0.5 * pixels / math.tan(0.5 * angle)


def _split(found: list[Shot], path: Path, data: dict[str, Any], options: LoadOptions, warnings: list[str]):
    """(train, test) as the json's lists say, else every eighth held out."""
    lists = {key: data[key] for key in ("train_filenames", "val_filenames", "test_filenames") if data.get(key)}
    for key, names in lists.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SceneError(f"{path}: {key} is not a list of file names")
    if not lists:
        return shots.split(found, options)
    listed = {frame["file_path"] for frame in data["frames"]}
    for key, names in lists.items():
        unknown = [name for name in names if name not in listed]
        if unknown:
            warnings.append(f"{len(unknown)} of the {len(names)} {key} are no frames (the first is {unknown[0]})")
    test_names = set(lists.get("test_filenames") or lists.get("val_filenames") or ())
    held_out = test_names | set(lists.get("val_filenames", ()))
    train_names = set(lists.get("train_filenames") or listed)
    if "train_filenames" in lists and train_names & held_out:
        warnings.append(f"{len(train_names & held_out)} train_filenames are also held out; they are not trained on")
    train = [shot for shot in found if shot.name in train_names - held_out]
    test = [shot for shot in found if shot.name in test_names]
    if not train:
        raise SceneError(f"{path}: no training images: train_filenames names none that is there")
    return reading.evenly(train, options.max_images), reading.evenly(test, options.max_images)


def _points(folder: Path, path: Path, data: dict[str, Any], warnings: list[str]) -> np.ndarray | None:
    """The sparse points (p, 3), if the json names a cloud of them."""
    name = data.get("ply_file_path")
    if name is None:
        return None
    if not isinstance(name, str):
        raise SceneError(f"{path}: ply_file_path is not a file name")
    file = _inside(folder, name, path)
    if file is None:
        warnings.append(f"the points {name[:100]} are missing: box and ray limits are guessed from the cameras alone")
        return None
    points = ply.read_ply(file)
    points = points[np.abs(points).max(1, initial=0) < shots.FARTHEST]
    return points if len(points) else None


def _region(data: dict[str, Any], path: Path, has_alpha: bool) -> tuple[str, np.ndarray | None]:
    """The space, and the box where the json tells it."""
    if "aabb_scale" not in data:
        return ("box" if has_alpha else "contracted"), None
    aabb_scale = reading.number(data, "aabb_scale", str(path))
    if not 0 < aabb_scale <= 1024:
        raise SceneError(f"{path}: aabb_scale is {aabb_scale:g}, expected more than 0, such as 1, 2, 4, 8 or 16")
    if aabb_scale > 1:
        return "contracted", None
    scale = reading.number(data, "scale", str(path)) if "scale" in data else NGP_SCALE
    try:
        offset = np.broadcast_to(np.asarray(data.get("offset", NGP_OFFSET), np.float64), (3,))
    except (TypeError, ValueError, OverflowError):
        raise SceneError(f"{path}: offset is not three numbers") from None
    if not scale > 0 or not np.isfinite(offset).all():
        raise SceneError(f"{path}: scale {scale:g} and offset {offset.tolist()}, expected scale > 0 and finite numbers")
    half = 0.5 * aabb_scale
    with np.errstate(all="ignore"):
        box = (np.array([[0.5 - half] * 3, [0.5 + half] * 3]) - offset) / scale
    if not np.abs(box).max() < shots.FARTHEST:
        raise SceneError(f"{path}: scale {scale:g} and offset {offset.tolist()} make the unit cube absurdly large")
    return "box", box
