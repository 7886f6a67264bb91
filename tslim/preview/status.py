"""What the preview says in words."""

from tslim.preview.budget import Budget
from tslim.preview.controls import Controls
from tslim.preview.frame import History
from tslim.preview.painter import Painting
from tslim.training import events
from tslim.training.run_folder import RunFolder

LINE = 39
"""Letters that the panel of the window has room for."""


def shown_lines(controls: Controls, painting: Painting | None, file_text: str) -> list[str]:
    """Two lines on the picture; always two, so that nothing below them jumps."""
    width, height = painting.size if painting else (0, 0)
    psnr = f", PSNR {painting.psnr:.2f} dB" if painting and painting.psnr is not None else ""
    return [
        f"rank {controls.rank} of {controls.max_rank}, {file_text}",
        f"picture: {width} x {height}{psnr}",
    ]


class TrainingNews:
    """What is known of the training that is watched, from its events. ``steps`` is 0 where there is none."""

    def __init__(self) -> None:
        self.step = self.steps = 0
        self.finished = False
        self.progress: events.Progress | None = None
        self.history = History()
        self.last = ""
        """What happened last, in a few words."""

    def note(self, event: events.Event) -> None:
        """Takes note of an event."""
        self.step = event.step
        if isinstance(event, events.Started):
            self.steps = event.steps
            if event.resumed and event.run_dir is not None:
                for row in RunFolder(event.run_dir).history():
                    if row["step"] <= event.step:
                        self.history.add(row["step"], row["loss"], row["psnr"], row["rank"])
        elif isinstance(event, events.Progress):
            self.progress = event
            self.history.add(event.step, event.loss, event.psnr, event.rank)
        elif isinstance(event, events.Finished):
            self.finished, self.last = True, "training is finished"
        elif not isinstance(event, events.Stepped):
            self.last = str(event)

    def lines(self, budget: Budget, *, paused: bool) -> list[str]:
        """Four lines on the training and what the preview costs it, or none; and what happened last."""
        last = self.last[:LINE] or " "
        if not self.steps:
            return [last]
        state = "finished" if self.finished else "paused" if paused else "training"
        progress = self.progress
        return [
            f"{state}: step {self.step} of {self.steps}",
            f"loss {progress.loss:.5f}, PSNR {progress.psnr:.2f} dB" if progress else " ",
            f"{progress.rays_per_second:,.0f} rays/s, {progress.seconds_left:.0f} s left" if progress else " ",
            f"preview: {100 * budget.used:.1f} % of time (at most {100 * budget.share:.0f} %)",
            last,
        ]
