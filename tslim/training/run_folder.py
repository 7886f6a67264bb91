"""The folder of one training run: what is in it, and how a run starts one without harming another.

====================  ==================================================================
``config.json``       the scene, the settings and tslim's version; written first
``metrics.jsonl``     one object a line: step, rank, loss, psnr, seconds; psnr_by_rank of the training rays; and
                      grew, the rank increases since the line before (step, rank, cause), where there were any
``checkpoint*.npz``   everything needed to continue exactly: see ``tslim.training.checkpoints``
``run.lock``          who trains here, while somebody does: see ``tslim.training.run_lock``
``model.slim``        the trained model; until then ``unfinished.slim``, the model of the last checkpoint
``eval.json``         the table of sizes and qualities
``images/``           pictures, videos and plots
====================  ==================================================================
"""

import contextlib
import dataclasses
import errno
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tslim import config, files
from tslim.errors import ConfigError, RunFolderError, short
from tslim.training import run_lock
from tslim.training.checkpoints import Checkpoints
from tslim.training.events import Progress

_COLUMNS = ("step", "rank", "loss", "psnr", "seconds")
"""What every line of ``metrics.jsonl`` has."""


class RunFolder:
    """Paths inside a run folder, its settings and its log."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.model = self.path / "model.slim"
        self.unfinished = self.path / "unfinished.slim"
        """what can be looked at while there is no model yet"""
        self.evaluation = self.path / "eval.json"
        self.images = self.path / "images"
        self.checkpoints = Checkpoints(self.path)
        self._record: dict[str, Any] | None = None
        """what ``config.json`` holds, once it was written or read"""

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """While entered, no other process can train here. Cleans up behind processes that were killed.

        Raises ``RunFolderError`` if another process trains here, if the folder cannot be written, or if a folder lies
        where the run will write a file.
        """
        for path in (self.metrics, self.model, self.unfinished, self.evaluation):
            if path.is_dir():
                raise RunFolderError(f"{path} is a folder, and the run writes a file there: move it away")
        run_lock.take(self.path)
        try:
            for folder in (self.path, self.images):
                files.remove_orphans(folder)
            yield
        finally:
            run_lock.give(self.path)

    def is_run(self) -> bool:
        """Whether a run's settings can be read here."""
        try:
            self.settings()
        except RunFolderError:
            return False
        return True

    def require_free(self) -> None:
        """Raises ``RunFolderError`` unless a new run can go here: a folder that is empty or not there, and writable.

        Changes nothing, so that a run can check before it spends minutes on loading.
        """
        if self.config.exists():
            raise RunFolderError(f"{self.path} holds another run: choose another --out, or continue it with --resume")
        if self.path.is_symlink() and not self.path.exists():
            raise RunFolderError(f"{self.path} cannot be a run folder: it is a link that leads nowhere")
        existing = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not existing.is_dir():
            raise RunFolderError(f"{self.path} cannot be a run folder: {existing} is a file")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise RunFolderError(f"{self.path} cannot be written: no permission in {existing}")
        if existing == self.path and not self._is_empty():
            raise RunFolderError(f"{self.path} is neither empty nor a run folder: choose another --out")

    def _is_empty(self) -> bool:
        """Whether nothing is here but what a process left that was killed before it wrote a thing."""
        return all(path.name == run_lock.NAME or files.is_partial(path) for path in self.path.iterdir())

    def create(self, settings: dict[str, Any]) -> None:
        """Makes the folder and writes ``config.json``; raises ``RunFolderError`` where that cannot be."""
        self.require_free()
        self._write(settings)

    def _write(self, settings: dict[str, Any]) -> None:
        files.write_bytes(self.config, (json.dumps(settings, indent=2) + "\n").encode())
        self._record = settings

    def preserve(self) -> None:
        """Before something is written: makes the folder, its lock and ``config.json`` again if somebody removed them.

        Raises ``RunFolderError`` if another process has taken the folder meanwhile, or it cannot be written.
        """
        run_lock.renew(self.path)
        if self._record is not None and not self.config.exists():
            self._write(self._record)

    def discard(self) -> None:
        """Takes back what ``create`` made, for a run that ended before its first step."""
        for path in (self.config, self.metrics, self.path / run_lock.NAME):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def settings(self) -> dict[str, Any]:
        """What ``create`` wrote. Raises ``RunFolderError`` if this is no run folder or its config is damaged."""
        self.require_readable()
        try:
            settings = json.loads(self.config.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise RunFolderError(f"{self.path} holds no run: there is no {self.config}") from None
        except (OSError, ValueError, RecursionError) as error:
            what = getattr(error, "strerror", None) or error
            raise RunFolderError(f"{self.config} cannot be read: {what}") from error
        if not isinstance(settings, dict) or not all(isinstance(settings.get(k), dict) for k in ("scene", "train")):
            raise RunFolderError(f"{self.config} is no run's config: it lacks the objects scene and train")
        for name, value in settings["scene"].items():
            plain = str | int | list | None if name != "path" else str | None
            if not isinstance(value, plain):
                raise RunFolderError(f"{self.config} is no run's config: scene.{name} is {short(value)}")
        self._record = settings
        return settings

    def own_files(self) -> tuple[Path, ...]:
        """What a run keeps itself, be it there or not."""
        return (self.config, self.metrics, self.model, self.unfinished, self.evaluation, *self.checkpoints.paths())

    def require_readable(self) -> None:
        """Raises ``RunFolderError`` if something here is a pipe or a device: who reads it may wait for ever."""
        for path in self.own_files():
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise RunFolderError(f"{path} is neither a file nor a folder")

    def record(self) -> dict[str, Any]:
        """As ``settings``, but from memory where this process has written or read them."""
        return self.settings() if self._record is None else self._record

    def train_settings(self) -> config.TrainConfig:
        """The settings of training in ``config.json``; raises ``RunFolderError`` if it does not hold them."""
        try:
            settings = config.from_dict(self.settings()["train"])
            config.require_valid(settings)
            return settings
        except ConfigError as error:
            raise RunFolderError(f"{self.config} is no run's config: {error}") from error

    def log(self, event: Progress) -> None:
        """Appends a line to ``metrics.jsonl``; raises ``RunFolderError`` where that cannot be."""
        row: dict[str, Any] = {name: getattr(event, name) for name in _COLUMNS}
        if event.psnr_by_rank:
            row["psnr_by_rank"] = event.psnr_by_rank
        if event.grew:
            row["grew"] = [dataclasses.asdict(increase) for increase in event.grew]
        self.preserve()
        try:
            with open(self.metrics, "ab", buffering=0) as out:
                # A line that a full disk cut short is ended first, so that it spoils itself alone.
                lead = b"" if self._ends_with_a_line() else b"\n"
                line = lead + json.dumps(row).encode() + b"\n"
                if out.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise RunFolderError(f"cannot write {self.metrics}: {error.strerror}") from error

    def _ends_with_a_line(self) -> bool:
        with open(self.metrics, "rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(size - 1, 0))
            return log.read(1) in (b"", b"\n")

    def history(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; a last line cut short by a crash is left out."""
        rows = []
        for line in self._lines():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and all(_is_number(row.get(name)) for name in _COLUMNS):
                rows.append({name: value for name, value in row.items() if _makes_sense(name, value)})
        return rows

    def rewind(self, step: int) -> None:
        """Drops what was logged after ``step``, before a run goes on from there."""
        rows = "".join(json.dumps(row) + "\n" for row in self.history() if row["step"] <= step)
        files.write_bytes(self.metrics, rows.encode())

    def _lines(self) -> list[str]:
        try:
            return self.metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunFolderError(f"cannot read {self.metrics}: {error.strerror}") from error


def _makes_sense(name: str, value: Any) -> bool:
    """Whether what only some lines have makes sense; whatever else a line holds is kept."""
    if name == "psnr_by_rank":
        return isinstance(value, dict) and all(k.isdecimal() and _is_number(v) for k, v in value.items())
    if name == "grew":
        return isinstance(value, list) and all(
            isinstance(g, dict) and _is_number(g.get("step")) and _is_number(g.get("rank")) and "cause" in g
            for g in value
        )
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
