"""Compact blocks: planes and lines as whole steps in 8 bits, coded by what the texels around say.

How steps are chosen: ``rounding.py``; how they are coded: ``neighbours.py`` and ``entropy.py``; the blocks of older
compact files: ``compact_bz2.py``.
"""

import math
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from tslim.errors import ModelFileError
from tslim.model import neighbours
from tslim.model.entropy import Decoder, Encoder, lanes_for
from tslim.model.layout import N_FACTORS, RankLayout, Unpack
from tslim.model.rounding import LEVELS, visible_texels
from tslim.model.state import FieldState
from tslim.model.stored import StoredState

LENGTH = struct.Struct("<I")
STEP = np.dtype("<f4")
NUMBERS_PER_BYTE = 512
"""that a block unpacks to, at most: what would be smaller is filled up"""
FREE_NUMBERS = 2**24, 2**26
"""that a block, and blocks up to it, may unpack to however small they are"""


class SteppedLayout(RankLayout):
    """What the blocks of compact files have in common: a length without its own bytes (u32), numbers in half precision,
    and steps."""

    def read_length(self, source: BinaryIO, rank: int) -> tuple[bytes, int]:
        """As ``RankLayout.read_length``."""
        known = source.read(LENGTH.size)
        if len(known) < LENGTH.size:
            return known, 1
        length, n = LENGTH.unpack(known)[0], self.n_texels(rank)
        free = n <= FREE_NUMBERS[0] and n * (rank + 1) <= FREE_NUMBERS[1]
        if length > 2**16 + 8 * n or not (free or n <= NUMBERS_PER_BYTE * length):
            raise ValueError(f"a block of {length} bytes for {n} numbers")
        return known, length

    def split(self, state: FieldState, rank: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Of a block: views of each component's planes and lines, in the order of steps, and of the basis rows."""
        factors, basis = [], []
        for i, array in enumerate(self.slices(state, rank), start=self.part(rank).arrays.start):
            if i == N_FACTORS:
                basis.append(array)
            else:
                factors += [array] if i < N_FACTORS // 2 else list(array)
        return factors, basis

    def unpack_steps(self, numbers: bytes, state: StoredState, rank: int) -> tuple[list[np.ndarray], np.ndarray, int]:
        """Fills basis, row of scales and steps of 0-based ``rank`` from a block's numbers. Returns views of its planes
        and lines, their steps, and where the numbers end."""
        factors, basis = self.split(state, rank)
        at = self.unpack_rank_scales(numbers, self.unpack_numbers(numbers, 0, basis), state, rank)
        steps = np.frombuffer(numbers, STEP, len(factors), at)
        if not (np.isfinite(steps) & (steps > 0)).all():
            raise ValueError("a step that is not above 0")
        assert state.steps is not None, "a compact state has steps"
        state.steps[rank, self.part(rank).steps] = steps
        return factors, steps, at + steps.nbytes


class CompactLayout(SteppedLayout):
    """A block: its length without this number (u32); side information of ``neighbours.encode``; numbers; coded levels.

    Numbers are the basis rows (3, 3, 27) in half precision, the row of scales (float32), if any, and the steps
    (float32) of each plane and line. As many of their first bytes as the coder's lanes can carry are in its states.

    Levels, the multiples of the steps, are coded for each mode's planes, density's and the three of appearance, then
    its lines: see ``neighbours.py``. Tables go on from one block to the next. States must hold multiples of their
    ``steps``: see ``rounded``.
    """

    def lengths(self, state: StoredState) -> list[int]:
        """Bytes of each block of a state, which must be coded for it."""
        return [len(block) for block in self.blocks(state)]

    def blocks(self, state: StoredState) -> Iterator[bytes]:
        """As ``RankLayout.blocks``."""
        seen, tables = visible_texels(state), neighbours.new_tables()
        for rank in range(state.rank):
            factors, basis = self.split(state, rank)
            assert state.steps is not None, "a compact state has steps"
            steps = state.steps[rank, self.part(rank).steps]
            groups = _groups(seen, self.part(rank).kinds)
            for values, levels in zip(_components(groups), _levels(factors, steps, rank), strict=True):
                values[...] = levels
            numbers = self.pack_numbers(basis, rank) + self.pack_rank_scales(state, rank) + steps.astype(STEP).tobytes()
            lanes = lanes_for(len(numbers))
            coder = Encoder()
            side = neighbours.encode(groups, tables, coder)
            block = side + numbers[2 * lanes :] + coder.finish(numbers[: 2 * lanes], lanes)
            block += bytes(max(-(-self.n_texels(rank) // NUMBERS_PER_BYTE) - len(block), 0))
            yield LENGTH.pack(len(block)) + block

    def unpacker(self, shared: FieldState) -> Unpack:
        """As ``RankLayout.unpacker``."""
        seen: list[tuple[np.ndarray, np.ndarray]] = []
        tables = neighbours.new_tables()

        def unpack(block: bytes, state: StoredState, rank: int) -> None:
            if not seen:  # only now is a block of the size that the header states known to be there
                seen.extend(visible_texels(shared))
            groups = _groups(seen, self.part(rank).kinds)
            n_numbers = self.n_number_bytes(rank)
            lanes = lanes_for(n_numbers)
            at = LENGTH.size + neighbours.n_side(groups)
            rest = max(n_numbers - 2 * lanes, 0)
            coder = Decoder(block[at + rest :], lanes)
            neighbours.decode(groups, tables, coder, block[LENGTH.size : at])
            numbers = coder.carried()[: n_numbers - rest] + block[at : at + rest]
            factors, steps, _ = self.unpack_steps(numbers, state, rank)
            if any(np.abs(group.values).max() > LEVELS for group in groups):
                raise ValueError("a level that is out of range")
            for into, levels, step in zip(factors, _components(groups), steps, strict=True):
                np.multiply(levels.reshape(into.shape), step, out=into)

        return unpack

    def n_number_bytes(self, rank: int) -> int:
        """Bytes of the numbers of the block of 0-based ``rank``."""
        part = self.part(rank)
        basis = math.prod(self.shapes[N_FACTORS]) * (part.arrays.stop > N_FACTORS)
        rank_scales = (part.rank_scales.stop - part.rank_scales.start) * self.rank_scales
        return self.dtype.itemsize * basis + 4 * rank_scales + STEP.itemsize * (part.steps.stop - part.steps.start)


def _groups(seen: list[tuple[np.ndarray, np.ndarray]], kinds: tuple[str, ...]) -> list[neighbours.Group]:
    """Per mode its planes, then its lines: of density one, of appearance three."""
    k = ("density" in kinds) + 3 * ("appearance" in kinds)
    return [neighbours.Group(np.atleast_2d(texels), k) for mode in seen for texels in mode]


def _components(groups: list[neighbours.Group]) -> list[np.ndarray]:
    """Views (1, or G_v, G_u) of each component's plane or line, in the order of steps."""
    per_mode = [(planes.values, lines.values) for planes, lines in zip(groups[::2], groups[1::2], strict=True)]
    k = len(per_mode[0][0])
    density, appearance = slice(0, k % 3), slice(k % 3, k)
    return [values for some in (density, appearance) for mode in per_mode for kind in mode for values in kind[some]]


def _levels(factors: list[np.ndarray], steps: np.ndarray, rank: int) -> Iterator[np.ndarray]:
    """Which multiples of their steps planes and lines hold."""
    for array, step in zip(factors, steps, strict=True):
        exact = np.atleast_2d(array) / step
        levels = np.rint(exact)
        if not (np.abs(levels - exact).max() <= 1e-3 and np.abs(levels).max() <= LEVELS):
            raise ModelFileError(f"rank {rank + 1} does not hold multiples of its steps: it has changed since rounding")
        yield levels
