"""Measured curves of size and quality beside published points: a table as Markdown and CSV, and a plot."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from tslim import files
from tslim.errors import ConfigError
from tslim.measuring.evaluate import SweepRow
from tslim.measuring.plots import size_quality
from tslim.sweeps.published import MEAN, Published

COLUMNS = ("kind", "method", "scene", "rank", "bytes", "psnr", "background", "counted", "source", "note")
"""Columns of ``beside-published.csv``."""
Curves = Mapping[str, Sequence[SweepRow]]
"""Sizes of one file, by name of the curve."""


def write(
    folder: str | Path, curves: Curves, others: Sequence[Published], *, scene: str, background: str, setting: str
) -> list[Path]:
    """Writes ``beside-published.md``, ``.csv`` and ``.png`` into a folder; returns them.

    Args:
        curves: what was measured. The first is the one that published points are compared with.
        others: published points of this scene.
        scene: its name.
        background: what the curves were measured on: white, black, or another colour's name.
        setting: how the curves were measured, in a sentence or two.

    Raises ``ConfigError`` if there is nothing measured, and ``RunFolderError`` where nothing can be written.
    """
    if not any(len(rows) for rows in curves.values()):
        raise ConfigError("no measurements to put beside what is published")
    folder = Path(folder)
    lines = [f"### {_scene(scene)}: beside the published", "", setting, "", *_markdown(curves, others, background), ""]
    points: dict[str, list[tuple[float, float]]] = {}
    for other in others:
        points.setdefault(f"{other.method}{_flag(other, background)}", []).append((other.mb, other.psnr))
    return [
        files.write_bytes(folder / "beside-published.md", "\n".join(lines).encode()),
        files.write_bytes(folder / "beside-published.csv", _csv(curves, others, scene, background).encode()),
        size_quality(folder / "beside-published.png", curves, points=points, title=f"{_scene(scene)}, on {background}"),
    ]


def best_within(rows: Sequence[SweepRow], n_bytes: float) -> SweepRow | None:
    """The best of the sizes that take no more bytes; None if none does."""
    return max((row for row in rows if row.bytes <= n_bytes), key=lambda row: row.psnr, default=None)


def _markdown(curves: Curves, others: Sequence[Published], background: str) -> list[str]:
    """Everything by size, and of each published point what the first curve has in as many bytes."""
    name, first = next(iter(curves.items()))
    lines = [
        "MB are 10^6 bytes. *counted* says what a source printed: MiB are converted here; of those *as printed* it is",
        "not known which MB they are. dB on another background than ours cannot be compared: it is in brackets.",
        "",
        f"| method | MB | dB | {name} in as many bytes | background | counted | source | note |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows: list[tuple[float, str]] = []
    for method, measured in curves.items():
        for row in measured:
            mb = f"{row.bytes / 1e6:.3f}"
            note = f"rank {row.rank}" + (f", on {row.views} views" if row.views is not None else "")
            rows.append(
                (
                    row.bytes,
                    f"| **{method}** | {mb} | **{row.psnr:.2f}** | | {background} | bytes | measured | {note} |",
                )
            )
    for other in others:
        cells = [
            other.method, f"{other.mb:g}", f"{other.psnr:.2f}", _against(other, first, background),
            other.background if _comparable(other, background) else f"({other.background})",
            other.counted, other.source, other.note,
        ]  # fmt: skip
        rows.append((1e6 * other.mb, f"| {' | '.join(cells)} |"))
    return lines + [line for _, line in sorted(rows, key=lambda row: row[0])]


def _against(other: Published, first: Sequence[SweepRow], background: str) -> str:
    ours = best_within(first, 1e6 * other.mb)
    if ours is None:
        return "–"
    difference = f" ({ours.psnr - other.psnr:+.2f})" if _comparable(other, background) else ""
    return f"{ours.psnr:.2f}{difference}, rank {ours.rank}"


def _comparable(other: Published, background: str) -> bool:
    """Whether dB mean the same. Sources that do not say are taken to have the usual white background."""
    return (other.background if other.background in ("white", "black") else "white") == background


def _flag(other: Published, background: str) -> str:
    return "" if _comparable(other, background) else f" (on {other.background})"


def _csv(curves: Curves, others: Sequence[Published], scene: str, background: str) -> str:
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    for method, rows in curves.items():
        for row in rows:
            note = "" if row.views is None else f"on {row.views} views"
            measured = (method, scene, row.rank, row.bytes, f"{row.psnr:.4f}", background, "bytes", "", note)
            out.writerow(("measured", *measured))
    for o in others:
        of = (o.method, o.scene, "", round(1e6 * o.mb), f"{o.psnr:.2f}", o.background, o.counted, o.source, o.note)
        out.writerow(("published", *of))
    return text.getvalue()


def _scene(name: str) -> str:
    return "Mean of eight scenes" if name == MEAN else name.capitalize()
