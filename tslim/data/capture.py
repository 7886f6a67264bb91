"""What every format's loader returns, and how it becomes a scene: checked, near the origin, decoded, in its space."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tslim.data import doubts, image_circle, shots, spaces
from tslim.data.options import LoadOptions
from tslim.data.shots import Shot
from tslim.data.spaces import Region
from tslim.scene.domain import Domain
from tslim.scene.scene import LEAST_ALPHA, Scene, Views


@dataclass(frozen=True, eq=False)
class Capture:
    """Posed photographs as a data set lists them, before any is decoded."""

    folder: Path
    format: str
    posed_by: Path
    """the file that has the poses, for messages"""
    train: Sequence[Shot]
    test: Sequence[Shot]
    points: np.ndarray | None = None
    """(p, 3) float64 sparse surface points"""
    sightings: Mapping[str, np.ndarray] = field(default_factory=dict)
    """by the name of a shot the numbers (k,) of the points that it is known to show"""
    region: Region = field(default_factory=Region)
    """what the data set says about where its subject is"""
    downscale: int = 1
    """how many times smaller the files that were found must still be made"""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """what was found beside the poses, and where"""


def developed(capture: Capture, options: LoadOptions) -> Scene:
    """The scene: photographs decoded, coordinates near the origin, and a space that suits what they show.

    Raises ``SceneError`` for impossible poses, damaged photographs, and an ``options.space`` that is impossible.
    """
    warnings = list(capture.warnings)
    capture = _near_the_origin(capture, warnings)
    every = shots.unscaled([*capture.train, *capture.test], warnings)
    shots.check_poses(every, capture.posed_by)
    train_shots, test_shots = every[: len(capture.train)], every[len(capture.train) :]
    again = shots.repeated(train_shots, test_shots)
    if again:
        warnings.append(
            f"{len(again)} of the {len(test_shots)} test images are trained on, too (the first is {again[0].name}): "
            "what is measured on them is too good"
        )
    points = capture.points
    sees: tuple[np.ndarray, ...] = ()
    if points is not None:
        near = np.abs(points).max(1, initial=0) < shots.farthest(every)
        points, sees = points[near], _sees(train_shots, capture.sightings, near)
    warnings += doubts.of_cameras(every, points)
    train = replace(shots.load_views(train_shots, capture.downscale), sees=sees)
    test = shots.load_views(test_shots, capture.downscale)
    masked = [shot.masks != () for shot in train_shots]
    notes = [*capture.notes, *_say_masks(train, masked, warnings)]
    train, test, beside = image_circle.without_surround(train, test)
    if beside:
        warnings.append(
            f"the fisheye's image circle leaves {100 * beside:.0f} % of the pixels black: they are left out"
        )
    scene = Scene(
        name=capture.folder.resolve().name,
        source=str(capture.folder),
        format=capture.format,
        train=train,
        test=test,
        domain=Domain.of(np.array([[-1.0] * 3, [1.0] * 3]), far=1.0, background=None),  # until it is placed
        points=None if points is None or not len(points) else points.astype(np.float32),
        warnings=tuple(warnings),
        notes=tuple(notes),
    )
    return spaces.placed(scene, capture.region, any(masked) or beside > 0, options)


def _sees(train: Sequence[Shot], sightings: Mapping[str, np.ndarray], kept: np.ndarray) -> tuple[np.ndarray, ...]:
    """What each shot shows of the points that are ``kept`` (p,), numbered anew; () where nothing is known."""
    if not sightings:
        return ()
    numbers = np.where(kept, np.cumsum(kept) - 1, -1)
    found = [numbers[sightings.get(shot.name, np.zeros(0, np.int64))] for shot in train]
    return tuple(seen[seen >= 0] for seen in found)


def _near_the_origin(capture: Capture, warnings: list[str]) -> Capture:
    """The capture, moved in float64 where its coordinates are too large for float32."""
    origin = shots.recentring([*capture.train, *capture.test])
    if origin is None:
        return capture
    warnings.append(
        f"coordinates are large: the world is moved by {' '.join(f'{-v:.10g}' for v in origin)}, so that the cameras "
        "stand around the origin"
    )
    box = capture.region.box
    return replace(
        capture,
        train=shots.moved(capture.train, -origin),
        test=shots.moved(capture.test, -origin),
        points=None if capture.points is None else capture.points - origin,
        region=capture.region if box is None else replace(capture.region, box=box - origin),
    )


def _say_masks(train: Views, masked: Sequence[bool], warnings: list[str]) -> list[str]:
    """What masks leave out, for ``notes``; a warning where that is all."""
    n = sum(masked)
    if not n:
        return []
    hidden = [float((train.rgba(i)[..., 3] < LEAST_ALPHA).mean()) for i in range(len(train)) if masked[i]]
    share = float(np.mean(hidden))
    if share > 0.9:
        warnings.append(
            f"masks leave out {100 * share:.0f} % of the pixels: are black and white swapped? What is black is left "
            "out (in files named dynamic_mask_NAME.png, what isn't)"
        )
    return [f"masks for {n} of {len(train)} training images, which leave out {100 * share:.1f} % of their pixels"]
