"""What the preview says in words."""

from tslim.preview.budget import Budget
from tslim.preview.controls import Controls
from tslim.preview.painter import Painting
from tslim.training.events import Progress


def shown_lines(controls: Controls, painting: Painting | None, file_text: str) -> list[str]:
    """Two lines on the picture; always two, so that nothing below them jumps."""
    width, height = painting.size if painting else (0, 0)
    psnr = f", PSNR {painting.psnr:.2f} dB" if painting and painting.psnr is not None else ""
    return [
        f"rank {controls.rank} of {controls.max_rank}, {file_text}",
        f"picture: {width} x {height}{psnr}",
    ]


def training_lines(progress: Progress | None, budget: Budget) -> list[str]:
    """Three lines on the training and what the preview costs it."""
    return [
        f"loss {progress.loss:.5f}, PSNR {progress.psnr:.2f} dB" if progress else " ",
        f"{progress.rays_per_second:,.0f} rays/s, {progress.seconds_left:.0f} s left" if progress else " ",
        f"preview: {100 * budget.used:.1f} % of time (at most {100 * budget.share:.0f} %)",
    ]
