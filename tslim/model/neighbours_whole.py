"""Texels of compact files of version 4, as they are decoded: whole steps, expected from the whole steps around.

A texel was expected at ``pull / PULL_ONE`` times the mean of its four nearest known neighbours, and what was coded is
how far it is from the nearest whole number of steps. Its context says how far its neighbours are from what is expected,
the sign of that whole number, and how it was rounded.
"""

import numpy as np

from tslim.model import neighbours
from tslim.model.entropy import Decoder, Tables
from tslim.model.neighbours import LEVELS
from tslim.model.passes import N_PASSES, Group, Pass, in_order

PARTS = 1
"""of a step, that a value is a whole number of"""
PULL_ONE = 64
_UNIT = 4 * PULL_ONE
"""of what is expected, as the sum of four neighbours times the pull gives it"""
_LIMITS = (
    256, 362, 512, 724, 1024, 1448, 2048, 2896, 4096, 5792, 8192, 11585, 16384, 23170, 32768, 46340, 65536, 92681,
    131072, 185363, 262144, 370727,
)  # fmt: skip
_PER_SPREAD = 15
"""contexts"""


def new_tables() -> Tables:
    """As ``neighbours.new_tables``, for each of the contexts of a spread."""
    return neighbours.tables_for(_LIMITS, _UNIT, _PER_SPREAD)


def n_side(groups: list[Group]) -> int:
    """Bytes of spreads (u8) of all components, then pulls (u8) of passes."""
    return sum(len(g.values) for g in groups) + N_PASSES


def decode(groups: list[Group], tables: Tables, coder: Decoder, side: bytes) -> np.ndarray:
    """Fills groups with what was coded; returns pulls of 0, from which whole steps are whole steps. Raises
    ``ValueError`` for what was never made."""
    spreads, pulls = np.split(np.frombuffer(side, np.uint8), [len(side) - N_PASSES])
    if spreads.max() > len(_LIMITS):
        raise ValueError("a spread that is out of range")
    own = np.split(_PER_SPREAD * spreads.astype(np.int64) + _PER_SPREAD // 2, len(groups))
    for group, contexts in zip(groups, own, strict=True):
        _put(group, group.texels.first, coder.take(tables, contexts.repeat(len(group.texels.first))))
    for (stride, one), pull in zip(in_order(), pulls.tolist(), strict=True):
        for group in groups:
            places = group.texels.of(stride, one)
            if places is not None:
                whole, contexts = _expected(group, stride, one, pull)
                _put(group, places, whole.ravel() + coder.take(tables, contexts.ravel()))
    return np.zeros(neighbours.PULLS, np.int8)


def _put(group: Group, places: np.ndarray, values: np.ndarray) -> None:
    if values.size and not -LEVELS <= values.min() <= values.max() <= LEVELS:
        raise ValueError("a level that is out of range")
    group.put(places, values)


def _expected(group: Group, stride: int, one: Pass, pull: int) -> tuple[np.ndarray, np.ndarray]:
    """(k, n) whole numbers that are expected, and contexts."""
    near, far = ([values.astype(np.int32) for values in some] for some in group.around(stride, one))
    expected = pull * sum(near)
    spread = 4 * sum(np.abs(_UNIT * v - expected) for v in near)
    spread += one.far_weight * sum(np.abs(_UNIT * v - expected) for v in far)
    whole = np.clip((expected + _UNIT // 2) >> 8, -LEVELS, LEVELS)
    part = np.clip(5 * (expected - _UNIT * whole + _UNIT // 2) >> 8, 0, 4)
    limits = np.searchsorted(np.array(_LIMITS, np.int32), spread, side="right")
    return whole, (3 * limits + np.sign(whole) + 1) * 5 + part
