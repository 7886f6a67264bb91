"""Checkpoints: arrays and plain data, as an uncompressed npz with a json record, written atomically. No pickle."""

import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tslim import files
from tslim.errors import ModelFileError

VERSION = 1
_KIND = "tslim checkpoint"
_RECORD = "record.json"
_MAX_RECORD = 64_000_000
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, ValueError, LookupError, TypeError, ArithmeticError, EOFError,
           RuntimeError, MemoryError)  # fmt: skip
"""what zipfile, numpy and json raise on bytes that make no sense"""


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
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            record = _read_record(archive, path)
            arrays = {}
            for i, name in enumerate(record["arrays"]):
                with archive.open(f"{i}.npy") as member:
                    arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
            return arrays, record["plain"]
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(f"cannot read checkpoint {path}: {error.strerror or error}") from error
    except _DAMAGE as error:
        raise ModelFileError(f"checkpoint {path} is truncated or damaged ({error})") from error


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
    return record
