"""Compact blocks: planes and lines in steps from what the texels around say, coded.

How steps are chosen: ``rounding.py``; how they are coded: ``neighbours.py`` and ``entropy.py``; the blocks of older
compact files: ``compact_whole.py``, ``compact_bz2.py``.
"""

import math
import struct
from collections.abc import Iterator
from types import ModuleType
from typing import BinaryIO

import numpy as np

from tslim.errors import ModelFileError
from tslim.model import neighbours
from tslim.model.entropy import Decoder, Encoder, lanes_for
from tslim.model.layout import N_FACTORS, RankLayout, Unpack
from tslim.model.passes import Group, Texels, components, groups_of
from tslim.model.rounding import texels_of
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
    """A block: its length without this number (u32); side information of ``neighbours.encode``; numbers; coded steps.

    Numbers are the basis rows (3, 3, 27) in half precision, the row of scales (float32), if any, and the steps
    (float32) of each plane and line. As many of their first bytes as the coder's lanes can carry are in its states.

    Values are coded for each mode's planes, density's and the three of appearance, then its lines: see
    ``neighbours.py``. Tables go on from one block to the next. States must hold what ``rounding.rounded`` makes, or
    multiples of their ``steps`` (their ``pulls`` then are 0).
    """

    code: ModuleType = neighbours
    """how texels are coded"""

    def lengths(self, state: StoredState) -> list[int]:
        """Bytes of each block of a state, which must be coded for it."""
        return [len(block) for block in self.blocks(state)]

    def blocks(self, state: StoredState) -> Iterator[bytes]:
        """As ``RankLayout.blocks``."""
        seen, tables = texels_of(state), neighbours.new_tables()
        for rank in range(state.rank):
            factors, basis = self.split(state, rank)
            assert state.steps is not None and state.pulls is not None, "a compact state has steps and pulls"
            steps = state.steps[rank, self.part(rank).steps]
            groups = groups_of(seen, self.part(rank).kinds)
            for values, array, step in zip(components(groups), factors, steps, strict=True):
                values[...] = _parts(array, step, rank)
            numbers = self.pack_numbers(basis, rank) + self.pack_rank_scales(state, rank) + steps.astype(STEP).tobytes()
            lanes = lanes_for(len(numbers))
            coder = Encoder()
            try:
                side = neighbours.encode(groups, state.pulls[rank], tables, coder)
            except ValueError as error:
                raise _changed(rank) from error
            block = side + numbers[2 * lanes :] + coder.finish(numbers[: 2 * lanes], lanes)
            block += bytes(max(-(-self.n_texels(rank) // NUMBERS_PER_BYTE) - len(block), 0))
            yield LENGTH.pack(len(block)) + block

    def unpacker(self, shared: FieldState) -> Unpack:
        """As ``RankLayout.unpacker``."""
        seen: list[Texels] = []
        groups: list[Group] = []
        tables = self.code.new_tables()

        def unpack(block: bytes, state: StoredState, rank: int) -> None:
            kinds = self.part(rank).kinds
            if not seen:  # only now is a block of the size that the header states known to be there
                seen.extend(texels_of(shared))
            if rank == 0 or kinds != self.part(rank - 1).kinds:
                groups[:] = groups_of(seen, kinds)
            n_numbers = self.n_number_bytes(rank)
            lanes = lanes_for(n_numbers)
            at = LENGTH.size + self.code.n_side(groups)
            rest = max(n_numbers - 2 * lanes, 0)
            coder = Decoder(block[at + rest :], lanes)
            pulls = self.code.decode(groups, tables, coder, block[LENGTH.size : at])
            numbers = coder.carried()[: n_numbers - rest] + block[at : at + rest]
            factors, steps, _ = self.unpack_steps(numbers, state, rank)
            assert state.pulls is not None, "a compact state has pulls"
            state.pulls[rank] = pulls
            for into, values, step in zip(factors, components(groups), steps, strict=True):
                np.multiply(values.reshape(into.shape), step / np.float32(self.code.PARTS), out=into)

        return unpack

    def n_number_bytes(self, rank: int) -> int:
        """Bytes of the numbers of the block of 0-based ``rank``."""
        part = self.part(rank)
        basis = math.prod(self.shapes[N_FACTORS]) * (part.arrays.stop > N_FACTORS)
        rank_scales = (part.rank_scales.stop - part.rank_scales.start) * self.rank_scales
        return self.dtype.itemsize * basis + 4 * rank_scales + STEP.itemsize * (part.steps.stop - part.steps.start)


def _parts(array: np.ndarray, step: np.floating, rank: int) -> np.ndarray:
    """How many parts of its step each value of a plane or line holds."""
    exact = np.atleast_2d(array) / (step / np.float32(neighbours.PARTS))
    parts = np.rint(exact)
    if not (np.abs(parts - exact).max() <= 1e-3 and np.abs(parts).max() < neighbours.PARTS * (neighbours.LEVELS + 1)):
        raise _changed(rank)
    return parts


def _changed(rank: int) -> ModelFileError:
    return ModelFileError(f"rank {rank + 1} does not hold multiples of its steps: it has changed since rounding")
