"""A field as plain numpy arrays, and how the arrays of one rank become the bytes of one block of a model file."""

import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tslim.config import FieldConfig
from tslim.errors import ConfigError, ModelFileError

PLANE_AXES = ((0, 1), (0, 2), (1, 2))
"""(u, v) axes of each mode's plane; an array of texels is indexed [v, u]."""
LINE_AXES = (2, 1, 0)
N_FEATURES = 27
AFFINE_WIDTH = 2 * (1 + N_FEATURES)
"""a row of ``FieldState.affine``: scale and shift of the density feature, then of the colour features"""
DTYPES = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}


@dataclass
class FieldState:
    """A field as plain numpy arrays in float32: what a model file holds, and how fields pass between devices.

    R is ``config.max_rank``, G the grid sides along the axes that ``PLANE_AXES`` and ``LINE_AXES`` name.
    """

    config: FieldConfig
    box: np.ndarray
    """(2, 3) corners in field coordinates: minimum, maximum"""
    grid: tuple[int, int, int]
    """texels along x, y, z"""
    near: float
    """distance along a ray, in world units, at which sampling starts; in ndc that of the near plane"""
    far: float
    """distance at which it ends"""
    space: str
    """"box", "ndc" or "contracted": what field coordinates are (see ``kernels.space``)"""
    background: tuple[float, float, float] | None
    """sRGB colour behind the scene, or None"""
    density_planes: list[np.ndarray]
    """per mode (R, G_v, G_u)"""
    density_lines: list[np.ndarray]
    """per mode (R, G_w)"""
    appearance_planes: list[np.ndarray]
    """per mode (3R, G_v, G_u); components 3r, 3r+1, 3r+2 belong to rank r"""
    appearance_lines: list[np.ndarray]
    """per mode (3R, G_w)"""
    basis: np.ndarray
    """(3 modes, 3R, 27)"""
    affine: np.ndarray | None
    """(R, 56) or None; row r-1 serves active rank r: density scale and shift, 27 feature scales, 27 shifts"""
    decoder: dict[str, np.ndarray]
    """the decoder's parameters by name"""
    occupancy: np.ndarray | None = None
    """(oz, oy, ox) bool cells, or None"""
    occupancy_box: np.ndarray | None = None
    """(2, 3) corners of the occupancy grid; the field's box if None"""
    cube: np.ndarray | None = None
    """(2, 3) world corners of the part of a contracted space that stays as it is; None in other spaces"""
    metadata: dict[str, Any] = field(default_factory=dict)
    """provenance: json data, kept when slimming"""
    kept: tuple[int, int] | None = None
    """ranks of density and of appearance where they differ: R is the higher of them, and the components of the other
    kind above its own rank are zero; see ``separate``"""

    @property
    def rank(self) -> int:
        """The number of ranks held."""
        return self.config.max_rank

    def slim(self, rank: int) -> "FieldState":
        """The first ``rank`` ranks, sharing memory. Raises ``ConfigError`` outside 1..R."""
        require_rank(rank, self.rank)
        return dataclasses.replace(
            self,
            kept=lesser(self.kept, rank),
            config=dataclasses.replace(self.config, max_rank=rank),
            density_planes=[a[:rank] for a in self.density_planes],
            density_lines=[a[:rank] for a in self.density_lines],
            appearance_planes=[a[: 3 * rank] for a in self.appearance_planes],
            appearance_lines=[a[: 3 * rank] for a in self.appearance_lines],
            basis=self.basis[:, : 3 * rank],
            affine=None if self.affine is None else self.affine[:rank],
        )

    def separate(self, density_rank: int, appearance_rank: int) -> "FieldState":
        """So many ranks of density, and so many of appearance, each with the scale and shift of its own rank.

        A copy where the two differ. Raises ``ConfigError`` outside what there is.
        """
        most = self.kept or (self.rank, self.rank)
        require_rank(density_rank, most[0], "the density has")
        require_rank(appearance_rank, most[1], "the appearance has")
        low, high = sorted((density_rank, appearance_rank))
        state = self.slim(high)
        if low == high:
            return state
        state = dataclasses.replace(state, kept=(density_rank, appearance_rank))
        kind, per_rank = ("appearance", 3) if density_rank == high else ("density", 1)
        for name in (f"{kind}_planes", f"{kind}_lines"):
            setattr(state, name, [_cut(a, per_rank * low) for a in getattr(state, name)])
        if kind == "appearance":
            state.basis = _cut(state.basis.swapaxes(0, 1), 3 * low).swapaxes(0, 1)
        if state.affine is not None:
            state.affine = state.affine.copy()
            state.spread_affine()
        return state

    def spread_affine(self) -> None:
        """Gives the ranks that only one kind has the other kind's scale and shift at its last rank, in place."""
        if self.kept is None or self.affine is None:
            return
        low = min(self.kept)
        columns = _APPEARANCE if self.kept[0] > self.kept[1] else _DENSITY
        self.affine[low:, columns] = self.affine[low - 1, columns]


_DENSITY, _APPEARANCE = slice(0, 2), slice(2, AFFINE_WIDTH)
"""columns of an affine row"""


def lesser(kept: tuple[int, int] | None, rank: int) -> tuple[int, int] | None:
    """What ``FieldState.kept`` is after slimming to ``rank``."""
    if kept is None or rank <= min(kept):
        return None
    return (min(kept[0], rank), min(kept[1], rank))


def _cut(array: np.ndarray, n: int) -> np.ndarray:
    """A copy with zeros from entry n on."""
    array = array.copy()
    array[n:] = 0
    return array


class RankLayout:
    """The arrays of each rank's block, in order, and where they lie in a ``FieldState``.

    A block: per mode the density plane (G_v, G_u) and line (G_w); per mode the 3 appearance planes and 3 lines;
    the 3 basis rows of each mode (3, 3, 27); all in ``dtype``. Then the affine row (56 float32) if the model has one.
    Ranks that only density or only appearance has (see ``FieldState.kept``) come last, and lack the other kind's part:
    density's is the first 6 arrays and the first 2 numbers of the affine row.

    Args:
        grid: texels along x, y, z.
        affine: whether there are affine rows.
        dtype: of the factors as stored.
        tail: (kind, n): blocks after the first n hold only "density" or only "appearance". None if all are whole.
    """

    def __init__(
        self, grid: tuple[int, int, int], affine: bool, dtype: str, tail: tuple[str, int] | None = None
    ) -> None:
        if dtype not in DTYPES:
            raise ConfigError(f"unknown precision {dtype!r}; known: {', '.join(DTYPES)}")
        self.affine, self.dtype, self.tail = affine, DTYPES[dtype], tail
        modes = [((grid[v], grid[u]), (grid[w],)) for (u, v), w in zip(PLANE_AXES, LINE_AXES, strict=True)]
        self.shapes: list[tuple[int, ...]] = [shape for mode in modes for shape in mode]
        self.shapes += [(3, *shape) for mode in modes for shape in mode]
        self.shapes.append((3, 3, N_FEATURES))
        self.n_bytes = self._bytes(*_PARTS["whole"])
        """of a whole block"""
        self.tail_bytes = self._bytes(*_PARTS[tail[0]]) if tail else self.n_bytes
        """of a block in the tail"""

    def _bytes(self, arrays: slice, columns: slice) -> int:
        values = sum(map(math.prod, self.shapes[arrays]))
        return values * self.dtype.itemsize + 4 * (columns.stop - columns.start) * self.affine

    def bytes_of(self, rank: int) -> int:
        """Of the block of 0-based ``rank``."""
        return self.tail_bytes if self.tail and rank >= self.tail[1] else self.n_bytes

    @classmethod
    def of(cls, state: FieldState, dtype: str) -> "RankLayout":
        """Layout of a state whose arrays have been checked against its grid and rank."""
        tail = None
        if state.kept is not None:
            tail = ("density" if state.kept[0] > state.kept[1] else "appearance", min(state.kept))
        layout = cls(tuple(state.grid), state.affine is not None, dtype, tail)
        wanted = [((state.rank, *s) if i < 6 else (3 * state.rank, *s[1:])) for i, s in enumerate(layout.shapes[:12])]
        wanted.append((3, 3 * state.rank, N_FEATURES))
        names = [f"{kind} of mode {m}" for kind in ("density", "appearance") for m in range(3) for _ in range(2)]
        for array, shape, name in zip(_factors(state), wanted, [*names, "basis"], strict=True):
            _require_shape(array, shape, name)
        if state.affine is not None:
            _require_shape(state.affine, (state.rank, AFFINE_WIDTH), "affine")
        return layout

    def _part(self, rank: int) -> tuple[slice, slice]:
        """Which of the 13 arrays, and which columns of the affine row, the block of 0-based ``rank`` holds."""
        return _PARTS[self.tail[0] if self.tail and rank >= self.tail[1] else "whole"]

    def slices(self, state: FieldState, rank: int) -> list[np.ndarray]:
        """Views of what the block of 0-based ``rank`` holds, in order."""
        arrays = _factors(state)
        three = slice(3 * rank, 3 * rank + 3)
        views = [a[rank] for a in arrays[:6]] + [a[three] for a in arrays[6:12]] + [arrays[12][:, three]]
        return views[self._part(rank)[0]]

    def pack(self, state: FieldState, rank: int) -> bytes:
        """The block of 0-based ``rank``."""
        values = np.concatenate([a.ravel() for a in self.slices(state, rank)])
        block = to_bytes(values, self.dtype, f"rank {rank + 1}")
        if state.affine is not None:
            row = state.affine[rank, self._part(rank)[1]]
            block += to_bytes(row, DTYPES["float32"], f"the affine row of rank {rank + 1}")
        return block

    def unpack(self, block: bytes, state: FieldState, rank: int) -> None:
        """Writes a block into a state's arrays."""
        slices = self.slices(state, rank)
        starts = list(itertools.accumulate((a.size for a in slices), initial=0))
        values = np.frombuffer(block, self.dtype, starts[-1])
        for into, at in zip(slices, starts, strict=False):
            into[...] = values[at : at + into.size].reshape(into.shape)
        if state.affine is not None:
            row = state.affine[rank, self._part(rank)[1]]
            row[...] = np.frombuffer(block, DTYPES["float32"], row.size, starts[-1] * self.dtype.itemsize)


_PARTS = {
    "whole": (slice(0, 13), slice(0, AFFINE_WIDTH)),
    "density": (slice(0, 6), _DENSITY),
    "appearance": (slice(6, 13), _APPEARANCE),
}
"""What a block holds: of the arrays of ``_factors``, and of the columns of the affine row."""


def _factors(state: FieldState) -> list[np.ndarray]:
    """The 12 plane and line arrays and the basis, in the order of a block."""
    arrays: list[np.ndarray] = []
    for planes, lines in (
        (state.density_planes, state.density_lines),
        (state.appearance_planes, state.appearance_lines),
    ):
        for plane, line in zip(planes, lines, strict=True):
            arrays += [plane, line]
    return [*arrays, state.basis]


def to_bytes(values: np.ndarray, dtype: np.dtype, what: str) -> bytes:
    """Values in storage precision; ``ModelFileError`` names ``what`` if any of them is not finite there."""
    with np.errstate(over="ignore"):
        stored = np.asarray(values).astype(dtype)
    if not np.isfinite(stored).all():
        if np.isfinite(values).all():
            raise ModelFileError(f"{what} holds a value too large for {dtype.name}; write it as float32")
        raise ModelFileError(f"{what} holds values that are not finite; the training has diverged")
    return stored.tobytes()


def require_rank(rank: int, most: int, what: str = "the model has") -> None:
    """Raises ``ConfigError`` unless 1 <= rank <= most."""
    if not 1 <= rank <= most:
        raise ConfigError(f"rank {rank} asked for, {what} ranks 1 to {most}")


def _require_shape(array: np.ndarray, shape: tuple[int, ...], what: str) -> None:
    if array.shape != shape:
        raise ModelFileError(f"the {what} has shape {array.shape}, but rank and grid ask for {shape}")
