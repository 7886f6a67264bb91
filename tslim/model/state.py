"""A field as plain numpy arrays, and how the arrays of one rank become the bytes of one block of a model file."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tslim.config import FieldConfig, Precision
from tslim.errors import ConfigError, ModelFileError

PLANE_AXES = ((0, 1), (0, 2), (1, 2))
"""(u, v) axes of each mode's plane; an array of texels is indexed [v, u]."""
LINE_AXES = (2, 1, 0)
N_FEATURES = 27
AFFINE_WIDTH = 2 * (1 + N_FEATURES)
"""a row of ``FieldState.affine``: scale and shift of the density feature, then of the colour features"""
N_STEPS = 24
"""of a rank in a compact file: one for each plane and line of density, then for each of the three of appearance"""
DTYPES = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4"), "compact": np.dtype("<f2")}
"""of the numbers that are stored as such: all, or in a compact file basis and decoder"""


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
    precision: Precision = "float16"
    """of the file that it was read from, and of the one that it would be written to; see ``model_file.convert``"""
    steps: np.ndarray | None = None
    """(R, 24) f32 where the precision is compact: every plane and line holds multiples of its own; 1 where it holds
    nothing"""

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
            steps=None if self.steps is None else self.steps[:rank],
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
        if state.steps is not None:
            state.steps = state.steps.copy()
            state.steps[low:, _PARTS[kind].steps] = 1
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
        precision: how factors are stored; for compact see ``CompactLayout``.
        tail: (kind, n): blocks after the first n hold only "density" or only "appearance". None if all are whole.
    """

    def __init__(
        self, grid: tuple[int, int, int], affine: bool, precision: str, tail: tuple[str, int] | None = None
    ) -> None:
        if precision not in DTYPES:
            raise ConfigError(f"unknown precision {precision!r}; known: {', '.join(DTYPES)}")
        self.affine, self.precision, self.dtype, self.tail = affine, precision, DTYPES[precision], tail
        modes = [((grid[v], grid[u]), (grid[w],)) for (u, v), w in zip(PLANE_AXES, LINE_AXES, strict=True)]
        self.shapes: list[tuple[int, ...]] = [shape for mode in modes for shape in mode]
        self.shapes += [(3, *shape) for mode in modes for shape in mode]
        self.shapes.append((3, 3, N_FEATURES))

    @classmethod
    def of(cls, state: FieldState) -> "RankLayout":
        """Layout of a state whose arrays have been checked against its grid and rank."""
        tail = None
        if state.kept is not None:
            tail = ("density" if state.kept[0] > state.kept[1] else "appearance", min(state.kept))
        layout = cls(tuple(state.grid), state.affine is not None, state.precision, tail)
        wanted = [((state.rank, *s) if i < 6 else (3 * state.rank, *s[1:])) for i, s in enumerate(layout.shapes[:12])]
        wanted.append((3, 3 * state.rank, N_FEATURES))
        names = [f"{kind} of mode {m}" for kind in ("density", "appearance") for m in range(3) for _ in range(2)]
        for array, shape, name in zip(_factors(state), wanted, [*names, "basis"], strict=True):
            _require_shape(array, shape, name)
        if state.affine is not None:
            _require_shape(state.affine, (state.rank, AFFINE_WIDTH), "affine")
        return layout

    def part(self, rank: int) -> "Part":
        """What the block of 0-based ``rank`` holds."""
        return _PARTS[self.tail[0] if self.tail and rank >= self.tail[1] else "whole"]

    def bytes_of(self, rank: int) -> int:
        """Of the block of 0-based ``rank``, if numbers are stored as such."""
        part = self.part(rank)
        values = sum(map(math.prod, self.shapes[part.arrays]))
        return values * self.dtype.itemsize + 4 * (part.affine.stop - part.affine.start) * self.affine

    def length_at(self, source: BinaryIO, at: int, rank: int) -> int:
        """Bytes of the block of 0-based ``rank`` that starts at byte ``at`` of a file."""
        return self.bytes_of(rank)

    def lengths(self, state: FieldState) -> list[int]:
        """Bytes of each block of a state."""
        return [self.bytes_of(rank) for rank in range(state.rank)]

    def slices(self, state: FieldState, rank: int) -> list[np.ndarray]:
        """Views of what the block of 0-based ``rank`` holds, in order."""
        arrays = _factors(state)
        three = slice(3 * rank, 3 * rank + 3)
        views = [a[rank] for a in arrays[:6]] + [a[three] for a in arrays[6:12]] + [arrays[12][:, three]]
        return views[self.part(rank).arrays]

    def pack(self, state: FieldState, rank: int) -> bytes:
        """The block of 0-based ``rank``."""
        return self.pack_numbers(self.slices(state, rank), rank) + self.pack_affine(state, rank)

    def pack_numbers(self, arrays: list[np.ndarray], rank: int) -> bytes:
        """Arrays of 0-based ``rank`` in ``dtype``."""
        return to_bytes(np.concatenate([a.ravel() for a in arrays]), self.dtype, f"rank {rank + 1}") if arrays else b""

    def pack_affine(self, state: FieldState, rank: int) -> bytes:
        """The affine row of 0-based ``rank``, if there is one."""
        if state.affine is None:
            return b""
        row = state.affine[rank, self.part(rank).affine]
        return to_bytes(row, DTYPES["float32"], f"the affine row of rank {rank + 1}")

    def unpack(self, block: bytes, state: FieldState, rank: int) -> None:
        """Writes a block into a state's arrays."""
        self.unpack_affine(block, self.unpack_numbers(block, 0, self.slices(state, rank)), state, rank)

    def unpack_numbers(self, block: bytes, at: int, arrays: list[np.ndarray]) -> int:
        """Fills arrays from byte ``at`` on; returns where they end."""
        for into in arrays:
            into[...] = np.frombuffer(block, self.dtype, into.size, at).reshape(into.shape)
            at += into.size * self.dtype.itemsize
        return at

    def unpack_affine(self, block: bytes, at: int, state: FieldState, rank: int) -> int:
        """Fills the affine row of 0-based ``rank``, if there is one, from byte ``at`` on; returns where it ends."""
        if state.affine is None:
            return at
        row = state.affine[rank, self.part(rank).affine]
        row[...] = np.frombuffer(block, DTYPES["float32"], row.size, at)
        return at + 4 * row.size


class Part(NamedTuple):
    """What a block holds."""

    arrays: slice
    """of those of ``RankLayout.shapes``"""
    affine: slice
    """columns of the affine row"""
    steps: slice
    """columns of ``FieldState.steps``"""


_PARTS = {
    "whole": Part(slice(0, 13), slice(0, AFFINE_WIDTH), slice(0, N_STEPS)),
    "density": Part(slice(0, 6), _DENSITY, slice(0, 6)),
    "appearance": Part(slice(6, 13), _APPEARANCE, slice(6, N_STEPS)),
}


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
