"""Which cells of the box hold anything: a bitset that the ray march consults, on the device."""

import math

import numpy as np

from kernels.cells import BLOCK, Cells
from kernels.occupancy import coarse_blocks
from kernels.types import Values
from tslim.device import buffers


class Occupancy:
    """A bit per cell of a lattice over a box, in the order of ``kernels.cells``, and one per block of 8³ cells.

    Args:
        cells: number of cells along x, y, z.
        box: (2, 3) world-space corners of the lattice.
        words: u32 device array with the bits, ``n_words(cells)`` long.
    """

    def __init__(self, cells: tuple[int, int, int], box: np.ndarray, words) -> None:
        self.cells = cells
        self.box = np.asarray(box, np.float32)
        self.words = words
        self.blocks = blocks_of(cells)
        n = math.prod(self.blocks)
        self.coarse = buffers.array(-(-n // 32), np.uint32)
        coarse_blocks(n, words, self.coarse)

    @classmethod
    def from_cells(cls, cells: np.ndarray, box: np.ndarray) -> "Occupancy":
        """From a bool array (oz, oy, ox)."""
        blocks = blocks_of(cells.shape)
        whole = np.zeros([b * BLOCK for b in blocks], bool)
        whole[: cells.shape[0], : cells.shape[1], : cells.shape[2]] = cells
        z, y, x = blocks
        in_order = whole.reshape(z, BLOCK, y, BLOCK, x, BLOCK).transpose(0, 2, 4, 1, 3, 5)
        words = np.packbits(in_order.ravel(), bitorder="little").view("<u4").astype(np.uint32)
        return cls(cells.shape[::-1], box, buffers.upload(words))

    def to_cells(self) -> np.ndarray:
        """Host copy as a bool array (oz, oy, ox)."""
        bits = np.unpackbits(buffers.read(self.words).astype("<u4").view(np.uint8), bitorder="little")
        x, y, z = self.blocks
        whole = bits.reshape(z, y, x, BLOCK, BLOCK, BLOCK).transpose(0, 3, 1, 4, 2, 5)
        ox, oy, oz = self.cells
        return whole.reshape(z * BLOCK, y * BLOCK, x * BLOCK)[:oz, :oy, :ox].astype(bool)

    def share(self) -> float:
        """Occupied cells as a share of all, 0 to 1."""
        return float(self.to_cells().mean())

    def tight_box(self) -> np.ndarray | None:
        """(2, 3) smallest box around the occupied cells; None if there is none."""
        cells = self.to_cells()
        size = (self.box[1] - self.box[0]) / np.asarray(self.cells, np.float32)
        corners = np.empty((2, 3), np.float32)
        for axis in range(3):
            hit = np.flatnonzero(cells.any(axis=tuple(a for a in range(3) if a != 2 - axis)))
            if not len(hit):
                return None
            corners[:, axis] = self.box[0, axis] + size[axis] * np.array([hit[0], hit[-1] + 1], np.float32)
        return corners

    @property
    def lattice(self) -> Values:
        """The kernel argument ``kernels.cells.Cells``."""
        return Cells(count=self.cells, origin=self.box[0], per_unit=self.per_unit, blocks=self.blocks)

    @property
    def per_unit(self) -> np.ndarray:
        """(3,) cells per world unit along x, y, z."""
        return np.asarray(self.cells, np.float32) / (self.box[1] - self.box[0])


def blocks_of(cells: tuple[int, ...]) -> tuple[int, ...]:
    """Blocks along each axis of so many cells."""
    return tuple(-(-c // BLOCK) for c in cells)


def n_words(cells: tuple[int, ...]) -> int:
    """Words of 32 bits that the bits of so many cells take."""
    return math.prod(blocks_of(cells)) * BLOCK**3 // 32
