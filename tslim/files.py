"""Writing files so that a reader finds the old contents or the new, never a part."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from tslim.errors import RunFolderError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields the path of an empty temporary file beside ``path``; on leaving, it takes ``path``'s place.

    The temporary file keeps the suffix, so that writers which choose a format by it work. If the block raises, the
    temporary file is removed and whatever stood at ``path`` is untouched. Missing parent folders are made.

    Raises:
        RunFolderError: the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        temporary.touch()
        yield temporary
        with open(temporary, "rb+") as finished:
            os.fsync(finished.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except RunFolderError:
        raise
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Replaces a file's contents in one step; raises ``RunFolderError`` if it cannot be written."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def free_path(base: Path) -> Path:
    """``base``, or the first of ``base-2``, ``base-3``, … that is not there yet or an empty folder; suffixes stay."""
    for number in itertools.count(1):
        path = base if number == 1 else base.with_name(f"{base.stem}-{number}{base.suffix}")
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return path
    raise AssertionError("numbers do not end")


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut, where the system lets a folder be synced (Windows does not)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
