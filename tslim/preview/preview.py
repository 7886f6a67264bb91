"""The live preview: a consumer of training events that draws the field as it learns, and never owns the trainer.

    with tslim.Preview.open_if_possible() as preview:
        for event in trainer.run():
            preview.show(event)

The window lives in another process (``link``), so that nothing that happens to it reaches the training; so do browsers
(``server``). Pausing is not coming back from ``show``. Where no window can open, ``preview.png`` is written in the run
folder instead. What the user should be told is in ``notices``; nothing is printed.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tslim import files
from tslim.device import display, hardware
from tslim.errors import BackendError, TslimError
from tslim.model import model_file
from tslim.preview.budget import Budget, Progression
from tslim.preview.controls import Controls, panel_rows
from tslim.preview.frame import History, compose
from tslim.preview.link import Link, WindowLink
from tslim.preview.painter import Interrupted, Painter, Painting
from tslim.preview.status import shown_lines, training_lines
from tslim.rendering.media import to_uint8, write_png
from tslim.training import events

SIZE = (1280, 800)
TITLE = "tslim"
COLUMN = 290
"""Width of the panel, in pixels."""
PNG_SECONDS = 20.0
"""between two ``preview.png``, at least"""
STALE_SECONDS = 0.4
"""a picture of a field that goes on learning should cost no more than this"""
RESERVE_SECONDS = 0.4
"""saved up for what the user may do next, so that it is seen at once"""
PANEL_SECONDS = 0.3
"""between two updates of the panel while no picture is drawn"""
STILL_SECONDS = 0.4
"""after the last movement the picture may become finer"""


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
        self.painting: Painting | None = None
        self._link = link
        self._folder = folder
        self._budget = Budget(share)
        self._progression = Progression()
        self._history = History()
        # Neither is there before ``look_at``, which all that uses them comes after.
        self._painter: Painter = None  # type: ignore[assignment]
        self._model: Path | None = None
        self._controls: Controls = None  # type: ignore[assignment]
        self._step = self._steps = 0
        self._finished = False
        self._progress: events.Progress | None = None
        self._drawn_step = -1
        self._last_move = self._last_panel = self._last_png = self._painted_at = float("-inf")
        self._status = ""
        self._size = link.size if link is not None else SIZE

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
            host: an address of this machine for other machines to come in by; None for this machine alone.
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
            if kind is None and self._finished:
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
        if self._painter is None:
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
            while self._painter is not None and (self.is_open if for_anyone else self.is_watched):
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
        self._folder, self._model = folder or self._folder, model
        self._painter = Painter(field, scene, model_file.read_header(model) if model else None)
        views = {name: len(v) for name, v in self._painter.views.items()}
        self._controls = Controls(
            self._painter.first_camera(), field.rank, views, rank=field.rank, follow=trains, trains=trains,
            percent=round(100 * self._budget.share), in_browser=self._link is not None and self._link.in_browser,
        )  # fmt: skip

    # -- events ------------------------------------------------------------------------------------------------------

    def _note(self, event: events.Event) -> None:
        self._step = event.step
        if isinstance(event, events.Started):
            self._steps = event.steps
            if event.field is not None and (self._painter is None or self._painter.field is not event.field):
                self.look_at(event.field, event.scene, folder=event.run_dir, trains=True)
        elif isinstance(event, events.Stepped):
            if self._controls is not None:
                self._controls.max_rank = event.rank
                self._controls.follow_rank(event.rank)
        elif isinstance(event, events.Progress):
            self._progress = event
            self._history.add(event.step, event.loss, event.psnr, event.rank)
        elif isinstance(event, events.Finished):
            self._finished = True
            self._status = "training is finished"
            if self._controls is not None:
                self._controls.trains = self._controls.paused = False
                self._controls.changed = True
        else:
            self._status = str(event)

    # -- drawing -----------------------------------------------------------------------------------------------------

    def _turn(self, *, free: bool) -> None:
        """One look at the window: take over what the user did, draw if it is time to."""
        link, controls = self._link, self._controls
        if link is None:
            return
        self._listen(link, free)
        if link.closed:
            self._lose_window(link.reason)
            return
        for action in controls.actions:
            self._act(action, link)
        controls.actions.clear()
        if link.closed:
            self._lose_window("")
            return
        self._budget.share = controls.percent / 100
        if link.size != self._size:
            self._size, controls.changed = link.size, True
        now = time.perf_counter()
        if controls.moved or controls.changed:
            self._progression.moved(self._pixels())
            self._last_move = now
            controls.moved = controls.changed = False
        if not link.ready:
            return
        if self._wants_picture(now) and (free or self._may_paint()):
            # A quick picture is always finished, or nothing would be seen while the user keeps moving.
            slow = self._progression.cost(self._scaled_pixels()) > 2 * self._progression.moving_seconds
            if not self._paint(lambda: slow and self._listen(link, free)):
                return
            picture = self._compose(link.size, lines=[])
        elif now - self._last_panel > PANEL_SECONDS:
            picture = None
        else:
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

    def _lose_window(self, reason: str) -> None:
        """The window is gone: closed by the user (no reason), or against his will, and then pictures take its place."""
        self._link, self.failure = None, reason
        self._controls.paused = False
        if reason and self._steps:
            self.writes_png = True
            self.notices.append(f"{reason}; training goes on, and preview.png is written in the run folder instead")

    def _wants_picture(self, now: float) -> bool:
        """Whether a better or newer picture could be drawn; decides its resolution."""
        progression = self._progression
        still = now - self._last_move > STILL_SECONDS
        if still and self._drawn_step != self._step:
            if progression.done or progression.cost(self._scaled_pixels()) > STALE_SECONDS:
                progression.moved(self._pixels(), within=STALE_SECONDS)
        return not progression.done and (still or self._asked)

    def _may_paint(self) -> bool:
        """Whether the time budget has room: down to nothing for what the user asked for, else down to a reserve."""
        cost = self._progression.cost(self._scaled_pixels())
        return self._budget.allows(cost if self._asked else cost + RESERVE_SECONDS)

    @property
    def _asked(self) -> bool:
        """Whether the user has moved or chosen something that has not been drawn yet."""
        return self.painting is None or self._last_move > self._painted_at

    def _pixels(self) -> int:
        """Pixels to render for the finest picture."""
        width, height = self._painter.full_size(self._controls, self._area())
        return width * height * self._painter.n_renders(self._controls)

    def _scaled_pixels(self) -> int:
        return round(self._pixels() * self._progression.scale**2)

    def _area(self) -> tuple[int, int]:
        width, height = self._link.size if self._link is not None else SIZE
        return width - self._column(), height

    def _column(self) -> int:
        width = self._link.panel_width if self._link is not None else COLUMN
        return width if self._controls.panel else 0

    def _paint(self, unwanted: Callable[[], bool] = lambda: False) -> bool:
        """Renders at the progression's scale; False if it became ``unwanted`` on the way."""
        began = time.perf_counter()
        full = self._painter.full_size(self._controls, self._area())
        try:
            self.painting = self._painter.paint(self._controls, full, self._progression.scale, unwanted)
        except Interrupted:
            return False
        self._progression.learn(self._scaled_pixels(), time.perf_counter() - began)
        self._progression.drawn()
        self._drawn_step, self._painted_at = self._step, time.perf_counter()
        return True

    def _compose(self, size: tuple[int, int], lines: list[str]) -> np.ndarray:
        panes = self.painting.panes if self.painting else []
        return compose(panes, self._history, *size, column=self._column(), lines=lines)

    def _panel(self) -> list[list]:
        return panel_rows(self._controls, self._lines(), self._view_name())

    def _view_name(self) -> str:
        controls, views = self._controls, self._painter.views
        return views[controls.split].names[controls.view] if views and controls.on_view else "none, camera moved"

    def _lines(self) -> list[str]:
        """The state in words, for the panel and for ``preview.png``."""
        lines = shown_lines(self._controls, self.painting, self._painter.file_text(self._controls.rank))
        if self._steps:
            state = "finished" if self._finished else "paused" if self._controls.paused else "training"
            lines.append(f"{state}: step {self._step} of {self._steps}")
            lines += training_lines(self._progress, self._budget)
        return [*lines, self._status[:40] or " "]

    # -- what the user asks for once ---------------------------------------------------------------------------------

    def _act(self, action: str, link: Link) -> None:
        controls = self._controls
        if action == "snap":
            views = self._painter.views[controls.split]
            controls.camera.snap(views.cameras[controls.view])
            controls.moved = True
            return
        if action == "leave":
            link.close()
            return
        stem = f"step{self._step:06}-rank{controls.rank}" if self._steps else f"rank{controls.rank}"
        folder = self._folder or Path()
        try:
            if action == "save":
                path = files.free_path(folder / f"{stem}.slim")
                self._save(path)
            else:
                path = files.free_path(folder / f"snapshot-{stem}.png")
                full = self._painter.full_size(self._controls, self._area())
                panes = self._painter.paint(controls, full, 1.0).panes
                write_png(path, np.concatenate([to_uint8(pane.picture) for pane in panes], axis=1))
        except (OSError, TslimError) as error:
            self._status = f"not saved: {error}"
        else:
            self._status = f"saved {path.name}"
            self.notices.append(f"saved {path}")

    def _save(self, path: Path) -> None:
        """Writes the model with as many ranks as are shown, in the precision of the file that it is from."""
        rank = self._controls.rank
        if self._model is None:
            self._painter.field.slim(rank).save(path)
        else:
            model_file.write(model_file.read(self._model, rank=rank), path)

    # -- without a window --------------------------------------------------------------------------------------------

    def _png_is_due(self, last: bool) -> bool:
        if last or self._drawn_step < 0:
            return last or (self._progress is not None and self._budget.saved > 0)
        if time.perf_counter() - self._last_png < PNG_SECONDS or self._drawn_step == self._step:
            return False
        return self._budget.allows(self._progression.cost(self._pixels()))

    def _write_png(self) -> None:
        """The same content as the window's, as ``preview.png``: photograph and error beside the field."""
        self._controls.compare = True
        self._progression.moved(self._pixels(), within=4 * STALE_SECONDS)
        self._paint()
        path = (self._folder or Path()) / "preview.png"
        try:
            write_png(path, self._compose(SIZE, lines=self._lines()))
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
