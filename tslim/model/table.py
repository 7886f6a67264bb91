"""What each rank of a model file takes and is worth, as its header says: enough to choose where to cut it before it is
all there."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_RANKS = 65_536
_DECIBELS = -100.0, 200.0


@dataclass(frozen=True)
class SizeTable:
    """Size and quality of each rank of a whole file, which may have been cut since; rank r is entry r - 1."""

    blocks: tuple[int, ...]
    """bytes of each rank with its checksum"""
    psnr: tuple[float | None, ...]
    """mean over test views of the model slimmed to each rank, in dB; None where it was not measured"""

    @classmethod
    def of(cls, blocks: Sequence[int], psnr: Mapping[int, float] | None = None) -> "SizeTable":
        """The table of ranks that take so many bytes each; ``psnr``, in dB by rank, is rounded to a hundredth."""
        known = {rank: round(value, 2) for rank, value in (psnr or {}).items() if math.isfinite(value)}
        return cls(tuple(blocks), tuple(known.get(rank) for rank in range(1, len(blocks) + 1)))

    @classmethod
    def parse(cls, value: Any) -> "SizeTable":
        """From a header's json; raises ``ValueError`` for what is no table."""
        blocks, psnr = value["blocks"], value["psnr"]
        if not isinstance(blocks, list) or not isinstance(psnr, list) or len(blocks) != len(psnr):
            raise ValueError("a table of sizes without as many sizes as qualities")
        if not 1 <= len(blocks) <= MOST_RANKS or not all(type(n) is int and 0 < n < 2**40 for n in blocks):
            raise ValueError("a table of sizes that are none")
        low, high = _DECIBELS
        if not all(v is None or (type(v) in (int, float) and low <= v <= high) for v in psnr):
            raise ValueError("a table of qualities that are none")
        return cls(tuple(blocks), tuple(None if v is None else float(v) for v in psnr))

    def plain(self) -> dict[str, Any]:
        """As json data."""
        return {"blocks": list(self.blocks), "psnr": list(self.psnr)}

    def starts_with(self, blocks: Sequence[int]) -> bool:
        """Whether ranks that take so many bytes are the first of those that it speaks of."""
        return list(self.blocks[: len(blocks)]) == list(blocks) and len(blocks) > 0

    def sizes(self, fixed: int) -> list[int]:
        """Bytes of the file slimmed to each rank, of which ``fixed`` precede the ranks."""
        return [fixed + end for end in itertools.accumulate(self.blocks)]

    @property
    def quality(self) -> dict[int, float]:
        """dB by rank, where it was measured."""
        return {rank: value for rank, value in enumerate(self.psnr, start=1) if value is not None}
