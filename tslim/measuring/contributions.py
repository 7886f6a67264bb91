"""What each group of ranks adds to a picture: coarse shape first, detail later."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from tslim.measuring import evaluate
from tslim.rendering import media

if TYPE_CHECKING:
    from tslim.field.field import Field
    from tslim.rendering.renderer import Renderer
    from tslim.scene.scene import Views

GREY = 0.5
"""where a group changes nothing"""
STRONG = 99.0
"""percentile of a group's changes that is shown at full strength, so that single pixels do not set the gain"""


def contributions(
    field: "Field",
    views: "Views",
    ranks: Iterable[int] | None = None,
    *,
    index: int | None = None,
    background: tuple[float, float, float] | None = None,
    renderer: "Renderer | None" = None,
) -> np.ndarray:
    """One view at growing prefixes, above what each group of ranks changed in it: a captioned picture, (h, w, 3) uint8.

    The lower row shows differences of neighbours in the upper one, grey where there is none, each amplified by the
    factor in its caption; the last is what the ground truth still has beyond all ranks.

    Args:
        ranks: where groups end, in any order; the field's rank and its halves if None.
        index: which view; a quarter of the way through if None.
        background: as for ``evaluate.rank_sweep``.
        renderer: one to reuse.

    Raises:
        ConfigError: a rank that the field does not have, or no ranks.
        SceneError: no views.
    """
    chosen, seen, quality, truth = evaluate.view_at_ranks(field, views, ranks, index, background, renderer)
    captions = [f"ranks 1-{rank}\n{psnr:.1f} dB" for rank, psnr in zip(chosen, quality, strict=True)]
    changes, gains = [], []
    for before, after in zip(seen, [*seen[1:], truth], strict=True):
        strong = float(np.percentile(np.abs(after - before), STRONG))
        gains.append(max(1.0, GREY / max(strong, 1e-3)))
        changes.append(np.clip(GREY + gains[-1] * (after - before), 0, 1))
    groups = [_group(low + 1, high) for low, high in zip(chosen, chosen[1:], strict=False)]
    captions += ["ground truth\n"] + [
        f"{name}\n{gain:.1f} x" for name, gain in zip([*groups, "missing"], gains, strict=True)
    ]
    # The lower row starts below the second prefix: a change stands under what it led to.
    pictures = [*seen, truth, *changes]
    blank = np.ones((1, 1, 3), np.float32)
    pictures.insert(len(seen) + 1, blank)
    captions.insert(len(seen) + 1, "what is added\n")
    return media.grid(pictures, captions, columns=len(seen) + 1)


def _group(first: int, last: int) -> str:
    return f"rank {first}" if first == last else f"ranks {first}-{last}"
