"""A capture's world turned so that walls, floors and what stands on them lie along its axes.

Structure from motion leaves the world turned anyhow, but a field of planes and lines is far better at what lies along
its axes: a table top across one of them takes a single rank. Where it does, many points share a coordinate, so the
rotation is looked for that leaves the coordinates of the sparse points with the least entropy. Most points of many
captures lie on the one thing that was photographed, and what is round has no axes: so each cell of a lattice counts
once, however many points lie in it, and a floor or a wall with a few points weighs what its size does. What is found is
one of 24 rotations that only swap and mirror axes, all of them equally good.
"""

from dataclasses import replace

import numpy as np

from tslim.data import geometry
from tslim.scene.cameras import Cameras
from tslim.scene.scene import Scene

LEAST_POINTS = 500
"""With fewer points the world is left as it is: they say too little."""
MOST_POINTS = 3000
"""At most so many points are looked at."""
CELLS = 16
"""Cells of the lattice along the radius of the ball that holds 19 points in 20."""
BINS = 64
"""Bins of the histograms along the diameter of the ball that holds nine points in ten."""
STARTS, KEPT, TRIES = 2000, 10, 150
"""Rotations tried at random, how many of them are improved, and in how many tries each."""


def turned(scene: Scene) -> Scene:
    """A contracted scene, its world turned (not moved or scaled) as its points suggest; others as they are."""
    if scene.space != "contracted" or scene.points is None or len(scene.points) < LEAST_POINTS:
        return scene
    turn = along_axes(scene.points.astype(np.float64))
    train, test = (replace(v, cameras=_turned(v.cameras, turn)) for v in (scene.train, scene.test))
    points = scene.points @ turn.T.astype(np.float32)
    box, near, far = geometry.surroundings(train.cameras, points)
    return replace(scene, train=train, test=test, points=points).placed(box=box, near=near, far=far)


def along_axes(points: np.ndarray) -> np.ndarray:
    """(3, 3) rotation that turns (n, 3) points so that they share as many coordinates as can be; always the same."""
    points = _thinned(points - np.median(points, 0))
    distance = np.linalg.norm(points, axis=1)
    radius = np.quantile(distance, 0.9)
    points = points[distance <= radius] / max(radius, 1e-30)
    points = points[:: 1 + len(points) // MOST_POINTS]
    rng = np.random.default_rng(0)
    starts = rng.normal(size=(STARTS, 4))
    starts[0] = 1, 0, 0, 0
    starts /= np.linalg.norm(starts, axis=1, keepdims=True)
    entropies = [_entropy(points @ turn.T) for turn in geometry.rotations(starts)]
    best, least = starts[0], entropies[0]
    for k in np.argsort(entropies, kind="stable")[:KEPT]:
        at, entropy = starts[k], entropies[k]
        for step in np.geomspace(0.2, 0.005, TRIES):
            near = at + step * rng.normal(size=4)
            found = _entropy(points @ geometry.rotations(near[None])[0].T)
            if found < entropy:
                at, entropy = near / np.linalg.norm(near), found
        if entropy < least:
            best, least = at, entropy
    return geometry.rotations(best[None])[0]


def _thinned(points: np.ndarray) -> np.ndarray:
    """The first point in each cell of the lattice, of (n, 3) points around 0; the farthest are left out."""
    distance = np.linalg.norm(points, axis=1)
    radius = np.quantile(distance, 0.95)
    points = points[distance <= radius]
    cells = np.floor(points * (CELLS / max(radius, 1e-30))).astype(np.int64)
    return points[np.sort(np.unique(cells, axis=0, return_index=True)[1])]


def _entropy(points: np.ndarray) -> float:
    """Entropy of the three coordinates of (n, 3) points in [-1, 1], summed: the lower, the more points share them."""
    bins = np.clip((points + 1) * (BINS / 2), 0, BINS - 1).astype(np.int64)
    shares = np.bincount((bins + BINS * np.arange(3)).ravel(), minlength=3 * BINS) / len(points)
    return -float((shares * np.log(np.maximum(shares, 1e-30))).sum())


def _turned(cameras: Cameras, turn: np.ndarray) -> Cameras:
    return replace(cameras, poses=(turn @ cameras.poses.astype(np.float64)).astype(np.float32))
