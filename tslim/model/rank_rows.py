"""The scale and shift of each rank: learned where training renders a rank, interpolated between such ranks.

A row that no ray is rendered with is not learned. While training it follows the rows around it, step by step, so that
it never lags behind what all ranks share (``Field.interpolate_rows``). Models that were written before it did have rows
from the middle of their training; they are put right when they are read.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from tslim import config
from tslim.config import FieldConfig, ScheduleConfig
from tslim.errors import ConfigError
from tslim.model.state import APPEARANCE, DENSITY, FieldState

RENDERED = "rendered"
"""Metadata of a trained field: the ranks that steps rendered last. Rows of others lie between those of these."""
WITH_PREFIXES = ("staged", "bounded", "ordered")
"""Policies under which prefix ranks are rendered to the end"""


def brackets(n: int, rendered: Iterable[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the row of each of ``n`` ranks is made of: (n,) rows below and above it, from 0, and shares of the latter.

    A rendered rank (from 1) is its own neighbour; ranks beyond the first and the last rendered have the nearest's row.

    Raises ``ConfigError`` if none of the ranks is rendered.
    """
    known = np.array(sorted(rank - 1 for rank in set(rendered) if 1 <= rank <= n))
    if not len(known):
        raise ConfigError(f"none of ranks 1 to {n} is rendered")
    rows = np.arange(n)
    below = known[np.maximum(np.searchsorted(known, rows, side="right") - 1, 0)]
    above = known[np.minimum(np.searchsorted(known, rows), len(known) - 1)]
    share = np.where(above > below, rows - below, 0) / np.maximum(above - below, 1)
    return below.astype(np.int32), above.astype(np.int32), share.astype(np.float32)


def heal(state: FieldState, rendered: Iterable[int]) -> None:
    """Interpolates, in place, the rows of a state between the ranks that its training rendered; of density and of
    appearance as far as each reaches. Writes down that it did.
    """
    if state.rank_scales is None:
        return
    state.metadata = state.metadata | {RENDERED: sorted(rendered)}
    n_of_kind = state.separate_ranks or (state.rank, state.rank)
    for n, columns in zip(n_of_kind, (DENSITY, APPEARANCE), strict=True):
        if any(1 <= rank <= n for rank in rendered):
            below, above, share = brackets(n, rendered)
            low, high = state.rank_scales[below, columns], state.rank_scales[above, columns]
            state.rank_scales[:n, columns] = low + share[:, None] * (high - low)


def heal_from(metadata: dict[str, Any], n: int) -> tuple[int, ...]:
    """The ranks between which ``heal`` has to interpolate in a file of ``n`` ranks; () if there is no need to.

    Training has noted them since it keeps all rows up to date. What was written before is told by its settings: the
    prefixes that steps rendered to the end, and the full rank. Where a trained model lacks its settings, they are taken
    to be those of the presets, as others had no rows unless asked to.
    """
    if RENDERED in metadata or not {"train", "march"} & set(metadata):
        return ()
    try:
        trained = config.from_dict(metadata["train"])
        schedule, full = trained.schedule, int(trained.field.max_rank)
        drawn = schedule.policy in WITH_PREFIXES and (schedule.prefixes_per_ray or schedule.prefix_share)
        prefixes = [int(rank) for rank in schedule.prefix_ranks]
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError):
        return tuple(sorted({*ScheduleConfig().prefix_ranks, max(FieldConfig().max_rank, n)}))
    if schedule.policy == "all_prefixes" or (drawn and not prefixes):
        return ()
    return tuple(sorted({rank for rank in prefixes if drawn and rank < full} | {full}))
