"""A field in the state that most of a training run is spent in: after empty space was found, with real rays."""

import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tslim
from benchmarks.twin import TorchTwin
from tslim.device import buffers
from tslim.rendering.pipeline import MarchConfig
from tslim.rendering.renderer import Renderer

TINY_RATE = 1e-12
"""Learning rate while timing: all the work of a step, and the same state after it."""


@dataclasses.dataclass
class Workload:
    """A trained field, its scene, and the settings of the steps to be timed."""

    scene: Any
    field: Any
    settings: Any
    warm_steps: int = 0
    """that were trained to come here"""

    def at(self, side: int, rank: int | None = None, rays: int = 4096, *, sampling: str = "paper") -> Any:
        """A trainer on a grid of about side³, whose steps change nothing but do all the work.

        ``sampling`` names the preset whose steps along a ray, thresholds and shared colours it takes.
        """
        field = self.field
        if round(np.prod(field.grid) ** (1 / 3)) != side:
            field.grow(side)
        settings = dataclasses.replace(self.settings, batch_rays=rays, **sampling_of(sampling))
        trainer = tslim.Trainer(field, self.scene, settings)
        trainer.schedule.rank = rank or field.max_rank
        trainer.l1 = settings.l1_rest
        return trainer

    def cameras(self, size: int) -> Any:
        """A test camera (of the orbit if there is none) at size × size or as near as its shape allows."""
        cameras = self.scene.test.cameras if len(self.scene.test) else self.scene.orbit(8)
        return cameras.scaled(size / int(cameras.sizes[0, 0]))


def sampling_of(preset: str) -> dict[str, float]:
    """How a preset samples its rays, as settings of ``TrainConfig``."""
    settings = tslim.presets.PRESETS[preset]()
    return {f.name: getattr(settings, f.name) for f in dataclasses.fields(MarchConfig)}


def prepare(
    scene: "str | tslim.Scene | None",
    model: Path | None,
    *,
    warm_steps: int,
    max_grid: int,
    seed: int = 0,
    seconds: float = math.inf,
) -> tuple[Workload, float]:
    """A workload, and the seconds that it took to make.

    The field is read from a model file, or trained for ``warm_steps`` steps at full rank from 64³ up to 128³, with its
    box shrunk and its empty space found; otherwise as in the preset ``paper``, whose decoder and sampling are timed.
    After so many ``seconds`` no further step is trained.
    Raises ``ConfigError`` for scenes that are no objects in a box.
    """
    began = time.perf_counter()
    loaded = scene
    if not isinstance(scene, tslim.Scene):
        loaded = tslim.load_scene(scene) if scene else tslim.builtin_scene(size=200, train=60, test=2, seed=seed)
    if loaded.space != "box":
        raise tslim.ConfigError(f"{loaded.name} lies in {loaded.space} space, and the torch twin knows only boxes")
    still = dataclasses.replace(
        tslim.presets.paper(),
        schedule=tslim.ScheduleConfig(policy="train", upsilon=1e9),
        steps=1_000_000,
        lr_factors=TINY_RATE,
        lr_network=TINY_RATE,
        lr_scales=TINY_RATE,
        grow_steps=(),
        occupancy_steps=(),
        report_every=1_000_000,
        checkpoint_every=1_000_000,
        seed=seed,
    )
    done = 0
    if model is not None:
        from tslim.model import model_file

        field = tslim.Field.from_state(without_rank_scales(model_file.read(model)), max_grid=max_grid)
    else:
        settings = dataclasses.replace(
            tslim.presets.paper(),
            schedule=tslim.ScheduleConfig(policy="fixed"),
            steps=warm_steps,
            batch_decoded=32768,
            grid_start=64,
            grid_end=128,
            grow_steps=tuple(warm_steps * k // 20 for k in (6, 9, 12)),
            occupancy_steps=(warm_steps * 6 // 20, warm_steps * 12 // 20),
            seed=seed,
        )
        field = tslim.Field.in_domain(
            loaded.domain, settings.field, grid=settings.grid_start, max_grid=max_grid, seed=seed
        )
        warming = tslim.Trainer(field, loaded, settings)
        for _ in warming.run():
            if time.perf_counter() - began > seconds:
                break
        done = warming.step
    if field.config.decoder != "mlp":
        raise tslim.ConfigError(f"a model with the decoder {field.config.decoder}: the twin has the MLP only")
    still = dataclasses.replace(still, field=field.config)
    return Workload(loaded, field, still, done), time.perf_counter() - began


def without_rank_scales(state: Any) -> Any:
    """The state without scales and shifts per rank, which the public code knows nothing of; same density at full rank.

    The density's go into the third factor of each product and into the activation's shift, the features' scales into
    the basis. The features' shifts are dropped: no figure here depends on colours.
    """
    if state.rank_scales is None:
        return state
    row = state.rank_scales[state.rank - 1]
    config = dataclasses.replace(
        state.config, rank_scales=False, density_shift=state.config.density_shift + float(row[1])
    )
    lines = [line * row[0] for line in state.density_lines]
    return dataclasses.replace(
        state,
        config=config,
        rank_scales=None,
        density_lines=lines,
        basis=state.basis * row[2 : 2 + state.basis.shape[-1]],
    )


def steps(trainer: Any) -> Iterator[float]:
    """Seconds of one step after another, events and all."""
    began = time.perf_counter()
    for event in trainer.run():
        if isinstance(event, tslim.Stepped):
            yield time.perf_counter() - began
            began = time.perf_counter()


def twin_of(trainer: Any) -> tuple[TorchTwin, tuple[torch.Tensor, ...]]:
    """The torch twin with the trainer's weights, occupancy and rank, and the batch of rays of its last step."""
    field, pipeline, n = trainer.field, trainer.pipeline, trainer.config.batch_rays
    field.rank = field.max_rank
    twin = TorchTwin(field.state(), pipeline.step_size, lr_factors=TINY_RATE, lr_network=TINY_RATE)
    twin.rank = trainer.rank
    arrays = (
        buffers.read(a)[: 3 * n].reshape(n, 3)
        for a in (trainer.batch.origins, trainer.batch.directions, trainer.batch.target)
    )
    rays = [torch.tensor(a) for a in arrays]
    jitter = torch.rand(n, generator=torch.Generator(rays[0].device).manual_seed(0))
    return twin, (*rays, torch.tensor(trainer.background, dtype=torch.float32), jitter)


def image_rays(cameras: Any, chunk: int, every: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Every ``every``-th chunk of an image's rays, in the order of its pixels."""
    origins, directions = (torch.tensor(np.ascontiguousarray(a, np.float32)) for a in cameras.rays(0))
    return list(zip(origins.split(chunk), directions.split(chunk), strict=True))[::every]


def renderer(workload: Workload, sampling: str = "paper") -> Renderer:
    """For many images of the workload's field, sampled as a preset does."""
    return Renderer(workload.field, config=MarchConfig(**sampling_of(sampling)))
