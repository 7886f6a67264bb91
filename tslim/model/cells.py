"""Empty space as bits, coded cell by cell in the order in which each cell's neighbours are known.

First which blocks of ``BLOCK``³ cells hold anything, then the cells of those that do. Cells are coded in waves: cell
(x, y, z) with those of equal x + 2y + 4z, so that the nine neighbours that make its context, before it along x, in the
row before or in the slice before, came in earlier waves.
"""

import numpy as np

from tslim.model.entropy import Decoder, Encoder, Tables

BLOCK = 8
_BEFORE = (
    (0, 0, -1), (0, -1, 0), (-1, 0, 0), (0, -1, -1), (0, -1, 1), (-1, 0, -1), (-1, 0, 1), (-1, -1, 0), (-1, 1, 0),
)  # fmt: skip
"""(z, y, x) of what makes a context, lowest bit first"""
_POWERS = 1 << np.arange(len(_BEFORE))


def encode(cells: np.ndarray, coder: Encoder) -> None:
    """Codes bool cells (oz, oy, ox)."""
    blocks = _blocks(cells)
    _Waves(np.ones(blocks.shape, bool)).encode(blocks, coder)
    _Waves(_inside(blocks, cells.shape)).encode(cells, coder)


def decode(shape: tuple[int, int, int], coder: Decoder) -> np.ndarray:
    """Bool cells (oz, oy, ox)."""
    blocks = _Waves(np.ones([-(-n // BLOCK) for n in shape], bool)).decode(coder)
    return _Waves(_inside(blocks, shape)).decode(coder)


def _blocks(cells: np.ndarray) -> np.ndarray:
    """Which blocks hold anything."""
    whole = np.zeros([-(-n // BLOCK) * BLOCK for n in cells.shape], bool)
    whole[tuple(slice(n) for n in cells.shape)] = cells
    z, y, x = (n // BLOCK for n in whole.shape)
    return np.asarray(whole.reshape(z, BLOCK, y, BLOCK, x, BLOCK).any(axis=(1, 3, 5)))


def _inside(blocks: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Which cells lie in blocks that hold anything."""
    for axis in range(3):
        blocks = blocks.repeat(BLOCK, axis)
    return blocks[tuple(slice(n) for n in shape)]


class _Waves:
    """The cells that are coded, in order, and where their neighbours lie in an array with one cell more all around."""

    def __init__(self, coded: np.ndarray) -> None:
        self._shape = coded.shape
        padded = tuple(n + 2 for n in coded.shape)
        strides = (padded[1] * padded[2], padded[2], 1)
        z, y, x = np.nonzero(coded)
        wave = (x + 2 * y + 4 * z).astype(np.uint32)
        if sum(coded.shape) * 4 < 2**16:
            wave = wave.astype(np.uint16)  # which are sorted by counting
        order = np.argsort(wave, kind="stable")
        at = ((z + 1) * strides[0] + (y + 1) * strides[1] + x + 1)[order]
        self._waves = np.split(at, np.flatnonzero(np.diff(wave[order])) + 1) if len(at) else []
        self._before = np.array(_BEFORE) @ np.array(strides)
        self._bits = np.zeros(padded, np.uint8)
        self._tables = Tables(np.full((1 << len(_BEFORE), 2), 8))

    def _contexts(self, at: np.ndarray) -> np.ndarray:
        return _POWERS @ self._bits.reshape(-1).take(at + self._before[:, None])

    def encode(self, cells: np.ndarray, coder: Encoder) -> None:
        self._bits[1:-1, 1:-1, 1:-1] = cells
        for at in self._waves:
            coder.add(self._tables, self._contexts(at), self._bits.ravel()[at])

    def decode(self, coder: Decoder) -> np.ndarray:
        for at in self._waves:
            self._bits.reshape(-1)[at] = coder.take(self._tables, self._contexts(at))
        return self._bits[1:-1, 1:-1, 1:-1] != 0
