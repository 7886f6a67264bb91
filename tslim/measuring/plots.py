"""Plots: quality against size, and how a training went. matplotlib without a window, imported when first used."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tslim import files
from tslim.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tslim.measuring.evaluate import SweepRow

COLOURS = ("#1f6fb4", "#d1495b", "#2e8b57", "#8e5ea2", "#e08e2b", "#5b6770", "#17a2a8", "#222222")
MOST_BELOW = 4.0
"""Published points are shown down to so many dB below the lowest measurement, and below the lowest method at its
largest size."""
MOST_CLOSE_TICKS = 400
"""Up to so many times the smallest size a logarithmic axis has room for ticks at 1, 2 and 5."""
MOST_INSIDE = 3
"""Up to so many curves are named inside the axes."""
ALIKE = 1.1
"""Sizes of a rank that differ by no more than this factor share its name at the top."""
_GREY = "#5b6770"
_LIGHT = "#e3e6ea"


def size_quality(
    path: str | Path,
    curves: "Mapping[str, Sequence[SweepRow]]",
    *,
    points: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    title: str = "",
) -> Path:
    """PSNR against file size, one curve a name. The suffix chooses the format.

    ``points``: others' sizes in MB and dB, by name: hollow.

    Ranks that were measured on a few views only are small dots; the others are labelled: several curves whose sizes are
    about the same along the top, else at their points, as far as there is room.

    Raises ``ConfigError`` if there is nothing to plot, ``RunFolderError`` where the file cannot be written.
    """
    curves = {name: sorted(rows, key=lambda row: row.bytes) for name, rows in curves.items() if len(rows)}
    if not curves:
        raise ConfigError("no measurements to plot")
    figure, (axes,) = _figure(title)
    for (name, rows), colour, marker in zip(curves.items(), _cycle(COLOURS), _cycle("osD^vP"), strict=False):
        x, y = [row.bytes / 1e6 for row in rows], [row.psnr for row in rows]
        known = [i for i, row in enumerate(rows) if row.views is None]
        axes.plot(
            x, y, marker=marker, markersize=5, markevery=known, color=colour, linewidth=1.8, label=files.text_of(name),
            zorder=3,
        )  # fmt: skip
        some = [row for row in rows if row.views is not None]
        if some:
            axes.plot([row.bytes / 1e6 for row in some], [row.psnr for row in some], ".", markersize=4, color=colour)
    _draw_published(axes, points or {})
    every = [row for rows in curves.values() for row in rows]
    sizes = {rank: [row.bytes / 1e6 for row in every if row.rank == rank] for rank in sorted({r.rank for r in every})}
    widths = [*(mb for found in sizes.values() for mb in found), *(mb for p in (points or {}).values() for mb, _ in p)]
    if max(widths) > 8 * min(widths):
        axes.set_xscale("log")
        _plain_log_ticks(axes, max(widths) / min(widths))
    axes.set_xlabel("file size (MB)")
    axes.set_ylabel("mean PSNR (dB)")
    axes.margins(x=0.08, y=0.12)
    if points:
        least = min(min(row.psnr for row in every), *(max(y for _, y in found) for found in points.values()))
        axes.set_ylim(bottom=max(axes.get_ylim()[0], least - MOST_BELOW))
    if len(curves) + len(points or {}) > MOST_INSIDE:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.02))
        figure.set_figwidth(1.3 * figure.get_figwidth())
    elif len(curves) + len(points or {}) > 1:
        axes.legend(frameon=False, fontsize=9, loc="best")
    if all(max(found) <= ALIKE * min(found) for found in sizes.values()) and len(curves) > 1 and not points:
        _name_ranks(axes, {rank: sum(found) / len(found) for rank, found in sizes.items()})
    else:
        for i, (rows, colour) in enumerate(zip(curves.values(), _cycle(COLOURS), strict=False)):
            _name_points(axes, rows, colour, "rank " if i == 0 else "")
        _without_overlaps(figure, axes)
    return _save(figure, path)


def _draw_published(axes: "Axes", points: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """What others published, hollow, joined where it is several sizes."""
    for (name, found), colour, marker in zip(points.items(), _cycle(COLOURS[1:]), _cycle("osD^vPX*h<>"), strict=False):
        x, y = zip(*sorted(found), strict=True)
        axes.plot(
            x, y, "--", marker=marker, color=colour, markerfacecolor="white", markersize=5, linewidth=0.8, label=name
        )


def _name_points(axes: "Axes", rows: "Sequence[SweepRow]", colour: str, word: str) -> None:
    """Ranks at the points of a curve, with a word before the first."""
    from matplotlib.patheffects import withStroke

    for i, row in enumerate(row for row in rows if row.views is None):
        text, at = (f"{word}{row.rank}", (0, -14)) if i == 0 else (str(row.rank), (0, 7))
        at_point = (row.bytes / 1e6, row.psnr)
        name = axes.annotate(text, at_point, at, textcoords="offset points", ha="center", fontsize=8, color=colour)
        name.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _without_overlaps(figure: "Figure", axes: "Axes") -> None:
    """Takes away the names of points that would cover those of points before them."""
    figure.draw_without_rendering()
    kept: list[Any] = []
    for text in list(axes.texts):
        around = text.get_window_extent()
        if any(around.overlaps(other) for other in kept):
            text.remove()
        else:
            kept.append(around)


def _name_ranks(axes: "Axes", sizes: Mapping[int, float]) -> None:
    """Ranks along the top, each above its size."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    top = axes.secondary_xaxis("top")
    top.xaxis.set_major_locator(FixedLocator(list(sizes.values())))
    top.xaxis.set_major_formatter(FixedFormatter([f"rank {r}" if i == 0 else str(r) for i, r in enumerate(sizes)]))
    top.xaxis.set_minor_locator(NullLocator())
    top.spines["top"].set_visible(False)
    top.tick_params(colors=_GREY, labelsize=8, length=0, pad=1)


def few_views(
    path: str | Path, lines: Mapping[str, Mapping[int, float]], counts: Sequence[int], *, title: str = ""
) -> Path:
    """PSNR against the number of training images, one curve a method; those of one colour belong together.

    Args:
        lines: name to PSNR in dB by number of images; names that begin with the same word have one colour.
        counts: the numbers of images to show.

    Raises as ``size_quality``.
    """
    if not lines or not counts:
        raise ConfigError("no measurements to plot")
    figure, (axes,) = _figure(title)
    families = list(dict.fromkeys(name.split()[0].rstrip(",") for name in lines))
    for number, (name, by_count) in enumerate(lines.items()):
        family = families.index(name.split()[0].rstrip(","))
        members = [n for n in lines if n.split()[0].rstrip(",") == families[family]]
        style = ("-", "--", "-.", ":")[members.index(name) % 4]
        colour, marker = COLOURS[family % len(COLOURS)], "osD^vP"[number % 6]
        axes.plot(counts, [by_count[c] for c in counts], style, color=colour, marker=marker, markersize=4, label=name)
    axes.set_xticks(list(counts))
    axes.set_xlabel("training images")
    axes.set_ylabel("mean PSNR (dB)")
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _save(figure, path)


def training_curves(path: str | Path, history: Sequence[Mapping[str, Any]], *, title: str = "") -> Path:
    """PSNR of the training rays and active rank over steps, from the lines of ``metrics.jsonl``.

    Needs ``step``, ``psnr`` and ``rank`` in each line; lines without them are left out. Raises as ``size_quality``.
    """
    needed = ("step", "psnr", "rank")
    lines = [line for line in history if all(isinstance(line.get(name), int | float) for name in needed)]
    if not lines:
        raise ConfigError("no progress to plot: the run has not reported any yet")
    steps, psnr, rank = ([line[name] for line in lines] for name in needed)
    figure, (axes,) = _figure(title)
    axes.plot(steps, psnr, color=COLOURS[0], alpha=0.3, linewidth=1)
    axes.plot(steps, _smoothed(psnr), color=COLOURS[0], linewidth=1.8)
    axes.set_xlabel("step")
    axes.set_ylabel("PSNR of training rays (dB)", color=COLOURS[0])
    ranks = axes.twinx()
    axes.set_zorder(ranks.get_zorder() + 1)
    axes.patch.set_visible(False)
    ranks.step(steps, rank, where="post", color=_GREY, linewidth=1.2)
    ranks.fill_between(steps, rank, step="post", color=_LIGHT, alpha=0.6, linewidth=0)
    ranks.set_ylabel("active rank", color=_GREY)
    ranks.set_ylim(0, 1.25 * max(rank))
    ranks.locator_params(axis="y", integer=True)
    ranks.spines[["top", "left", "bottom"]].set_visible(False)
    ranks.spines["right"].set_color(_GREY)
    ranks.tick_params(colors=_GREY)
    return _save(figure, path)


def compare_training(
    path: str | Path, histories: Mapping[str, Sequence[Mapping[str, Any]]], *, title: str = ""
) -> Path:
    """PSNR of the training rays over steps, one curve a run, unsmoothed behind smoothed. Raises as ``size_quality``."""
    curves = {name: [(r["step"], r["psnr"]) for r in rows if "psnr" in r] for name, rows in histories.items()}
    if not any(curves.values()):
        raise ConfigError("no progress to plot: the runs have not reported any yet")
    figure, (axes,) = _figure(title)
    for (name, points), colour in zip(curves.items(), _cycle(COLOURS), strict=False):
        steps, psnr = zip(*points, strict=True) if points else ((), ())
        axes.plot(steps, psnr, color=colour, alpha=0.3, linewidth=1)
        axes.plot(steps, _smoothed(psnr), color=colour, linewidth=1.8, label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("PSNR of training rays at the active rank (dB)")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return _save(figure, path)


def rank_trace(path: str | Path, history: Sequence[Mapping[str, Any]], *, title: str = "") -> Path:
    """How ranks arrived, and what each was worth meanwhile, from the lines of ``metrics.jsonl``.

    Above: PSNR of the training rays that were rendered at each rank (``psnr_by_rank``), smoothed; every rank is named
    where its curve ends. Below: the active rank, with a dot for each increase in ``grew``. Lines without ``step``,
    ``rank`` and ``psnr_by_rank`` are left out. Raises as ``size_quality``.
    """
    lines = [row for row in history if isinstance(row.get("psnr_by_rank"), dict) and {"step", "rank"} <= set(row)]
    if not lines:
        raise ConfigError("no trace of ranks to plot: the run has not reported any yet")
    figure, (above, below) = _figure(title, rows=2)
    ranks = sorted({int(rank) for row in lines for rank in row["psnr_by_rank"]})
    for rank, colour in zip(ranks, _shades(len(ranks)), strict=True):
        seen = [(row["step"], row["psnr_by_rank"][str(rank)]) for row in lines if str(rank) in row["psnr_by_rank"]]
        steps, psnr = zip(*seen, strict=True)
        above.plot(steps, _smoothed(psnr), color=colour, linewidth=1.5, label=str(rank))
    above.set_ylabel("PSNR of training rays (dB)")
    above.legend(
        title="rank", frameon=False, fontsize=8, title_fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5),
        ncols=1 if len(ranks) <= 8 else 2,
    )  # fmt: skip
    grown = [increase for row in lines for increase in row.get("grew", ())]
    at = [increase["step"] for increase in grown]
    first = lines[0]["rank"]
    if lines[0].get("grew"):
        first = max((int(r) for r in lines[0]["psnr_by_rank"] if int(r) < grown[0]["rank"]), default=1)
    active = [first, *(increase["rank"] for increase in grown), lines[-1]["rank"]]
    below.step([0, *at, lines[-1]["step"]], active, where="post", color=_GREY, linewidth=1.5)
    below.plot(at, [increase["rank"] for increase in grown], "o", color=COLOURS[1], markersize=4)
    below.set_ylim(0, 1.15 * max(row["rank"] for row in lines))
    below.locator_params(axis="y", integer=True)
    below.set_ylabel("active rank")
    below.set_xlabel("step")
    return _save(figure, path)


def _figure(title: str, rows: int = 1) -> "tuple[Figure, list[Axes]]":
    """A figure of its own (no pyplot, hence no global state and no window) with quiet axes: one, or several rows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0 if rows == 1 else 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(rows, squeeze=False, sharex=True, height_ratios=(2, 1)[:rows])[:, 0]
    for axes in every:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_GREY)
        axes.tick_params(colors=_GREY)
        axes.grid(True, color=_LIGHT, linewidth=0.8, zorder=0)
    if title:
        every[0].set_title(files.text_of(title), fontsize=11, loc="left")
    return figure, list(every)


def _shades(n: int) -> "Sequence[Any]":
    """n colours from light to dark."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.92 * (1 - i / max(n - 1, 1))) for i in range(n)]


def _plain_log_ticks(axes: "Axes", ratio: float) -> None:
    """Ticks at 1, 2, 5, 10, ... written as such; at 1, 10, ... alone where the largest is many times the smallest."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio <= MOST_CLOSE_TICKS else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _smoothed(values: Sequence[float]) -> np.ndarray:
    """Mean over a window around each value, narrower towards the ends; what is not finite is left out."""
    every = np.asarray(values, np.float64)
    half_width = max(len(every) // 30, 1)
    out = np.full(len(every), np.nan)
    for i in range(len(every)):
        near = min(half_width, i, len(every) - 1 - i)
        window = every[i - near : i + near + 1]
        if np.isfinite(window).any():
            out[i] = window[np.isfinite(window)].mean()
    return out


def _cycle(items: Sequence[str]) -> Iterator[str]:
    while True:
        yield from items


def _save(figure: "Figure", path: str | Path) -> Path:
    suffix = Path(path).suffix.lower().lstrip(".")
    if suffix not in ("png", "svg", "pdf"):
        raise ConfigError(f"{path}: a plot ends in .png, .svg or .pdf")
    data = io.BytesIO()
    figure.savefig(data, format=suffix)
    return files.write_bytes(path, data.getvalue())
