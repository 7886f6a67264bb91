"""Figures of the literature, beside which measurements stand: all of them are in ``published.csv``."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MEAN = "mean"
"""Stands in place of a scene's name for the mean over the eight of NeRF-synthetic."""
FILE = Path(__file__).with_name("published.csv")


@dataclass(frozen=True)
class Published:
    """A figure from the literature."""

    method: str
    scene: str
    psnr: float
    """dB"""
    mb: float
    """10^6 bytes"""
    background: str
    """white, black, or not said"""
    counted: str
    """how its source counts bytes: "MiB, converted", "as printed" (it says MB, and not which), or "reckoned" (it does
    not say at all)"""
    source: str
    note: str

    @property
    def is_cut(self) -> bool:
        """Whether it is one of several sizes of a single file."""
        return self.method.endswith(", cut")


def published(scenes: Iterable[str], *, means: bool = True) -> list[Published]:
    """Figures for scenes of these names (NeRF-synthetic), and their means over its eight scenes."""
    wanted = {scene.lower() for scene in scenes} | ({MEAN} if means else set())
    lines = (line for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    rows = (row for row in csv.DictReader(lines) if row["scene"] in wanted)
    return [Published(**{**row, "psnr": float(row["psnr"]), "mb": float(row["mb"])}) for row in rows]  # type: ignore[arg-type]
