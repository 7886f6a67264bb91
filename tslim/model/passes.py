"""The order in which the texels of planes and lines are coded: from coarse to fine, so that all texels of a pass can be
predicted at once from those of earlier passes on every side of them.

First comes every ``FIRST``-th texel along both axes; then, for each stride s of ``STRIDES``, what is new at that
stride: texels at odd multiples of s along both axes, along v alone, along u alone. A line is a plane of one row: it has
only the last. Texels outside, and those that no ray sees, are 0.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

FIRST = 8
STRIDES = (4, 2, 1)
_PAD = 3 * STRIDES[0]
_SIDES = ((-1, 0), (1, 0), (0, -1), (0, 1))
_CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
_KNIGHTS = ((-2, -1), (-2, 1), (2, -1), (2, 1), (-1, -2), (1, -2), (-1, 2), (1, 2))
_FAR = ((-3, -1), (-3, 1), (3, -1), (3, 1), (-1, -3), (1, -3), (-1, 3), (1, 3))


class Pass(NamedTuple):
    """Which texels are coded: at odd (1) or even (0) multiples of the stride; and which around them, in strides."""

    odd: tuple[int, int]
    near: tuple[tuple[int, int], ...]
    """four"""
    far: tuple[tuple[int, int], ...]
    far_weight: int
    """as how many a far one counts, so that there are eight in all"""


PLANE_PASSES = (Pass((1, 1), _CORNERS, _FAR, 1), Pass((1, 0), _SIDES, _KNIGHTS, 1), Pass((0, 1), _SIDES, _CORNERS, 2))
LINE_PASSES = (Pass((0, 1), ((0, -1), (0, 1)) * 2, ((0, -3), (0, 3)), 4),)
N_PASSES = len(STRIDES) * (len(PLANE_PASSES) + len(LINE_PASSES))


def in_order() -> Iterator[tuple[int, Pass]]:
    """Strides and passes: at each stride those over planes, then that over lines."""
    for stride in STRIDES:
        for one in (*PLANE_PASSES, *LINE_PASSES):
            yield stride, one


class Texels:
    """Where the texels of planes (h, w), or of lines (w,), lie that are coded: those that are ``seen``."""

    def __init__(self, seen: np.ndarray) -> None:
        self.shape = (1, len(seen)) if seen.ndim == 1 else seen.shape
        self.passes = LINE_PASSES if seen.ndim == 1 else PLANE_PASSES
        self._seen = seen.reshape(self.shape)
        self.pad = (0, _PAD) if seen.ndim == 1 else (_PAD, _PAD)
        self.padded = tuple(side + 2 * pad for side, pad in zip(self.shape, self.pad, strict=True))
        self.first = self._places((0, 0), FIRST)
        self._later = {(s, one): self._places((s * one.odd[0], s * one.odd[1]), 2 * s) for s, one in self._own()}
        self.n_seen = int(self._seen.sum())

    def _own(self) -> Iterator[tuple[int, Pass]]:
        return ((stride, one) for stride, one in in_order() if one in self.passes)

    def _places(self, start: tuple[int, int], step: int) -> np.ndarray:
        rows, columns = np.nonzero(self._seen[start[0] :: step, start[1] :: step])
        rows = rows * step + (start[0] + self.pad[0])
        return rows * self.padded[1] + (columns * step + (start[1] + self.pad[1]))

    def of(self, stride: int, one: Pass) -> np.ndarray | None:
        """(n,) flat places of the texels of a pass, border of zeros included; None if these have no such pass."""
        return self._later.get((stride, one))

    def along(self, stride: int, offset: tuple[int, int]) -> int:
        """How far from a place another one is."""
        return stride * (offset[0] * self.padded[1] + offset[1])


class Group:
    """k planes (k, h, w), or lines as (k, 1, w), that are coded together; all 0 to begin with."""

    def __init__(self, texels: Texels, k: int, dtype: type = np.int16) -> None:
        self.texels = texels
        padded = np.zeros((k, *texels.padded), dtype)
        self._flat = padded.reshape(k, -1)
        (top, left), (h, w) = texels.pad, texels.shape
        self.values = padded[:, top : top + h, left : left + w]

    def take(self, places: np.ndarray) -> np.ndarray:
        """(k, n) values at places."""
        return self._flat.take(places, axis=1)

    def put(self, places: np.ndarray, values: np.ndarray) -> None:
        """Sets them; raises ``ValueError`` for more than 2047 to either side."""
        if values.size and not -2048 < values.min() <= values.max() < 2048:
            raise ValueError("a level that is out of range")
        for flat, some in zip(self._flat, values.reshape(len(self._flat), -1), strict=True):
            flat[places] = some

    def around(self, stride: int, one: Pass) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """(k, n) values of each near neighbour of the texels of a pass, and of each far one."""
        texels = self.texels
        places = texels.of(stride, one)
        assert places is not None, "a pass over others"
        near = [self.take(places + texels.along(stride, offset)) for offset in dict.fromkeys(one.near)]
        far = [self.take(places + texels.along(stride, offset)) for offset in one.far]
        return near * (len(one.near) // len(near)), far


def groups_of(texels: list[Texels], kinds: tuple[str, ...], dtype: type = np.int16) -> list[Group]:
    """Per mode its planes, then its lines: of density one, of appearance three."""
    k = ("density" in kinds) + 3 * ("appearance" in kinds)
    return [Group(some, k, dtype) for some in texels]


def components(groups: list[Group]) -> list[np.ndarray]:
    """Views (1, or G_v, G_u) of each component's plane or line, in the order of steps."""
    k = len(groups[0].values)
    return [values for some in (slice(0, k % 3), slice(k % 3, k)) for group in groups for values in group.values[some]]
