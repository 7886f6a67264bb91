"""Writes everything of a model file that precedes the ranks."""

import dataclasses
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tslim.errors import ModelFileError
from tslim.model.compact import CompactLayout
from tslim.model.header import CODED_VERSIONS, COMPACT_VERSION, MAGIC, MOST_HEADER, PRELUDE, SEPARATE_VERSION, VERSION
from tslim.model.layout import RankLayout
from tslim.model.parse import parse_header
from tslim.model.shared import encode_shared
from tslim.model.state import FieldState
from tslim.model.stored import StoredState


def layout_of(state: StoredState) -> RankLayout:
    """The layout of a state's file. Raises ``ModelFileError`` for arrays that do not fit together."""
    return (CompactLayout if state.precision == "compact" else RankLayout).of(state, state.precision)


def encode_head(state: FieldState, layout: RankLayout) -> bytes:
    """Prelude, header, decoder and occupancy: the same bytes whatever the number of ranks.

    Raises ``ModelFileError`` for what ``read_head`` would not accept.
    """
    shared, coding = encode_shared(state, layout)
    described = _described(state, layout, shared)
    if coding is not None and state.occupancy is not None:
        box = state.box if state.occupancy_box is None else state.occupancy_box
        described["occupancy"] = {"shape": state.occupancy.shape, "box": _floats(box), **coding}
    version = VERSION if layout.tail is None else SEPARATE_VERSION
    if layout.precision == "compact":
        version, described["shared_bytes"] = COMPACT_VERSION, len(shared)
    if isinstance(state, StoredState) and state.table is not None:
        described["table"] = state.table.plain()  # last, as it may come later
    return packed_head(described, version) + shared


def packed_head(described: dict[str, Any], version: int) -> bytes:
    """Prelude and header; raises ``ModelFileError`` for what ``read_head`` would not accept."""
    try:
        text = json.dumps(described, default=_plain, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"the model's metadata is not plain data: {error}") from error
    if len(text) > MOST_HEADER:
        raise ModelFileError(f"the model's metadata takes {len(text)} bytes; at most {MOST_HEADER} are accepted")
    parse_header(text, 0, "the model", version)
    if version in CODED_VERSIONS:
        text = zlib.compress(text, 9)
    return PRELUDE.pack(MAGIC, version, len(text), zlib.crc32(text)) + text


def _described(state: FieldState, layout: RankLayout, shared: bytes) -> dict[str, Any]:
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
        "affine": layout.rank_scales,
        "decoder": {name: a.shape for name, a in state.decoder.items()},
        "occupancy": None,
        "shared_crc32": zlib.crc32(shared),
        "metadata": state.metadata,
    }
    if layout.tail is not None:
        described["tail"] = {"kind": layout.tail[0], "after": layout.tail[1]}
    return described


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
