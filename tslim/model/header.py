"""The header of a model file: written from a state, and parsed without believing a word of it.

Nothing is allocated by a length that the header states before that length has been compared with the file's size.
"""

import dataclasses
import json
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from tslim.config import FieldConfig, Space, from_dict, require_valid_field
from tslim.errors import ModelFileError
from tslim.model import metadata
from tslim.model.compact import layout_kind
from tslim.model.layout import RankLayout, to_bytes
from tslim.model.state import FieldState
from tslim.scene.domain import SPACES, Domain, InDomain

MAGIC = b"\x93TSLIM\r\n"
VERSION, SEPARATE_VERSION, COMPACT_VERSION = 1, 2, 3
"""Models whose density and appearance differ in rank say so by the second, compact ones of either sort by the third."""
CHECKSUM = struct.Struct("<I")
"""crc32 before each rank's block"""
MAX_CELLS = 2**28
"""of an occupancy grid: more than 640³"""
_PRELUDE = struct.Struct("<8sIII")
_MAX_HEADER = 4_000_000
_MAX_SIDE = 65_536


@dataclass(frozen=True, eq=False)
class ModelHeader(InDomain):
    """What a model file says about itself without its ranks being read."""

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
    """bits: 8 cells a byte in C order; deflate: the same, compressed"""
    shared_crc32: int
    affine: bool
    metadata: dict[str, Any]
    shared_at: int
    """byte at which the decoder starts"""
    n_bytes: int
    """of the file"""
    fixed_bytes: int
    """before the first rank"""
    ends: tuple[int, ...]
    """byte after each whole rank"""
    tail: tuple[str, int] | None = None
    """(kind, n): ranks after the first n have only "density" or only "appearance"; None if all have both"""

    @property
    def rank(self) -> int:
        """Whole ranks present in the file."""
        return self.config.max_rank

    @property
    def spare_bytes(self) -> int:
        """Bytes after the last whole rank: not zero if the file was cut inside a block."""
        return self.n_bytes - self.bytes_at(self.rank)

    @property
    def kept(self) -> tuple[int, int] | None:
        """Ranks of density and of appearance where they differ (``FieldState.kept``)."""
        if self.tail is None or self.rank <= self.tail[1]:
            return None
        return (self.rank, self.tail[1]) if self.tail[0] == "density" else (self.tail[1], self.rank)

    def config_at(self, rank: int) -> FieldConfig:
        """The config of the model slimmed to ``rank``."""
        return dataclasses.replace(self.config, max_rank=rank)

    def bytes_at(self, rank: int) -> int:
        """Size of the model slimmed to ``rank``: as many first bytes of this file are that model."""
        return self.ends[rank - 1]


def encode_head(state: FieldState, layout: RankLayout) -> bytes:
    """Everything before the ranks: prelude, header, decoder and occupancy.

    Raises ``ModelFileError`` for what ``decode_header`` would not accept.
    """
    coding, packed = "bits", b""
    if state.occupancy is not None:
        if state.occupancy.ndim != 3 or not 0 < state.occupancy.size <= MAX_CELLS:
            raise ModelFileError(f"occupancy has shape {state.occupancy.shape}; at most {MAX_CELLS} cells are accepted")
        packed = np.packbits(state.occupancy.astype(bool).ravel()).tobytes()
        deflated = zlib.compress(packed, 9)
        if len(deflated) < len(packed):
            coding, packed = "deflate", deflated
    decoder = [to_bytes(a, layout.dtype, f"decoder array {name}") for name, a in state.decoder.items()]
    shared = b"".join(decoder) + packed
    return _encode_header(state, layout, coding=coding, packed=packed, shared=shared) + shared


def _encode_header(state: FieldState, layout: RankLayout, *, coding: str, packed: bytes, shared: bytes) -> bytes:
    """Prelude and header of a state whose occupancy is coded as ``packed``, the last bytes of ``shared``.

    The same bytes whatever the number of ranks. Raises ``ModelFileError`` for what ``read_header`` would not accept.
    """
    occupancy = None
    if state.occupancy is not None:
        box = state.box if state.occupancy_box is None else state.occupancy_box
        occupancy = {"shape": state.occupancy.shape, "box": _floats(box), "coding": coding, "bytes": len(packed)}
    config = dataclasses.asdict(state.config)
    del config["max_rank"]
    described = {
        "config": config,
        "box": _floats(state.box),
        "grid": [int(n) for n in state.grid],
        "near": float(state.near),
        "far": float(state.far),
        "space": state.space,
        "cube": None if state.cube is None else _floats(state.cube),
        "background": None if state.background is None else _floats(state.background),
        "dtype": layout.precision,
        "affine": layout.affine,
        "decoder": {name: a.shape for name, a in state.decoder.items()},
        "occupancy": occupancy,
        "shared_crc32": zlib.crc32(shared),
        "metadata": state.metadata,
    }
    if layout.tail is not None:
        described["tail"] = {"kind": layout.tail[0], "after": layout.tail[1]}
    try:
        text = json.dumps(described, default=_plain, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"the model's metadata is not plain data: {error}") from error
    if len(text) > _MAX_HEADER:
        raise ModelFileError(f"the model's metadata takes {len(text)} bytes; at most {_MAX_HEADER} are accepted")
    version = VERSION if layout.tail is None else SEPARATE_VERSION
    version = COMPACT_VERSION if layout.precision == "compact" else version
    _parse(text, 0, len(shared), "the model", version, lambda _, at: (at,) * state.rank)
    return _PRELUDE.pack(MAGIC, version, len(text), zlib.crc32(text)) + text


def _plain(value: Any) -> Any:
    """numpy values and paths as json data."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be stored as json")


def _floats(values: Any) -> list:
    """In single precision, as they are read: what is read and written again is the same."""
    return np.asarray(values, np.float32).tolist()


def decode_header(source: BinaryIO, path: Path) -> ModelHeader:
    """Reads prelude and header of an open file; raises ``ModelFileError`` unless rank 1 is there as a whole."""
    n_bytes = source.seek(0, 2)
    source.seek(0)
    start = source.read(_PRELUDE.size)
    if start[: len(MAGIC)] != MAGIC[: len(start)] or not start:
        raise ModelFileError(f"{path} is not a tslim model file")
    if len(start) < _PRELUDE.size:
        raise ModelFileError(f"{path} is cut short: it ends within its header")
    _, version, length, checksum = _PRELUDE.unpack(start)
    if not VERSION <= version <= COMPACT_VERSION:
        known = f"{VERSION} to {COMPACT_VERSION}"
        raise ModelFileError(f"{path} is a model file of version {version}; this tslim reads versions {known}")
    if length > _MAX_HEADER:
        raise ModelFileError(f"{path} is damaged: it claims a header of {length} bytes")
    text = source.read(length)
    if len(text) < length:
        raise ModelFileError(f"{path} is cut short: it ends within its header")
    if zlib.crc32(text) != checksum:
        raise ModelFileError(f"{path} is damaged: its header does not match its checksum")
    return _parse(
        text, source.tell(), n_bytes, str(path), version, lambda layout, at: _ends(layout, at, source, n_bytes)
    )


def _ends(layout: RankLayout, at: int, source: BinaryIO, n_bytes: int) -> tuple[int, ...]:
    """Where each whole rank of an open file ends, the first of which starts at byte ``at``."""
    ends: list[int] = []
    while True:
        at += CHECKSUM.size
        at += layout.length_at(source, at, len(ends))
        if at > n_bytes:
            return tuple(ends)
        ends.append(at)


Ends = Callable[[RankLayout, int], tuple[int, ...]]
"""Where ranks end, by their layout and the byte at which the first of them starts."""


def _parse(text: bytes, shared_at: int, n_bytes: int, name: str, version: int, ends: Ends) -> ModelHeader:
    """A header's json, in a file of ``n_bytes``; raises ``ModelFileError`` that starts with ``name``."""
    try:
        header = _interpret(json.loads(text), shared_at, n_bytes, version, ends)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise ModelFileError(f"{name} has a header that makes no sense: {type(error).__name__}: {error}") from error
    if header.rank < 1:
        raise ModelFileError(f"{name} is cut short: it ends within its first rank")
    return header


def _interpret(d: dict[str, Any], shared_at: int, n_bytes: int, version: int, ends: Ends) -> ModelHeader:
    """Checks every entry. Sizes are Python integers, so that no lie overflows."""
    grid = _sides(d["grid"], low=2)
    decoder = {name: _sides(shape, low=0, n=None) for name, shape in d["decoder"].items()}
    if (d["dtype"] == "compact") != (version == COMPACT_VERSION):
        raise ValueError(f"precision {d['dtype']!r} in a file of version {version}")
    layout = layout_kind(d["dtype"])(grid, bool(d["affine"]), d["dtype"], _tail(d, version))
    fixed = shared_at + sum(map(math.prod, decoder.values())) * layout.dtype.itemsize
    cells, cells_box, coding = None, None, "bits"
    if d["occupancy"] is not None:
        cells, coding = _sides(d["occupancy"]["shape"], low=1), d["occupancy"]["coding"]
        if math.prod(cells) > MAX_CELLS or coding not in ("bits", "deflate"):
            raise ValueError(f"occupancy of {math.prod(cells)} cells, coded as {coding!r}; at most {MAX_CELLS} cells")
        cells_box = _box(d["occupancy"]["box"])
        fixed += _sides([d["occupancy"]["bytes"]], low=0, n=1, high=MAX_CELLS)[0]
    near, far = float(d["near"]), float(d["far"])
    if not 0 <= near < far < math.inf:
        raise ValueError(f"near {near}, far {far}")
    space, cube = str(d["space"]), None
    if space not in SPACES:
        raise ValueError(f"space {space!r}; known: {', '.join(SPACES)}; was the file written by a newer tslim?")
    if "cube" not in d:  # before there were other spaces, everything was rendered as a plain box
        space = "box"
    elif space == "contracted":
        cube = _box(d["cube"])
    if space == "ndc" and near == 0:
        raise ValueError("space ndc with a near plane at 0")
    background = None if d["background"] is None else tuple(_finite(d["background"], (3,)).tolist())
    rank_ends = ends(layout, fixed)
    return ModelHeader(
        config=_parse_config(d["config"], len(rank_ends)),
        domain=Domain(_box(d["box"]), near, far, cast(Space, space), background, cube),
        grid=grid,
        precision=d["dtype"],
        decoder=decoder,
        occupancy=cells,
        occupancy_box=cells_box,
        occupancy_coding=coding,
        shared_crc32=int(d["shared_crc32"]),
        affine=layout.affine,
        metadata=metadata.checked(d["metadata"]),
        shared_at=shared_at,
        n_bytes=n_bytes,
        fixed_bytes=fixed,
        ends=rank_ends,
        tail=layout.tail,
    )


def _tail(d: dict[str, Any], version: int) -> tuple[str, int] | None:
    """What ``RankLayout`` calls so: in files of the second version, and perhaps of the third."""
    if version == VERSION or (version == COMPACT_VERSION and "tail" not in d):
        return None
    kind, after = d["tail"]["kind"], d["tail"]["after"]
    if kind not in ("density", "appearance"):
        raise ValueError(f"ranks that hold only {kind!r}")
    return kind, _sides([after], low=1, n=1)[0]


def _parse_config(data: dict[str, Any], rank: int) -> FieldConfig:
    """A ``FieldConfig`` whose values pass the checks of the command line; absent ones take their defaults."""
    if "max_rank" in data:
        raise ValueError("unknown setting max_rank: how many ranks there are, the file's length says")
    config = dataclasses.replace(from_dict(data, FieldConfig), max_rank=rank)
    if rank > 0:
        require_valid_field(config)
    return config


def _finite(values: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.array(values, np.float32)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{values!r} is not {'x'.join(map(str, shape))} finite numbers")
    return array


def _box(values: Any) -> np.ndarray:
    box = _finite(values, (2, 3))
    if not (box[0] < box[1]).all():
        raise ValueError(f"box {values!r} has no volume")
    return box


def _sides(values: Any, *, low: int, n: int | None = 3, high: int = _MAX_SIDE) -> tuple[int, ...]:
    if not isinstance(values, list) or (n is not None and len(values) != n) or len(values) > 8:
        raise ValueError(f"{values!r} is not a shape")
    if not all(type(v) is int and low <= v <= high for v in values):
        raise ValueError(f"shape {values!r} has a side outside {low}..{high}")
    return tuple(values)
