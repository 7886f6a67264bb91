"""What the benchmark prints, and the same figures for ``--json``."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


class Report:
    """Prints tables and ratios, and keeps every figure that it prints."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.figures: dict[str, Any] = {"ratio": {}}

    def say(self, text: str) -> None:
        """A line for people, without figures of its own."""
        self.console.print(text)

    def table(self, key: str, title: str, rows: list[dict[str, Any]]) -> None:
        """Prints rows of equal columns and keeps them as ``key``."""
        self.figures[key] = rows
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for i, name in enumerate(rows[0]):
            table.add_column(name, justify="left" if i == 0 else "right")
        for row in rows:
            table.add_row(*(_text(value) for value in row.values()))
        self.console.print(table)
        self.console.print()

    def ratio(self, key: str, meaning: str, value: float, goal: float | None = None, *, least: bool = True) -> None:
        """Prints a ratio beside its goal and keeps it under "ratio"; ``least`` tells how the goal is meant."""
        self.figures["ratio"][key] = round(value, 3)
        against = "" if goal is None else f" (goal: {'at least' if least else 'at most'} {goal:g})"
        self.console.print(f"{meaning}: [bold]{value:.2f}[/bold]{against}")

    def write(self, path: Path) -> None:
        """All figures as json."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.figures, indent=1) + "\n")
        self.console.print(f"wrote {path}")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
