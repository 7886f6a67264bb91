"""The keys of ``transforms*.json``: lens and size of a frame, and what is there and not used.

The keys are instant-ngp's, nerfstudio's and their exporters'; a frame's own value goes before the one for all frames.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tslim.data import image_file, reading, shots
from tslim.errors import SceneError
from tslim.scene import lenses

MODELS = {
    **dict.fromkeys(
        ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "PERSPECTIVE"), lenses.POLYNOMIAL
    ),
    "FULL_OPENCV": lenses.RADIAL,
    **dict.fromkeys(("OPENCV_FISHEYE", "FISHEYE", "SIMPLE_FISHEYE"), lenses.FISHEYE),
    **dict.fromkeys(("SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE"), lenses.FISHEYE),
    "EQUIRECTANGULAR": lenses.EQUIRECTANGULAR,
}
"""``camera_model`` to lens. k4 is nerfstudio's and Metashape's r⁸ except in FULL_OPENCV, where k4 k5 k6 are OpenCV's
denominator."""
FLAGS = {"is_fisheye": "OPENCV_FISHEYE", "equirectangular": "EQUIRECTANGULAR", "latlong": "EQUIRECTANGULAR"}
"""instant-ngp's way to say ``camera_model``; see ``ambiguous`` for equirectangular."""
COEFFICIENTS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
FOCAL = ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y", "x_fov", "y_fov")
LENS = (*FOCAL, "cx", "cy", "w", "h", "camera_model", *FLAGS, *COEFFICIENTS)
"""What describes a camera's inside."""

UNUSED = {
    "depth maps": ("depth_path", "depth_file_path", "integer_depth_scale", "depth_unit_scale_factor"),
    "a rolling shutter": ("rolling_shutter", "rolling_shutter_time"),
    "cameras that move during an exposure": ("transform_matrix_start", "transform_matrix_end"),
    "times of a scene that moves": ("time",),
    "an environment map": ("envmap",),
    "a colour that means transparent": ("white_transparent", "black_transparent"),
    "light directions": ("driver_parameters",),
    "alpha that is multiplied already": ("fix_premult",),
    "sharpening": ("sharpen",),
    "a limit for sharpness": ("sharpness_discard_threshold",),
    "a crop of the fisheye's circle": ("fisheye_crop_radius",),
    "the part of space to render": ("render_aabb",),
    "a Mitsuba scene's scale": ("normal_mts_args",),
    "normals": ("normal_path", "normal_file_path"),
    "colour per image": ("exposure", "n_extra_learnable_dims"),
    "speeds of cameras": ("camera_linear_velocity", "camera_angular_velocity"),
}
"""Keys that instant-ngp, nerfstudio, gsplat or brush act on and that nothing here does, by what they are."""
PATHS = ("file_path", "mask_path", "ply_file_path")
"""Keys that name files, which are read."""


def _holders(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What keys may stand in: the file itself, and each of its frames."""
    frames = data.get("frames")
    return [data, *(f for f in (frames if isinstance(frames, list) else ()) if isinstance(f, dict))]


def unused(data: Mapping[str, Any]) -> list[str]:
    """A warning, if there are keys that others act on and that are not used here."""
    holders = _holders(data)
    found = []
    for what, keys in UNUSED.items():
        there = [k for k in keys if any(_says_something(holder.get(k)) for holder in holders)]
        if there == ["time"] and len({str(h["time"]) for h in holders if "time" in h}) == 1:
            continue
        if there:
            found.append(f"{what} ({', '.join(there)})")
    known = {key for keys in UNUSED.values() for key in keys} | set(PATHS)
    texts = {key for holder in holders for key, value in holder.items() if isinstance(value, str)}
    files = sorted(key for key in texts - known if key.endswith(("_path", "_file")))
    if files:
        found.append(f"other files ({', '.join(files[:5])})")
    return [f"the file has what is not used: {'; '.join(found)}"] if found else []


def ambiguous(data: Mapping[str, Any]) -> list[str]:
    """What is there, but means something else to others: a line for each, if any."""
    if any(h.get("equirectangular") and h.get("camera_model") is None for h in _holders(data)):
        return [
            "equirectangular is read as latlong: rows evenly spaced in latitude, as panorama cameras write them; "
            "instant-ngp means one of equal areas by it, which has to be converted first"
        ]
    return []


def _says_something(value: Any) -> bool:
    if isinstance(value, list):
        return any(_says_something(v) for v in value)
    return value not in (None, False, 0, "")


class Holder:
    """The values for one frame: its own, else those for all."""

    def __init__(self, data: Mapping[str, Any], frame: Mapping[str, Any], where: str) -> None:
        self.data, self.frame, self.where = data, frame, where

    def has(self, key: str) -> bool:
        """Whether there is a value; null is none."""
        return self.raw(key) is not None

    def raw(self, key: str) -> Any:
        """The value as it stands in the file."""
        own = self.frame.get(key)
        return self.data.get(key) if own is None else own

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number; raises ``SceneError``."""
        if default is not None and not self.has(key):
            return default
        return reading.number({key: self.raw(key)} if self.has(key) else {}, key, self.where)


def camera_of(
    holder: Holder, file: Path, factor: int
) -> tuple[tuple[int, int], shots.Intrinsics, int, tuple[float, ...]]:
    """(size, intrinsics, lens, distortion) of a frame's camera; raises ``SceneError``.

    ``file`` is the photograph, or a copy of it that is ``factor`` times smaller.
    """
    where = holder.where
    if holder.has("w") and holder.has("h"):
        size = holder.number("w"), holder.number("h")
    else:
        width, height = image_file.read_header(file).size
        size = float(width * factor), float(height * factor)
        if holder.has("w"):
            size = holder.number("w"), float(round(holder.number("w") * height / width))
        elif holder.has("h"):
            size = float(round(holder.number("h") * width / height)), holder.number("h")
    lens, distortion = _lens(holder)
    if lens == lenses.EQUIRECTANGULAR:  # the picture is all around: nothing of its angles is left to say
        intrinsics = lenses.all_around(*size)
    else:
        fx, fy = _focal(holder, size)
        intrinsics = fx, fy, holder.number("cx", size[0] / 2), holder.number("cy", size[1] / 2)
    shots.check_camera(where, size, intrinsics, lens, distortion)
    return (int(size[0]), int(size[1])), intrinsics, lens, distortion


def _focal(holder: Holder, size: tuple[float, float]) -> tuple[float, float]:
    """(fx, fy) in pixels: a frame's own, in whatever way it gives them, before those for all."""
    for values in (holder.frame, holder.data):
        found: list[float | None] = []
        for axis, pixels in zip("xy", size, strict=True):
            if values.get(f"fl_{axis}") is not None:
                found.append(reading.number(values, f"fl_{axis}", holder.where))
            elif values.get(f"camera_angle_{axis}") is not None:
                key = f"camera_angle_{axis}"
                found.append(_from_angle(pixels, reading.number(values, key, holder.where), f"{holder.where}: {key}"))
            elif values.get(f"{axis}_fov") is not None:
                degrees = reading.number(values, f"{axis}_fov", holder.where)
                found.append(_from_angle(pixels, math.radians(degrees), f"{holder.where}: {axis}_fov in radians"))
            else:
                found.append(None)
        fx, fy = found
        if fx is not None:
            return fx, fx if fy is None else fy
        if fy is not None:
            return fy, fy
    raise SceneError(f"{holder.where}: no focal length; expected fl_x (pixels) or camera_angle_x (radians)")


def _from_angle(pixels: float, angle: float, where: str) -> float:
    if not 0 < angle < math.pi:
        raise SceneError(f"{where} is {angle:g}, expected radians between 0 and 3.14")
    return 0.5 * pixels / math.tan(0.5 * angle)


def _lens(holder: Holder) -> tuple[int, tuple[float, ...]]:
    coefficients = {key: holder.number(key, 0.0) for key in COEFFICIENTS}
    model = holder.raw("camera_model")
    if model is None:
        model = next((name for key, name in FLAGS.items() if holder.raw(key)), "OPENCV")
    name = model.upper() if isinstance(model, str) else str(model)
    if name not in MODELS:
        raise SceneError(
            f"{holder.where}: unknown camera_model {str(model)[:40]}; accepted: {', '.join(MODELS)} "
            "(undistort the images for PINHOLE)"
        )
    if any(holder.has(f"ftheta_p{i}") for i in range(5)):
        raise SceneError(f"{holder.where}: an f-theta lens (ftheta_p0 …); accepted: {', '.join(MODELS)}")
    try:
        return lenses.of_coefficients(MODELS[name], coefficients)
    except ValueError as error:
        raise SceneError(
            f"{holder.where}: the lens coefficients {error} with camera_model {name}, which has none of these; "
            "FULL_OPENCV has k1 to k6, p1, p2, the other models k1 to k4, p1, p2"
        ) from None


def same_focal(own: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two descriptions of one camera say the same of its focal length, as far as both say something."""
    try:
        width = next((float(d["w"]) for d in (own, other) if d.get("w") is not None), None)
        if width is None or own.get("camera_angle_x") is None or other.get("fl_x") is None:
            return True
        angle = 2 * math.atan(0.5 * width / float(other["fl_x"]))
        return abs(angle - float(own["camera_angle_x"])) < 0.01 * angle
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return True


def box_of(data: Mapping[str, Any], path: Path, scale: float, offset: float) -> tuple[np.ndarray | None, bool]:
    """(box, whether there is more beyond it) as instant-ngp's ``aabb_scale``, ``aabb``, ``scale`` and ``offset`` say.

    A position p is mapped to p·scale + offset, into the unit cube [0, 1]³, which ``aabb_scale`` enlarges; ``aabb`` is
    what should become that cube. (None, False) where the file says nothing. Raises ``SceneError``.
    """
    if data.get("aabb_scale") is None and data.get("aabb") is None:
        return None, False
    size = reading.number(data, "aabb_scale", str(path)) if data.get("aabb_scale") is not None else 1.0
    if not 0 < size <= 1024:
        raise SceneError(f"{path}: aabb_scale is {size:g}, expected more than 0, such as 1, 2, 4, 8 or 16")
    if size > 1:
        return None, True
    if data.get("aabb") is not None:
        corners = reading.numbers(data["aabb"], (2, 3), f"{path}: aabb")
        center, half = corners.mean(0), 0.5 * size * float(np.ptp(corners, axis=0).max())
        box = np.stack([center - half, center + half])
    else:
        scale = reading.number(data, "scale", str(path)) if data.get("scale") is not None else scale
        own = data.get("offset")
        shift = np.full(3, offset) if own is None else reading.numbers(own, (3,), f"{path}: offset", spread=True)
        if not scale > 0:
            raise SceneError(f"{path}: scale is {scale:g}, expected more than 0")
        with np.errstate(all="ignore"):
            box = (np.array([[0.5 - 0.5 * size] * 3, [0.5 + 0.5 * size] * 3]) - shift) / scale
    if not np.abs(box).max() < shots.FARTHEST or not (box[0] < box[1]).all():
        raise SceneError(f"{path}: scale, offset or aabb make the box {box.tolist()}, which is absurdly large or empty")
    return box, False
