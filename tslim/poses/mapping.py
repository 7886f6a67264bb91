"""Cameras of photographs by structure from motion, as an iterator of progress: ``for event in find_poses(...)``."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

from tslim import files, optional
from tslim.errors import MissingPackageError, SceneError
from tslim.poses.images import Collected, collect
from tslim.poses.options import PoseOptions
from tslim.poses.worker import Job

EXHAUSTIVE = 150
"""Pictures up to which each is compared with every other one; the time for it grows with their square."""
LEAST_SHARE = 0.8
"""Share of the pictures whose cameras should be found; below, advice is given."""
LOOK_EVERY = 0.5
"""Seconds between two looks at how far a stage is."""
_ROOT = str(Path(__file__).resolve().parents[2])
"""Where the process that runs pycolmap finds tslim."""


@dataclass(frozen=True)
class Progress:
    """How far a stage is."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Report:
    """What came of it. ``str(report)`` is a paragraph for people."""

    folder: Path
    registered: tuple[str, ...]
    missing: tuple[str, ...]
    """pictures whose camera was not found"""
    unreadable: tuple[str, ...]
    points: int
    """sparse points"""
    error: float
    """mean distance of a point from where it is seen, pixels"""
    models: int
    """separate pieces that were found; the largest is kept"""

    @property
    def share(self) -> float:
        """Share of the readable pictures whose camera was found, 0 to 1."""
        return len(self.registered) / (len(self.registered) + len(self.missing))

    def __str__(self) -> str:
        total = len(self.registered) + len(self.missing)
        lines = [
            f"{len(self.registered)} of {total} cameras found, {self.points} points, "
            f"reprojection error {self.error:.2f} pixels"
        ]
        if self.missing:
            lines.append(f"not found: {_names_text(self.missing)}")
        if self.missing and self.models > 1:
            lines.append(f"the pictures fall into {self.models} pieces that share too little; the largest is kept")
        if self.share < LEAST_SHARE:
            lines.append(
                "more of them are found with more overlap: move a little between two pictures, keep the zoom fixed, "
                "avoid blur and blank walls; for a series in order try --matching exhaustive"
            )
        return "\n".join(lines)


def find_poses(source: Path, out: Path, options: PoseOptions | None = None) -> Iterator[Progress | Report]:
    """Finds the cameras of the photographs in ``source`` and makes ``out`` a COLMAP data set; the last event is a
    ``Report``. Interrupted, and called again, it goes on with what is there.

    Args:
        source: a folder of pictures (with folders in it, perhaps), or a video.
        out: folder for ``images/``, ``sparse/0`` and ``poses.json``.

    Raises:
        MissingPackageError: pycolmap is not installed.
        SceneError: nothing to read, the data set would lie where the photographs do, too few cameras found, or
            pycolmap failed.
        RunFolderError: the folder cannot be written.
    """
    options = options or PoseOptions()
    require_pycolmap()
    images, work = out / "images", out / "sparse.partial"
    if (out / "sparse" / "0").exists():
        raise SceneError(f"{out} has cameras already (sparse/0): train on it, or choose another -o")
    if source.is_dir() and source.resolve() in (out.resolve(), images.resolve()):
        beside = source.absolute().with_name(f"{source.absolute().name}-posed")
        raise SceneError(f"{out}: the pictures would be copied among themselves; choose another -o, such as {beside}")
    collected = yield from _collect(source, images, options.frames)
    job = _job(collected, out, images, work, options)
    for stage, total in (("features", len(collected.names)), ("matching", _pairs(job)), ("mapping", len(job.names))):
        found: list[dict] = []
        for event in _run(stage, job, total):
            if isinstance(event, Progress):
                yield event
            else:
                found.append(event)
    yield _finish(out, work, collected, found)


def _collect(source: Path, images: Path, frames: int) -> Generator[Progress, None, Collected]:
    collecting = collect(source, images, frames=frames)
    while True:
        try:
            done, total = next(collecting)
        except StopIteration as finished:
            return finished.value
        yield Progress("pictures", done, total)


def require_pycolmap() -> None:
    """Raises ``MissingPackageError``, which says how to install it, where it is not there."""
    if not optional.has("pycolmap"):
        raise MissingPackageError(
            "finding cameras needs pycolmap, which is not installed: pip install pycolmap (or pip install '.[poses]')"
        )


def _job(collected: Collected, out: Path, images: Path, work: Path, options: PoseOptions) -> Job:
    matching = options.matching
    if matching == "auto":
        matching = "sequential" if collected.in_order or len(collected.names) > EXHAUSTIVE else "exhaustive"
    return Job(
        stage="", database=str(out / "features.db"), images=str(images), models=str(work), names=collected.names,
        camera_model=options.camera_model, one_camera=options.cameras == "one" or collected.in_order,
        matching=matching, overlap=options.overlap, max_size=options.max_size, seed=options.seed,
    )  # fmt: skip


def _pairs(job: Job) -> int:
    """Pairs of pictures that will be compared, about."""
    n = len(job.names)
    return n * (n - 1) // 2 if job.matching == "exhaustive" else n * job.overlap


def _run(stage: str, job: Job, total: int) -> Iterator[Progress | dict]:
    """Runs one stage in a process of its own; yields how far it is, and the records that it leaves."""
    if stage == "mapping":
        shutil.rmtree(job.models, ignore_errors=True)
    job = Job(**{**job.__dict__, "stage": stage})
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            _command(job), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))},
        )  # fmt: skip
        lines: Queue[str | None] = Queue()
        threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True).start()
        try:
            yield from _follow(stage, job, total, lines)
            code = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if code != 0:
            complaints.seek(0)
            raise SceneError(f"finding cameras failed in its stage {stage}: {_reason(code, complaints.read())}")


def _command(job: Job) -> list[str]:
    return [sys.executable, "-m", "tslim.poses.worker", job.to_json()]


def _read_lines(stream, lines: "Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _follow(stage: str, job: Job, total: int, lines: "Queue[str | None]") -> Iterator[Progress | dict]:
    """Until the process closes its output: progress from the database, or from its lines."""
    registered = 0
    while True:
        try:
            line = lines.get(timeout=LOOK_EVERY)
        except Empty:
            done = _rows(job.database, stage)
            if done is not None:
                yield Progress(stage, min(done, total), total)
            continue
        if line is None:
            if stage != "mapping":
                yield Progress(stage, total, total)
            return
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if not isinstance(record, dict):
                continue
            if "registered" in record:
                registered += record["registered"]
                yield Progress(stage, min(registered, total), total)
            elif "model" in record:
                yield record


def _rows(database: str, stage: str) -> int | None:
    """Pictures that have features, or pairs that have been compared; None where that cannot be seen."""
    table = {"features": "keypoints", "matching": "two_view_geometries"}.get(stage)
    if table is None or not Path(database).exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=0.2)) as opened:
            return opened.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
    except sqlite3.Error:
        return None


def _reason(code: int, complaints: str) -> str:
    """Why a process ended, in one line."""
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    last = f": {lines[-1][:200]}" if lines else ""
    if code < 0:
        name = signal.Signals(-code).name
        return f"pycolmap was ended by {name}{last} (a damaged picture, or too little memory, may be the cause)"
    return f"pycolmap ended with code {code}{last}"


def _finish(out: Path, work: Path, collected: Collected, found: list[dict]) -> Report:
    """Puts the largest model where loaders look for it, with a record of how it came about."""
    if not found:
        raise SceneError(
            f"no cameras found: the {len(collected.names)} pictures share too few details. Take them closer together, "
            "sharp, with the zoom fixed, and of something that is not blank"
        )
    best = max(found, key=lambda model: len(model["names"]))
    registered = tuple(sorted(best["names"]))
    missing = tuple(sorted(set(collected.names) - set(registered)))
    report = Report(out, registered, missing, collected.unreadable, best["points"], best["error"], len(found))
    record = {
        "registered": registered, "missing": missing, "unreadable": collected.unreadable, "points": best["points"],
        "reprojection_error": best["error"], "models": len(found),
    }  # fmt: skip
    files.write_bytes(out / "poses.json", (json.dumps(record, indent=2) + "\n").encode())
    (out / "sparse").mkdir(exist_ok=True)
    (work / str(best["model"])).rename(out / "sparse" / "0")
    shutil.rmtree(work, ignore_errors=True)
    for name in ("features.db", "features.db-wal", "features.db-shm"):
        (out / name).unlink(missing_ok=True)
    return report


def _names_text(names: tuple[str, ...], most: int = 8) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
