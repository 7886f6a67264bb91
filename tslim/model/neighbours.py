"""What the texels around a texel say about it: the order in which planes and lines are coded, and their contexts.

Texels are coded from coarse to fine, so that all texels of a pass can be predicted at once from those of earlier passes
on every side of them. First comes every ``FIRST``-th along both axes; then, for each stride s of ``STRIDES``, what is
new at that stride: texels at odd multiples of s along both axes, along v alone, along u alone. A line is a plane of one
row: it has only the last.

A texel is expected at ``pull / PULL_ONE`` times the mean of its four nearest known neighbours, and what is coded is how
far it is from the nearest whole number. Its context says how far its neighbours are from what is expected, the sign of
that whole number, and how it was rounded. Texels outside, and those that no ray sees, are 0.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tslim.model.entropy import N_SYMBOLS, Decoder, Encoder, Tables, split

FIRST = 8
STRIDES = (4, 2, 1)
PULL_ONE = 64
_PAD = 3 * STRIDES[0]
_MOST = 127
_UNIT = 4 * PULL_ONE
"""of what is expected, as the sum of four neighbours times the pull gives it"""
LIMITS = (
    256, 362, 512, 724, 1024, 1448, 2048, 2896, 4096, 5792, 8192, 11585, 16384, 23170, 32768, 46340, 65536, 92681,
    131072, 185363, 262144, 370727,
)  # fmt: skip
"""Spreads between which contexts differ: half an octave apart. A spread is 24 _UNIT times a mean distance."""
N_CONTEXTS = (len(LIMITS) + 1) * 15
_SIDES = ((-1, 0), (1, 0), (0, -1), (0, 1))
_CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
_KNIGHTS = ((-2, -1), (-2, 1), (2, -1), (2, 1), (-1, -2), (1, -2), (-1, 2), (1, 2))
_FAR = ((-3, -1), (-3, 1), (3, -1), (3, 1), (-1, -3), (1, -3), (-1, 3), (1, 3))


class Pass(NamedTuple):
    """Which texels are coded: at odd (1) or even (0) multiples of the stride; and which around them, in strides."""

    odd: tuple[int, int]
    near: tuple[tuple[int, int], ...]
    far: tuple[tuple[int, int], ...]
    far_weight: int
    """what the distance of a far one counts for; that of a near one counts 4"""


PLANE_PASSES = (Pass((1, 1), _CORNERS, _FAR, 1), Pass((1, 0), _SIDES, _KNIGHTS, 1), Pass((0, 1), _SIDES, _CORNERS, 2))
LINE_PASSES = (Pass((0, 1), ((0, -1), (0, 1)) * 2, ((0, -3), (0, 3)), 4),)


def new_tables() -> Tables:
    """Tables that know nothing but that numbers lie closer to 0 the less their neighbours are spread.

    A number n has a count of some 128 in all in proportion to theta^|n|, where theta / (1 - theta) is the mean that a
    spread between the limits suggests.
    """
    counts = np.ones((N_CONTEXTS, N_SYMBOLS), np.int64)
    symbols = split(np.arange(-_MOST, _MOST + 1))[0]
    for spread in range(len(LIMITS) + 1):
        # Parts of 256: integers, so that any language comes to the same.
        mean = 2 if spread == 0 else max(LIMITS[spread - 1] * 13 // 240, 2)
        theta = 256 * mean // (256 + mean)
        weights, weight = np.zeros(_MOST + 1, np.int64), 1 << 20
        for n in range(_MOST + 1):
            weights[n], weight = weight, weight * theta >> 8
        in_all = np.bincount(symbols, np.concatenate([weights[:0:-1], weights]), minlength=N_SYMBOLS).astype(np.int64)
        counts[15 * spread : 15 * spread + 15] += 128 * in_all // in_all.sum()
    return Tables(counts)


class Group:
    """Planes (k, h, w), or lines as (k, 1, w), that are coded together where ``seen`` (h, w); elsewhere they are 0."""

    def __init__(self, seen: np.ndarray, k: int) -> None:
        self.seen = seen
        h, w = seen.shape
        self._padded = np.zeros((k, h + 2 * _PAD, w + 2 * _PAD), np.int32)
        self.values = self._padded[:, _PAD : _PAD + h, _PAD : _PAD + w]
        self.passes = PLANE_PASSES if h > 1 else LINE_PASSES

    def chosen(self, where: tuple[slice, slice]) -> np.ndarray:
        """(k, n) values at the seen texels of some rows and columns."""
        return self.values[:, where[0], where[1]][:, self.seen[where]]

    def put(self, where: tuple[slice, slice], values: np.ndarray) -> None:
        """Sets them."""
        self.values[:, where[0], where[1]][:, self.seen[where]] = values.reshape(len(self.values), -1)

    def around(self, stride: int, one: Pass, offset: tuple[int, int]) -> np.ndarray:
        """(k, n) values at an offset in strides from the seen texels of a pass."""
        where = _rows_and_columns(stride, one)
        window = []
        for odd, step, side in zip(one.odd, offset, self.seen.shape, strict=True):
            window.append(slice(_PAD + stride * (odd + step), _PAD + stride * step + side, 2 * stride))
        return self._padded[:, window[0], window[1]][:, self.seen[where]]

    def expected(self, stride: int, one: Pass, pull: int) -> tuple[np.ndarray, np.ndarray]:
        """(k, n) whole numbers that are expected, and contexts."""
        near = [self.around(stride, one, offset) for offset in one.near]
        expected = pull * sum(near)
        spread = sum(np.abs(_UNIT * v - expected) for v in near)
        spread *= 4
        del near
        for offset in one.far:
            far = _UNIT * self.around(stride, one, offset)
            far -= expected
            spread += one.far_weight * np.abs(far, out=far)
        whole = np.clip((expected + _UNIT // 2) >> 8, -_MOST, _MOST)
        part = np.clip(5 * (expected - _UNIT * whole + _UNIT // 2) >> 8, 0, 4)
        limits = np.searchsorted(np.array(LIMITS, np.int32), spread, side="right")
        return whole, (3 * limits + np.sign(whole) + 1) * 5 + part


def _rows_and_columns(stride: int, one: Pass) -> tuple[slice, slice]:
    return slice(stride * one.odd[0], None, 2 * stride), slice(stride * one.odd[1], None, 2 * stride)


_EVERY_FIRST = (slice(0, None, FIRST), slice(0, None, FIRST))


def n_side(groups: list[Group]) -> int:
    """Bytes that ``encode`` returns beside what it gives to the coder."""
    return sum(len(g.values) for g in groups) + len(STRIDES) * (len(PLANE_PASSES) + len(LINE_PASSES))


def encode(groups: list[Group], tables: Tables, coder: Encoder) -> bytes:
    """Codes the values of groups; returns what ``decode`` needs besides: spreads (u8) of all components, then pulls
    (u8) of passes over planes and lines, stride by stride."""
    side = bytearray()
    for group in groups:
        mean = np.abs(group.values[:, group.seen]).sum(1) / max(int(group.seen.sum()), 1)
        side += np.searchsorted(LIMITS, 24 * _UNIT * mean, side="right").astype(np.uint8).tobytes()
    for group, contexts in zip(groups, _first_contexts(groups, side), strict=True):
        coder.add(tables, contexts.ravel(), group.chosen(_EVERY_FIRST).ravel())
    for stride in STRIDES:
        for passes in (PLANE_PASSES, LINE_PASSES):
            chosen = [group for group in groups if group.passes is passes]
            for one in passes:
                side.append(_best_pull(chosen, stride, one))
                for group in chosen:
                    whole, contexts = group.expected(stride, one, side[-1])
                    found = group.chosen(_rows_and_columns(stride, one))
                    coder.add(tables, contexts.ravel(), (found - whole).ravel())
    return bytes(side)


def decode(groups: list[Group], tables: Tables, coder: Decoder, side: bytes) -> None:
    """Fills groups with what ``encode`` coded. Raises ``ValueError`` for what it never makes."""
    spreads, pulls = np.split(np.frombuffer(side, np.uint8), [sum(len(group.values) for group in groups)])
    if spreads.max() > len(LIMITS):
        raise ValueError("a spread that is out of range")
    for group, contexts in zip(groups, _first_contexts(groups, side), strict=True):
        group.put(_EVERY_FIRST, coder.take(tables, contexts.ravel()))
    pull = iter(pulls.tolist())
    for stride in STRIDES:
        for passes in (PLANE_PASSES, LINE_PASSES):
            for one in passes:
                strength = next(pull)
                for group in groups:
                    if group.passes is passes:
                        whole, contexts = group.expected(stride, one, strength)
                        rest = coder.take(tables, contexts.ravel())
                        group.put(_rows_and_columns(stride, one), whole.ravel() + rest)


def _first_contexts(groups: list[Group], side: bytes | bytearray) -> Iterator[np.ndarray]:
    """Those of texels without neighbours: nothing is expected, and the spread is the component's own."""
    at = 0
    for group in groups:
        spreads = np.frombuffer(side, np.uint8, len(group.values), at).astype(np.int64)
        at += len(spreads)
        yield np.repeat(((3 * spreads + 1) * 5 + 2)[:, None], int(group.seen[_EVERY_FIRST].sum()), axis=1)


def _best_pull(groups: list[Group], stride: int, one: Pass) -> int:
    """The pull under which the texels of a pass are closest to what is expected, each component counting the same."""
    likeness, size = 0.0, 1e-9
    for group in groups:
        mean = sum(group.around(stride, one, offset) for offset in one.near) / 4
        values = group.chosen(_rows_and_columns(stride, one))
        if values.size:
            scale = np.abs(values).mean(1, keepdims=True) + 0.05
            likeness += float((values * mean / scale**2).sum())
            size += float((mean**2 / scale**2).sum())
    return min(max(round(PULL_ONE * likeness / size), 0), 2 * PULL_ONE - 1)
