"""One training of a sweep, by the command line itself: started, continued or found done."""

import ctypes
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tslim import files
from tslim.errors import TslimError
from tslim.measuring import eval_json
from tslim.sweeps.plan import Plan, Training
from tslim.training.run_folder import RunFolder

RECORD = "sweep.json"
"""File in the folder of a training: what the table needs besides ``eval.json``."""
_DIE_WITH_PARENT = 1
"""Linux: prctl(PR_SET_PDEATHSIG, ...)"""
_TIME_TO_SAVE = 30.0
"""Seconds that a training gets to save and end, where this process is interrupted."""
_ROOT = str(Path(__file__).resolve().parents[2])


def result(plan: Plan, run: Training) -> dict[str, Any] | None:
    """What a finished training measured: ``rows`` by rank, ``views``, ``minutes``, ``peak_mb``; None if unfinished."""
    folder = RunFolder(plan.folder(run))
    try:
        record = json.loads((folder.path / RECORD).read_text(encoding="utf-8"))
        rows, views = eval_json.read(folder.evaluation)
        measured = {row.rank: row for row in rows}
        wanted = _measured_ranks(plan, run, int(record["max_rank"]))
        minutes, peak = float(record["minutes"]), float(record["peak_mb"])
        if (
            not math.isfinite(minutes + peak)
            or record["command"] != run.recipe(folder.path)
            or not set(wanted) <= set(measured)
            or (plan.lpips and any(measured[rank].lpips is None for rank in wanted))
        ):
            return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, TslimError):
        return None
    return {"rows": {rank: measured[rank] for rank in wanted}, "views": views, "minutes": minutes, "peak_mb": peak}


def is_done(plan: Plan, run: Training) -> bool:
    """Whether a training is there as a whole, measured at the ranks that are asked for."""
    return result(plan, run) is not None


def perform(plan: Plan, run: Training, arch: str, threads: int | None = None) -> str:
    """Does what is left of a training, with its output in ``train.log`` beside its folder; returns what went wrong.

    Its processes end with this one, so that a training whose node is lost can go on elsewhere.

    Args:
        threads: of the CPU; as many as cores if None.
    """
    if is_done(plan, run):
        return ""
    folder = RunFolder(plan.folder(run))
    plan.out.mkdir(parents=True, exist_ok=True)
    log, peak = plan.out / f"{run.name}.log", 0.0
    if not folder.model.exists():
        run.prepare(folder)
        words = [*run.command(folder.path, resume=folder.config.exists()), "--model-only", "--arch", arch]
        problem, peak = _tslim(words, log, threads)
        if problem:
            return problem
    held = _ranks_held(folder)
    ranks = [str(rank) for rank in _measured_ranks(plan, run, held)]
    words = ["eval", str(folder.path), "--ranks", *ranks, *(["--lpips"] if plan.lpips else []), "--arch", arch]
    problem, peak_of_eval = _tslim(words, log, threads)
    if problem:
        return problem
    history = folder.history()
    record = {
        "command": run.recipe(folder.path),
        "minutes": (history[-1]["seconds"] if history else 0.0) / 60,
        "peak_mb": max(peak, peak_of_eval),
        "max_rank": held,
    }
    files.write_bytes(folder.path / RECORD, (json.dumps(record, indent=2) + "\n").encode())
    return ""


def _measured_ranks(plan: Plan, run: Training, held: int) -> list[int]:
    """Of the ranks asked for, those that a model has; all it has where they are fewer than any."""
    return [rank for rank in run.ranks or plan.ranks if rank <= held] or [held]


def _ranks_held(folder: RunFolder) -> int:
    from tslim.model import model_file

    return model_file.read_header(folder.model).rank


def python_path() -> str:
    """PYTHONPATH with which processes find tslim, as they do this one's, whatever their working folder."""
    return os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))


def _tslim(words: list[str], log: Path, threads: int | None) -> tuple[str, float]:
    """Runs one command of the command line; returns its last line if it failed, and the most memory it held, MB."""
    environment = {**os.environ, "PYTHONPATH": python_path()}
    if threads is not None:
        environment["TSLIM_THREADS"] = str(threads)
    with open(log, "a", encoding="utf-8") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tslim", *words], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )  # fmt: skip
        peak = ended(process)
    if process.returncode == 0:
        return "", peak
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{(lines or ['nothing was said'])[-1][:300]} (exit code {process.returncode}; {log})", peak


def ended(process: subprocess.Popen) -> float:
    """Waits for a process; returns the most memory that it held, MB (10^6 bytes), 0 where the system does not say.

    Linux counts what this process held when it started the other, so that less than that is not seen.

    If this process is interrupted meanwhile, that one is given time to save what it has. Ctrl-C reaches both.
    """
    try:
        if not hasattr(os, "wait4"):
            process.wait()
            return 0.0
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return used.ru_maxrss / 1e6 if sys.platform == "darwin" else used.ru_maxrss * 1024 / 1e6
    except BaseException as interrupt:
        if not isinstance(interrupt, KeyboardInterrupt):
            process.terminate()
        try:
            process.wait(_TIME_TO_SAVE)
        except subprocess.TimeoutExpired:
            process.terminate()
        raise


def _end_with_parent() -> None:
    """In the new process: it is sent SIGTERM, upon which a training saves, when this one ends."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)
