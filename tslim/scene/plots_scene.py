"""A picture of a scene's cameras, box and points, in which a wrong pose convention is seen at a glance.

Left in perspective, right from above (along what the cameras suggest as up). A camera is a dot and a pyramid that opens
towards what it sees, with a tick on the picture's upper edge; training cameras are blue, held-out ones orange. If the
pyramids point away from the box or the points, or the ticks lie sideways, the poses are in another convention.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tslim.scene import paths
from tslim.scene.cameras import Cameras
from tslim.scene.scene import Scene

MOST_CAMERAS = 150
MOST_POINTS = 8000
"""At most so many points are drawn, evenly spaced: more would only cover each other."""

_SEGMENTS = 10
"""Lines that draw one camera."""

TRAIN_COLOUR, TEST_COLOUR, BOX_COLOUR = "#1f6fb4", "#e07b1a", "#2c8c3c"


def plot_scene(scene: Scene, path: str | Path, *, size: tuple[float, float] = (14.0, 7.0)) -> Path:
    """Draws the scene to an image file (the format by its suffix); ``size`` in inches. Needs matplotlib.

    Raises ``OSError`` if the file cannot be written, ``ValueError`` for a suffix that matplotlib does not know.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    turn = _upright(scene.train.cameras)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display and leaves pyplot's state alone
    solid: Any = figure.add_subplot(1, 2, 1, projection="3d")  # whose types are those of flat axes
    above: Any = figure.add_subplot(1, 2, 2)
    length = _pyramid_length(scene)
    for cameras, colour, label in (
        (scene.train.cameras, TRAIN_COLOUR, f"{len(scene.train)} training cameras"),
        (scene.test.cameras, TEST_COLOUR, f"{len(scene.test)} held-out cameras"),
    ):
        if len(cameras):
            lines = _pyramids(cameras[:: 1 + len(cameras) // MOST_CAMERAS], length) @ turn.T
            _draw(solid, above, lines, color=colour, linewidth=0.7, label=label)
            centres = lines[::_SEGMENTS, 0]
            solid.scatter(*centres.T, s=5, c=colour, depthshade=False)
            above.scatter(*centres[:, :2].T, s=5, c=colour)
    outline, label = _outline(scene)
    _draw(solid, above, outline @ turn.T, color=BOX_COLOUR, linewidth=1.4, label=label)
    points = _points(scene) @ turn.T
    if len(points) and scene.points is not None:
        label = f"{len(scene.points)} points"
        solid.scatter(*points.T, s=0.5, c="0.35", linewidths=0, depthshade=False)
        above.scatter(*points[:, :2].T, s=0.5, c="0.35", linewidths=0, label=label)
    _frame(solid, above, scene, turn)
    above.legend(loc="upper right", fontsize=8)
    figure.suptitle(
        f"{scene.name}: {scene.format}, space {scene.space}, near {scene.near:.3g}, far {scene.far:.3g}", fontsize=11
    )
    figure.savefig(path, dpi=100)
    return Path(path)


def _draw(solid, above, lines: np.ndarray, label: str, **style) -> None:
    """(n, 2, 3) segments into both panels, as one line broken by NaN."""
    broken = np.concatenate([lines, np.full((len(lines), 1, 3), np.nan)], 1).reshape(-1, 3)
    solid.plot(*broken.T, **style)
    above.plot(broken[:, 0], broken[:, 1], label=label, **style)


def _upright(cameras: Cameras) -> np.ndarray:
    """(3, 3) rotation of the world after which up is z, so that the left panel stands upright."""
    up = paths.estimate_up(cameras)
    if abs(up[2]) > 0.999:
        return np.diag([1.0, 1.0, 1.0]) if up[2] > 0 else np.diag([1.0, -1.0, -1.0])
    east = np.cross(up, -cameras.forward.astype(np.float64).mean(0))
    if np.linalg.norm(east) < 1e-3:
        east = np.cross(np.eye(3)[np.argmin(np.abs(up))], up)
    east /= np.linalg.norm(east)
    return np.stack([east, np.cross(up, east), up])


def _pyramid_length(scene: Scene) -> float:
    origins = scene.train.cameras.origins.astype(np.float64)
    extent = float(np.median(np.linalg.norm(origins - np.median(origins, 0), axis=1)))
    shown = float(np.ptp(np.concatenate([origins, _outline(scene)[0].reshape(-1, 3)]), axis=0).max())
    return max(0.2 * extent, 0.03 * shown)


def _pyramids(cameras: Cameras, length: float) -> np.ndarray:
    """(n · _SEGMENTS, 2, 3) segments: four edges from the centre, the frame, and a tick on the frame's upper edge."""
    pieces = []
    steps = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.4, 0], [0.5, -0.25], [0.6, 0]], np.float64)
    for i in range(len(cameras)):
        origin, direction = cameras.rays(i, steps * cameras.sizes[i])
        along = np.maximum(direction @ cameras.forward[i].astype(np.float64), 0.2)[:, None]
        corner = origin + length * direction / along
        frame = [(corner[a], corner[(a + 1) % 4]) for a in range(4)]
        tick = [(corner[4], corner[5]), (corner[5], corner[6])]
        pieces += [(origin[0], corner[a]) for a in range(4)] + frame + tick  # the first begins at the centre
    return np.array(pieces)


def _outline(scene: Scene) -> tuple[np.ndarray, str]:
    """Segments (k, 2, 3) of the box in the world, and what it is called."""
    low, high = scene.box.astype(np.float64)
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * (high - low) + low
    if scene.space == "ndc":  # the box's part between the near plane and the far bound, in the world
        depth = np.where(corners[:, 2] < 0, scene.near, min(scene.far, 2 * scene.near))[:, None]
        corners = np.concatenate([corners[:, :2] / 2 * depth, -depth], 1)
        label = "NDC box, up to the far bound or twice the near plane"
    else:
        label = "box" if scene.space == "box" else "box that is not contracted"
    edges = [(a, b) for a in range(8) for b in range(a) if bin(a ^ b).count("1") == 1]
    return np.array([(corners[a], corners[b]) for a, b in edges]), label


def _points(scene: Scene) -> np.ndarray:
    if scene.points is None or not len(scene.points):
        return np.zeros((0, 3))
    return scene.points[:: 1 + len(scene.points) // MOST_POINTS].astype(np.float64)


def _frame(solid, above, scene: Scene, turn: np.ndarray) -> None:
    """Limits that hold cameras and box; outlying points may fall outside. Equal scale on all axes."""
    origins = [v.cameras.origins.astype(np.float64) for v in (scene.train, scene.test) if len(v)]
    shown = np.concatenate([*origins, _outline(scene)[0].reshape(-1, 3)]) @ turn.T
    middle = (shown.max(0) + shown.min(0)) / 2
    half = 0.55 * float((shown.max(0) - shown.min(0)).max())
    for axis, at in zip("xyz", middle, strict=True):
        getattr(solid, f"set_{axis}lim")(at - half, at + half)
    solid.set_box_aspect((1, 1, 1))
    solid.view_init(elev=25, azim=-60)
    above.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half), aspect="equal")
    above.set_title("from above", fontsize=9)
    solid.set_title("perspective", fontsize=9)
    for length, name, colour in zip(half * 0.3 * np.eye(3) @ turn.T, "xyz", "rgb", strict=True):
        start = middle - 0.9 * half
        solid.plot(*np.stack([start, start + length]).T, color=colour, linewidth=2)
        solid.text(*(start + 1.2 * length), name, color=colour, fontsize=8)
    solid.set_xticklabels([])
    solid.set_yticklabels([])
    solid.set_zticklabels([])
