"""How much memory a training will take, before it starts."""

import math

from kernels.points import SIGHTING
from tslim import config
from tslim.decoder import mlp_tiles
from tslim.device import buffers
from tslim.field.field import Field
from tslim.model.state import N_FEATURES
from tslim.rendering.ray_space import LONGEST
from tslim.scene.scene import Scene
from tslim.training import sparse_points
from tslim.training.schedules import make_schedule

RAY_VALUES, SAMPLE_VALUES = 33, 8
"""Numbers that a pipeline keeps of a ray for which no colour is computed, and of each of its samples."""


def memory_of(settings: config.TrainConfig, scene: Scene) -> dict[str, int]:
    """Bytes that training will take, by purpose (an upper estimate where it depends on the scene)."""
    rank = settings.field.max_rank
    schedule = make_schedule(settings.schedule, rank, settings.steps)
    n_rays = settings.batch_rays * schedule.most_renders()
    samples = n_rays * 1.1 * settings.grid_start / settings.step_ratio  # a ray through a box is about a side long
    if scene.space == "contracted":
        samples += n_rays * LONGEST / 4 * settings.grid_end / settings.step_ratio / 4
    # At first everything may be fog, in which every sample has a colour; later some 40 of a ray, at full rank.
    batches = [
        (samples, n_rays if settings.colour_span else samples, schedule.rank),
        (40 * n_rays, n_rays if settings.colour_span else 40 * n_rays, rank),
    ]
    per_group = 4 * (3 * N_FEATURES + 10)
    batch = max(
        12 * visible + groups * (per_group + 4 * 48 * -(-3 * r // buffers.CHUNK)) + min(2000 * groups, mlp_tiles.ROOM)
        for visible, groups, r in batches
    )
    found = {
        "photographs": 4 * int(scene.train.offsets[-1] + scene.test.offsets[-1]),
        "factors, gradients and moments": 4 * Field.predicted_bytes(settings.field, settings.grid_end),
        "samples": int(16 * samples + 1.25 * batch),
        "Taichi, numpy and kernels": 350_000_000,
    }
    if settings.unseen_occlusion or settings.unseen_depth:
        found["rays of unseen cameras"] = _unseen_bytes(settings, scene.space)
    if settings.point_depth and sparse_points.are_there(scene, settings):
        per_sighting = 4 * SIGHTING * sum(map(len, scene.train.sees))
        found["rays to sparse points"] = per_sighting + _bytes_of_rays(settings, scene.space, settings.point_rays)
    return found


def _unseen_bytes(settings: config.TrainConfig, space: config.Space) -> int:
    """Bytes for the rays of cameras that nobody held, which have the most samples there are as far as they go."""
    near = settings.occlusion_range * (math.sqrt(3) if space == "box" else 1)
    return _bytes_of_rays(settings, space, settings.unseen_rays, None if settings.unseen_depth else near)


def _bytes_of_rays(settings: config.TrainConfig, space: config.Space, n: int, followed: float | None = None) -> int:
    """Bytes for ``n`` rays without colours that are ``followed`` for so many sides of the grid, or to their end."""
    steps = settings.grid_end / settings.step_ratio
    """along a side of the grid"""
    whole = LONGEST / 4 if space == "contracted" else math.sqrt(3)
    """a ray's length, in sides of the grid"""
    marched = 2 * whole * steps if space == "contracted" else 1 + whole * steps / 32
    samples = 1.25 * (math.ceil((whole if followed is None else min(followed, whole)) * steps) + 1)
    return int(4 * n * (RAY_VALUES + SAMPLE_VALUES * samples + marched))
