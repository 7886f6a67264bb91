"""Compiled kernels are kept where that is possible, and their lack never costs a command its end."""

import os
import time
from pathlib import Path

import pytest

from tests import damage

START = "import os, tslim; print(tslim.init('cpu')); print(os.environ['TI_OFFLINE_CACHE_FILE_PATH'])"
NO_CHOICE = {"TI_OFFLINE_CACHE_FILE_PATH": None, "XDG_CACHE_HOME": None}


def started(done) -> tuple[str, Path]:
    """What a process that ran ``START`` says of its device, and where it keeps kernels."""
    assert (done.returncode, done.stderr) == (0, ""), (done.returncode, done.stderr)
    device, folder = done.stdout.splitlines()
    return device, Path(folder)


@pytest.mark.parametrize(
    "kind", ["read-only", "unset", *(pytest.param(k, marks=pytest.mark.slow) for k in ("missing", "a file"))]
)
def test_a_home_that_cannot_be_written_or_is_not_there_costs_nothing(tmp_path, kind):
    """Taichi by itself ends in SIGSEGV or aborts."""
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    temporary.mkdir()
    if kind == "a file":
        home.write_text("")
    elif kind != "missing":
        home.mkdir()
    home_mode = {"missing": tmp_path / "home", "read-only": home}.get(kind)
    if home_mode is not None and home_mode.exists():
        home_mode.chmod(0o500)
    where = {"HOME": None if kind == "unset" else str(home / "below" if kind == "missing" else home)}
    if kind == "missing":
        tmp_path.chmod(0o500)
    try:
        done = damage.python(
            START, cwd=temporary, before=damage.without_rights(), TMPDIR=str(temporary), **where, **NO_CHOICE
        )
    finally:
        tmp_path.chmod(0o700)
    device, folder = started(done)
    assert folder == temporary / f"tslim-kernels-{os.getuid()}" and any(folder.glob("*.tic"))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert ("cannot be written" in device) == (kind != "unset")


def test_the_users_own_choice_is_taken(tmp_path):
    _, folder = started(damage.python(START, cwd=tmp_path, TI_OFFLINE_CACHE_FILE_PATH=str(tmp_path / "mine")))
    assert folder == tmp_path / "mine" and any(folder.glob("*.tic"))


def test_kernels_are_not_loaded_from_a_folder_that_others_can_write(tmp_path):
    """Such as one that somebody laid where this user's would be: code is loaded from it."""
    shared = tmp_path / f"tslim-kernels-{os.getuid()}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for trap in ("open", "link"):
        if trap == "open":
            shared.mkdir()
            shared.chmod(0o777)
        else:
            shared.rmdir()
            shared.symlink_to(elsewhere)
        _, folder = started(damage.python(START, cwd=tmp_path, TMPDIR=str(tmp_path), HOME=None, **NO_CHOICE))
        assert folder == Path(f"{shared}-2") and folder.stat().st_mode & 0o777 == 0o700
        assert not list(shared.iterdir())


def test_a_lock_that_a_killed_process_left_is_removed_and_said_and_a_fresh_one_stays(tmp_path):
    lock = tmp_path / "kernels" / "ticache.lock"
    lock.parent.mkdir()
    lock.touch()
    device, _ = started(damage.python(START, cwd=tmp_path, TI_OFFLINE_CACHE_FILE_PATH=str(lock.parent)))
    assert lock.exists() and "lock" not in device and not list(lock.parent.glob("*.tic"))
    os.utime(lock, (time.time() - 100,) * 2)
    device, _ = started(damage.python(START, cwd=tmp_path, TI_OFFLINE_CACHE_FILE_PATH=str(lock.parent)))
    assert not lock.exists() and "a lock that a killed process had left" in device and list(lock.parent.glob("*.tic"))
