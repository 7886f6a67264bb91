"""How the arrays of one rank become the bytes of one block of a model file, and which arrays a block holds."""

import math
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tslim.config import Precision
from tslim.errors import ConfigError, ModelFileError
from tslim.model.state import APPEARANCE, DENSITY, LINE_AXES, N_FEATURES, PLANE_AXES, SCALES_WIDTH, FieldState

N_STEPS = 24
"""of a rank in a compact file: one for each plane and line of density, then for each of the three of appearance"""
N_FACTORS = 12
"""arrays of planes and lines in a block: six of density, then six of appearance; the basis follows"""
DTYPES: dict[str, np.dtype[Any]] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4"), "compact": np.dtype("<f2")}
"""Types of the numbers that are stored as such: all of them, or in a compact file those of basis and decoder."""


class RankLayout:
    """The arrays of each rank's block, in order, and where they lie in a ``FieldState``.

    A block: per mode the density plane (G_v, G_u) and line (G_w); per mode the 3 appearance planes and 3 lines;
    the 3 basis rows of each mode (3, 3, 27); all in ``dtype``. Then the row of scales (56 float32) if the model has
    one. Ranks that only density or only appearance has (see ``FieldState.separate_ranks``) come last, and lack the
    other kind's part: density's is the first 6 arrays and the first 2 numbers of the row of scales.

    Args:
        grid: texels along x, y, z.
        rank_scales: whether there are rows of scales.
        precision: how factors are stored; for compact see ``CompactLayout``.
        tail: (kind, n): blocks after the first n hold only "density" or only "appearance". None if all are whole.
    """

    def __init__(
        self, grid: tuple[int, int, int], rank_scales: bool, precision: str, tail: tuple[str, int] | None = None
    ) -> None:
        if precision not in DTYPES:
            raise ConfigError(f"unknown precision {precision!r}; known: {', '.join(DTYPES)}")
        self.rank_scales, self.precision, self.dtype, self.tail = rank_scales, precision, DTYPES[precision], tail
        modes = [((grid[v], grid[u]), (grid[w],)) for (u, v), w in zip(PLANE_AXES, LINE_AXES, strict=True)]
        self.shapes: list[tuple[int, ...]] = [shape for mode in modes for shape in mode]
        self.shapes += [(3, *shape) for mode in modes for shape in mode]
        self.shapes.append((3, 3, N_FEATURES))

    @classmethod
    def of(cls, state: FieldState, precision: Precision = "float16") -> "RankLayout":
        """Layout of a state, stored in a precision, whose arrays have been checked against its grid and rank."""
        tail = None
        if state.separate_ranks is not None:
            tail = (
                "density" if state.separate_ranks[0] > state.separate_ranks[1] else "appearance",
                min(state.separate_ranks),
            )
        layout = cls(state.grid, state.rank_scales is not None, precision, tail)
        wanted = [((state.rank, *s) if i < 6 else (3 * state.rank, *s[1:])) for i, s in enumerate(layout.shapes[:12])]
        wanted.append((3, 3 * state.rank, N_FEATURES))
        names = [f"{kind} of mode {m}" for kind in ("density", "appearance") for m in range(3) for _ in range(2)]
        for array, shape, name in zip(_factors(state), wanted, [*names, "basis"], strict=True):
            _require_shape(array, shape, name)
        if state.rank_scales is not None:
            _require_shape(state.rank_scales, (state.rank, SCALES_WIDTH), "rank_scales")
        return layout

    def part(self, rank: int) -> "Part":
        """What the block of 0-based ``rank`` holds."""
        return PARTS[self.tail[0] if self.tail and rank >= self.tail[1] else "whole"]

    def n_texels(self, rank: int) -> int:
        """Numbers in the planes and lines of the block of 0-based ``rank``."""
        arrays = self.part(rank).arrays
        return sum(map(math.prod, self.shapes[arrays.start : min(arrays.stop, N_FACTORS)]))

    def bytes_of(self, rank: int) -> int:
        """Bytes of the block of 0-based ``rank``, if numbers are stored as such."""
        part = self.part(rank)
        values = sum(map(math.prod, self.shapes[part.arrays]))
        return values * self.dtype.itemsize + 4 * (part.rank_scales.stop - part.rank_scales.start) * self.rank_scales

    def read_length(self, source: BinaryIO, rank: int) -> tuple[bytes, int]:
        """For a stream that has come to the block of 0-based ``rank``: the bytes in which it says its own length, and
        how many bytes follow them. Raises ``ValueError`` for a length that no block has."""
        return b"", self.bytes_of(rank)

    def lengths(self, state: Any) -> list[int]:
        """Bytes of each block of a state."""
        return [self.bytes_of(rank) for rank in range(state.rank)]

    def blocks(self, state: Any) -> Iterator[bytes]:
        """The blocks of a state, in order."""
        return (self.pack(state, rank) for rank in range(state.rank))

    def unpacker(self, shared: FieldState) -> "Unpack":
        """What writes blocks, from the first on, into a state's arrays. ``shared``: what precedes the ranks."""
        return self.unpack

    def slices(self, state: FieldState, rank: int) -> list[np.ndarray]:
        """Views of what the block of 0-based ``rank`` holds, in order."""
        arrays = _factors(state)
        three = slice(3 * rank, 3 * rank + 3)
        views = [a[rank] for a in arrays[:6]] + [a[three] for a in arrays[6:12]] + [arrays[12][:, three]]
        return views[self.part(rank).arrays]

    def split(self, state: FieldState, rank: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Of a block: views of each component's planes and lines, in the order of steps, and of the basis rows."""
        factors, basis = [], []
        for i, array in enumerate(self.slices(state, rank), start=self.part(rank).arrays.start):
            if i == N_FACTORS:
                basis.append(array)
            else:
                factors += [array] if i < N_FACTORS // 2 else list(array)
        return factors, basis

    def pack(self, state: FieldState, rank: int) -> bytes:
        """The block of 0-based ``rank``."""
        return self.pack_numbers(self.slices(state, rank), rank) + self.pack_rank_scales(state, rank)

    def pack_numbers(self, arrays: list[np.ndarray], rank: int) -> bytes:
        """Arrays of 0-based ``rank`` in ``dtype``."""
        return to_bytes(np.concatenate([a.ravel() for a in arrays]), self.dtype, f"rank {rank + 1}") if arrays else b""

    def pack_rank_scales(self, state: FieldState, rank: int) -> bytes:
        """The row of scales of 0-based ``rank``, if there is one."""
        if state.rank_scales is None:
            return b""
        row = state.rank_scales[rank, self.part(rank).rank_scales]
        return to_bytes(row, DTYPES["float32"], f"the row of scales of rank {rank + 1}")

    def unpack(self, block: bytes, state: Any, rank: int) -> None:
        """Writes a block into a state's arrays."""
        self.unpack_rank_scales(block, self.unpack_numbers(block, 0, self.slices(state, rank)), state, rank)

    def unpack_numbers(self, block: bytes, at: int, arrays: list[np.ndarray]) -> int:
        """Fills arrays from byte ``at`` on; returns where they end."""
        for into in arrays:
            into[...] = np.frombuffer(block, self.dtype, into.size, at).reshape(into.shape)
            at += into.size * self.dtype.itemsize
        return at

    def unpack_rank_scales(self, block: bytes, at: int, state: FieldState, rank: int) -> int:
        """Fills the row of scales of 0-based ``rank``, if there is one, from byte ``at`` on; returns where it ends."""
        if state.rank_scales is None:
            return at
        row = state.rank_scales[rank, self.part(rank).rank_scales]
        row[...] = np.frombuffer(block, DTYPES["float32"], row.size, at)
        return at + 4 * row.size


Unpack = Callable[[bytes, Any, int], None]
"""Writes a block into a state's arrays at a 0-based rank; raises ``ValueError`` for what no block is."""


class Part(NamedTuple):
    """What a block holds."""

    kinds: tuple[str, ...]
    """"density", "appearance" """
    arrays: slice
    """of those of ``RankLayout.shapes``"""
    rank_scales: slice
    """columns of the row of scales"""
    steps: slice
    """columns of ``StoredState.steps``"""


PARTS = {
    "whole": Part(("density", "appearance"), slice(0, 13), slice(0, SCALES_WIDTH), slice(0, N_STEPS)),
    "density": Part(("density",), slice(0, 6), DENSITY, slice(0, 6)),
    "appearance": Part(("appearance",), slice(6, 13), APPEARANCE, slice(6, N_STEPS)),
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


def _require_shape(array: np.ndarray, shape: tuple[int, ...], what: str) -> None:
    if array.shape != shape:
        raise ModelFileError(f"the {what} has shape {array.shape}, but rank and grid ask for {shape}")
