"""One HTML page that shows a model in any browser, with the model inside or beside it."""

import base64
import html
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tslim import files
from tslim.scene import paths
from tslim.scene.cameras import Cameras
from tslim.web import assets

if TYPE_CHECKING:
    from tslim.field.field import Field

READING = ("decode.js", "reader.js", "worker.js")
"""What runs in the page's worker, and in the page where there are none."""
READ = (
    "ModelError", "N_FEATURES", "SCALES_WIDTH", "PLANE_AXES", "LINE_AXES", "blockLayout", "product", "readModelAside",
    "serveReader",
)  # fmt: skip
"""What the other scripts use of it."""
SCRIPTS = ("source.js", "camera.js", "field.js", "painter.js", "pace.js", "viewer.js", "input.js", "app.js")
THUMBNAIL = 320
"""Pixels along a side."""
Path_ = paths.Orbit | paths.Spiral


def write_page(
    path: Path,
    field: "Field",
    *,
    title: str,
    sizes: list[int],
    psnr: Mapping[int, float] | None = None,
    model: Iterable[bytes] | str,
) -> Path:
    """Writes a page that shows a field.

    Args:
        field: what the page's model holds; its first view is rendered here, to be shown until the model has arrived.
        title: shown above the picture.
        sizes: bytes of the model file slimmed to each rank.
        psnr: dB by rank, where it was measured.
        model: the bytes of the model file, in as many parts as are to be decoded one after the other, or the address of
            the file relative to the page, for a page on a web server.

    Raises:
        RunFolderError: the file cannot be written.
    """
    camera_path = path_of(field)
    cameras = [*_on_path(camera_path), *field.metadata.get("cameras", [])]
    about = {
        "title": title,
        "ranks": field.rank,
        "bytes": sizes,
        "psnr": dict(psnr or {}),
        "cameras": cameras,
        "path": camera_path.to_dict(),
        "view": _surroundings(field, camera_path),
        "background": field.background,
        "model": model if isinstance(model, str) else None,
    }
    text = assets.filled(
        "page.html",
        title=html.escape(title),
        ranks=str(field.rank),
        style=assets.text("base.css") + assets.text("page.css"),
        thumbnail=f'src="{_thumbnail(field, cameras[0])}"',
        about=assets.json_text(about),
        reading=assets.module("reading", *READING, exports=READ),
        script=assets.script(*SCRIPTS, MARCH_SHADER=assets.text("march.frag")),
    )
    before, after = text.split("{{parts}}")
    with files.replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        out.write(before)
        for part in () if isinstance(model, str) else _parts(model):
            out.write(part)
        out.write(after)
    return path


def path_of(field: "Field") -> Path_:
    """The camera path that a field carries, or one around (in ndc before) what it holds."""
    own = field.metadata.get("path")
    if own:
        return paths.path_from_dict(own)
    low, high = np.asarray(field.world_box, np.float64)
    if field.space == "ndc":
        near = field.near
        return paths.Spiral((0, 0, 0), (1, 0, 0), (0, 1, 0), (0.2 * near, 0.2 * near, 0.0), focus=3 * near)
    return paths.Orbit(center=tuple((low + high) / 2), radius=1.2 * float(np.linalg.norm(high - low)))


def start_views(cameras: Cameras, names: Iterable[str]) -> list[dict[str, Any]]:
    """Cameras as a page takes them: name, pose (3 rows of 4), field of view of the shorter side in degrees."""
    views = []
    for pose, (fx, fy, _, _), (width, height), name in zip(
        cameras.poses, cameras.intrinsics, cameras.sizes, names, strict=True
    ):
        half = 0.5 * (width / fx if width < height else height / fy)
        fov = math.degrees(2 * math.atan(half))
        views.append({"name": name, "pose": _rounded(pose), "fov": round(fov, 3)})
    return views


def _on_path(path: Path_) -> list[dict[str, Any]]:
    return start_views(path.cameras(1), ["start"])


def _rounded(pose: np.ndarray) -> list[list[float]]:
    """Seven digits, which is what they have as float32."""
    return [[float(f"{v:.7g}") for v in row] for row in pose]


def _surroundings(field: "Field", path: Path_) -> dict[str, Any]:
    """What the page's camera turns around, which way is up, and how large that is."""
    low, high = np.asarray(field.world_box, np.float64)
    target = np.asarray(path.center, np.float64)
    if isinstance(path, paths.Spiral):
        target = target - path.focus * np.cross(path.right, path.up)
    return {"target": target.tolist(), "up": list(path.up), "extent": float(np.linalg.norm(high - low))}


def _thumbnail(field: "Field", view: dict[str, Any]) -> str:
    """The first view as a small picture without what is behind it, as a data address."""
    from PIL import Image

    from tslim.rendering.renderer import render

    focal = 0.5 * THUMBNAIL / math.tan(math.radians(view["fov"]) / 2)
    camera = Cameras.pinhole(np.asarray(view["pose"])[None], focal, (THUMBNAIL, THUMBNAIL))
    image = render(field, camera, background=(0.0, 0.0, 0.0))
    opacity = image.opacity[..., None]
    rgba = np.concatenate([image.rgb / np.maximum(opacity, 1e-3), opacity], axis=2)
    packed = io.BytesIO()
    Image.fromarray((np.clip(rgba, 0, 1) * 255 + 0.5).astype(np.uint8)).save(packed, "WEBP", quality=75)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode()


def _parts(model: Iterable[bytes]) -> Iterator[str]:
    """Elements that hold a model's bytes; the page reads each when the next one has arrived."""
    for index, part in enumerate(model):
        yield f'<script type="text/plain" id="part-{index}">{base64.b64encode(part).decode()}</script>\n'
