"""What photographs themselves say about where their subject is: cut out, before a plain background, or all around."""

from dataclasses import dataclass

import numpy as np

from tslim.data import geometry
from tslim.scene import paths
from tslim.scene.scene import Views

CELLS = 48
"""A photograph's transparency is looked at in so many cells along each side."""
VOXELS = 32
"""Along each side of the cube that an object is looked for in."""
MOST_VIEWS = 40
"""At most so many photographs are looked at."""
LEAST_VIEWS = 10
"""With fewer photographs, what is left of an object's hull are cones."""
PLAINLY_CUT, HARDLY_CUT = 0.25, 0.03
"""From PLAINLY_CUT transparent pixels on, as a share of all, photographs are of a cut-out object, and below HARDLY_CUT
they are not. Between the two they are if what is transparent is the border, and not the same in all photographs (as the
warping of lenses leaves it)."""
_PLAIN, _ALIKE = 0.6, 6
"""A background is plain if this share of the pixels along the border has one colour, to so many 255ths."""


@dataclass(frozen=True)
class Look:
    """What was seen in a set of photographs."""

    transparent: float
    """mean transparency of all pixels, 0 to 1"""
    cut_out: bool
    """an object without its surroundings: transparency is the background's"""
    plain: tuple[float, float, float] | None
    """the colour of a plain background behind opaque pixels, sRGB"""


def looked_at(views: Views) -> Look:
    """What the photographs show."""
    if not views.has_alpha():
        return Look(0.0, False, plain_background(views))
    grids = transparency(views)
    share = float(grids.mean())
    everywhere = float(np.quantile(grids, 0.1, axis=0).mean())
    border = float(np.mean([grids[:, 0].mean(), grids[:, -1].mean(), grids[:, :, 0].mean(), grids[:, :, -1].mean()]))
    cut_out = share >= PLAINLY_CUT or (share >= HARDLY_CUT and everywhere < 0.7 * share and border > 0.5)
    return Look(share, cut_out, None)


def transparency(views: Views) -> np.ndarray:
    """(k, CELLS, CELLS) mean transparency, 0 to 1, of the cells of at most ``MOST_VIEWS`` photographs."""
    found = []
    for i in range(0, len(views), 1 + (len(views) - 1) // MOST_VIEWS):
        alpha = views.rgba(i)[..., 3]
        for axis in (0, 1):
            n = alpha.shape[axis]
            starts = (np.arange(CELLS) * n) // CELLS  # a picture smaller than CELLS repeats pixels
            lengths = np.maximum(np.diff(np.append(starts, n)), 1)
            alpha = np.add.reduceat(alpha.astype(np.float32), starts, axis) / np.expand_dims(lengths, 1 - axis)
        found.append(1 - alpha / 255)
    return np.array(found)


def plain_background(views: Views) -> tuple[float, float, float] | None:
    """The colour that most of the border of most photographs has, or None."""
    borders = []
    for i in range(0, len(views), 1 + (len(views) - 1) // MOST_VIEWS):
        rgb = views.rgba(i)[..., :3].astype(np.int16)
        borders.append(np.concatenate([rgb[0], rgb[-1], rgb[1:-1, 0], rgb[1:-1, -1]]))
    colour = np.median(np.concatenate(borders), 0)
    shares = [float((np.abs(border - colour).max(1) <= _ALIKE).mean()) for border in borders]
    if np.median(shares) < _PLAIN:
        return None
    red, green, blue = (float(v) / 255 for v in colour)
    return red, green, blue


def hull_box(views: Views) -> np.ndarray | None:
    """(2, 3) box around what half of the photographs have in them and none sees as transparent, with a margin; None
    where that has no end.

    Voxels of a cube that reaches to the cameras are carved away where a photograph is transparent (Laurentini's visual
    hull).
    """
    cameras = views.cameras
    center = paths.focus_point(cameras)
    half = float(np.median(np.linalg.norm(cameras.origins - center, axis=1)))
    if len(views) < LEAST_VIEWS or not half > 0 or not geometry.converge(cameras):
        return None
    steps = half * ((np.arange(VOXELS) + 0.5) / VOXELS * 2 - 1)
    points = center + np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    grids = transparency(views)
    carved, seen = np.zeros(len(points), np.int32), np.zeros(len(points), np.int32)
    for grid, i in zip(grids, range(0, len(views), 1 + (len(views) - 1) // MOST_VIEWS), strict=True):
        with np.errstate(all="ignore"):
            pixels, depth = cameras.project(points, i)
            cells = pixels / cameras.sizes[i] * CELLS
        inside = (depth > 0) & (cells >= 0).all(1) & (cells < CELLS).all(1)
        column, row = cells[inside].astype(np.int64).T
        carved[inside] += grid[row, column] > 0.999
        seen += inside
    occupied = ((carved <= len(grids) // 50) & (2 * seen >= len(grids))).reshape(VOXELS, VOXELS, VOXELS)
    box = np.zeros((2, 3))
    for axis in range(3):
        filled = np.flatnonzero(occupied.any(tuple(a for a in range(3) if a != axis)))
        if not len(filled) or filled[0] == 0 or filled[-1] == VOXELS - 1:
            return None
        margin = 1.5 * (steps[1] - steps[0])
        box[:, axis] = center[axis] + steps[filled[0]] - margin, center[axis] + steps[filled[-1]] + margin
    return box


def opaque_beside(views: Views, box: np.ndarray, grid: int = 17) -> float:
    """Share of the opaque pixels whose rays miss a box."""
    missed = total = 0
    steps = (np.stack(np.meshgrid(np.arange(grid), np.arange(grid)), -1).reshape(-1, 2) + 0.5) / grid
    for i in range(0, len(views), 1 + (len(views) - 1) // MOST_VIEWS):
        size = views.cameras.sizes[i]
        column, row = (steps * size).astype(np.int64).T
        opaque = views.rgba(i)[row, column, 3] >= 250
        origins, directions = views.cameras.rays(i, steps * size)
        with np.errstate(divide="ignore", invalid="ignore"):
            slabs = (box[:, None, :].astype(np.float64) - origins) / directions
        enters, leaves = slabs.min(0).max(1), slabs.max(0).min(1)
        missed += int((opaque & ~(leaves > np.maximum(enters, 0))).sum())
        total += int(opaque.sum())
    return missed / max(total, 1)
