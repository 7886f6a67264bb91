"""Numbers as colours: one ramp, and distances in it, for files and for the preview alike."""

import numpy as np

Colour = tuple[float, float, float]
WHITE = (1.0, 1.0, 1.0)
# Dark blue over green to yellow, evenly rising in brightness.
_RAMP = np.array(
    [[0.27, 0.00, 0.33], [0.23, 0.32, 0.55], [0.13, 0.57, 0.55], [0.37, 0.79, 0.38], [0.99, 0.91, 0.14]], np.float32
)


def ramp(values: np.ndarray) -> np.ndarray:
    """(h, w) in [0, 1] to colours (h, w, 3) f32 in [0, 1]: dark blue, green, yellow. NaN counts as 0."""
    at = np.nan_to_num(np.clip(values, 0, 1)) * (len(_RAMP) - 1)
    low = np.minimum(at.astype(np.int32), len(_RAMP) - 2)
    weight = (at - low)[..., None].astype(np.float32)
    return _RAMP[low] * (1 - weight) + _RAMP[low + 1] * weight


def depth_limits(depth: np.ndarray, opacity: np.ndarray) -> tuple[float, float]:
    """Distances between which (nearly) all solid pixels lie; (0, 1) if there are none."""
    solid = depth[(opacity > 0.5) & np.isfinite(depth)]
    if solid.size == 0:
        return 0.0, 1.0
    near, far = np.percentile(solid, (1, 99))
    margin = 0.05 * (far - near) + 1e-3 * far
    return float(near - margin), float(far + margin)


def depth_colours(
    depth: np.ndarray, opacity: np.ndarray, limits: tuple[float, float] | None = None, empty: Colour = WHITE
) -> np.ndarray:
    """Distances (h, w) as colours (h, w, 3) f32 in [0, 1]: near is bright, far is dark, nothing there is ``empty``.

    ``limits``: distances of the brightest and the darkest colour; ``depth_limits`` if None.
    """
    near, far = limits or depth_limits(depth, opacity)
    closeness = 1 - np.clip((np.nan_to_num(depth) - near) / max(far - near, 1e-9), 0, 1)
    shown = np.clip(np.nan_to_num(opacity), 0, 1)[..., None]
    return (ramp(closeness) * shown + np.array(empty, np.float32) * (1 - shown)).astype(np.float32)
