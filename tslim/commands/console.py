"""What people see in the terminal: live progress, tables, one-line errors. Only this file and cli.py print.

On a terminal there is one live line with a bar, and everything worth keeping (a rank that was added, a grid that
grew) is logged above it. Into a file or pipe go plain lines now and then, without colours or control codes.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from tslim.training import events

if TYPE_CHECKING:
    from tslim.measuring.evaluate import SweepRow

PLAIN_SECONDS, PLAIN_SHARE = 10.0, 1 / 40
"""Without a terminal, two lines of progress are at least so many seconds apart, and so large a share of the run."""

MOST_LETTERS = 400
"""The longest error that is printed whole; of a longer one the middle is left out."""

FILE_WIDTH = 200
"""Columns that a table may take where no terminal limits it."""


class Console:
    """Writes to the terminal, or plainly to whatever stands in for one.

    Args:
        rich: a rich console to write to; one on standard output by default.
    """

    def __init__(self, rich: RichConsole | None = None) -> None:
        self.rich = rich or RichConsole(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
        self.live = self.rich.is_terminal and not self.rich.is_dumb_terminal

    def line(self, text: object, style: str | None = None) -> None:
        """One line as it is, never wrapped when it goes to a file, so that paths can be copied and lines searched."""
        self.rich.print(Text(printable(text)), style=style, soft_wrap=True, highlight=False)

    def fact(self, name: str, value: object) -> None:
        """A named fact, names aligned below each other."""
        self.rich.print(f"[bold]{escape(name):<9}[/]{escape(printable(value))}", soft_wrap=True, highlight=False)

    def warn(self, message: str) -> None:
        """Something the user should know but need not act on."""
        self.line(f"warning: {message}", style="yellow")

    def sweep_table(self, rows: Iterable["SweepRow"], title: str | None = None) -> list["SweepRow"]:
        """Shows rank, size, PSNR, SSIM and time of each row, and returns the rows; those that were measured on a few
        views only are dimmed.
        """
        rows = list(rows)
        perceptual = any(row.lpips is not None for row in rows)
        heads = ("rank", "MB", "PSNR (dB)", "SSIM", *(["LPIPS"] if perceptual else []), "ms/frame")
        table = _table(*heads, title=title)
        for row in rows:
            lpips = ["–" if row.lpips is None else f"{row.lpips:.4f}"] if perceptual else []
            table.add_row(
                str(row.rank), f"{row.bytes / 1e6:.2f}", f"{row.psnr:.2f}", f"{row.ssim:.4f}", *lpips,
                f"{row.ms_per_frame:.0f}", style=None if row.views is None else "dim",
            )  # fmt: skip
        self._show(table)
        some = {row.rank: row.views for row in rows if row.views is not None}
        if some:
            where = "rank " if len(some) == 1 else "ranks "
            self.line(f"{where}{spans(some)}: measured on {max(some.values())} of these views", style="dim")
        return rows

    def table(self, heads: Sequence[str], cells: Sequence[Sequence[str]], title: str | None = None) -> None:
        """Shows lines of text below headings; all columns but the first stand to the right."""
        table = _table(*heads, title=title)
        table.columns[0].justify = "left"
        for line in cells:
            table.add_row(*(Text(cell) for cell in line))
        self._show(table)

    def facts_table(self, rows: Sequence[tuple[str, object]], title: str | None = None) -> None:
        """Two columns: names and values."""
        table = Table(show_header=False, box=None, title=_title(title), title_justify="left", padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(Text(name), Text(printable(value)))
        self._print(table)

    def _show(self, table: Table) -> None:
        """Shows a table of text. Where a terminal is too narrow for it there are no lines between columns, and cells
        wrap, but between words only.
        """
        width = 1
        for column in table.columns:
            cells = [str(column.header), *map(str, column.cells)]
            column.min_width = max(len(word) for cell in cells for word in cell.split())
            width += 3 + max(len(cell) for cell in cells)
        if width > self.rich.width:
            table.box, table.pad_edge, table.padding = None, False, (0, 1, 0, 0)
        self._print(table)

    def _print(self, table: Table) -> None:
        if self.rich.is_terminal:
            self.rich.print(table)
            return
        with self.rich.capture() as captured:
            self.rich.print(table)
        for line in captured.get().splitlines():
            self.line(line.rstrip())

    def written(self, paths: Sequence[Path]) -> None:
        """The list of files that a command left behind, with their sizes."""
        self.line("wrote", style="bold")
        for path in paths:
            size = _size(path)
            self.line(f"  {path}" + (f"  ({size})" if size else ""))

    def track(self, items: Iterable, what: str, total: int) -> Iterator:
        """Passes items through, with a bar on a terminal that goes away at the end."""
        with self.counter(what, total) as count:
            for item in items:
                yield item
                count()

    @contextmanager
    def counter(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Yields a function to call ``total`` times; a bar on a terminal shows how far it is, and goes away."""
        if not self.live:
            yield lambda: None
            return
        with Progress(TextColumn(what), BarColumn(40), MofNCompleteColumn(), console=self.rich, transient=True) as bar:
            task = bar.add_task("", total=total)
            yield lambda: bar.advance(task)

    @contextmanager
    def stages(self) -> Iterator[Callable[[str, int, int], None]]:
        """Yields a function to call with a stage, how much of it is done, and of how much. On a terminal each stage has
        a bar, elsewhere a line.
        """
        if not self.live:
            named: list[str] = []

            def print_stage(stage: str, done: int, total: int) -> None:
                if stage not in named:
                    named.append(stage)
                    self.line(f"{stage} ({total})")

            yield print_stage
            return
        columns = TextColumn("{task.description:<22}"), BarColumn(40), MofNCompleteColumn()
        with Progress(*columns, console=self.rich) as bar:
            tasks: dict[str, TaskID] = {}

            def move_bar(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bar.add_task(stage)
                bar.update(tasks[stage], completed=done, total=total)

            yield move_bar

    @contextmanager
    def training(self, steps: int) -> Iterator["TrainingView"]:
        """A consumer of a trainer's events for the length of the block."""
        view = TrainingView(self, steps)
        try:
            yield view
        finally:
            view.close()


class TrainingView:
    """Shows a run from its events: give each one to ``show``."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console = console
        self._printed_at = -PLAIN_SECONDS
        self._printed_step = -1
        self._estimates = 0
        self._last: events.Progress | None = None
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if console.live:
            # The rest of the line takes up to 67 columns; a few stay free, so that an echoed ^C does not break it.
            wide = console.rich.width >= 78
            self._bar = Progress(
                BarColumn(bar_width=min(console.rich.width - 70, 40) if wide else 8),
                MofNCompleteColumn(),
                *([TextColumn("loss {task.fields[loss]}")] if wide else []),
                TextColumn("[bold]{task.fields[psnr]}[/]"),
                TextColumn("rank {task.fields[rank]}"),
                *([TextColumn("{task.fields[rays]} rays/s")] if wide else []),
                TextColumn("[cyan]{task.fields[left]}[/]"),
                console=console.rich,
                refresh_per_second=4,
            )
            self._task = self._bar.add_task("", total=steps, loss="–", psnr="– dB", rank="–", rays="–", left="")
            self._bar.start()

    def show(self, event: events.Event) -> None:
        """Shows one event."""
        if isinstance(event, events.Stepped):
            if self._bar:
                self._bar.update(self._task, completed=event.step, rank=event.rank)
        elif isinstance(event, events.Progress):
            self._progress(event)
        elif isinstance(event, events.Started):
            if self._bar:
                self._bar.update(self._task, completed=event.step, total=event.steps)
            if event.resumed:
                self._line_above_bar(str(event))
        elif isinstance(event, events.Warned):
            self._line_above_bar(str(event), "yellow")
        elif isinstance(event, events.RankGrew):
            self._line_above_bar(str(event), "green")
        elif not isinstance(event, events.CheckpointSaved):
            if isinstance(event, events.Finished):
                self._print_last_progress()
            self._line_above_bar(str(event))

    def note(self, text: str) -> None:
        """A line above the bar that no event caused."""
        self._line_above_bar(text, "yellow")

    def close(self) -> None:
        """Ends the live display; what it showed last stays."""
        if self._bar:
            self._bar.stop()
        else:
            self._print_last_progress()

    def _progress(self, event: events.Progress) -> None:
        self._last = event
        self._estimates += 1
        if self._bar:
            self._bar.update(
                self._task,
                completed=event.step,
                loss=f"{event.loss:.5f}",
                psnr=f"{event.psnr:.2f} dB",
                rank=event.rank,
                rays=_count(event.rays_per_second),
                left=self._time_left().removeprefix(", "),
            )
        elif time.monotonic() - self._printed_at >= PLAIN_SECONDS and self._is_due(event):
            self._print_last_progress()

    def _is_due(self, event: events.Progress) -> bool:
        return self._printed_step < 0 or event.step - self._printed_step >= PLAIN_SHARE * event.steps

    def _print_last_progress(self) -> None:
        """Without a bar: the latest progress as a line, once."""
        if self._bar is None and self._last and self._printed_step != self._last.step:
            self._printed_at = time.monotonic()
            self._printed_step = self._last.step
            self._console.line(f"{_progress_line(self._last)}{self._time_left()}")

    def _time_left(self) -> str:
        """The trainer's own estimate, which knows that later steps are dearer. The first one counts the compiler."""
        left = self._last.seconds_left if self._last and self._estimates > 1 else None
        return f", {duration(left)} left" if left else ""

    def _line_above_bar(self, text: str, style: str | None = None) -> None:
        self._console.line(f"  {text}" if self._bar else text, style=style)


def printable(text: object) -> str:
    """Text from anywhere, such as a file's name, without characters that a terminal would take for commands."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def fail(message: object) -> None:
    """An error as one line on standard error, whatever line breaks the message holds."""
    text = " ".join(printable(message).split()) or type(message).__name__
    if len(text) > MOST_LETTERS:
        text = f"{text[: MOST_LETTERS * 2 // 3]} … {text[-MOST_LETTERS // 3 :]}"
    sys.stderr.write(f"tslim: {text}\n")
    sys.stderr.flush()


def spans(numbers: Iterable[int]) -> str:
    """Whole numbers, rising, as text in which runs are joined: 3, 5-7, 9."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def duration(seconds: float) -> str:
    """``m:ss``, or ``h:mm:ss`` from an hour on."""
    total = max(int(round(seconds)), 0)
    hours, rest = divmod(total, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def _progress_line(event: events.Progress) -> str:
    return (
        f"step {event.step}/{event.steps}: loss {event.loss:.5f}, PSNR {event.psnr:.2f} dB, rank {event.rank}, "
        f"{_count(event.rays_per_second)} rays/s"
    )


def memory_text(memory: Mapping[str, int]) -> str:
    """Bytes by purpose in one line, the largest first."""
    parts = ", ".join(f"{name} {size_text(size)}" for name, size in sorted(memory.items(), key=lambda item: -item[1]))
    return f"about {size_text(sum(memory.values()))}: {parts}"


def size_text(size: float) -> str:
    """Bytes in the unit that suits them: 2.7 MB, 36 MB, 938 kB."""
    for limit, unit in ((1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            return f"{size / limit:.{1 if size < 9.95 * limit else 0}f} {unit}"
    return f"{size:.0f} bytes"


def _table(*columns: str, title: str | None) -> Table:
    table = Table(title=_title(title), title_justify="left", title_style="bold")
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _title(text: str | None) -> Text | None:
    """A table's title as it is: what stands in brackets in a name is no markup."""
    return None if text is None else Text(printable(text))


def _count(value: float) -> str:
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.0f}"


def _size(path: Path) -> str:
    if path.is_file():
        return size_text(path.stat().st_size)
    if path.is_dir():
        count = sum(1 for p in path.rglob("*") if p.is_file())
        return f"{count} files"
    return ""
