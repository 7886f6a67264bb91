"""Orders the ranks of a trained field by what they say, without photographs: what was trained whole becomes slimmable.

Density, mode by mode, is written in another basis in which every prefix is the best of its length: the same field.
Appearance is fitted so that all of its prefixes are as close as can be: nearly the same field (``nested_fit``). All
texels that occupied space reads count the same; counting them by how much of it does, or by how opaque that is, made no
difference to pictures.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from tslim.errors import ModelFileError
from tslim.model.nested_fit import held_by_pairs, held_by_triples, order_pairs, order_triples
from tslim.model.rounding import visible_texels
from tslim.model.state import N_FEATURES, FieldState
from tslim.model.tensorf import TRAINED_BY, UNORDERED

ROUNDS = 300
"""Rounds of the nested fit: more change nothing that can be seen."""
FULL_WEIGHT = 4.0
"""What the error of all ranks counts for in the nested fit: several times as much as that of any prefix."""
WITHOUT_ORDER = ("fixed", "bcd")
"""policies of training under which no rank comes to say more than another"""
REORDERED = "reordered"
"""Name in the metadata of a field whose ranks were put in order after training."""


class Held(NamedTuple):
    """How much of a field its prefixes hold: shares of the squares of its features, 1 where nothing is lost."""

    density: np.ndarray
    """(ranks of density,) by ranks kept"""
    appearance: np.ndarray
    """(ranks of appearance,)"""


def reordered(state: FieldState, rounds: int = ROUNDS) -> FieldState:
    """The field with its ranks in order: a copy, in no particular precision.

    Where ranks have scales and shifts, the last rank's are what the field is made with: the scales go into the factors,
    and every rank has the last one's shifts. What differs at full rank: density by rounding; appearance by what the
    nested fit leaves over, some hundredths of its squares after training at full rank alone.

    Args:
        state: of any space, with any number of ranks, which may differ between density and appearance.
        rounds: of the nested fit.

    Raises:
        ModelFileError: values that are not finite.
    """
    state = folded(state)
    arrays = (state.density_planes, state.density_lines, state.appearance_planes, state.appearance_lines, state.basis)
    if not all(np.isfinite(array).all() for group in arrays for array in group):
        raise ModelFileError("the model holds values that are not finite; the training has diverged")
    seen = visible_texels(state)
    ranks = state.separate_ranks or (state.rank, state.rank)
    planes, lines = [a.copy() for a in state.density_planes], [a.copy() for a in state.density_lines]
    for mode, weights in enumerate(_weights(seen)):
        some = slice(0, ranks[0])
        plane, lines[mode][some] = order_pairs(_rows(planes[mode][some]), lines[mode][some], *weights)
        planes[mode][some] = plane.reshape(planes[mode][some].shape)
    state = dataclasses.replace(state, density_planes=planes, density_lines=lines)
    planes, lines = [a.copy() for a in state.appearance_planes], [a.copy() for a in state.appearance_lines]
    basis = state.basis.copy()
    for mode, weights in enumerate(_weights(seen)):
        some = slice(0, 3 * ranks[1])
        plane, lines[mode][some], basis[mode, some] = order_triples(
            _rows(planes[mode][some]), lines[mode][some], basis[mode, some], *weights, prefix_weights(ranks[1]), rounds
        )
        planes[mode][some] = plane.reshape(planes[mode][some].shape)
    state = dataclasses.replace(state, appearance_planes=planes, appearance_lines=lines, basis=basis)
    state.metadata = state.metadata | {REORDERED: True}
    return state


def held(state: FieldState) -> Held:
    """How much of the field each of its prefixes holds, by what its planes, lines and basis say; scales and shifts that
    prefixes may have of their own are left out."""
    weights = _weights(visible_texels(state))
    ranks = state.separate_ranks or (state.rank, state.rank)
    density, appearance = np.zeros((2, ranks[0])), np.zeros((2, ranks[1]))
    for mode, on in enumerate(weights):
        planes, lines = state.density_planes[mode][: ranks[0]], state.density_lines[mode][: ranks[0]]
        density += held_by_pairs(_rows(planes), lines, *on)
        some = slice(0, 3 * ranks[1])
        planes, lines = state.appearance_planes[mode][some], state.appearance_lines[mode][some]
        appearance += held_by_triples(_rows(planes), lines, state.basis[mode, some], *on, ranks[1])
    return Held(*(1 - lost / np.maximum(whole, 1e-300) for lost, whole in (density, appearance)))


def is_unordered(state: FieldState) -> bool:
    """Whether the ranks are known to be in no order: by the policy of the field's training, and not reordered since."""
    if state.metadata.get(TRAINED_BY) == UNORDERED:
        return REORDERED not in state.metadata
    try:
        return REORDERED not in state.metadata and state.metadata["train"]["schedule"]["policy"] in WITHOUT_ORDER
    except (KeyError, TypeError):
        return False


def prefix_weights(ranks: int) -> np.ndarray:
    """(R,) what the error of each prefix counts for in the nested fit: every length, the shorter ones more."""
    weights = np.arange(1, ranks + 1) ** -0.5
    weights[-1] = FULL_WEIGHT
    return weights


def _rows(planes: np.ndarray) -> np.ndarray:
    return planes.reshape(len(planes), -1)


def _weights(seen: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(plane.ravel().astype(np.float64), line.astype(np.float64)) for plane, line in seen]


def folded(state: FieldState) -> FieldState:
    """The field at its last rank's scales and shifts, the scales within the factors, and no longer in a precision."""
    state = FieldState(**{f.name: getattr(state, f.name) for f in dataclasses.fields(FieldState)})
    state.metadata = {name: value for name, value in state.metadata.items() if name != "rounding"}
    if state.rank_scales is None:
        return state
    last = state.rank_scales[-1].copy()
    scales = slice(2, 2 + N_FEATURES)
    density_lines = [line * last[0] for line in state.density_lines]
    basis = state.basis * last[scales]
    last[0], last[scales] = 1, 1
    rank_scales = np.tile(last, (state.rank, 1))
    return dataclasses.replace(state, density_lines=density_lines, basis=basis, rank_scales=rank_scales)
