"""A coloured cloud of points: what cameras on a path see, each pixel put where its depth says.

Needs nothing but the renderer, and works in every space. At outlines the mean depth of a ray lies between what is in
front and what is behind, in thin air: points there are left out, as pixels beside them are much nearer or farther.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tslim.errors import ConfigError
from tslim.exporting.surface import Mesh, require_grid
from tslim.rendering import media
from tslim.rendering.renderer import Image, Renderer
from tslim.scene.cameras import Cameras

if TYPE_CHECKING:
    from tslim.field.field import Field

OPAQUE = 0.9
"""opacity that a ray must have for its depth to be a surface's"""
JUMP = 3.0
"""depth may differ by so many pixels' width, seen from the camera, between neighbours"""


def points(
    field: "Field", cameras: Cameras, *, grid: int | None = None, on_view: Callable[[], None] = lambda: None
) -> Mesh:
    """The cloud, without faces.

    Args:
        cameras: pinholes, that see what is wanted from all sides.
        grid: cubes along the longest side of ``field.world_box``, each of which holds at most one point; as many as
            the field has voxels if None.
        on_view: called after each camera.

    Raises:
        ConfigError: a grid that there cannot be, or nothing opaque in sight.
    """
    require_grid(grid)
    renderer, found, seen = Renderer(field), [], []
    for index in range(len(cameras)):
        image = renderer.render(cameras, index, background=(0.0, 0.0, 0.0))
        origins, directions = cameras.rays(index)
        solid = _solid(image, float(cameras.intrinsics[index, 0]))
        at = (origins + image.depth.reshape(-1, 1) * directions).reshape(*image.depth.shape, 3)
        found.append(at[solid].astype(np.float32))
        on_view()
        seen.append(image.own_colours[solid])
    positions, colours = np.concatenate(found), np.concatenate(seen)
    if not len(positions):
        raise ConfigError("no ray of these cameras meets anything opaque: there are no points")
    side = float((field.world_box[1] - field.world_box[0]).max()) / (grid or max(field.grid))
    cubes = np.floor(positions / side).astype(np.int64)
    _, first = np.unique(cubes, axis=0, return_index=True)
    chosen = np.sort(first)
    return Mesh(positions[chosen], np.zeros((0, 3), np.int32), media.as_bytes(colours[chosen]))


def _solid(image: Image, focal: float) -> np.ndarray:
    """(h, w) which pixels are opaque, and about as far away as the four around them."""
    depth = np.pad(image.depth, 1, mode="edge")
    middle = depth[1:-1, 1:-1]
    around = (depth[:-2, 1:-1], depth[2:, 1:-1], depth[1:-1, :-2], depth[1:-1, 2:])
    jump = np.max([np.abs(beside - middle) for beside in around], 0)
    return (image.opacity > OPAQUE) & (jump < JUMP * middle / focal) & (middle > 0)
