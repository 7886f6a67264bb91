"""Writing files so that a reader finds the old contents or the new, never a part."""

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from tslim.errors import RunFolderError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_PARTIAL = re.compile(r"\.(.{0,100})\.[0-9a-f]{16}\.partial(\.[^.]*)?")
"""A temporary file's name: that of its target, up to its hundredth letter, and what makes it the only one."""
_GRACE_SECONDS, _LONG_SECONDS = 1.0, 86_400.0
"""A temporary file may be so young that its writer has not locked it yet; where files cannot be locked, it counts as
left behind once it is as old as the second."""


def text_of(name: str) -> str:
    """A file's name as text that can be written anywhere. Where the locale knows ASCII only, Python keeps the other
    letters of a name as half characters, which no file takes."""
    return os.fsencode(name).decode("utf-8", "replace")


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields the path of an empty temporary file beside ``path``; on leaving, it takes ``path``'s place.

    The temporary file keeps the suffix, so that writers which choose a format by it work. If the block raises, the
    temporary file is removed and whatever stood at ``path`` is untouched, as what takes its place keeps its
    permissions. Missing parent folders are made. What an earlier writer of ``path`` left when it was killed goes.

    Raises:
        RunFolderError: the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    with contextlib.ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            remove_orphans(path.parent, path)
            temporary = path.with_name(f".{path.stem[:100]}.{secrets.token_hex(8)}.partial{path.suffix}")
            # O_EXCL follows no link that somebody laid there.
            handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
            held.callback(os.close, handle)
            try_lock(handle)
            with contextlib.suppress(FileNotFoundError, AttributeError):
                os.fchmod(handle, stat.S_IMODE(path.stat().st_mode))
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
            if temporary is not None:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Replaces a file's contents in one step; raises ``RunFolderError`` if it cannot be written."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def is_partial(path: Path) -> bool:
    """Whether a file is a temporary one of ``replacing``, to judge by its name."""
    return _PARTIAL.fullmatch(path.name) is not None


def remove_orphans(folder: Path, target: Path | None = None) -> None:
    """Removes temporary files in a folder whose writers are gone: those for ``target``, or all. Never raises."""
    with contextlib.suppress(OSError):
        for path in [Path(entry.path) for entry in os.scandir(folder) if entry.name.startswith(".")]:
            parts = _PARTIAL.fullmatch(path.name)
            wanted = target is None or (parts and (parts[1], parts[2] or "") == (target.stem[:100], target.suffix))
            if parts and wanted and _is_orphan(path):
                path.unlink(missing_ok=True)


def _is_orphan(path: Path) -> bool:
    """Whether nobody writes a temporary file any more: its writer holds a lock on it, which ends with the process."""
    try:
        handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return False
    try:
        found = os.fstat(handle)
        locked = try_lock(handle)
        age = abs(time.time() - found.st_mtime)  # a clock may have been put back since
        return (
            stat.S_ISREG(found.st_mode)
            and age > (_LONG_SECONDS if locked is None else _GRACE_SECONDS)
            and locked is not False
        )
    finally:
        os.close(handle)


def try_lock(handle: int) -> bool | None:
    """Locks an open file until it is closed; False if another holder has it, None where files cannot be locked.

    The lock goes with whoever holds it, however that ends.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def free_path(base: Path) -> Path:
    """``base``, or the first of ``base-2``, ``base-3``, … that is not there yet or an empty folder; suffixes stay."""
    path, number = base, 1
    while path.exists() and not (path.is_dir() and not any(path.iterdir())):
        number += 1
        path = base.with_name(f"{base.stem}-{number}{base.suffix}")
    return path


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut, where the system lets a folder be synced (Windows does not)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
