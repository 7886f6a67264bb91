"""Rounding planes and lines to steps that matter alike, for compact files.

A component adds plane · line · basis row to the features. Where its line has root mean square l and its basis row norm
b (1 for density), with the scale that its rank gives to the features, a plane in steps of ``rounding`` / (l b) moves
them as much as any other component's, and so do lines, the other way round; they take steps ``FINER`` times finer, as a
whole slab reads each of their few numbers, and the density of an object in a box takes steps ``COARSER`` times coarser:
hard surfaces stay where they are. What matters little is left with few steps, or none. Steps are taken from where the
texels around say that one is (``neighbours.py``). Texels that only empty space would read become zero. The decoder's
matrices take steps that are a power of two for each column, so fine that pictures stay as they are.

What both factors are worth: docs/labbook/2026-11-sizes.md.
"""

import numpy as np

from tslim.config import Precision
from tslim.errors import ConfigError, ModelFileError
from tslim.model import neighbours
from tslim.model.entropy import MOST
from tslim.model.layout import DTYPES, N_STEPS, RankLayout
from tslim.model.passes import Texels, components, groups_of
from tslim.model.state import LINE_AXES, N_FEATURES, PLANE_AXES, FieldState
from tslim.model.stored import StoredState, as_stored

ROUNDING = 0.1
"""unless asked otherwise"""
ROUNDINGS = (0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.57)
"""that are tried, for a file of a given size, before ranks are dropped: beyond the last, ranks are the lesser loss"""
MOST_ROUNDING = 10.0
FINER = 6
COARSER = 1.8
_MOST_EXPONENT = 100
_SLACK = 1e-3
"""How far from its cell, in texels, a sample may be found by its arithmetic."""
_TINY = 1e-30


def convert(state: FieldState, precision: Precision | None = None, rounding: float | None = None) -> StoredState:
    """The state as it is to be written: in its own precision if None, else in that one.

    Args:
        rounding: how coarse the steps of a compact file are: what one of them changes in the features. Those that the
            state has if None, else ``ROUNDING``.

    Raises:
        ConfigError: a rounding that is out of range, or for another precision.
        ModelFileError: a compact state is wanted of arrays that do not fit together, or of values that are not finite.
    """
    state = as_stored(state)
    precision = precision or state.precision
    if precision not in DTYPES:
        raise ConfigError(f"unknown precision {precision!r}; known: {', '.join(DTYPES)}")
    if precision != "compact":
        if rounding is not None:
            raise ConfigError(f"rounding is for files of precision compact, not {precision}")
        return state if state.precision == precision else StoredState.of(state, precision)
    if rounding is None and state.steps is not None:
        return state
    return rounded(state, ROUNDING if rounding is None else rounding)


def rounded(state: FieldState, rounding: float = ROUNDING) -> StoredState:
    """The state as a compact file would give it back, but for numbers that are in half precision there: a copy, with
    its steps, and with the rounding among its metadata.

    Raises:
        ConfigError: a rounding that is not above 0 and at most ``MOST_ROUNDING``.
        ModelFileError: arrays that do not fit together, or values that are not finite.
    """
    if not 0 < rounding <= MOST_ROUNDING:
        raise ConfigError(f"rounding {rounding:g}: expected a number above 0 and at most {MOST_ROUNDING:g}")
    layout = RankLayout.of(state)
    visible = visible_texels(state)
    every_step = np.ones((state.rank, N_STEPS), np.float32)
    result = StoredState.of(state, "compact", every_step)
    result.metadata = state.metadata | {"rounding": float(rounding)}
    result.decoder = {name: _rounded_matrix(array, name) for name, array in state.decoder.items()}
    result.pulls = np.zeros((state.rank, *neighbours.PULLS), np.int8)
    of_density = rounding * (COARSER if state.space == "box" else 1)
    for kind, per_rank, first, moves in (("density", 1, 0, of_density), ("appearance", 3, 6, rounding)):
        held = slice(0, state.rank if state.separate_ranks is None else state.separate_ranks[kind == "appearance"])
        for mode in range(3):
            plane_seen, line_seen = visible[mode]
            plane = np.where(plane_seen, getattr(state, f"{kind}_planes")[mode], np.float32(0))
            line = np.where(line_seen, getattr(state, f"{kind}_lines")[mode], np.float32(0))
            weight = _weights(state, kind, mode)
            of_plane = _steps(plane, moves, _rms(line, line_seen) * weight)
            of_line = _steps(line, moves / FINER, _rms(plane, plane_seen) * weight)
            at = first + 2 * per_rank * mode
            for steps, column in ((of_plane, at), (of_line, at + per_rank)):
                columns = slice(column, column + per_rank)
                every_step[held, columns] = steps.reshape(state.rank, per_rank)[held]
        for name in (f"{kind}_planes", f"{kind}_lines"):
            setattr(result, name, [np.zeros_like(array, np.float32) for array in getattr(state, name)])
    texels = texels_of(state)
    for rank in range(state.rank):
        _round_rank(state, result, layout, texels, rank)
    return result


def _round_rank(state: FieldState, result: StoredState, layout: RankLayout, texels: list[Texels], rank: int) -> None:
    """Fills planes, lines and pulls of the result at 0-based ``rank``."""
    assert result.steps is not None and result.pulls is not None
    part = layout.part(rank)
    parts = result.steps[rank, part.steps] / np.float32(neighbours.PARTS)
    wanted, groups = groups_of(texels, part.kinds, np.float32), groups_of(texels, part.kinds)
    most = neighbours.LEVELS * neighbours.PARTS
    for into, array, unit in zip(components(wanted), layout.split(state, rank)[0], parts, strict=True):
        np.clip(np.divide(array, unit, out=into.reshape(array.shape)), -most, most, out=into.reshape(array.shape))
    result.pulls[rank] = neighbours.rounded(groups, wanted)
    for array, values, unit in zip(layout.split(result, rank)[0], components(groups), parts, strict=True):
        np.multiply(values.reshape(array.shape), unit, out=array)


def decoder_exponents(matrix: np.ndarray, name: str) -> np.ndarray:
    """(columns,) int8 powers of two: steps as fine as they can be so that no number takes more than ``MOST`` of them.

    Raises ``ModelFileError`` for numbers that are not finite, or far too large.
    """
    if not np.isfinite(matrix).all():
        raise ModelFileError(f"decoder array {name} holds values that are not finite; the training has diverged")
    exponents = np.frexp(np.abs(matrix).max(0, initial=0).astype(np.float64) / (MOST + 0.49))[1]
    if exponents.max(initial=0) > _MOST_EXPONENT:
        raise ModelFileError(f"decoder array {name} holds a value too large for a compact file; write it as float32")
    return np.maximum(exponents, -_MOST_EXPONENT).astype(np.int8)


def _rounded_matrix(array: np.ndarray, name: str) -> np.ndarray:
    """A decoder's array in its steps, if it is a matrix."""
    if array.ndim != 2:
        return array
    exponents = decoder_exponents(array, name).astype(int)
    return np.ldexp(np.rint(np.ldexp(array.astype(np.float64), -exponents)), exponents).astype(np.float32)


def _weights(state: FieldState, kind: str, mode: int) -> np.ndarray:
    """(components,) what plane · line counts for in the features, at the component's own rank."""
    if kind == "density":
        return np.ones(state.rank) if state.rank_scales is None else np.abs(state.rank_scales[:, 0])
    scales = 1.0 if state.rank_scales is None else np.repeat(state.rank_scales[:, 2 : 2 + N_FEATURES], 3, axis=0)
    return np.linalg.norm(state.basis[mode] * scales, axis=1)


def _rms(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(components,) root mean square of what is seen."""
    flat = values.reshape(len(values), -1)
    return np.sqrt(np.square(flat, dtype=np.float64).sum(1) / max(int(seen.sum()), 1))


def _steps(values: np.ndarray, rounding: float, weight: np.ndarray) -> np.ndarray:
    """(components,) f32 size of a step, given what a change of 1 does to the features."""
    most = np.abs(values.reshape(len(values), -1)).max(1)
    if not np.isfinite(most + weight).all():
        raise ModelFileError("the model holds values that are not finite; the training has diverged")
    return np.maximum(rounding / np.maximum(weight, _TINY), most / neighbours.LEVELS).astype(np.float32)


def texels_of(state: FieldState) -> list[Texels]:
    """Of each mode the plane's, then the line's, that are coded: those that are visible."""
    return [Texels(seen) for mode in visible_texels(state) for seen in mode]


def visible_texels(state: FieldState) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per mode, which texels of the plane (G_v, G_u) and the line (G_w,) a sample in occupied space can read."""
    if state.occupancy is None:
        grid = state.grid
        return [
            (np.ones((grid[v], grid[u]), bool), np.ones(grid[w], bool))
            for (u, v), w in zip(PLANE_AXES, LINE_AXES, strict=True)
        ]
    cells, box = state.occupancy, np.asarray(state.box, np.float32)
    lattice = box if state.occupancy_box is None else np.asarray(state.occupancy_box, np.float32)
    reads = [
        _texels_of_cells(cells.shape[2 - axis], lattice[:, axis], state.grid[axis], box[:, axis]) for axis in range(3)
    ]
    visible = []
    for (u, v), w in zip(PLANE_AXES, LINE_AXES, strict=True):
        columns = cells.any(axis=2 - w).astype(np.float32)
        slabs = cells.any(axis=(2 - u, 2 - v)).astype(np.float32)
        visible.append((reads[v].T @ columns @ reads[u] > 0, slabs @ reads[w] > 0))
    return visible


def _texels_of_cells(n_cells: int, lattice: np.ndarray, n_texels: int, box: np.ndarray) -> np.ndarray:
    """(cells, texels) f32: 1 where a sample in the cell can read the texel. Outer cells reach the ends of the box."""
    edges = np.linspace(float(lattice[0]), float(lattice[1]), n_cells + 1)
    at = (edges - float(box[0])) * (n_texels - 1) / (float(box[1]) - float(box[0]))
    at[0], at[-1] = min(at[0], 0), max(at[-1], n_texels - 1)
    first, last = np.floor(at[:-1] - _SLACK), np.ceil(at[1:] + _SLACK)
    texels = np.arange(n_texels)
    return ((texels >= first[:, None]) & (texels <= last[:, None])).astype(np.float32)
