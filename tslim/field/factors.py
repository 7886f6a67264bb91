"""Planes and lines of one kind, density or appearance, in arenas on the device, with room for a grid that grows."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from kernels import arena
from tslim.device import buffers
from tslim.model.state import LINE_AXES, PLANE_AXES

CAPACITY_MARGIN = 1.2
"""Room beyond a cubic grid's texels: a box of other proportions needs more of them for the same number of voxels."""


def texels_of(grid: tuple[int, int, int]) -> tuple[int, int]:
    """Texels of one component: planes, lines."""
    x, y, z = grid
    return x * y + x * z + y * z, x + y + z


class Factors:
    """Planes and lines of one kind (density or appearance) in arenas, with room for a grid that grows."""

    def __init__(self, components: int, grid: tuple[int, int, int], capacity: tuple[int, int]) -> None:
        self.components = components
        """Components per mode that there is room for."""
        self.chunks = -(-components // buffers.CHUNK)
        self.grid = grid
        self.capacity = tuple(max(a, b) for a, b in zip(capacity, texels_of(grid), strict=True))
        self.planes = buffers.take_arena(self.chunks * self.capacity[0])
        self.lines = buffers.take_arena(self.chunks * self.capacity[1])
        self.clear()

    def twin(self) -> "Factors":
        """Zeroed factors of the same layout: for gradients and moments."""
        return Factors(self.components, self.grid, self.capacity)

    def fit(self, grid: tuple[int, int, int]) -> None:
        """Takes on another grid, with new memory if it has no room. The contents are then undefined."""
        if any(need > have for need, have in zip(texels_of(grid), self.capacity, strict=True)):
            self.release()
            self.capacity = tuple(max(a, b) for a, b in zip(texels_of(grid), self.capacity, strict=True))
            self.planes = buffers.take_arena(self.chunks * self.capacity[0])
            self.lines = buffers.take_arena(self.chunks * self.capacity[1])
        self.grid = grid

    def texels(self) -> list[tuple[int, int]]:
        """Texels of one component's plane and line, per mode."""
        return [(math.prod(shape), length) for shape, length in self._shapes()]

    def clear(self) -> None:
        """Zeroes everything in use."""
        planes, lines = texels_of(self.grid)
        arena.fill_arena(self.planes, self.chunks * planes, 0.0)
        arena.fill_arena(self.lines, self.chunks * lines, 0.0)

    def release(self) -> None:
        """Gives the arenas back; the factors must not be used afterwards."""
        buffers.give_arena(self.planes)
        buffers.give_arena(self.lines)

    @property
    def nbytes(self) -> int:
        """Bytes of both arenas."""
        return 4 * buffers.CHUNK * self.chunks * sum(self.capacity)

    def _shapes(self) -> list[tuple[tuple[int, int], int]]:
        g = self.grid
        return [((g[v], g[u]), g[w]) for (u, v), w in zip(PLANE_AXES, LINE_AXES, strict=True)]

    def tensors(self) -> Iterator[tuple[tuple[Any, int, tuple[int, ...]], tuple[Any, int, tuple[int, ...]]]]:
        """Per mode: (arena, base, shape of one component) of the plane, then of the line."""
        plane_base = line_base = 0
        for shape, length in self._shapes():
            yield (self.planes, plane_base, shape), (self.lines, line_base, (length,))
            plane_base += self.chunks * math.prod(shape)
            line_base += self.chunks * length

    def put(self, planes: list[np.ndarray], lines: list[np.ndarray], first: int = 0) -> None:
        """Writes components ``first``.. from arrays (K, G_v, G_u) and (K, G_w) per mode."""
        for mode, tensors in enumerate(self.tensors()):
            for (into, base, shape), values in zip(tensors, (planes[mode], lines[mode]), strict=True):
                flat = np.ascontiguousarray(values, np.float32).reshape(-1)
                arena.put_components(into, base, math.prod(shape), first, len(values), flat)

    def get(self, components: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Host copies of the first components: planes (K, G_v, G_u) and lines (K, G_w) per mode."""
        found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for tensors in self.tensors():
            for (source, base, shape), out in zip(tensors, found, strict=True):
                values = np.empty(components * math.prod(shape), np.float32)
                arena.get_components(source, base, math.prod(shape), 0, components, values)
                out.append(values.reshape(components, *shape))
        return found

    def resample(
        self, grid: tuple[int, int, int], scale: np.ndarray, shift: np.ndarray, scratch: "Factors | None" = None
    ) -> None:
        """Moves everything to another grid, whose texel i lies at ``scale i + shift`` on this one (per axis).

        ``scratch`` are factors of the same layout whose contents are not needed any more; without, they are made.
        """
        planes, lines = texels_of(self.grid)
        old = scratch or self.twin()
        arena.copy_arena(self.planes, old.planes, self.chunks * planes)
        arena.copy_arena(self.lines, old.lines, self.chunks * lines)
        old_grid = self.grid
        self.fit(grid)
        arena.resample(
            old.planes, old.lines, list(old_grid), [float(s) for s in scale], [float(s) for s in shift],
            self.planes, self.lines, list(grid), self.chunks,
        )  # fmt: skip
        if scratch is None:
            old.release()

    def prepare(self, scratch: "Factors") -> None:
        """Loads the kernels of ``resample``, for which the first call would have to wait."""
        arena.copy_arena(self.planes, scratch.planes, 0)
        arena.copy_arena(self.lines, scratch.lines, 0)
        nowhere = list(self.grid), [1.0] * 3, [0.0] * 3, self.planes, self.lines, list(self.grid), 0
        arena.resample(scratch.planes, scratch.lines, *nowhere)
