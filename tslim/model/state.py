"""A field as plain numpy arrays: what a model file holds, and how fields pass between devices."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from tslim.config import FieldConfig
from tslim.errors import ConfigError
from tslim.scene.domain import Domain, InDomain

PLANE_AXES = ((0, 1), (0, 2), (1, 2))
"""(u, v) axes of each mode's plane; an array of texels is indexed [v, u]."""
LINE_AXES = (2, 1, 0)
N_FEATURES = 27
SCALES_WIDTH = 2 * (1 + N_FEATURES)
"""Numbers in a row of ``FieldState.rank_scales``: scale and shift of the density feature, then of the colour
features."""
DENSITY, APPEARANCE = slice(0, 2), slice(2, SCALES_WIDTH)
"""columns of a row of ``FieldState.rank_scales``"""


_State = TypeVar("_State", bound="FieldState")


@dataclass(eq=False)
class FieldState(InDomain):
    """A field as plain numpy arrays in float32.

    R is ``config.max_rank``, G the grid sides along the axes that ``PLANE_AXES`` and ``LINE_AXES`` name.
    """

    config: FieldConfig
    domain: Domain
    """where the field lies"""
    grid: tuple[int, int, int]
    """texels along x, y, z"""
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
    rank_scales: np.ndarray | None
    """(R, 56) or None; row r-1 serves active rank r: density scale and shift, 27 feature scales, 27 shifts"""
    decoder: dict[str, np.ndarray]
    """the decoder's parameters by name"""
    occupancy: np.ndarray | None = None
    """(oz, oy, ox) bool cells, or None"""
    occupancy_box: np.ndarray | None = None
    """(2, 3) corners of the occupancy grid; the field's box if None"""
    metadata: dict[str, Any] = field(default_factory=dict)
    """provenance: json data, kept when slimming"""
    separate_ranks: tuple[int, int] | None = None
    """ranks of density and of appearance where they differ: R is the higher of them, and the components of the other
    kind above its own rank are zero; see ``separate``"""

    @property
    def rank(self) -> int:
        """The number of ranks held."""
        return self.config.max_rank

    def slim(self: _State, rank: int) -> _State:
        """The first ``rank`` ranks, sharing memory. Raises ``ConfigError`` outside 1..R."""
        require_rank(rank, self.rank)
        return dataclasses.replace(
            self,
            separate_ranks=separate_ranks_of(self.separate_ranks, rank),
            config=dataclasses.replace(self.config, max_rank=rank),
            density_planes=[a[:rank] for a in self.density_planes],
            density_lines=[a[:rank] for a in self.density_lines],
            appearance_planes=[a[: 3 * rank] for a in self.appearance_planes],
            appearance_lines=[a[: 3 * rank] for a in self.appearance_lines],
            basis=self.basis[:, : 3 * rank],
            rank_scales=None if self.rank_scales is None else self.rank_scales[:rank],
        )

    def separate(self: _State, density_rank: int, appearance_rank: int) -> _State:
        """So many ranks of density, and so many of appearance, each with the scale and shift of its own rank.

        A copy where the two differ. Raises ``ConfigError`` outside what there is.
        """
        most = self.separate_ranks or (self.rank, self.rank)
        require_rank(density_rank, most[0], "the density has")
        require_rank(appearance_rank, most[1], "the appearance has")
        low, high = sorted((density_rank, appearance_rank))
        state = self.slim(high)
        if low == high:
            return state
        state = dataclasses.replace(state, separate_ranks=(density_rank, appearance_rank))
        kind, per_rank = ("appearance", 3) if density_rank == high else ("density", 1)
        for name in (f"{kind}_planes", f"{kind}_lines"):
            setattr(state, name, [_cut(a, per_rank * low) for a in getattr(state, name)])
        if kind == "appearance":
            state.basis = _cut(state.basis.swapaxes(0, 1), 3 * low).swapaxes(0, 1)
        if state.rank_scales is not None:
            state.rank_scales = state.rank_scales.copy()
            state.spread_rank_scales()
        return state

    def spread_rank_scales(self) -> None:
        """Gives the ranks that only one kind has the other kind's scale and shift at its last rank, in place."""
        if self.separate_ranks is None or self.rank_scales is None:
            return
        low = min(self.separate_ranks)
        columns = APPEARANCE if self.separate_ranks[0] > self.separate_ranks[1] else DENSITY
        self.rank_scales[low:, columns] = self.rank_scales[low - 1, columns]


def separate_ranks_of(separate_ranks: tuple[int, int] | None, rank: int) -> tuple[int, int] | None:
    """What ``FieldState.separate_ranks`` is after slimming to ``rank``."""
    if separate_ranks is None or rank <= min(separate_ranks):
        return None
    return (min(separate_ranks[0], rank), min(separate_ranks[1], rank))


def _cut(array: np.ndarray, n: int) -> np.ndarray:
    """A copy with zeros from entry n on."""
    array = array.copy()
    array[n:] = 0
    return array


def require_rank(rank: int, most: int, what: str = "the model has") -> None:
    """Raises ``ConfigError`` unless 1 <= rank <= most."""
    if not 1 <= rank <= most:
        raise ConfigError(f"rank {rank} asked for, {what} ranks 1 to {most}")
