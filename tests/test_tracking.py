"""Training goes where the public implementation's computation goes: same start, same rays, step by step."""

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks.twin import TorchTwin
from tests import device_field
from tslim import builtin_scene, config, presets


def settings() -> config.TrainConfig:
    """The paper's, on a small grid, without L1 and decay, neither of which the twin's steps have."""
    return dataclasses.replace(
        presets.paper(),
        field=config.FieldConfig(max_rank=5),
        schedule=config.ScheduleConfig(policy="fixed"),
        steps=40,
        batch_rays=512,
        grid_start=24,
        grid_end=24,
        grow_steps=(),
        occupancy_steps=(),
        l1_start=0.0,
        lr_decay=1.0,
        early_stop=0.0,
    )


def jitter_of(trainer) -> torch.Tensor:
    """The random part of a step by which each ray of the last batch was shifted."""
    pipeline, field, n = trainer.pipeline, trainer.field, trainer.config.batch_rays
    host = device_field.on_host(pipeline)
    o, d = (a[: 3 * n].reshape(n, 3).astype(np.float64) for a in (host.rays.origins, host.rays.directions))
    d = np.where(np.abs(d) < 1e-12, 1e-12, d)
    enters = np.minimum((field.box[0] - o) / d, (field.box[1] - o) / d).max(axis=1)
    shift = (host.ray_t0[:n] - np.clip(enters, field.near, field.far)) / pipeline.step_size
    return torch.tensor(np.clip(shift, 0, 1), dtype=torch.float32)


@pytest.mark.slow
def test_a_training_follows_the_twin_of_the_public_code_step_by_step(cpu):
    from tslim.training.trainer import Trainer

    scene, made = builtin_scene(size=48, train=8, test=0), settings()
    trainer = Trainer(Trainer.new_field(scene, made), scene, made)
    trainer.pipeline.march(0)
    twin = TorchTwin(trainer.field.state(), trainer.pipeline.step_size)
    ours, theirs = [], []
    for event in trainer.run():
        if type(event).__name__ != "Stepped":
            continue
        n = made.batch_rays
        ours.append(float(np.mean(device_field.on_host(trainer.batch).loss[:n])))
        rays = [
            torch.tensor(np.array(a[: 3 * n]).reshape(n, 3))
            for a in (trainer.batch.origins, trainer.batch.directions, trainer.batch.target)
        ]
        background = torch.tensor(trainer.background, dtype=torch.float32)
        theirs.append(twin.train_step(*rays, background, jitter_of(trainer), l1_weight=0.0))
    assert len(ours) == made.steps
    assert ours[-1] < 0.6 * ours[0], "nothing was learned: the test would prove nothing"
    assert ours == pytest.approx(theirs, rel=0.02)
