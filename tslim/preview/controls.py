"""What the user has chosen in the preview, and how mouse and keys change it. No window, no field, no clock.

The keys are instant-ngp's where both have the feature: W A S D fly, Space and C up and down, T training on and off,
G ground truth, O error map, M other views of the field, R first view, Tab menu. The window library reports no wheel,
no digits and no brackets, so zoom is Control + drag or Up/Down, and data-set views are stepped through with
Left/Right.
"""

from dataclasses import dataclass, field

from tslim.preview.camera import OrbitCamera

CHANNELS = ("colour", "depth", "opacity", "ranks", "error")
HELP = (
    "drag: orbit   Shift or right: pan",
    "Ctrl + drag, Up, Down: zoom",
    "WASD Space C: fly   R: first view",
    "M: colour, depth, opacity, ranks",
    "J K: rank - +   V: save   X: snapshot",
)
WINDOW_HELP = ("Tab: this menu   Esc: close",)
BROWSER_HELP = ("wheel, pinch: zoom   two fingers: pan",)
VIEWS_HELP = (
    "Left Right: data-set view   N: set",
    "G: side by side   O: error map",
)
TRAINING_HELP = ("T: pause   F: follow training's rank",)
ZOOM_DRAG = 3.0
"""Halvings of the distance for a drag over the window's height."""
ZOOM_KEY = 1.5
"""Halvings per second while a key is held."""
LONGEST_FLIGHT = 0.1
"""Seconds of flying that one report may cause, so that a late report does not make the camera jump."""


@dataclass
class Controls:
    """The preview's state as the user sees it.

    ``moved`` and ``changed`` are set when the picture has to be drawn anew (because the camera moved; because of
    something else), ``actions`` lists what was asked for once: "save", "snapshot", "leave". Whoever acts on them clears
    them.
    """

    camera: OrbitCamera
    max_rank: int
    views: dict[str, int] = field(default_factory=dict)
    """number of data-set views by set: "test", "train"; empty without a data set"""
    rank: int = 1
    follow: bool = False
    """show the rank that training uses"""
    trains: bool = False
    """there is a training to follow, pause and resume"""
    in_browser: bool = False
    """the panel stands beside the picture, and the preview is closed by a button"""
    percent: int = 10
    """of wall time that the preview may cost while training runs"""
    channel: str = "colour"
    compare: bool = False
    """side by side with the ground truth and the error"""
    split: str = ""
    view: int = 0
    paused: bool = False
    panel: bool = True
    moved: bool = True
    changed: bool = True
    actions: list[str] = field(default_factory=list)
    _cursor: tuple[float, float] | None = field(default=None, repr=False)
    """where the drag was at the last report; None while no button is down"""
    _on_panel: bool = field(default=False, repr=False)
    """the drag belongs to the panel"""

    def __post_init__(self) -> None:
        if not self.split and self.views:
            self.split = next(iter(self.views))

    @property
    def on_view(self) -> bool:
        """Whether the camera is exactly a data-set camera, so that there is an image to compare with."""
        return bool(self.views) and self.camera.exact is not None

    def follow_rank(self, rank: int) -> None:
        """Training has changed its rank."""
        if self.follow:
            self._set_rank(rank)

    def apply(self, report: dict, panel_width: int) -> None:
        """Takes over what the window reports; see ``window`` for the fields."""
        self._widgets(report["panel"])
        self._drag(report, panel_width)
        self._fly(report)
        for key in report["pressed"]:
            self._key(key)

    def show_view(self, index: int) -> None:
        """Goes to a data-set view, counted around; who acts on ``actions`` moves the camera there."""
        if self.views:
            self.view = index % self.views[self.split]
            self.actions.append("snap")

    # -- what was done with widgets, mouse and keys ------------------------------------------------------------------

    def _widgets(self, values: dict) -> None:
        for name, value in values.items():
            if name == "rank":
                self.follow = False
                self._set_rank(value)
            elif name == "follow":
                self.follow = bool(value)
            elif name == "percent":
                self.percent = int(value)
            elif name == "view":
                self.show_view(value)
            elif name == "set":
                self._other_set()
            elif name == "compare":
                self._compare()
            elif name in CHANNELS:
                self._channel(name)
            elif name == "pause":
                self.paused = not self.paused
            elif name == "reset":
                self._reset()
            elif name in ("save", "snapshot", "leave"):
                self.actions.append(name)

    def _key(self, key: str) -> None:
        if key in ("Left", "Right"):
            self.show_view(self.view + ((1 if key == "Right" else -1) if self.on_view else 0))
        elif key in ("j", "k"):
            self.follow = False
            self._set_rank(self.rank + (1 if key == "k" else -1))
        elif key == "m":
            # The error map has a key of its own.
            at = CHANNELS.index(self.channel) if self.channel != "error" else -1
            self._channel(CHANNELS[(at + 1) % (len(CHANNELS) - 1)])
        elif key == "o":
            self._channel("colour" if self.channel == "error" else "error")
        elif key == "f":
            self.follow = self.trains and not self.follow
        elif key == "t":
            self.paused = self.trains and not self.paused
        elif key == "g":
            self._compare()
        elif key == "n":
            self._other_set()
        elif key == "r":
            self._reset()
        elif key == "Tab":
            self.panel = not self.panel
            self.changed = True
        elif key in ("v", "x"):
            self.actions.append({"v": "save", "x": "snapshot"}[key])

    def _drag(self, report: dict, panel_width: int) -> None:
        buttons, held = report["buttons"], report["held"]
        width, height = report["size"]
        x, y = report["cursor"][0] * width, report["cursor"][1] * height
        if not buttons:
            self._cursor = None
            return
        if self._cursor is None:
            self._on_panel = self.panel and x < panel_width
        elif report["panel"]:
            self._on_panel = True  # the panel was moved from its place, and its slider is what is dragged
        dx, dy = (
            (0.0, 0.0) if self._cursor is None else ((x - self._cursor[0]) / height, (y - self._cursor[1]) / height)
        )
        self._cursor = (x, y)
        if self._on_panel or (dx, dy) == (0.0, 0.0):
            return
        if "Control" in held:
            self.camera.zoom(-ZOOM_DRAG * dy)
        elif "Shift" in held or "RMB" in buttons or "MMB" in buttons:
            self.camera.pan(dx, dy)
        else:
            self.camera.orbit(dx, dy)
        self.moved = True

    def _fly(self, report: dict) -> None:
        held = report["held"]
        seconds = min(report["dt"], LONGEST_FLIGHT)
        right, up, forward = ((plus in held) - (minus in held) for plus, minus in (("d", "a"), (" ", "c"), ("w", "s")))
        if right or up or forward:
            self.camera.fly(right, up, forward, seconds)
            self.moved = True
        closer = ("Up" in held) - ("Down" in held)
        if closer or report.get("zoom"):
            self.camera.zoom(ZOOM_KEY * closer * seconds + report.get("zoom", 0.0))
            self.moved = True

    # -- changes -----------------------------------------------------------------------------------------------------

    def _set_rank(self, rank: int) -> None:
        rank = min(max(rank, 1), self.max_rank)
        self.changed |= rank != self.rank
        self.rank = rank

    def _channel(self, name: str) -> None:
        if name == "error" and not self.on_view:
            self.show_view(self.view)
        if name != "error" or self.views:
            self.channel = name
            self.changed = True

    def _compare(self) -> None:
        if not self.views:
            return
        self.compare = not (self.compare and self.on_view)
        if self.compare and not self.on_view:
            self.show_view(self.view)
        self.changed = True

    def _other_set(self) -> None:
        names = [name for name, count in self.views.items() if count]
        if len(names) > 1:
            self.split = names[(names.index(self.split) + 1) % len(names)]
            self.show_view(0)

    def _reset(self) -> None:
        self.camera.reset()
        self.moved = True


def panel_rows(controls: Controls, lines: list[str], view_name: str) -> list[list]:
    """The window's panel, top to bottom, as rows for ``window``."""
    c = controls
    if not c.panel:
        return []
    rows: list[list] = [["text", line] for line in lines]
    if c.max_rank > 1:
        rows.append(["slider", "rank", "rank", c.rank, 1, c.max_rank])
    if c.trains:
        rows.append(["check", "follow", "follow training (F)", c.follow])
        rows.append(["button", "pause", "resume training (T)" if c.paused else "pause training (T)"])
    for name in CHANNELS if c.views else CHANNELS[:-1]:
        rows.append(["button", name, f"[{name}]" if name == c.channel else name])
    if c.views:
        rows.append(["text", f"{c.split} view: {view_name}"])
        if c.views[c.split] > 1:
            rows.append(["slider", "view", "view", c.view, 0, c.views[c.split] - 1])
        rows.append(["check", "compare", "side by side (G)", c.compare and c.on_view])
        if len(c.views) > 1:
            rows.append(["button", "set", f"{next(n for n in c.views if n != c.split)} views (N)"])
    rows.append(["button", "reset", "first view (R)"])
    rows.append(["button", "save", f"save rank {c.rank} (V)"])
    rows.append(["button", "snapshot", "snapshot (X)"])
    if c.trains:
        rows.append(["slider", "percent", "% of time", c.percent, 1, 100])
    if c.in_browser:
        rows.append(["button", "leave", "go on without the preview" if c.trains else "close the preview"])
    help_lines = HELP + (VIEWS_HELP if c.views else ()) + (TRAINING_HELP if c.trains else ())
    help_lines += BROWSER_HELP if c.in_browser else WINDOW_HELP
    return rows + [["text", line] for line in help_lines]
