"""The surface of a field as a mesh with a colour at each vertex, by marching cubes.

The surface lies where a step of one voxel stops a given share of the light: density itself has no natural level, as it
depends on the scene's size. A vertex has the colour that is seen by whoever looks straight at it from close by, since
what a field shows depends on the direction.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tslim.device import memory
from tslim.errors import ConfigError
from tslim.optional import need
from tslim.rendering import media
from tslim.rendering.renderer import Renderer

if TYPE_CHECKING:
    from tslim.field.field import Field

LEVEL = 0.5
"""share of the light that a voxel on the surface stops"""
MOST_GRID = 1024
FARTHEST_NDC = 0.95
"""z up to which a mesh reaches in ndc: 40 times the distance of the near plane"""
_BEFORE, _BEHIND = 2.0, 6.0
"""Voxels before a vertex where the ray that sees its colour begins, and behind that where it ends."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles in world coordinates; without faces, a cloud of points."""

    vertices: np.ndarray
    """(n, 3) float32"""
    faces: np.ndarray
    """(m, 3) int32, counter-clockwise seen from outside"""
    colours: np.ndarray
    """(n, 3) uint8 sRGB"""


def surface(field: "Field", *, grid: int | None = None, level: float = LEVEL) -> Mesh:
    """The field's surface, at its active rank.

    In a contracted space that of the cube in its middle, in ndc up to ``FARTHEST_NDC``.

    Args:
        grid: cubes along the longest side; as many as the field has voxels if None.
        level: share of the light that a voxel on the surface stops, above 0 and below 1.

    Raises:
        ConfigError: a grid or level that there cannot be, or no surface at that level.
        MissingPackageError: scikit-image is not installed.
        OutOfMemoryError: the grid does not fit into memory.
    """
    measure = need("skimage.measure", "a mesh", "pip install scikit-image")
    if not 0 < level < 1:
        raise ConfigError(f"level {level:g}: expected a share of the light, above 0 and below 1")
    level = float(np.float32(level))  # as opacities are
    require_grid(grid)
    low, high = _region(field)
    cube = float((high - low).max()) / (grid or round(float(((high - low) * field.texels_per_unit).max())))
    sides = np.maximum(np.ceil((high - low) / cube).astype(int), 1) + 1
    memory.require({"the grid of a mesh": 40 * int(sides.prod())}, "a lower --grid")
    spacing = (high - low) / (sides - 1)
    opacity = np.pad(_opacity(field, low, spacing, sides), 1)
    if not opacity.min() < level < opacity.max():
        raise ConfigError(
            f"level {level:g}: the densest voxel stops {opacity.max():.2g} of the light, take less than that"
        )
    found, faces, _, _ = measure.marching_cubes(opacity, level)
    vertices = np.clip(low + (found[:, ::-1] - 1) * spacing, low, high)
    faces = faces.astype(np.int32)  # z, y, x to x, y, z is a reflection, which turns them to be seen from outside
    world = field.domain.to_world(vertices).astype(np.float32)
    return Mesh(world, faces, _colours(field, world, normals(world, faces)))


def require_grid(grid: int | None) -> None:
    """Raises ``ConfigError`` for a number of cubes along the longest side that there cannot be."""
    if grid is not None and not 2 <= grid <= MOST_GRID:
        raise ConfigError(f"grid {grid}: expected 2 to {MOST_GRID} cubes along the longest side")


def normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(n, 3) unit normals at vertices, outwards: those of the faces around, by area; upwards where these have none."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    across = np.cross(b - a, c - a)
    total = np.stack([np.bincount(faces.ravel(), np.repeat(across[:, i], 3), len(vertices)) for i in range(3)], 1)
    total[~total.any(1)] = (0, 0, 1)
    return (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32)


def _region(field: "Field") -> tuple[np.ndarray, np.ndarray]:
    """Corners, in field coordinates, of what is meshed."""
    low, high = np.asarray(field.box, np.float64)
    if field.space == "contracted":
        return np.maximum(low, -1.0), np.minimum(high, 1.0)
    if field.space == "ndc":
        return low, np.minimum(high, [np.inf, np.inf, FARTHEST_NDC])
    return low, high


def _opacity(field: "Field", low: np.ndarray, spacing: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """(z, y, x) share of the light that a voxel at each point of a lattice stops, 0 where space is empty."""
    x, y = (low[a] + spacing[a] * np.arange(sides[a]) for a in (0, 1))
    layer = np.stack(np.broadcast_arrays(x[None, :], y[:, None], 0.0), 2).reshape(-1, 3).astype(np.float32)
    thickness = field.config.distance_scale * field.voxel
    result = np.empty(sides[::-1], np.float32)
    cells = None if field.occupancy is None else field.occupancy.to_cells()
    for k in range(sides[2]):
        layer[:, 2] = low[2] + spacing[2] * k
        sigma = field.density_at(layer)
        if cells is not None and field.occupancy is not None:
            at = ((layer - field.occupancy.box[0]) * field.occupancy.per_unit).astype(int)
            at = np.clip(at, 0, np.array(cells.shape[::-1]) - 1)
            sigma = sigma * cells[at[:, 2], at[:, 1], at[:, 0]]
        result[k] = (1 - np.exp(-thickness * sigma)).reshape(sides[1], sides[0])
    return result


def _colours(field: "Field", points: np.ndarray, outwards: np.ndarray) -> np.ndarray:
    """(n, 3) uint8: what is seen from a little outside of each point, or in ndc from where the cameras are."""
    if field.space == "ndc":
        origins, directions = np.zeros_like(points), points
    else:
        scale = 1.0 if field.cube is None else float((field.cube[1] - field.cube[0]).mean()) / 2
        voxel = field.voxel * scale
        origins, directions = points + _BEFORE * voxel * outwards, -outwards
        domain = field.domain
        field = field.slim(field.rank)
        field.domain = replace(domain, near=0.0, far=_BEHIND * voxel)
    return media.as_bytes(Renderer(field).render_rays(origins, directions, background=(0.0, 0.0, 0.0)).own_colours)
