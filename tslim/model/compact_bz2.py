"""Blocks of compact files of version 3, which coded the levels by bz2. They are read, and no longer written."""

import bz2

import numpy as np

from tslim.model.compact import LENGTH, SteppedLayout
from tslim.model.stored import StoredState


class Bz2Layout(SteppedLayout):
    """A block: its length without this number (u32); basis rows (3, 3, 27) in half precision; the row of scales, if
    any; the steps (float32) of each plane and line; and all of these as int8 multiples of their steps, coded by bz2.

    Parts and order are those of ``RankLayout``.
    """

    def unpack(self, block: bytes, state: StoredState, rank: int) -> None:
        """As ``RankLayout.unpack``."""
        factors, steps, at = self.unpack_steps(block[LENGTH.size :], state, rank)
        wanted = sum(a.size for a in factors)
        try:
            unpacked = bz2.BZ2Decompressor().decompress(block[LENGTH.size + at :], wanted + 1)
        except (OSError, EOFError) as error:
            raise ValueError(str(error)) from error
        if len(unpacked) != wanted:
            raise ValueError(f"{len(unpacked)} numbers instead of {wanted}")
        levels, at = np.frombuffer(unpacked, np.int8), 0
        for into, step in zip(factors, steps, strict=True):
            into[...] = levels[at : at + into.size].reshape(into.shape) * step
            at += into.size
