"""What a model file says about itself before its ranks."""

import dataclasses
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from tslim.config import FieldConfig
from tslim.model.table import SizeTable
from tslim.scene.domain import Domain, InDomain

MAGIC = b"\x93TSLIM\r\n"
VERSION, SEPARATE_VERSION, BZ2_VERSION, WHOLE_VERSION, COMPACT_VERSION = 1, 2, 3, 4, 5
"""Models whose density and appearance differ in rank say so by the second, compact ones of either sort by the fifth,
and once by the third and the fourth."""
CODED_VERSIONS = (WHOLE_VERSION, COMPACT_VERSION)
"""Versions whose header is deflated, and whose decoder and occupancy are coded."""
CHECKSUM = struct.Struct("<I")
"""crc32 before each rank's block"""
PRELUDE = struct.Struct("<8sIII")
MOST_HEADER = 4_000_000
"""Most bytes of a header's json."""


@dataclass(frozen=True, eq=False)
class ModelHeader(InDomain):
    """What a model file says about itself without its ranks being read."""

    version: int
    config: FieldConfig
    """``max_rank`` is the number of whole ranks present"""
    domain: Domain
    grid: tuple[int, int, int]
    precision: str
    decoder: dict[str, tuple[int, ...]]
    """shapes by name"""
    occupancy: tuple[int, int, int] | None
    """cells along z, y, x"""
    occupancy_box: np.ndarray | None
    occupancy_coding: str
    """bits: 8 cells a byte in C order; deflate: the same, compressed; waves: see ``cells.py``"""
    shared_crc32: int
    rank_scales: bool
    metadata: dict[str, Any]
    shared_at: int
    """byte at which the decoder starts"""
    fixed_bytes: int
    """before the first rank"""
    n_bytes: int = 0
    """of the file"""
    ends: tuple[int, ...] = ()
    """byte after each whole rank"""
    tail: tuple[str, int] | None = None
    """(kind, n): ranks after the first n have only "density" or only "appearance"; None if all have both"""
    table: SizeTable | None = None
    """what each rank takes and is worth, of the whole file from which this one may have been cut"""

    @property
    def rank(self) -> int:
        """Whole ranks present in the file."""
        return self.config.max_rank

    @property
    def spare_bytes(self) -> int:
        """Bytes after the last whole rank: not zero if the file was cut inside a block."""
        return self.n_bytes - self.bytes_at(self.rank)

    @property
    def separate_ranks(self) -> tuple[int, int] | None:
        """Ranks of density and of appearance where they differ (``FieldState.separate_ranks``)."""
        return self.separate_ranks_at(self.rank)

    def separate_ranks_at(self, rank: int) -> tuple[int, int] | None:
        """The same of the model slimmed to ``rank``."""
        if self.tail is None or rank <= self.tail[1]:
            return None
        return (rank, self.tail[1]) if self.tail[0] == "density" else (self.tail[1], rank)

    def config_at(self, rank: int) -> FieldConfig:
        """The config of the model slimmed to ``rank``."""
        return dataclasses.replace(self.config, max_rank=rank)

    def bytes_at(self, rank: int) -> int:
        """Size of the model slimmed to ``rank``: as many first bytes of this file are that model."""
        return self.ends[rank - 1]

    def with_ends(self, ends: tuple[int, ...], n_bytes: int) -> "ModelHeader":
        """The header of a file of so many bytes in which ranks end there."""
        return dataclasses.replace(self, config=self.config_at(len(ends)), ends=ends, n_bytes=n_bytes)
