"""Compact blocks: planes and lines as whole steps in 8 bits, coded by bz2. How steps are chosen: ``rounding.py``."""

import bz2
import struct
from typing import BinaryIO

import numpy as np

from tslim.errors import ModelFileError
from tslim.model.layout import RankLayout
from tslim.model.rounding import LEVELS
from tslim.model.stored import StoredState

_LENGTH = struct.Struct("<I")
_STEP = np.dtype("<f4")


class CompactLayout(RankLayout):
    """A block: its length without this number (u32); basis rows (3, 3, 27) in half precision; the affine row, if any;
    the steps (float32) of each plane and line; and all of these as int8 multiples of their steps, coded by bz2.

    Parts and order are those of ``RankLayout``. States must hold multiples of their ``steps``: see ``rounded``.
    """

    def length_at(self, source: BinaryIO, at: int, rank: int) -> int:
        """Bytes of the block that starts at byte ``at`` of a file."""
        source.seek(at)
        known = source.read(_LENGTH.size)
        return _LENGTH.size + (_LENGTH.unpack(known)[0] if len(known) == _LENGTH.size else 0)

    def lengths(self, state: StoredState) -> list[int]:
        """Bytes of each block of a state, which must be coded for it."""
        return [len(self.pack(state, rank)) for rank in range(state.rank)]

    def pack(self, state: StoredState, rank: int) -> bytes:
        """The block of 0-based ``rank``."""
        factors, basis = self._split(state, rank)
        steps = state.steps[rank, self.part(rank).steps]
        exact = np.concatenate([a.ravel() / step for a, step in zip(factors, steps, strict=True)])
        levels = np.rint(exact)
        if not (np.abs(levels - exact).max() <= 1e-3 and np.abs(levels).max() <= LEVELS):
            raise ModelFileError(f"rank {rank + 1} does not hold multiples of its steps: it has changed since rounding")
        coded = bz2.compress(levels.astype(np.int8).tobytes())
        numbers = self.pack_numbers(basis, rank) + self.pack_affine(state, rank) + steps.astype(_STEP).tobytes()
        return _LENGTH.pack(len(numbers) + len(coded)) + numbers + coded

    def unpack(self, block: bytes, state: StoredState, rank: int) -> None:
        """Writes a block into a state's arrays. Raises ``ValueError`` or ``OSError`` for what ``pack`` never makes."""
        factors, basis = self._split(state, rank)
        at = self.unpack_affine(block, self.unpack_numbers(block, _LENGTH.size, basis), state, rank)
        steps = np.frombuffer(block, _STEP, len(factors), at)
        if not (np.isfinite(steps) & (steps > 0)).all():
            raise ValueError("a step that is not above 0")
        state.steps[rank, self.part(rank).steps] = steps
        wanted = sum(a.size for a in factors)
        levels = np.frombuffer(bz2.BZ2Decompressor().decompress(block[at + steps.nbytes :], wanted + 1), np.int8)
        if levels.size != wanted:
            raise ValueError(f"{levels.size} numbers instead of {wanted}")
        at = 0
        for into, step in zip(factors, steps, strict=True):
            into[...] = levels[at : at + into.size].reshape(into.shape) * step
            at += into.size

    def _split(self, state: StoredState, rank: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Of a block: views of each component's planes and lines, in the order of steps, and of the basis rows."""
        factors, basis = [], []
        first = self.part(rank).arrays.start
        for i, array in enumerate(self.slices(state, rank), start=first):
            if i < 6:
                factors.append(array)
            elif i < 12:
                factors += list(array)
            else:
                basis.append(array)
        return factors, basis


def layout_kind(precision: str) -> type[RankLayout]:
    """How the ranks of a file of that precision are laid out."""
    return CompactLayout if precision == "compact" else RankLayout


def layout_of(state: StoredState) -> RankLayout:
    """The layout of a state's file. Raises ``ModelFileError`` for arrays that do not fit together."""
    return layout_kind(state.precision).of(state, state.precision)
