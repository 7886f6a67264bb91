"""Measuring where a field is empty: its density at the vertices of a lattice, and the cells between that hold any."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels import occupancy as occupancy_kernels
from kernels.cells import EVERYTHING
from tslim.device import buffers
from tslim.field.factors import grid_for
from tslim.field.occupancy import Occupancy, blocks_of, n_words

if TYPE_CHECKING:
    from tslim.field.field import Field

MAX_SIDE = 256
"""Lattice vertices along the cube root of the occupancy grid, at most (as in TensoRF)."""


def measured(field: "Field", ranks: list[int], delta: float, threshold: float, before: Occupancy | None) -> Occupancy:
    """Occupied cells of a lattice over the field's box. Arguments as for ``Field.refresh_occupancy``.

    ``before``: what was empty there stays empty.
    """
    side = min(round(math.prod(field.grid) ** (1 / 3)), MAX_SIDE)
    size = field.grid if side < MAX_SIDE else grid_for(field.box, side, field.config.voxel_depth)
    alpha = _vertex_alpha(field, size, ranks, delta, before)
    live = buffers.array((math.prod(size) + 31) // 32, np.uint32)
    occupancy_kernels.live_vertices(list(size), threshold, alpha, live)
    cells = (size[0] - 1, size[1] - 1, size[2] - 1)
    words = buffers.array(n_words(cells), np.uint32)
    occupancy_kernels.occupied_cells(list(size), list(blocks_of(cells)), live, words)
    return Occupancy(cells, field.box, words)


def prepare(field: "Field") -> None:
    """Loads the kernel that takes longest, for which the first measuring would have to wait."""
    _vertex_alpha(field, (0, 0, 0), [1], 0.0, None)


def _vertex_alpha(
    field: "Field", size: tuple[int, ...], ranks: list[int], delta: float, before: Occupancy | None
) -> Any:
    """Alpha of a step at the vertices of a lattice over the box; see ``kernels.occupancy.vertex_alpha``."""
    alpha = buffers.array(max(math.prod(size), 1))
    older = (EVERYTHING, buffers.array(1, np.uint32)) if before is None else (before.lattice, before.words)
    spacing = (field.box[1] - field.box[0]) / (np.asarray(size, np.float32) - 1)
    vertices = occupancy_kernels.Vertices(size=size, low=field.box[0], spacing=spacing)
    occupancy_kernels.vertex_alpha(
        vertices, len(ranks), buffers.upload(np.array(ranks, np.int32)), field.density.values, field.rank_scales,
        field.lattice(field.density), field.activation, delta, *older, alpha,
    )  # fmt: skip
    return alpha
