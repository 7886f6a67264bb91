"""Pictures of one view at several ranks: beside one another, and what each group of ranks adds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tslim.errors import SceneError
from tslim.measuring import metrics
from tslim.measuring.evaluate import checked_ranks, new_renderer, valid_pixels
from tslim.model.sizes import megabytes
from tslim.rendering import media

if TYPE_CHECKING:
    from tslim.field.field import Field
    from tslim.rendering.renderer import Renderer
    from tslim.scene.scene import Views

COLUMNS = 6
"""pictures in a row of a comparison"""
GREY = 0.5
"""where a group of ranks changes nothing"""
STRONG = 99.0
"""percentile of a group's changes that is shown at full strength, so that single pixels do not set the gain"""


@dataclass(frozen=True, eq=False)
class ViewAtRanks:
    """One view, rendered at several ranks, lowest first."""

    ranks: list[int]
    pictures: list[np.ndarray]
    """(h, w, 3) f32 of each rank"""
    psnr: list[float]
    """dB of each picture; NaN where no pixel counts"""
    truth: np.ndarray
    """(h, w, 3) f32: the image"""


def view_at_ranks(
    field: "Field",
    views: "Views",
    ranks: Iterable[int] | None = None,
    *,
    index: int | None = None,
    background: tuple[float, float, float] | None = None,
    renderer: "Renderer | None" = None,
) -> ViewAtRanks:
    """Renders one view at several ranks.

    Args:
        ranks: which, in any order; the field's and its halves if None.
        index: which view; a quarter of the way through if None.
        background: as for ``evaluate.rank_sweep``.
        renderer: one to reuse.

    Raises:
        ConfigError: a rank that the field does not have, or no ranks.
        SceneError: no views.
    """
    chosen = checked_ranks(field, ranks)[::-1]
    if len(views) == 0:
        raise SceneError("no test views to compare with: this scene has none")
    background = background or field.background
    index = len(views) // 4 if index is None else index
    renderer = renderer or new_renderer(field)
    truth, valid = views.image(index, background), valid_pixels(views, index, background)
    pictures = [renderer.render(views.cameras, index, rank=rank, background=background).rgb for rank in chosen]
    counts = valid is None or valid.any()
    psnr = [metrics.psnr(picture, truth, valid) if counts else math.nan for picture in pictures]
    return ViewAtRanks(chosen, pictures, psnr, truth)


def comparison(view: ViewAtRanks, sizes: Sequence[int]) -> np.ndarray:
    """A view at several ranks, then its image: a captioned picture (h, w, 3) uint8.

    Args:
        sizes: bytes of the file with 1, 2, ... ranks. The PSNR of a caption is that of its picture.
    """
    captions = [
        f"rank {rank}\n{megabytes(sizes[rank - 1])}, {psnr:.1f} dB"
        for rank, psnr in zip(view.ranks, view.psnr, strict=True)
    ]
    count = len(view.pictures) + 1
    rows = -(-count // COLUMNS)
    return media.grid([*view.pictures, view.truth], [*captions, "ground truth\n"], columns=-(-count // rows))


def contributions(view: ViewAtRanks) -> np.ndarray:
    """A view at growing prefixes, above what each group of ranks changed in it: a captioned picture (h, w, 3) uint8.

    The lower row shows differences of neighbours in the upper one, grey where there is none, each amplified by the
    factor in its caption; the last is what the image still has beyond all ranks.
    """
    captions = [f"ranks 1-{rank}\n{psnr:.1f} dB" for rank, psnr in zip(view.ranks, view.psnr, strict=True)]
    changes, gains = [], []
    for before, after in zip(view.pictures, [*view.pictures[1:], view.truth], strict=True):
        strong = float(np.percentile(np.abs(after - before), STRONG))
        gains.append(max(1.0, GREY / max(strong, 1e-3)))
        changes.append(np.clip(GREY + gains[-1] * (after - before), 0, 1))
    groups = [_group(low + 1, high) for low, high in zip(view.ranks, view.ranks[1:], strict=False)]
    captions += ["ground truth\n"] + [
        f"{name}\n{gain:.1f} x" for name, gain in zip([*groups, "missing"], gains, strict=True)
    ]
    # The lower row starts below the second prefix: a change stands under what it led to.
    pictures = [*view.pictures, view.truth, *changes]
    blank = np.ones((1, 1, 3), np.float32)
    pictures.insert(len(view.pictures) + 1, blank)
    captions.insert(len(view.pictures) + 1, "what is added\n")
    return media.grid(pictures, captions, columns=len(view.pictures) + 1)


def _group(first: int, last: int) -> str:
    return f"rank {first}" if first == last else f"ranks {first}-{last}"
