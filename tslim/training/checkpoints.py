"""The checkpoints of a run folder: the newest, the one before, and the best. Never more.

=========================  =====================================================================
``checkpoint.npz``         the newest
``checkpoint-before.npz``  the one before, for when the newest turns out to be damaged
``checkpoint-best.npz``    that of the highest training PSNR, for when training gets lost
=========================  =====================================================================

What is in two of these roles is stored once, where the file system can (by hard links).
"""

import contextlib
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tslim import files
from tslim.errors import ModelFileError
from tslim.training import checkpoint


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, folder: Path) -> None:
        self.newest = folder / "checkpoint.npz"
        self.before = folder / "checkpoint-before.npz"
        self.best = folder / "checkpoint-best.npz"

    def paths(self) -> tuple[Path, Path, Path]:
        """All that are kept, be they there or not."""
        return self.newest, self.before, self.best

    def exist(self) -> bool:
        """Whether there is any."""
        return any(path.exists() for path in self.paths())

    def save(self, arrays: dict[str, np.ndarray], plain: dict[str, Any]) -> Path:
        """Writes the newest; raises as ``checkpoint.save``. ``plain["quality"]`` is its PSNR, None if not known."""
        if self.newest.exists():
            _give_second_name(self.newest, self.before)
        checkpoint.save(self.newest, arrays, plain)
        quality = plain.get("quality")
        if quality is not None and quality >= self._best_quality():
            _give_second_name(self.newest, self.best)
        return self.newest

    def read(self, *, best: bool = False) -> tuple[dict[str, np.ndarray], dict[str, Any], tuple[str, ...]]:
        """Arrays and plain data of the newest that can be read, or of the best; and what is wrong with others.

        Raises:
            FileNotFoundError: there is none.
            ModelFileError: none can be read.
        """
        order = (self.best, self.before, self.newest) if best else (self.newest, self.before, self.best)
        problems: list[str] = []
        found = False
        for path in order:
            try:
                arrays, plain = checkpoint.load(path)
                return arrays, plain, tuple(problems)
            except FileNotFoundError:
                continue
            except ModelFileError as error:
                found = True
                problems.append(str(error))
        if not found:
            raise FileNotFoundError(f"no such checkpoint: {self.newest}")
        raise ModelFileError(problems[0])

    def _best_quality(self) -> float:
        """PSNR of the best checkpoint that is there."""
        with contextlib.suppress(FileNotFoundError, ModelFileError):
            quality = checkpoint.load_plain(self.best).get("quality")
            if isinstance(quality, int | float) and math.isfinite(quality):
                return quality
        return -math.inf


def _give_second_name(path: Path, name: Path) -> None:
    """Gives a file a second name, in the place of what has that name; never leaves none or a half. Never raises."""
    with contextlib.suppress(OSError), files.replacing(name) as temporary:
        temporary.unlink()
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)
