"""What a model weighs: the one place where bytes of files are computed, and where a size is turned into ranks."""

import bisect
import itertools
import math

from tslim.config import Precision
from tslim.errors import ConfigError
from tslim.model.head import encode_head, layout_of
from tslim.model.header import CHECKSUM
from tslim.model.layout import RankLayout
from tslim.model.rounding import ROUNDINGS, convert
from tslim.model.state import FieldState, separate_ranks_of
from tslim.model.stored import StoredState, as_stored


def sizes(state: FieldState) -> list[int]:
    """The exact size in bytes of the file that ``write(state.slim(r))`` makes, for r = 1, 2, ..., R.

    A compact state is coded for it, which takes as long as writing it.
    """
    state = as_stored(state)
    whole = state.slim(state.rank if state.separate_ranks is None else min(state.separate_ranks))
    layout = layout_of(state)
    ends = itertools.accumulate(CHECKSUM.size + n for n in layout.lengths(state))
    heads = [len(encode_head(whole, layout_of(whole)))] * whole.rank
    if state.separate_ranks is not None:
        heads += [len(encode_head(state, layout))] * (state.rank - whole.rank)
    return [head + end for head, end in zip(heads, ends, strict=True)]


def size_of(state: FieldState) -> int:
    """The exact size in bytes of the file that ``write(state)`` makes."""
    return sizes(state)[-1]


def rank_that_fits(state: FieldState, max_mb: float) -> int:
    """The highest rank whose file has at most ``max_mb`` million bytes; ``ConfigError`` if rank 1 is too large."""
    known, most = sizes(state), _most_bytes(max_mb)
    rank = sum(size <= most for size in known)
    if rank < 1:
        raise ConfigError(f"no rank fits in {max_mb:g} MB: rank 1 takes {known[0] / 1e6:.3f} MB")
    return rank


def _most_bytes(mb: float) -> float:
    """How many bytes a file may have."""
    return round(mb * 1e6) if math.isfinite(mb) else mb


def fit(
    state: FieldState, max_mb: float, precision: Precision | None = None, rounding: float | None = None
) -> StoredState:
    """The state as ``convert`` makes it, with the most ranks whose file has at most ``max_mb`` million bytes.

    A compact file takes as coarse a rounding of ``ROUNDINGS`` as all ranks need to fit, unless one is given.
    Raises ``ConfigError`` if rank 1 is too large.
    """
    state = as_stored(state)
    if (precision or state.precision) != "compact" or rounding is not None:
        candidate = convert(state, precision, rounding)
    elif state.steps is not None and size_of(state) <= _most_bytes(max_mb):
        return state
    else:
        tried = {}

        def fits(rounding: float) -> bool:
            tried[rounding] = convert(state, "compact", rounding)
            return size_of(tried[rounding]) <= _most_bytes(max_mb)

        first = bisect.bisect_left(ROUNDINGS, True, key=fits)
        if first < len(ROUNDINGS):
            return tried[ROUNDINGS[first]]
        candidate = tried[ROUNDINGS[-1]]
    return candidate.slim(rank_that_fits(candidate, max_mb))


def size_of_pair(state: FieldState, density: int, appearance: int) -> int:
    """Bytes of the file of ``state.separate(density, appearance)`` in half or single precision, to within a few bytes
    too many, without making it."""
    low, high = sorted((density, appearance))
    tail = ("density" if density > appearance else "appearance", low)
    layout = RankLayout(state.grid, state.rank_scales is not None, as_stored(state).precision, tail)
    blocks = [CHECKSUM.size + layout.bytes_of(rank) for rank in range(high)]
    return sizes(state.slim(1))[0] + sum(blocks[1:]) + 64 * (low < high)


class Forecast:
    """Sizes of the files of a field in half precision, by rank, made from a host copy of its first rank alone.

    Args:
        first: the field's first rank.
        separate_ranks: ranks of density and of appearance where they differ.
    """

    def __init__(self, first: FieldState, separate_ranks: tuple[int, int] | None = None) -> None:
        self._block = RankLayout.of(first).bytes_of(0) + CHECKSUM.size
        self._head = size_of(first) - self._block
        self._separate_ranks = separate_ranks

    def bytes_of(self, rank: int) -> int:
        """Bytes of the file with the first ``rank`` ranks, to within a few."""
        density, appearance = separate_ranks_of(self._separate_ranks, rank) or (rank, rank)
        # Of the numbers of a rank, one of four is density's.
        return self._head + (density + 3 * appearance) * self._block // 4


def megabytes(n_bytes: int) -> str:
    """A size for people: 0.66 MB, 4.1 MB, 36.4 MB (10^6 bytes)."""
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 995_000 else f"{n_bytes / 1e6:.2f} MB"
