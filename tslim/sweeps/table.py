"""The table of a sweep: per scene and mean, as CSV, JSON, Markdown and a plot, published figures beside ours."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tslim import files
from tslim.measuring.evaluate import SweepRow
from tslim.measuring.plots import size_quality
from tslim.model.sizes import megabytes
from tslim.sweeps.plan import Plan
from tslim.sweeps.published import MEAN, Published, published
from tslim.sweeps.single import result

COLUMNS = ("Submethod", "Scene", "PSNR", "SSIM", "LPIPS", "Size [Bytes]", "Minutes", "Peak memory [MB]", "Seeds")
"""Columns of ``table.csv``; those of the 3DGS compression survey are among them."""


@dataclass(frozen=True)
class Entry:
    """One cell of the table: a line (preset and variant) on a scene at a rank, as a mean over seeds."""

    line: str
    scene: str
    rank: int
    psnr: float
    ssim: float
    bytes: int
    minutes: float
    peak_mb: float
    seeds: int
    lpips: float | None = None

    def row(self) -> SweepRow:
        """As ``eval`` has it, but for the time of a frame."""
        return SweepRow(self.rank, self.bytes, self.psnr, self.ssim, 0.0, lpips=self.lpips)


def entries(plan: Plan) -> list[Entry]:
    """What finished trainings measured, by line, scene and rank; then each line's mean over the scenes in which all of
    its ranks were measured.
    """
    found: dict[tuple[str, str, int], list[tuple[SweepRow, dict[str, Any]]]] = {}
    for run in plan.runs:
        measured = result(plan, run)
        if measured is None:
            continue
        for rank, row in measured["rows"].items():
            found.setdefault((run.line, run.scene, rank), []).append((row, measured))
    cells = [_entry(*key, rows) for key, rows in found.items()]
    scenes = list(dict.fromkeys(run.scene for run in plan.runs))
    if len(scenes) > 1:
        for line, rank in dict.fromkeys((cell.line, cell.rank) for cell in cells):
            group = [cell for cell in cells if (cell.line, cell.rank) == (line, rank)]
            if len(group) == len(scenes):
                cells.append(_mean(line, rank, group))
    return cells


def mean_row(rows: Sequence[SweepRow]) -> SweepRow:
    """One line of several trainings measured at the same rank."""
    names = ("bytes", "psnr", "ssim", "ms_per_frame")
    size, psnr, ssim, ms = (float(np.mean([getattr(row, name) for row in rows])) for name in names)
    return SweepRow(rows[0].rank, round(size), psnr, ssim, ms, lpips=_mean_of_known([row.lpips for row in rows]))


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    """The mean; None where one was not measured."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _entry(line: str, scene: str, rank: int, rows: Sequence[tuple[SweepRow, dict[str, Any]]]) -> Entry:
    row = mean_row([row for row, _ in rows])
    more = {name: float(np.mean([run[name] for _, run in rows])) for name in ("minutes", "peak_mb")}
    return Entry(line, scene, rank, row.psnr, row.ssim, row.bytes, **more, seeds=len(rows), lpips=row.lpips)


def _mean(line: str, rank: int, group: Sequence[Entry]) -> Entry:
    mean = {
        name: float(np.mean([getattr(cell, name) for cell in group])) for name in ("psnr", "ssim", "bytes", "minutes")
    }
    peak = max(cell.peak_mb for cell in group)
    return Entry(
        line, MEAN, rank, mean["psnr"], mean["ssim"], round(mean["bytes"]), mean["minutes"], peak,
        seeds=min(cell.seeds for cell in group), lpips=_mean_of_known([cell.lpips for cell in group]),
    )  # fmt: skip


def write(plan: Plan, cells: Sequence[Entry]) -> list[Path]:
    """Writes ``table.csv`` (the columns of the 3DGS compression survey), ``table.json``, ``table.md`` and
    ``size-quality.png`` into the sweep's folder; returns them."""
    others = published({run.scene for run in plan.runs})
    written = [
        files.write_bytes(plan.out / "table.csv", _csv(cells).encode()),
        files.write_bytes(plan.out / "table.json", _json(plan, cells).encode()),
        files.write_bytes(plan.out / "table.md", _markdown(plan, cells, others).encode()),
    ]
    curves: dict[str, list[SweepRow]] = {}
    for cell in cells:
        curves.setdefault(f"{cell.scene}, {cell.line}", []).append(cell.row())
    if curves:
        written.append(size_quality(plan.out / "size-quality.png", curves, title=plan.source.stem))
    return written


def _lpips_of(cell: Entry | None) -> str:
    return "–" if cell is None or cell.lpips is None else f"{cell.lpips:.3f}"


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]


def _csv(cells: Sequence[Entry]) -> str:
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    for c in cells:
        name = f"{c.line}, rank {c.rank}"
        out.writerow(
            (
                name,
                c.scene,
                f"{c.psnr:.4f}",
                f"{c.ssim:.4f}",
                "" if c.lpips is None else f"{c.lpips:.4f}",
                c.bytes,
                f"{c.minutes:.2f}",
                f"{c.peak_mb:.0f}",
                c.seeds,
            )
        )
    return text.getvalue()


def _json(plan: Plan, cells: Sequence[Entry]) -> str:
    finished = {run.name: result(plan, run) is not None for run in plan.runs}
    return json.dumps({"finished": finished, "rows": [vars(cell) for cell in cells]}, indent=2) + "\n"


def _markdown(plan: Plan, cells: Sequence[Entry], others: Sequence[Published]) -> str:
    ranks = sorted({cell.rank for cell in cells}, reverse=True)
    lines = [f"### {plan.source.stem}", "", "PSNR in dB (size of the file) by ranks kept; MB are 10^6 bytes.", ""]
    rows = []
    by_key = {(cell.scene, cell.line, cell.rank): cell for cell in cells}
    for scene, line in dict.fromkeys((cell.scene, cell.line) for cell in cells):
        row = [by_key.get((scene, line, rank)) for rank in ranks]
        shown = [f"{cell.psnr:.2f} ({megabytes(cell.bytes)})" if cell else "–" for cell in row]
        minutes = next(cell.minutes for cell in row if cell)
        rows.append([scene, line, *shown, f"{minutes:.1f}"])
    lines += markdown(["scene", "trained as", *map(str, ranks), "minutes"], rows)
    if plan.lpips:
        rows = [
            [scene, line, *(_lpips_of(by_key.get((scene, line, rank))) for rank in ranks)]
            for scene, line in dict.fromkeys((cell.scene, cell.line) for cell in cells)
        ]
        lines += ["", "LPIPS (VGG):", "", *markdown(["scene", "trained as", *map(str, ranks)], rows)]
    if others:
        lines += ["", "Published, for orientation; MB are 10^6 bytes, as far as sources say which:", ""]
        heads = ["scene", "method", "PSNR", "MB", "background", "bytes", "source", "note"]
        lines += markdown(
            heads,
            [
                (o.scene, o.method, f"{o.psnr:.2f}", f"{o.mb:g}", o.background, o.counted, o.source, o.note)
                for o in others
            ],
        )
    missing = [run.name for run in plan.runs if result(plan, run) is None]
    if missing:
        lines += ["", f"Not finished: {', '.join(missing)}."]
    return "\n".join([*lines, ""])
