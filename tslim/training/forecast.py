"""What a training will take of memory, before it starts."""

import math

from tslim import config
from tslim.decoder import mlp_tiles
from tslim.device import buffers
from tslim.field.field import Field
from tslim.model.state import N_FEATURES
from tslim.rendering.ray_space import LONGEST
from tslim.scene.scene import Scene
from tslim.training.schedules import make_schedule

RAY_VALUES, SAMPLE_VALUES = 33, 8
"""Numbers that a pipeline keeps of a ray whose colour nobody asks for, and of each of its samples."""


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
        12 * kept + groups * (per_group + 4 * 48 * -(-3 * r // buffers.CHUNK)) + min(2000 * groups, mlp_tiles.ROOM)
        for kept, groups, r in batches
    )
    found = {
        "photographs": 4 * int(scene.train.offsets[-1] + scene.test.offsets[-1]),
        "factors, gradients and moments": 4 * Field.predicted_bytes(settings.field, settings.grid_end),
        "samples": int(16 * samples + 1.25 * batch),
        "Taichi, numpy and kernels": 350_000_000,
    }
    if settings.unseen_occlusion:
        found["rays of unseen cameras"] = _unseen_bytes(settings, scene.space)
    return found


def _unseen_bytes(settings: config.TrainConfig, space: config.Space) -> int:
    """Of the rays of cameras that nobody held, the most samples that ``occlusion_range`` leaves each."""
    sides = {"box": math.sqrt(3), "ndc": 1.0, "contracted": 1.0}[space]
    """how long rays are taken to be, in sides of the grid"""
    steps = settings.grid_end / settings.step_ratio
    samples = 1.25 * (math.ceil(settings.occlusion_range * sides * steps) + 1)
    marched = 2 * LONGEST / 4 * steps if space == "contracted" else 1 + steps / 16
    return int(4 * settings.unseen_rays * (RAY_VALUES + SAMPLE_VALUES * samples + marched))
