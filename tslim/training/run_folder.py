"""The folder of one training run: what is in it, and how a run starts one without harming another.

====================  ==================================================================
``config.json``       the scene, the settings and tslim's version; written first
``metrics.jsonl``     one object a line: step, rank, loss, psnr, seconds; psnr_by_rank of the training rays; and
                      grew, the rank increases since the line before (step, rank, cause), where there were any
``checkpoint.*``      everything needed to continue exactly (written by the trainer)
``model.slim``        the trained model; until then ``unfinished.slim``, the model of the last checkpoint
``eval.json``         the table of sizes and qualities
``images/``           pictures, films and plots
====================  ==================================================================
"""

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from tslim import files
from tslim.errors import RunFolderError
from tslim.training.events import Progress


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
        existing = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not existing.is_dir():
            raise RunFolderError(f"{self.path} cannot be a run folder: {existing} is a file")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise RunFolderError(f"{self.path} cannot be written: no permission in {existing}")
        if existing == self.path and any(existing.iterdir()):
            raise RunFolderError(f"{self.path} is neither empty nor a run folder: choose another --out")

    def create(self, settings: dict[str, Any]) -> None:
        """Makes the folder and writes ``config.json``; raises ``RunFolderError`` where that cannot be."""
        self.require_free()
        files.write_bytes(self.config, (json.dumps(settings, indent=2) + "\n").encode())

    def discard(self) -> None:
        """Takes back what ``create`` made, for a run that ended before its first step."""
        for path in (self.config, self.metrics):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def settings(self) -> dict[str, Any]:
        """What ``create`` wrote. Raises ``RunFolderError`` if this is no run folder or its config is damaged."""
        try:
            settings = json.loads(self.config.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise RunFolderError(f"{self.path} holds no run: there is no {self.config}") from None
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.config} cannot be read: {error}") from error
        if not isinstance(settings, dict) or not all(isinstance(settings.get(k), dict) for k in ("scene", "train")):
            raise RunFolderError(f"{self.config} is no run's config: it lacks the objects scene and train")
        return settings

    def log(self, event: Progress) -> None:
        """Appends a line to ``metrics.jsonl``."""
        row: dict[str, Any] = {name: getattr(event, name) for name in ("step", "rank", "loss", "psnr", "seconds")}
        if event.psnr_by_rank:
            row["psnr_by_rank"] = event.psnr_by_rank
        if event.grew:
            row["grew"] = [dataclasses.asdict(increase) for increase in event.grew]
        try:
            with open(self.metrics, "a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")
        except OSError as error:
            raise RunFolderError(f"cannot write {self.metrics}: {error.strerror}") from error

    def history(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; a last line cut short by a crash is left out."""
        rows = []
        for line in self._lines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and "step" in row:
                rows.append(row)
        return rows

    def rewind(self, step: int) -> None:
        """Drops what was logged after ``step``, before a run goes on from there."""
        kept = "".join(json.dumps(row) + "\n" for row in self.history() if row["step"] <= step)
        files.write_bytes(self.metrics, kept.encode())

    def _lines(self) -> list[str]:
        try:
            return self.metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunFolderError(f"cannot read {self.metrics}: {error.strerror}") from error
