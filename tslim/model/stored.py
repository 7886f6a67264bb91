"""A field as the numbers of a model file: in half or single precision, or in the steps of a compact one."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from tslim.config import Precision
from tslim.model.layout import PARTS
from tslim.model.state import FieldState
from tslim.model.table import SizeTable


@dataclass(eq=False)
class StoredState(FieldState):
    """What is read from a file, or is to be written to one: its arrays hold what the precision can."""

    precision: Precision = "float16"
    """of the file that it was read from, and of the one that it would be written to"""
    steps: np.ndarray | None = None
    """(R, 24) f32 where the precision is compact, for every plane and line its own; 1 where it holds nothing"""
    pulls: np.ndarray | None = None
    """(R, 2, 12, 2) i8 where the precision is compact: how texels are expected from those around, from where planes and
    lines go in whole steps (``neighbours.py``); 0 where they hold multiples of their steps, as in older files"""
    table: SizeTable | None = None
    """of the file that it was read from, as long as its ranks are as they are there"""

    @classmethod
    def of(cls, state: FieldState, precision: Precision = "float16", steps: np.ndarray | None = None) -> "StoredState":
        """The state in a precision, sharing its arrays."""
        values = {f.name: getattr(state, f.name) for f in dataclasses.fields(FieldState)}
        return cls(**values, precision=precision, steps=steps)

    def slim(self, rank: int) -> "StoredState":
        """As ``FieldState.slim``."""
        state = super().slim(rank)
        state.steps = None if self.steps is None else self.steps[:rank]
        state.pulls = None if self.pulls is None else self.pulls[:rank]
        return state

    def separate(self, density_rank: int, appearance_rank: int) -> "StoredState":
        """As ``FieldState.separate``."""
        state = super().separate(density_rank, appearance_rank)
        state.table = None if density_rank != appearance_rank else self.table
        if state.steps is not None and density_rank != appearance_rank:
            missing = "appearance" if density_rank > appearance_rank else "density"
            state.steps = state.steps.copy()
            state.steps[min(density_rank, appearance_rank) :, PARTS[missing].steps] = 1
        if state.pulls is not None and density_rank != appearance_rank:
            state.pulls = state.pulls.copy()
            state.pulls[min(density_rank, appearance_rank) :, int(density_rank > appearance_rank)] = 0
        return state


def as_stored(state: FieldState) -> StoredState:
    """The state as it is if it is stored in some precision, else in half precision."""
    return state if isinstance(state, StoredState) else StoredState.of(state)
