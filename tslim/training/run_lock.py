"""Who trains in a run folder: a lock that names its owner, and that a dead owner does not hold.

The lock is the system's, on the open file ``run.lock``: it goes with the process however that ends, a kill or a power
cut included, so that none has to be removed by hand. What the file says is for people. Only training takes it: a run
can be looked at, measured and rendered meanwhile.
"""

import contextlib
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tslim import files
from tslim.errors import RunFolderError

NAME = "run.lock"
_held: dict[str, "RunLock"] = {}
"""Locks of this process, by folder."""


@dataclass(eq=False)
class RunLock:
    """A run folder that this process trains in. ``take`` makes one."""

    folder: Path
    handle: int
    """of the locked file"""
    holders: int = 1
    """how many in this process asked for it"""
    made: tuple[Path, ...] = ()
    """folders that were made for it, the innermost first: they go with it if nothing came into them"""

    def is_there(self) -> bool:
        """Whether the lock's file is still the one in the folder."""
        try:
            found, ours = os.stat(self.folder / NAME), os.fstat(self.handle)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)


def take(folder: Path) -> RunLock:
    """Takes the folder, which is made if it is not there; once more if this process has it already.

    Raises ``RunFolderError`` if another process has it, which it names, or if the file cannot be made.
    """
    key = os.path.realpath(folder)
    lock = _held.get(key)
    if lock is not None and lock.is_there():
        lock.holders += 1
        return lock
    missing = tuple(path for path in (folder, *folder.parents) if not path.exists())
    handle = _lock(folder)
    if lock is None:
        lock = _held[key] = RunLock(folder, handle, made=missing)
    else:  # somebody removed the folder
        os.close(lock.handle)
        lock.handle = handle
        lock.holders += 1
    return lock


def renew(folder: Path) -> None:
    """Takes the folder again if somebody removed it, or the lock's file, while this process has it.

    Raises ``RunFolderError`` if another process has it by now.
    """
    lock = _held.get(os.path.realpath(folder))
    if lock is not None and not lock.is_there():
        take(folder)
        give(folder)


def give(folder: Path) -> None:
    """The inverse of ``take``; the file goes with its last holder. Never raises."""
    key = os.path.realpath(folder)
    lock = _held.get(key)
    if lock is None:
        return
    lock.holders -= 1
    if lock.holders:
        return
    del _held[key]
    with contextlib.suppress(OSError):
        if lock.is_there():
            (folder / NAME).unlink()
        for path in lock.made:
            path.rmdir()
    os.close(lock.handle)


def _lock(folder: Path) -> int:
    """The handle of the locked file."""
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            handle = os.open(path, flags, 0o666)
            locked = files.try_lock(handle)
            owner = _read(handle)
            if locked is False or (locked is None and _is_alive(owner)):
                os.close(handle)
                raise RunFolderError(
                    f"{folder} is in use: {_owner_text(owner)} trains there; it can be looked at meanwhile "
                    "(tslim eval, render, view), and continued when that has ended"
                )
            if RunLock(folder, handle).is_there():
                break
            os.close(handle)  # its last owner removed it in between
        os.ftruncate(handle, 0)
        os.pwrite(handle, (json.dumps(_this_process()) + "\n").encode(), 0)
        return handle
    except RunFolderError:
        raise
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror or error}") from error


def _this_process() -> dict[str, Any]:
    """What names this process beyond doubt: numbers of processes are used again."""
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "started": _started(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _read(handle: int) -> dict[str, Any]:
    """What the file says; nothing where it makes no sense."""
    try:
        found = json.loads(os.pread(handle, 4096, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _owner_text(owner: dict[str, Any]) -> str:
    if not isinstance(owner.get("pid"), int):
        return "another process"
    return f"process {owner['pid']} on {owner.get('host', '?')} (since {owner.get('since', '?')})"


def _is_alive(owner: dict[str, Any]) -> bool:
    """Where files cannot be locked: whether the process that the file names may still be there."""
    if owner.get("host") != platform.node():
        return bool(owner)  # on another machine: who knows
    pid = owner.get("pid")
    if not isinstance(pid, int) or pid <= 0 or pid == os.getpid():
        return False
    started = _started(pid)
    return started is not None and started == owner.get("started")


def _started(pid: int) -> str | None:
    """When a process of this machine began, in its clock ticks since the start of the system; None if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:  # a system without /proc
        os.kill(pid, 0)
    except OSError:
        return None
    return "?"
