"""One HTML page that shows a model in any browser, with the model inside or beside it."""

import base64
import html
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tslim import files
from tslim.model import thumbnail
from tslim.model.state import FieldState
from tslim.scene import paths
from tslim.scene.cameras import Cameras
from tslim.scene.domain import InDomain
from tslim.web import assets

READING = ("decode.js", "reader.js", "worker.js")
"""What runs in the page's worker, and in the page where there are none."""
READ = (
    "ModelError", "N_FEATURES", "SCALES_WIDTH", "PLANE_AXES", "LINE_AXES", "blockLayout", "product", "readModelAside",
    "serveReader",
)  # fmt: skip
"""What the other scripts use of it."""
SCRIPTS = ("source.js", "camera.js", "field.js", "painter.js", "pace.js", "viewer.js", "input.js", "app.js")


def write_page(
    path: Path, state: FieldState, *, title: str, model: Iterable[bytes] | str, psnr: Mapping[int, float] | None = None
) -> Path:
    """Writes a page that shows a model: its thumbnail, if its metadata have one, until the first rank is there.

    Args:
        state: what the model file holds.
        title: shown above the picture.
        model: the bytes of the model file, in as many parts as are to be decoded one after the other, or the address of
            the file relative to the page, for a page on a web server.
        psnr: dB by rank, approximately, where the model file does not say.

    Raises:
        RunFolderError: the file cannot be written.
        SceneError: the model's camera path is of a kind that is not known.
    """
    camera_path = paths.path_of(state, state.metadata)
    picture = state.metadata.get(thumbnail.NAME)
    about = {
        "title": title,
        "ranks": state.rank,
        "psnr": dict(psnr or {}),
        "cameras": [*start_views(camera_path.cameras(1), ["start"]), *state.metadata.get("cameras", [])],
        "path": camera_path.to_dict(),
        "view": _surroundings(state, camera_path),
        "background": state.background,
        "model": model if isinstance(model, str) else None,
    }
    text = assets.filled(
        "page.html",
        head=assets.head(title, "page.css"),
        title=html.escape(title),
        ranks=str(state.rank),
        thumbnail=f'src="data:image/webp;base64,{picture}"' if picture else "",
        about=assets.json_text(about),
        reading=assets.module("reading", *READING, exports=READ),
        script=assets.script(*SCRIPTS, MARCH_SHADER=assets.text("march.frag")),
    )
    before, _, after = text.rpartition("{{parts}}")
    with files.replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        out.write(before)
        for part in () if isinstance(model, str) else _parts(model):
            out.write(part)
        out.write(after)
    return path


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


def _rounded(pose: np.ndarray) -> list[list[float]]:
    """Seven digits, which is what they have as float32."""
    return [[float(f"{v:.7g}") for v in row] for row in pose]


def _surroundings(model: InDomain, path: paths.Orbit | paths.Spiral) -> dict[str, Any]:
    """What the page's camera turns around, which way is up, and how large that is."""
    low, high = np.asarray(model.world_box, np.float64)
    target = np.asarray(path.center, np.float64)
    if isinstance(path, paths.Spiral):
        target = target - path.focus * np.cross(path.right, path.up)
    return {"target": target.tolist(), "up": list(path.up), "extent": float(np.linalg.norm(high - low))}


def _parts(model: Iterable[bytes]) -> Iterator[str]:
    """Elements that hold a model's bytes; the page reads each when the next one has arrived."""
    for index, part in enumerate(model):
        yield f'<script type="text/plain" id="part-{index}">{base64.b64encode(part).decode()}</script>\n'
