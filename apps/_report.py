"""What experiments show and write: the table of PSNR by rank, as text and json, and plots."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tslim import config, files
from tslim.config import TrainConfig
from tslim.errors import ConfigError
from tslim.measuring import plots
from tslim.measuring.evaluate import SweepRow
from tslim.sweeps import table as sweep_table


@dataclass(frozen=True)
class Variant:
    """A line of the table: what was trained and what it measured."""

    name: str
    rows: Sequence[SweepRow]
    settings: TrainConfig | None = None
    """None where the rows come from several trainings"""
    history: Sequence[Mapping[str, Any]] = ()
    """the lines of its ``metrics.jsonl``"""

    def psnr(self, rank: int) -> float | None:
        """Mean PSNR of the prefix of that rank, dB; None if it was not measured."""
        return next((row.psnr for row in self.rows if row.rank == rank), None)

    def seconds(self) -> float:
        """How long training took, with the first seed."""
        return float(self.history[-1]["seconds"])

    def reached(self) -> int:
        """The active rank at the end of training."""
        return int(self.history[-1]["rank"])


def table(
    variants: Sequence[Variant],
    *,
    reference: str | None = None,
    extra: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[list[str], list[list[str]]]:
    """Headings, and the cells of each variant: its name, then its PSNR at each rank that any of them was measured at.

    See ``Experiment.report`` for the arguments. Raises ``ConfigError`` if no variant has the reference's name.
    """
    ranks = sorted({row.rank for variant in variants for row in variant.rows})
    against = next((variant for variant in variants if variant.name == reference), None)
    if reference is not None and against is None:
        raise ConfigError(f"no line is called {reference!r}: there are {', '.join(v.name for v in variants)}")
    extra = extra or {}
    lines = []
    for variant in variants:
        line = [variant.name]
        for rank in ranks:
            psnr, other = variant.psnr(rank), against.psnr(rank) if against else None
            cell = "–" if psnr is None else f"{psnr:.2f}"
            if psnr is not None and other is not None and variant is not against:
                cell += f" ({psnr - other:+.2f})"
            line.append(cell)
        lines.append(line + [by_name.get(variant.name, "–") for by_name in extra.values()])
    return ["trained as", *map(str, ranks), *extra], lines


def command() -> str:
    """The command line that runs the experiment."""
    return shlex.join(["python", f"apps/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def write_table(path: Path, title: str, setting: str, heads: list[str], cells: list[list[str]]) -> Path:
    """Writes the table in Markdown below its title and the settings in words."""
    text = "\n".join([f"### {title}", "", setting, "", *sweep_table.markdown(heads, cells), ""])
    return files.write_bytes(path, text.encode())


def write_json(
    path: Path,
    facts: Mapping[str, Any],
    variants: Sequence[Variant],
    extra: Mapping[str, Mapping[str, str]] | None,
) -> Path:
    """Writes ``facts``, and as ``variants`` each line with its rows, settings and further columns."""
    lines = []
    for v in variants:
        line: dict[str, Any] = {"name": v.name, "rows": [dataclasses.asdict(row) for row in v.rows]}
        if v.settings is not None:
            line["train"] = config.to_dict(v.settings)
        line |= {head: by_name[v.name] for head, by_name in (extra or {}).items() if v.name in by_name}
        lines.append(line)
    return files.write_bytes(path, (json.dumps({**facts, "variants": lines}, indent=2) + "\n").encode())


def write_plots(folder: Path, title: str, variants: Sequence[Variant]) -> list[Path]:
    """Writes PSNR over size and, of lines with a history, over training."""
    curves = {variant.name: variant.rows for variant in variants}
    written = [plots.size_quality(folder / "size-quality.png", curves, title=title)]
    histories = {variant.name: variant.history for variant in variants if variant.history}
    if histories:
        written.append(plots.compare_training(folder / "training.png", histories, title=title))
    return written
