"""Planes and lines of one kind, density or appearance, in an arena on the device, with room for a grid that grows."""

import math
from collections.abc import Iterator

import numpy as np

from kernels import arena
from kernels.types import Values
from kernels.vm import Layout
from tslim.device import buffers
from tslim.model.state import LINE_AXES, PLANE_AXES

CAPACITY_MARGIN = 1.2
"""Room beyond a cubic grid's texels: a box of other proportions needs more of them for the same number of voxels."""


def texels_of(grid: tuple[int, int, int]) -> int:
    """Texels of one component: three planes and three lines."""
    x, y, z = grid
    return x * y + x * z + y * z + x + y + z


def grid_for(box: np.ndarray, side: int, voxel_depth: float) -> tuple[int, int, int]:
    """Texels along x, y, z of about side³ voxels, each ``voxel_depth`` times as long along z as along x and y."""
    size = np.asarray(box[1], np.float64) - np.asarray(box[0], np.float64)
    voxel = (size.prod() / (side**3 * voxel_depth)) ** (1 / 3) * np.array([1, 1, voxel_depth])
    x, y, z = (max(4, int(n + 1e-6)) for n in size / voxel)
    return x, y, z


def capacity_for(side: int, voxel_depth: float) -> int:
    """Texels of a component to make room for, where the grid will have about side³ voxels."""
    across = side * voxel_depth ** (1 / 3)
    return int(CAPACITY_MARGIN * texels_of((round(across), round(across), round(across / voxel_depth))))


class Factors:
    """Planes and lines of one kind (density or appearance) in an arena, with room for a grid that grows."""

    def __init__(self, components: int, grid: tuple[int, int, int], capacity: int) -> None:
        self.components = components
        """Components per mode that there is room for."""
        self.chunks = -(-components // buffers.CHUNK)
        self.grid = grid
        self.capacity = max(capacity, texels_of(grid))
        """Texels of a component that there is room for."""
        self.values = buffers.take_arena(self.chunks * self.capacity)
        """The arena, laid out as ``kernels`` says."""
        self.clear()

    def zeros_like(self) -> "Factors":
        """Zeroed factors of the same layout: for gradients and moments."""
        return Factors(self.components, self.grid, self.capacity)

    @property
    def layout(self) -> Values:
        """The kernel argument ``kernels.vm.Layout``."""
        return Layout(grid=self.grid, chunks=self.chunks)

    def fit(self, grid: tuple[int, int, int]) -> None:
        """Takes on another grid, with new memory if it has no room. The contents are then undefined."""
        if texels_of(grid) > self.capacity:
            self.release()
            self.capacity = texels_of(grid)
            self.values = buffers.take_arena(self.chunks * self.capacity)
        self.grid = grid

    def texels(self) -> list[tuple[int, int]]:
        """Texels of one component's plane and line, per mode."""
        return [(math.prod(shape), length) for shape, length in self._shapes()]

    def clear(self) -> None:
        """Zeroes everything in use."""
        arena.fill_arena(self.values, self._in_use, 0.0)

    def release(self) -> None:
        """Gives the arena back; the factors must not be used afterwards."""
        buffers.give_arena(self.values)

    @property
    def nbytes(self) -> int:
        """Bytes of the arena."""
        return 4 * buffers.CHUNK * self.chunks * self.capacity

    @property
    def _in_use(self) -> int:
        """Elements of the arena that the present grid takes."""
        return self.chunks * texels_of(self.grid)

    def _shapes(self) -> list[tuple[tuple[int, int], int]]:
        g = self.grid
        return [((g[v], g[u]), g[w]) for (u, v), w in zip(PLANE_AXES, LINE_AXES, strict=True)]

    def tensors(self) -> Iterator[tuple[tuple[int, tuple[int, ...]], ...]]:
        """Per mode: (base in the arena, shape of one component) of the plane, then of the line."""
        plane_base, line_base = 0, self.chunks * sum(area for area, _ in self.texels())
        for shape, length in self._shapes():
            yield (plane_base, shape), (line_base, (length,))
            plane_base += self.chunks * math.prod(shape)
            line_base += self.chunks * length

    def put(self, planes: list[np.ndarray], lines: list[np.ndarray], first: int = 0) -> None:
        """Writes components ``first``.. from arrays (K, G_v, G_u) and (K, G_w) per mode."""
        for mode, tensors in enumerate(self.tensors()):
            for (base, shape), values in zip(tensors, (planes[mode], lines[mode]), strict=True):
                tensor = arena.Tensor(base=base, texels=math.prod(shape), first=first, n=len(values))
                arena.put_components(self.values, tensor, np.ascontiguousarray(values, np.float32).reshape(-1))

    def get(self, components: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Host copies of the first components: planes (K, G_v, G_u) and lines (K, G_w) per mode."""
        found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for tensors in self.tensors():
            for (base, shape), out in zip(tensors, found, strict=True):
                values = np.empty(components * math.prod(shape), np.float32)
                tensor = arena.Tensor(base=base, texels=math.prod(shape), first=0, n=components)
                arena.get_components(self.values, tensor, values)
                out.append(values.reshape(components, *shape))
        return found

    def resample(
        self, grid: tuple[int, int, int], scale: np.ndarray, shift: np.ndarray, scratch: "Factors | None" = None
    ) -> None:
        """Moves everything to another grid, whose texel i lies at ``scale i + shift`` on this one (per axis).

        ``scratch`` are factors of the same layout whose contents are not needed any more; without, they are made.
        """
        old = scratch or self.zeros_like()
        arena.copy_arena(self.values, old.values, self._in_use)
        before = self.layout
        self.fit(grid)
        how = arena.Resampling(old=before, new=self.layout, scale=scale, shift=shift)
        arena.resample(how, old.values, self.values)
        if scratch is None:
            old.release()

    def prepare(self, scratch: "Factors") -> None:
        """Loads the kernels of ``resample``, for which the first call would have to wait."""
        arena.copy_arena(self.values, scratch.values, 0)
        nowhere = self.layout.replace(chunks=0)
        how = arena.Resampling(old=nowhere, new=nowhere, scale=(1.0, 1.0, 1.0), shift=(0.0, 0.0, 0.0))
        arena.resample(how, scratch.values, self.values)
