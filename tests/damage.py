"""How tests do damage: commands in processes of their own, without a home, without rights, without space."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def without_rights() -> list[str]:
    """What to put before a command so that permissions hold for it; skips where root cannot be made to obey them."""
    if os.getuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere: needs setpriv (util-linux) to give that up")
    given_up = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={given_up}", f"--inh-caps={given_up}"]


def environment(**changes: str | None) -> dict[str, str]:
    """This process's, with tslim to be found and no tracebacks asked for; None leaves a variable out."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "TSLIM_TRACEBACK": "", **changes}
    return {name: value for name, value in env.items() if value is not None}


def python(
    code: str, *words: object, cwd: Path, before: list[str] | None = None, timeout: float = 120, **env: str | None
):
    """Runs Python code in a process of its own, with words on its command line."""
    command = [*(before or []), sys.executable, "-c", code, *map(str, words)]
    env = environment(**env)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)


def tslim(*words: object, cwd: Path, before: list[str] | None = None, timeout: float = 300, **env: str | None):
    """Runs a command of tslim's in a process of its own."""
    command = [*(before or []), sys.executable, "-m", "tslim", *map(str, words)]
    env = environment(**env)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)
