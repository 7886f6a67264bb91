"""The live preview: a consumer of training events that draws the field as it learns, and never owns the trainer.

    with tslim.Preview.open_if_possible() as preview:
        for event in trainer.run():
            preview.show(event)

The window lives in another process (``link``), so that nothing that happens to it reaches the training; so do browsers
(``server``). Pausing is not coming back from ``show``. Where no window can open, ``preview.png`` is written in the run
folder instead. What the user should be told is in ``notices``; nothing is printed.

Which picture is drawn when is decided in ``drawing``, what training says is kept in ``status``, and files are written
in ``saving``.
"""

import time
from collections.abc import Callable
from pathlib import Path

from tslim.device import display, hardware
from tslim.errors import BackendError, TslimError
from tslim.model import model_file
from tslim.preview.budget import Budget
from tslim.preview.controls import Controls, panel_rows
from tslim.preview.drawing import Drawing
from tslim.preview.link import Link, WindowLink
from tslim.preview.painter import Painter, Painting
from tslim.preview.saving import Saving
from tslim.preview.status import TrainingNews, shown_lines
from tslim.training import events

SIZE = (1280, 800)
TITLE = "tslim"
COLUMN = 290
"""Width of the panel, in pixels."""
PNG_SECONDS = 20.0
"""Least seconds between two ``preview.png``."""
PNG_WITHIN_SECONDS = 1.6
"""Most seconds that a ``preview.png`` should cost."""
PANEL_SECONDS = 0.3
"""Seconds between two updates of the panel while no picture is drawn."""


class Preview:
    """See the module. Made by ``open_if_possible`` or ``serve``; a context manager.

    Attributes:
        notices: lines for the user, oldest first; whoever shows them clears the list.
        writes_png: whether ``preview.png`` takes the place of a window.
        failure: why the window is gone, empty while it is there or if the user closed it.
    """

    def __init__(self, link: Link | None, *, share: float = 0.10, folder: Path | None = None) -> None:
        self.notices: list[str] = []
        self.writes_png = link is None
        self.failure = ""
        self._link = link
        self._folder = folder
        self._budget = Budget(share)
        self._news = TrainingNews()
        # None of these is there before ``look_at``, which all that uses them comes after.
        self._controls: Controls = None  # type: ignore[assignment]
        self._drawing: Drawing = None  # type: ignore[assignment]
        self._saving: Saving = None  # type: ignore[assignment]
        self._last_panel = self._last_png = float("-inf")

    @classmethod
    def open_if_possible(cls, *, share: float = 0.10, size: tuple[int, int] = SIZE) -> "Preview":
        """A preview in a window; where none can open, one that writes ``preview.png``, and a notice that says why.

        Args:
            share: of wall time that the preview may cost while training runs; 1 or more is no limit.
            size: of the window in pixels.
        """
        problem = display.why_no_window()
        if problem is None:
            return cls(WindowLink(*size, title=TITLE, panel_width=COLUMN), share=share)
        preview = cls(None, share=share)
        preview.notices.append(f"no preview window: {problem}; preview.png is written in the run folder instead")
        return preview

    @classmethod
    def serve(cls, port: int = 0, host: str | None = None, *, share: float = 0.10) -> "Preview":
        """A preview for browsers; a notice says at which address.

        Args:
            port: to listen at; 0 for 8642, or the next that is free.
            host: address of this machine to listen at, so that other machines can connect; None for this machine alone.
            share: as in ``open_if_possible``.

        Raises:
            BackendError: nothing can listen there.
        """
        from tslim.preview.server import ServerLink

        link = ServerLink(*SIZE, port=port, host=host)
        preview = cls(link, share=share)
        preview.notices.append(f"the preview is at {link.address}")
        return preview

    def __enter__(self) -> "Preview":
        return self

    def __exit__(self, kind, value, traceback) -> None:
        try:
            if kind is None and self._news.finished:
                self.wait()
        finally:
            self.close()

    @property
    def is_open(self) -> bool:
        """Whether there is a window, or a server for browsers."""
        return self._link is not None and not self._link.closed

    @property
    def is_watched(self) -> bool:
        """Whether there is anyone to wait for: a window, or a browser that has not been gone for long."""
        return self._link is not None and self.is_open and self._link.watched

    def show(self, event: events.Event) -> None:
        """Takes note of an event and draws if the time budget allows. Does not return while the user pauses."""
        began = time.perf_counter()
        self._budget.tick(began)
        self._note(event)
        if self._drawing is None:
            return
        last = isinstance(event, events.Finished)
        if self._link is not None:
            self._turn(free=last)
        elif self.writes_png and self._png_is_due(last):
            self._write_png()
        self._budget.charge(time.perf_counter() - began)
        paused = self._controls.paused
        while self._controls.paused and self.is_watched:
            self._turn(free=True)
            time.sleep(0.005)
        if self._controls.paused and self.is_open:
            self._controls.paused = False
            self.notices.append("whoever paused the training has gone: it goes on")
        self._budget.tick(time.perf_counter(), free=paused)

    def wait(self, *, for_anyone: bool = False, say: Callable[[str], None] | None = None) -> None:
        """Keeps the preview in use until the user closes it (or presses Ctrl-C in the terminal), or nobody watches.

        ``for_anyone``: also waits for whoever might still come. ``say`` is told each notice.
        """
        try:
            while self._drawing is not None and (self.is_open if for_anyone else self.is_watched):
                self._turn(free=True)
                if say is not None:
                    self.say_notices(say)
                time.sleep(0.005)
        except KeyboardInterrupt:
            pass

    def say_notices(self, say: Callable[[str], None]) -> None:
        """Tells each notice, once."""
        for line in self.notices:
            say(line)
        self.notices.clear()

    def close(self) -> None:
        """Closes the window, or tells browsers that this is the end."""
        if self._link is not None:
            self._link.close()

    def look_at(
        self, field, scene=None, *, folder: Path | None = None, trains: bool = False, model: Path | None = None
    ) -> None:
        """What to show: a field, and the scene to compare it with if there is one. ``show`` does this at ``Started``.

        ``folder`` is where pictures and saved models go; ``model`` the file that the field was read from, if any.
        """
        painter = Painter(field, scene, model_file.read_header(model) if model else None)
        views = {name: len(v) for name, v in painter.views.items()}
        self._controls = Controls(
            painter.first_camera(), field.rank, views, rank=field.rank, follow=trains, trains=trains,
            percent=round(100 * self._budget.share), in_browser=self._link is not None and self._link.in_browser,
        )  # fmt: skip
        self._drawing = Drawing(painter, self._controls, self._budget)
        self._fit()
        self._saving = Saving(field, folder or self._folder, model)

    @property
    def painting(self) -> Painting | None:
        """What was painted last; None before that."""
        return self._drawing.painting if self._drawing else None

    # -- events --------------------------------------------------------------------------------------------------------

    def _note(self, event: events.Event) -> None:
        self._news.note(event)
        if isinstance(event, events.Started):
            shown = self._drawing.painter.field if self._drawing else None
            if event.field is not None and event.field is not shown:
                self.look_at(event.field, event.scene, folder=event.run_dir, trains=True)
        elif self._controls is None:
            return
        elif isinstance(event, events.Stepped):
            self._controls.max_rank = event.rank
            self._controls.follow_rank(event.rank)
        elif isinstance(event, events.Finished):
            self._controls.trains = self._controls.paused = False
            self._controls.changed = True

    # -- the window --------------------------------------------------------------------------------------------------

    def _turn(self, *, free: bool) -> None:
        """One look at the window: take over what the user did, draw if it is time to."""
        link, controls, drawing = self._link, self._controls, self._drawing
        if link is None:
            return
        self._listen(link, free)
        if not link.closed:
            self._do_what_is_asked(link)
        if link.closed:
            self._lose_window(link.reason)
            return
        self._budget.share = controls.percent / 100
        self._fit()
        now = time.perf_counter()
        drawing.take_over_moves(now)
        if not link.ready:
            return
        picture = None
        if drawing.is_wanted(now, self._news.step) and (free or drawing.may_paint()):
            # A quick picture is always finished, or nothing would be seen while the user keeps moving.
            slow = drawing.is_slow
            if not drawing.paint(self._news.step, lambda: slow and self._listen(link, free)):
                return
            picture = drawing.compose(self._news.history, lines=[])
        elif now - self._last_panel <= PANEL_SECONDS:
            return
        # Half of the share is for the window's process, which draws the panel; the rest is for rendering.
        link.send(picture, self._panel(), share=1.0 if free else self._budget.share / 2)
        self._last_panel = now

    def _listen(self, link: Link, free: bool) -> bool:
        """Takes over what the user did; whether what is shown has to change."""
        controls = self._controls
        for report in link.receive():
            if not free:
                self._budget.charge(report["cpu"] / hardware.cpu_count())
            controls.apply(report, link.panel_width)
        return controls.moved or controls.changed or bool(controls.actions) or link.closed

    def _fit(self) -> None:
        """Has pictures made in the size that the window has now."""
        link, drawing = self._link, self._drawing
        size, drawing.panel_width = (SIZE, COLUMN) if link is None else (link.size, link.panel_width)
        if size != drawing.size:
            drawing.size, self._controls.changed = size, True

    def _lose_window(self, reason: str) -> None:
        """The window is gone: closed by the user (no reason), or against his will, and then pictures take its place."""
        self._link, self.failure = None, reason
        self._controls.paused = False
        self._fit()
        if reason and self._news.steps:
            self.writes_png = True
            self.notices.append(f"{reason}; training goes on, and preview.png is written in the run folder instead")

    def _panel(self) -> list[list]:
        return panel_rows(self._controls, self._lines(), self._view_name())

    def _view_name(self) -> str:
        controls, views = self._controls, self._drawing.painter.views
        return views[controls.split].names[controls.view] if views and controls.on_view else "none, camera moved"

    def _lines(self) -> list[str]:
        """The state in words, for the panel and for ``preview.png``."""
        controls, drawing = self._controls, self._drawing
        shown = shown_lines(controls, drawing.painting, drawing.painter.file_text(controls.rank))
        return shown + self._news.lines(self._budget, paused=controls.paused)

    # -- what the user asks for once ---------------------------------------------------------------------------------

    def _do_what_is_asked(self, link: Link) -> None:
        controls = self._controls
        for action in controls.actions:
            if action == "snap":
                controls.camera.snap(self._drawing.painter.views[controls.split].cameras[controls.view])
                controls.moved = True
            elif action == "leave":
                link.close()
            else:
                self._save(model=action == "save")
        controls.actions.clear()

    def _save(self, *, model: bool) -> None:
        """Writes a model with as many ranks as are shown, or else a snapshot; what came of it is said."""
        rank, step = self._controls.rank, self._news.step if self._news.steps else None
        try:
            path = (
                self._saving.save(rank, step)
                if model
                else self._saving.snapshot(self._drawing.paint_whole(), rank, step)
            )
        except (OSError, TslimError) as error:
            self._news.last = f"not saved: {error}"
        else:
            self._news.last = f"saved {path.name}"
            self.notices.append(f"saved {path}")

    # -- without a window --------------------------------------------------------------------------------------------

    def _png_is_due(self, last: bool) -> bool:
        painted = self._drawing.painted_step
        if last or painted < 0:
            return last or (self._news.progress is not None and self._budget.saved > 0)
        if time.perf_counter() - self._last_png < PNG_SECONDS or painted == self._news.step:
            return False
        return self._drawing.may_paint_whole()

    def _write_png(self) -> None:
        """The same content as the window's, as ``preview.png``: image and error beside the field."""
        self._controls.compare = True
        self._drawing.paint_within(PNG_WITHIN_SECONDS, self._news.step)
        try:
            self._saving.write_preview(self._drawing.compose(self._news.history, self._lines()))
        except TslimError as error:
            self.writes_png = False
            self.notices.append(f"no preview.png: {error}")
        self._last_png = time.perf_counter()


def view(
    field,
    *,
    scene=None,
    folder: Path | None = None,
    model: Path | None = None,
    preview: Preview | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Shows a field until the user closes the preview, by default in a window. What is saved is said, a line each.

    Arguments otherwise as for ``Preview.look_at``.

    Raises ``BackendError`` where no window can open, saying why and what to install.
    """
    if preview is None:
        problem = display.why_no_window()
        if problem is not None:
            raise BackendError(f"no window can open: {problem}")
        preview = Preview(WindowLink(*SIZE, title=TITLE, panel_width=COLUMN), share=1.0)
    with preview:
        preview.look_at(field, scene, folder=folder, model=model)
        preview.wait(for_anyone=True, say=say)
        if preview.failure:
            raise BackendError(preview.failure)
