"""Checkpoints: arrays and plain data, as an uncompressed npz with a json record, written atomically. No pickle."""

import contextlib
import io
import json
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from tslim import files
from tslim.errors import ModelFileError

VERSION = 1
_KIND = "tslim checkpoint"
_RECORD = "record.json"
_MAX_RECORD = 64_000_000
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, ValueError, LookupError, TypeError, ArithmeticError, EOFError,
           RuntimeError, MemoryError, RecursionError, SyntaxError, tokenize.TokenError, UserWarning)  # fmt: skip
"""what zipfile, numpy and json raise on bytes that make no sense; numpy warns of arrays as Python 2 wrote them"""


def save(path: str | Path, arrays: dict[str, np.ndarray], plain: dict[str, Any]) -> Path:
    """Replaces the checkpoint at ``path`` in one step.

    Args:
        arrays: by name; any dtype but object.
        plain: what json can hold; integers of any size and floats come back exactly, tuples as lists.

    Raises:
        ModelFileError: ``plain`` is not plain data, or an array holds objects.
        RunFolderError: the file cannot be written.
    """
    try:
        record = json.dumps({"kind": _KIND, "version": VERSION, "arrays": list(arrays), "plain": plain}).encode()
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"the state of this run is not plain data: {error}") from error
    with files.replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_RECORD, record)
        for i, (name, array) in enumerate(arrays.items()):
            array = np.asarray(array)
            if array.dtype.hasobject:
                raise ModelFileError(f"array {name} holds Python objects")
            with archive.open(f"{i}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return Path(path)


def load(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads what ``save`` wrote: arrays by name, and plain data.

    Raises:
        FileNotFoundError: there is no such file.
        ModelFileError: truncated, damaged, not a checkpoint, or of another version.
    """
    with _opened(Path(path)) as (archive, record):
        names = record["arrays"]
        if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
            raise ValueError("arrays without names of their own")
        return {name: _read_array(archive, f"{i}.npy") for i, name in enumerate(names)}, record["plain"]


def load_plain(path: str | Path) -> dict[str, Any]:
    """The plain data alone; raises as ``load``."""
    with _opened(Path(path)) as (_, record):
        return record["plain"]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, Any]]]:
    """The file and its record; whatever the block finds wrong becomes a ``ModelFileError``."""
    if not path.exists():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError("it is compressed, which tslim never does: it could grow to any size")
            yield archive, _read_record(archive, path)
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(f"cannot read checkpoint {path}: {error.strerror or error}") from error
    except _DAMAGE as error:
        what = str(error).partition("\n")[0][:200] or type(error).__name__
        raise ModelFileError(f"checkpoint {path} is truncated or damaged ({what})") from error


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array; what its header claims is compared with what is there before memory is taken for it."""
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            shape, in_columns, dtype = readers[version](member)
        there = archive.getinfo(name).file_size - member.tell()
        if dtype.hasobject or dtype.itemsize == 0 or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"array {name} holds {dtype} of shape {shape}")
        if math.prod(shape) * dtype.itemsize != there:
            raise ValueError(f"array {name} claims shape {shape} and has {there} bytes")
        data = bytearray(there)
        if cast(io.BufferedIOBase, member).readinto(data) != there or member.read(1):
            raise ValueError(f"array {name} is cut short")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if in_columns else "C")


def _read_record(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    if _RECORD not in archive.namelist():
        raise ModelFileError(f"{path} is not a tslim checkpoint")
    if archive.getinfo(_RECORD).file_size > _MAX_RECORD:
        raise ValueError("its record is too long")
    record = json.loads(archive.read(_RECORD))
    if not isinstance(record, dict) or record.get("kind") != _KIND:
        raise ModelFileError(f"{path} is not a tslim checkpoint")
    if record.get("version") != VERSION:
        found = record.get("version")
        raise ModelFileError(f"checkpoint {path} is of version {found}; this tslim continues version {VERSION}")
    if not isinstance(record.get("plain"), dict) or not isinstance(record.get("arrays"), list):
        raise ValueError("its record lacks arrays and plain data")
    return record
