"""Which cells of the box hold anything: a bitset that the ray march consults, on the device."""

import numpy as np

from kernels.march import BLOCK
from kernels.occupancy import coarse_blocks
from tslim import buffers


def _n_words(n_bits: int) -> int:
    return max(1, (n_bits + 31) // 32)


class Occupancy:
    """A bit per cell (x fastest) of a lattice over a box, and one per block of 8³ cells.

    Args:
        cells: number of cells along x, y, z.
        box: (2, 3) world-space corners of the lattice.
        words: u32 device array with the bits.
    """

    def __init__(self, cells: tuple[int, int, int], box: np.ndarray, words) -> None:
        self.cells = cells
        self.box = np.asarray(box, np.float32)
        self.words = words
        self.blocks = tuple(-(-c // BLOCK) for c in cells)
        self.coarse = buffers.array(_n_words(int(np.prod(self.blocks))), np.uint32)
        coarse_blocks(list(cells), list(self.blocks), words, self.coarse)

    @classmethod
    def from_cells(cls, cells: np.ndarray, box: np.ndarray) -> "Occupancy":
        """From a bool array (oz, oy, ox)."""
        flat = np.packbits(cells.ravel(), bitorder="little")
        words = np.zeros(_n_words(cells.size) * 4, np.uint8)
        words[: len(flat)] = flat
        return cls(cells.shape[::-1], box, buffers.upload(words.view("<u4").astype(np.uint32)))

    def to_cells(self) -> np.ndarray:
        """Host copy as a bool array (oz, oy, ox)."""
        bits = np.unpackbits(buffers.read(self.words).astype("<u4").view(np.uint8), bitorder="little")
        return bits[: int(np.prod(self.cells))].astype(bool).reshape(self.cells[::-1])

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
    def per_unit(self) -> np.ndarray:
        """(3,) cells per world unit along x, y, z."""
        return np.asarray(self.cells, np.float32) / (self.box[1] - self.box[0])
