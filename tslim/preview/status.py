"""What the preview says in words, and the files that it writes."""

import os
from pathlib import Path

import numpy as np

from tslim.errors import RunFolderError
from tslim.preview.budget import Budget
from tslim.preview.controls import Controls
from tslim.preview.painter import Painting
from tslim.training.events import Progress


def shown_lines(controls: Controls, painting: Painting | None, file_bytes: int) -> list[str]:
    """Two lines on the picture; always two, so that nothing below them jumps."""
    width, height = painting.size if painting else (0, 0)
    psnr = f", PSNR {painting.psnr:.2f} dB" if painting and painting.psnr is not None else ""
    return [
        f"rank {controls.rank} of {controls.max_rank}, {file_bytes / 1e6:.2f} MB as file",
        f"picture: {width} x {height}{psnr}",
    ]


def training_lines(progress: Progress | None, budget: Budget) -> list[str]:
    """Three lines on the training and what the preview costs it."""
    return [
        f"loss {progress.loss:.5f}, PSNR {progress.psnr:.2f} dB" if progress else " ",
        f"{progress.rays_per_second:,.0f} rays/s, {progress.seconds_left:.0f} s left" if progress else " ",
        f"preview: {100 * budget.used:.1f} % of time (at most {100 * budget.share:.0f} %)",
    ]


def free_path(folder: Path, name: str) -> Path:
    """A file in ``folder`` that does not exist yet, called ``name`` or nearly so."""
    base = folder / name
    for count in range(1, 1000):
        path = base if count == 1 else base.with_stem(f"{base.stem}-{count}")
        if not path.exists():
            return path
    raise RunFolderError(f"{folder} holds 999 files named like {name}: remove some")


def write_png(path: Path, picture: np.ndarray) -> None:
    """Writes a picture ((h, w, 3) uint8) so that a reader never sees half of it."""
    from PIL import Image

    temporary = path.with_name(f".{path.name}.new")
    Image.fromarray(picture).save(temporary, format="PNG")
    os.replace(temporary, path)
