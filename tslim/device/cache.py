"""Where Taichi keeps compiled kernels: a folder that can be written, without a lock that nobody holds.

Taichi takes a folder below the home. Where there is no home, its process aborts as it is imported; where the folder
cannot be written, it crashes as it ends, with its work done; and a lock that a killed process left makes it compile
everything anew each time, in silence.
"""

import contextlib
import functools
import os
import secrets
import stat
import tempfile
import time
from pathlib import Path

VARIABLE = "TI_OFFLINE_CACHE_FILE_PATH"
"""The environment variable that tells Taichi which folder to take."""
_BASE = "XDG_CACHE_HOME"
LOCK = "ticache.lock"
STALE_SECONDS = 60.0
"""Taichi holds its lock while it reads or writes a list: for an instant."""


@functools.cache
def prepare() -> tuple[str, ...]:
    """Tells Taichi, which must not have been imported, which folder to take; returns what the user should know.

    The user's own choice if there is one, else Taichi's; where that cannot be written, one for this user among the
    temporary files. Processes that are started later take the same. Once in a process.
    """
    notes = []
    chosen = os.environ.get(VARIABLE) or _default_folder()
    folder = Path(chosen) if chosen else None
    if folder is None or not _is_writable(folder):
        instead = _temporary()
        if folder is not None:
            notes.append(f"the folder of compiled kernels {folder} cannot be written, {instead} is used")
        folder = instead
    if _default_folder() is None:
        os.environ[_BASE] = str(folder)
    os.environ[VARIABLE] = str(folder)
    if _remove_stale_lock(folder / LOCK):
        notes.append("a lock that a killed process had left on the compiled kernels was removed")
    return tuple(notes)


def _default_folder() -> str | None:
    """What Taichi would take; None where it would abort."""
    base, home = os.environ.get(_BASE), os.environ.get("HOME")
    if base:
        return os.path.join(base, "taichi")
    return os.path.join(home, ".cache", "taichi") if home else None


def _is_writable(folder: Path) -> bool:
    """Whether files can be made there; permission bits alone do not say so (read-only file systems, full disks)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".tslim-{secrets.token_hex(8)}"
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        probe.unlink()
    except OSError:
        return False
    return True


def _temporary() -> Path:
    """A folder that is this user's alone, since code is loaded from it: the first that nobody else has a hand in."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    for number in range(1, 10):
        folder = Path(tempfile.gettempdir()) / f"tslim-kernels-{user}{f'-{number}' if number > 1 else ''}"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            ours = not hasattr(os, "getuid") or found.st_uid == os.getuid()
            if stat.S_ISDIR(found.st_mode) and ours and not found.st_mode & 0o022 and _is_writable(folder):
                return folder
    return Path(tempfile.mkdtemp(prefix="tslim-kernels-"))


def _remove_stale_lock(lock: Path) -> bool:
    try:
        if abs(time.time() - lock.lstat().st_mtime) < STALE_SECONDS:  # a clock may have been put back since
            return False
        lock.unlink()
    except OSError:
        return False
    return True
