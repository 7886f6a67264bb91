"""Every rank of a field measured: some on all views, those between them on a few; and which ranks are worse than a
lower one.

PSNR on a few views is not that on all of them, but the difference between two ranks is nearly the same. So what ranks
were measured to have on a few views is corrected by the difference between all views and the few at the ranks around
them, which were measured on both.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tslim.measuring.evaluate import Measure, Measured, SweepRow, halves

if TYPE_CHECKING:
    from tslim.field.field import Field

FEWEST, SHARE = 3, 0.05
"""Ranks in between are measured on this share of the views, and on so many at least."""
FALL = 0.05
"""dB by which a rank may be below a lower one before that is said: less cannot be told on a few views."""


def n_renders(rank: int, n_views: int) -> int:
    """How many pictures ``every_rank`` renders."""
    main = len(halves(rank))
    return main * n_views + (rank - main) * _n_in_between(n_views)


def every_rank(field: "Field", measure: Measure) -> list[SweepRow]:
    """A row for every rank, highest first: the field's rank and its halves on all views, the others on a few.

    Errors are those of ``rank_sweep``; pictures are written of the ranks that are measured on all views.
    """
    main = {rank: measure.at(rank) for rank in halves(field.rank)}
    rows = {rank: measure.row(rank, found) for rank, found in main.items()}
    places = np.linspace(0, len(measure.counting) - 1, _n_in_between(len(measure.counting))).round().astype(int)
    indices = [measure.counting[place] for place in places]
    for rank in range(field.rank, 0, -1):
        if rank not in main:
            found = measure.at(rank, indices)
            if len(places) < len(measure.counting):
                found = _corrected(rank, found, main, places)
            row = measure.row(rank, found)
            all_of_them = len(places) == len(measure.counting)
            rows[rank] = row if all_of_them else dataclasses.replace(row, views=len(places))
    return [rows[rank] for rank in sorted(rows, reverse=True)]


def _n_in_between(n_views: int) -> int:
    return min(n_views, max(FEWEST, round(SHARE * n_views)))


def _corrected(rank: int, found: Measured, main: dict[int, Measured], places: np.ndarray) -> Measured:
    """What was found on the views at some places, moved to where it would be on all."""
    ranks = sorted(main)

    def by(name: str) -> float:
        with np.errstate(invalid="ignore"):  # pictures that are equal
            moves = [getattr(main[r], name).mean() - getattr(main[r], name)[places].mean() for r in ranks]
        return float(np.interp(rank, ranks, np.where(np.isfinite(moves), moves, 0)))

    lpips = None if found.lpips is None else found.lpips + by("lpips")
    return Measured(found.psnr + by("psnr"), found.ssim + by("ssim"), found.seconds, lpips)


def better_below(rows: Sequence[SweepRow], rank: int) -> SweepRow | None:
    """The best rank up to ``rank`` if it is a lower one; None if ``rank`` itself is the best, or was not measured."""
    mine = next((row for row in rows if row.rank == rank), None)
    if mine is None:
        return None
    best = max((row for row in rows if row.rank <= rank), key=lambda row: (row.psnr, -row.rank))
    return best if best.psnr > mine.psnr else None


def falls_text(rows: Sequence[SweepRow]) -> str:
    """In words, which ranks are clearly below a lower one; "" if none is."""
    found = []
    for row in sorted(rows, key=lambda row: row.rank):
        best = better_below(rows, row.rank)
        if best is not None and best.psnr - row.psnr > FALL:
            found.append(f"rank {row.rank} has {best.psnr - row.psnr:.2f} dB less than rank {best.rank}")
    return ", ".join(found)
