"""Pictures along a camera path, with depth and cameras, as other programs read them: ``transforms.json`` beside them.

Depth is the distance along the axis of the camera, as in nerfstudio and most other programs; in 16-bit PNGs it is
counted in a unit that is told with it.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tslim import files
from tslim.rendering import media
from tslim.rendering.renderer import Image, Renderer
from tslim.scene.cameras import Cameras

if TYPE_CHECKING:
    from tslim.field.field import Field

UNIT = 0.001
"""world units that 1 stands for in a depth PNG: nerfstudio takes it for granted where nothing else is said"""
MOST = 2**16 - 1
OPAQUE = 0.5
"""opacity below which a pixel has no depth"""


def transforms(cameras: Cameras, *, unit: float | None = None, names: Sequence[str] = ()) -> dict[str, Any]:
    """The contents of a ``transforms.json`` of pinholes.

    Args:
        names: of the pictures, without a folder, if there are any: in ``images/``, and their depth in ``depth/``.
        unit: world units that 1 stands for in depth PNGs, if there are any.
    """
    (width, height), (fx, fy, cx, cy) = cameras.sizes[0].tolist(), cameras.intrinsics[0].tolist()
    frames = []
    for index, pose in enumerate(cameras.poses.astype(float).tolist()):
        frame: dict[str, Any] = {"transform_matrix": [*pose, [0.0, 0.0, 0.0, 1.0]]}
        if names:
            frame["file_path"] = f"images/{names[index]}"
        if unit is not None:
            frame["depth_file_path"] = f"depth/{names[index]}"
        frames.append(frame)
    return {
        "camera_model": "OPENCV",
        "camera_angle_x": 2 * math.atan(width / 2 / fx),
        "w": width,
        "h": height,
        "fl_x": fx,
        "fl_y": fy,
        "cx": cx,
        "cy": cy,
        **({"depth_unit_scale_factor": unit} if unit is not None else {}),
        "frames": frames,
    }


def write_transforms(cameras: Cameras, path: str | Path) -> Path:
    """Writes cameras of one size as ``transforms.json``. Raises ``RunFolderError`` where that cannot be."""
    return files.write_bytes(path, _json(transforms(cameras)))


def write_sequence(field: "Field", cameras: Cameras, folder: str | Path) -> Iterator[np.ndarray]:
    """Writes ``images/0000.png`` …, ``depth/0000.png`` … (16 bit) and ``transforms.json``; yields each picture written.

    Raises ``RunFolderError`` where nothing can be written.
    """
    folder, renderer = Path(folder), Renderer(field)
    names = [f"{index:04}.png" for index in range(len(cameras))]
    unit: float | None = None
    for index, name in enumerate(names):
        image = renderer.render(cameras, index)
        depth = axial_depth(image, cameras, index)
        unit = unit or unit_for(2 * float(depth.max(initial=0)))
        media.write_png(folder / "images" / name, image.rgb)
        write_depth_png(folder / "depth" / name, depth, unit)
        yield media.to_uint8(image.rgb)
    files.write_bytes(folder / "transforms.json", _json(transforms(cameras, names=names, unit=unit)))


def axial_depth(image: Image, cameras: Cameras, index: int) -> np.ndarray:
    """(h, w) f32 distance along the camera's axis in world units, 0 where a ray meets little."""
    forward = -cameras.poses[index, :, 2].astype(np.float64)
    _, directions = cameras.rays(index)
    depth = image.depth * (directions @ forward).reshape(image.depth.shape)
    return np.where(image.opacity > OPAQUE, depth, 0).astype(np.float32)


def unit_for(farthest: float) -> float:
    """World units that 1 stands for in a depth PNG: ``UNIT``, or the power of ten that reaches so far."""
    if not farthest > UNIT * MOST:
        return UNIT
    return float(10.0 ** math.ceil(math.log10(farthest / MOST)))


def write_depth_png(path: str | Path, depth: np.ndarray, unit: float) -> Path:
    """Writes depth (h, w) as a 16-bit grey PNG that counts in ``unit``; what is too far is 65535."""
    import io

    from PIL import Image as Picture

    counts = np.clip(np.rint(depth / unit), 0, MOST).astype(np.uint16)
    out = io.BytesIO()
    Picture.fromarray(counts).save(out, "PNG")
    return files.write_bytes(path, out.getvalue())


def write_depth_npy(path: str | Path, depth: np.ndarray) -> Path:
    """Writes depth (frames, h, w) in world units as a numpy file, float32."""
    with files.replacing(path) as temporary, open(temporary, "wb") as out:
        np.save(out, depth.astype(np.float32), allow_pickle=False)
    return Path(path)


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=1) + "\n").encode()
