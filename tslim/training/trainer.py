"""Training as an iterator of events: the consumer decides what to show, when to pause, and when to stop."""

import contextlib
import dataclasses
import math
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kernels import regularize
from tslim import config
from tslim.device import backend, buffers, memory
from tslim.errors import ConfigError, DivergedError, RunFolderError
from tslim.field.field import Field
from tslim.field.occupancy import Occupancy
from tslim.model import model_file
from tslim.rendering.batch import Batch
from tslim.rendering.pipeline import MarchConfig, Penalties, Pipeline
from tslim.scene.scene import Scene
from tslim.training import checkpoint, forecast, saved_state
from tslim.training.events import (
    CheckpointSaved,
    Event,
    Finished,
    GridGrew,
    OccupancyRefreshed,
    RankGrew,
    RanksOrdered,
    Started,
    Stepped,
    Warned,
)
from tslim.training.gains import ImageGains
from tslim.training.optim import Optimizer
from tslim.training.progress import Window
from tslim.training.refinement import PoseRefinement, with_poses
from tslim.training.run_folder import RunFolder
from tslim.training.sampler import PixelSampler
from tslim.training.schedules import make_schedule
from tslim.training.unseen import UnseenCameras

MIN_RAYS = 256
"""Rays that a step takes at least."""
SLOWER, MOST_SETBACKS = 0.3, 3
"""Where training diverges, it goes back and learns so much more slowly, at most so often."""
STARTED_OPACITY = 0.01
"""Mean opacity of a batch's rays from which on a field counts as no longer empty."""


class Trainer:
    """Trains a field on a scene. ``run()`` yields events; stop iterating to pause, iterate again to go on.

    Args:
        field: what to train; ``Trainer.new_field`` makes one that fits the settings.
        scene: photographs; only ``scene.train`` is ever looked at.
        settings: how to train.
        run_dir: a run folder for the log and the checkpoints, which is this process's for as long as there is the
            trainer; None keeps everything in memory.

    Raises:
        ConfigError: impossible settings.
        BackendError: the device computes wrong gradients.
        OutOfMemoryError: the run would need more memory than is free.
        RunFolderError: another process trains in the run folder.
    """

    def __init__(
        self, field: Field, scene: Scene, settings: config.TrainConfig, *, run_dir: str | Path | RunFolder | None = None
    ) -> None:
        config.require_valid(settings)
        backend.current().require_gradients()
        if field.max_rank != settings.field.max_rank:
            settings = dataclasses.replace(settings, field=field.config)
        self.field = field
        self.scene = scene
        self.config = settings
        self.folder: RunFolder | None = None
        if run_dir is not None:
            self.folder = run_dir if isinstance(run_dir, RunFolder) else RunFolder(run_dir)
            owned = contextlib.ExitStack()
            owned.enter_context(self.folder.owned())
            weakref.finalize(self, owned.close)
        self.step = 0
        """Optimiser steps done."""
        self.seconds = 0.0
        """Time spent training."""
        self.schedule = make_schedule(settings.schedule, field.max_rank, settings.steps)
        field.decoder.train_in(settings.decoder_precision)
        self.march_config = MarchConfig(
            settings.step_ratio, settings.weight_threshold, settings.early_stop, settings.colour_span
        )
        self.memory = forecast.memory_of(settings, scene)
        memory.require(self.memory, "a smaller --grid-end, --field.max-rank or --batch-rays, or a larger --downscale")
        self.sampler = PixelSampler(scene.train, scene.background, settings.seed)
        self.batch = Batch(settings.batch_rays, self.schedule.most_renders())
        self.pipeline = Pipeline(field, self.batch, self.march_config)
        self.penalties = None
        if settings.distortion or settings.occlusion:
            self.penalties = Penalties(settings.distortion, settings.occlusion, settings.occlusion_range)
        self.unseen = None
        if settings.unseen_occlusion:
            self.unseen = UnseenCameras(
                field, scene.train.cameras, settings.unseen_rays, settings.unseen_spread,
                Penalties(occlusion=settings.unseen_occlusion, occlusion_range=settings.occlusion_range),
                self.march_config, settings.seed,
            )  # fmt: skip
        n_images = len(scene.train)
        self.gains = ImageGains(n_images, settings.gain_weight) if settings.image_gains else None
        self.refinement = None
        if settings.refine_poses:
            self.refinement = PoseRefinement(scene.train, self.sampler.cameras, self.batch.max_rays)
        self.optimizer = Optimizer(
            field, (settings.lr_first_ranks or settings.lr_factors) / settings.lr_factors,
            [learned.parameter for learned in self._of_images()],
        )  # fmt: skip
        self.lr_steps = 0
        """Steps since the learning rates last started afresh."""
        self.n_pixels = settings.batch_rays
        """Pixels of the next step."""
        self.l1 = settings.l1_start
        self.started = False
        """Whether anything is to be seen yet. Until then there is no L1: on an empty field at low rank its gradient
        outweighs that of the photographs, and the field would stay empty for ever."""
        self.grew: list[RankGrew] = []
        """Rank increases since the last progress report."""
        self.quality: float | None = None
        """PSNR of the training rays in the last report, dB."""
        self.setbacks = 0
        """How often training diverged and went back: each time learning became slower by ``SLOWER``."""
        self.problems: tuple[str, ...] = ()
        """What the user should know of how the run was found, one line each."""
        self._failed = ""
        """What the last failure to write said."""
        field.rank = self.schedule.rank
        field.prepare(self.optimizer.scratch())
        field.metadata["march"] = dataclasses.asdict(self.march_config)

    def _of_images(self) -> list[ImageGains | PoseRefinement]:
        """What is learned of each image."""
        return [learned for learned in (self.gains, self.refinement) if learned is not None]

    @property
    def rank(self) -> int:
        """The active rank."""
        return self.schedule.rank

    @staticmethod
    def new_field(scene: Scene, settings: config.TrainConfig) -> Field:
        """A field for the scene and settings, with room for the final grid."""
        return Field(
            scene.box, settings.field, grid=settings.grid_start, max_grid=settings.grid_end, seed=settings.seed,
            near=scene.near, far=scene.far, space=scene.space, background=scene.background,
        )  # fmt: skip

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> Iterator[Event]:
        """Trains until the planned number of steps is done. Every event's step counts finished steps.

        Where training diverges, it goes back to the last checkpoint and on from there at lower learning rates, at most
        ``MOST_SETBACKS`` times. What cannot be written into the run folder on the way is a warning, no more.

        Raises ``DivergedError`` where it diverges and there is no way back.
        """
        settings = self.config
        yield Started(
            self.step, settings.steps, self.memory, self.step > 0, self.field, self.scene,
            self.folder.path if self.folder else None,
        )  # fmt: skip
        yield from [Warned(self.step, problem) for problem in self.problems]
        window = Window(self.seconds, self.step, self.field.max_rank)
        while self.step < settings.steps:
            began = time.perf_counter()
            try:
                with np.errstate(over="ignore", invalid="ignore"):  # looked for below, where it can be mended
                    events = self._maintain(self._train_one(window))
            except DivergedError as error:
                yield Warned(self.step, self._step_back(error))
                window = Window(self.seconds, self.step, self.field.max_rank)
                continue
            self.seconds += time.perf_counter() - began
            yield Stepped(self.step, self.rank)
            yield from events
            if self.step % settings.report_every == 0 or self.step == settings.steps:
                progress = window.report(self.step, settings.steps, self.rank, self.seconds, tuple(self.grew))
                window = Window(self.seconds, self.step, self.field.max_rank)
                self.grew.clear()
                self.quality = progress.psnr
                if self.folder:
                    yield from self._tried(self.folder.log, progress)
                yield progress
            if self.folder and (self.step % settings.checkpoint_every == 0 or self.step == settings.steps):
                yield from self._tried(self.save_checkpoint)
        self._describe()
        yield Finished(self.step, self.seconds)

    def _train_one(self, window: Window) -> str | None:
        """One optimiser step; returns why the rank grew after it, if it did."""
        settings, pipeline, batch, step = self.config, self.pipeline, self.batch, self.step
        schedule, rank = self.schedule, self.schedule.rank
        ranks = schedule.ray_ranks(step, self.n_pixels, np.random.default_rng([settings.seed, 2, step]))
        self.sampler.fill(batch, self.n_pixels)
        batch.render_at(ranks, schedule.weights(ranks.reshape(-1)))
        n = batch.n_rays
        pipeline.forward(
            n, max_rank=rank, background=self.background, jitter=(settings.seed, step), copies=batch.copies
        )
        if not self.started:
            self.started = float(buffers.read(batch.opacity)[:n].mean()) >= STARTED_OPACITY
        if self.gains:
            self.gains.apply(batch)
        batch.compare()
        if self.gains:
            self.gains.backward(batch)
        gradients = self.optimizer.gradients
        penalties = self.penalties
        if penalties is not None:  # they count for as much as the errors of a ray's renders do together
            penalties = penalties.times(batch.pixel_weight)
        refinement = self.refinement if step >= settings.poses_from * settings.steps else None
        pipeline.backward(gradients, penalties, settings.near_fade, of_rays=refinement is not None)
        if refinement:
            refinement.backward(pipeline, batch)
        if self.unseen and self.started:
            self.unseen.backward(batch, step, gradients)
        self._total_variation(gradients, rank)
        fall = schedule.pace(step, settings.lr_decay)
        if fall is None:
            fall = settings.lr_decay ** (self.lr_steps / settings.steps)
        fall *= SLOWER**self.setbacks
        first, last = schedule.learning(step)
        self.optimizer.step(
            last, {
                "factors": fall * settings.lr_factors, "network": fall * settings.lr_network,
                "scales": fall * settings.lr_scales, "gains": fall * settings.lr_gains,
                "poses": fall * settings.lr_poses,
            }, first_rank=first, l1_density=self.l1 if self.started else 0.0, lazy=settings.lazy_adam,
        )  # fmt: skip
        for learned in self._of_images():
            learned.settle()
        self.field.interpolate_rows(schedule.rendered(step))
        if settings.batch_decoded:
            fitting = settings.batch_decoded * self.n_pixels // max(pipeline.n_visible, 1)
            self.n_pixels = min(max(fitting, self.n_pixels // 2, MIN_RAYS), 2 * self.n_pixels, settings.batch_rays)
        self.lr_steps += 1
        self.step += 1
        loss = None
        due = self.step % settings.report_every == 0 or self.step == settings.steps
        if schedule.needs_loss or backend.current().is_cpu or due:
            losses = buffers.read(batch.loss)[:n]
            self._require_sense(losses, parameters=due)
            loss = window.add_losses(rank, ranks.reshape(-1), losses)
        window.add(pipeline)
        return schedule.update(step, loss)

    def _require_sense(self, losses: np.ndarray, *, parameters: bool) -> None:
        """Raises ``DivergedError`` if the losses of a batch are not finite, or ``parameters`` that rays share.

        What goes wrong in planes and lines shows in the gradients of these after a step.
        """
        wrong = None
        if not np.isfinite(losses.sum()):
            wrong = "the loss is not finite"
        elif parameters:
            shared = {p.name.replace("_", " "): p.value for p in self.optimizer.flat}
            if self.refinement:
                shared["poses"] = self.refinement.cameras
            lost = [name for name, array in shared.items() if not np.isfinite(buffers.read(array).sum())]
            wrong = f"the values of the {lost[0]} are not finite" if lost else None
        if wrong:
            raise DivergedError(wrong)

    def _step_back(self, error: DivergedError) -> str:
        """Goes back to the last checkpoint, to the best the next time, to learn more slowly; returns what was done.

        Raises ``DivergedError`` if there is none, or that was done too often.
        """
        lost, setbacks = self.step, self.setbacks + 1
        rates = f"--lr-factors (now {SLOWER**self.setbacks * self.config.lr_factors:g}) and --lr-network"
        advice = f"training has diverged at step {lost}: {error}; lower {rates}"
        if self.folder is None or not self.folder.checkpoints.exist():
            raise DivergedError(advice)
        if setbacks > MOST_SETBACKS:
            raise DivergedError(f"{advice}; the last good checkpoint is kept")
        arrays, plain, _ = self.folder.checkpoints.read(best=setbacks > 1)
        self.load_state(arrays, plain)
        self.setbacks = setbacks
        self.folder.rewind(self.step)
        return (
            f"training has diverged at step {lost} ({error}): it goes on from step {self.step}, with learning rates "
            f"{SLOWER**setbacks:.2g} times as high"
        )

    def scene_as_learned(self) -> Scene:
        """The scene, its training photographs taken from where they were refined to."""
        if not self.refinement:
            return self.scene
        return dataclasses.replace(self.scene, train=with_poses(self.scene.train, self.refinement.poses()))

    @property
    def background(self) -> tuple[float, float, float]:
        """Colour behind the field in the next step.

        Where none is known, another one each time: what is really there must hide it, or light parts of a scene would
        be learned as holes in front of a light background.
        """
        if self.scene.background is not None:
            return self.scene.background
        r, g, b = np.random.default_rng([self.config.seed, 4, self.step]).uniform(size=3)
        return float(r), float(g), float(b)

    def _total_variation(self, gradients, rank: int) -> None:
        field, settings = self.field, self.config
        for weight, factors, into, k in (
            (settings.tv_density, field.density, gradients.density, rank),
            (settings.tv_appearance, field.appearance, gradients.appearance, 3 * rank),
        ):
            if weight:
                regularize.tv_backward(factors.values, into.values, factors.layout, k, weight)

    def _maintain(self, cause: str | None) -> list[Event]:
        """What is due between steps: rank, occupancy, box, rays, grid."""
        settings = self.config
        events: list[Event] = []
        if cause:
            grown = RankGrew(self.step, self.rank, cause)
            events.append(grown)
            self.grew.append(grown)
            self._set_rank()
        if self.step in settings.occupancy_steps:
            events += self._refresh_occupancy()
        if self.step in settings.grow_steps and settings.grid_end > settings.grid_start:
            self.field.grow(self._side_after(self.step), self.optimizer.scratch())
            self._restart_optimizer()
            events.append(GridGrew(self.step, self.field.grid))
        if self.schedule.orders(self.step):
            self.field.reorder()
            self._set_rank()
            self.optimizer.reset()
            events.append(RanksOrdered(self.step))
        return events

    def _set_rank(self) -> None:
        """Tells the field how many ranks it has now, and which of them are rendered from now on."""
        self.field.rank = self.rank
        self.field.interpolate_rows(self.schedule.rendered(self.step))

    def _side_after(self, step: int) -> int:
        """Grid side once the growth at ``step`` is done: log-spaced in voxels from the first to the last."""
        settings = self.config
        done = (sorted(settings.grow_steps).index(step) + 1) / len(settings.grow_steps)
        return round(settings.grid_start ** (1 - done) * settings.grid_end**done)

    def _restart_optimizer(self) -> None:
        self.optimizer.reset()
        if self.config.lr_reset_on_grow:
            self.lr_steps = 0

    def _refresh_occupancy(self) -> list[Event]:
        settings, field = self.config, self.field
        turn = sorted(settings.occupancy_steps).index(self.step)
        ranks = self.schedule.emptied(self.step)
        before = field.occupancy
        threshold = settings.occupancy_threshold
        if settings.occupancy_first:
            threshold = min(threshold, settings.occupancy_first * 10 ** (turn / 2))
        share = field.refresh_occupancy(ranks, settings.step_ratio * field.voxel, threshold)
        tight = field.occupancy.tight_box()
        if tight is None:
            field.occupancy = before
            return [Warned(self.step, "nothing is occupied yet: the field is still empty, its grid stays as it was")]
        events: list[Event] = []
        box = None
        if turn == 0:
            self.l1 = settings.l1_rest
            if field.space != "contracted":  # there all of the box is somewhere
                field.shrink(tight, self.optimizer.scratch())
                self._restart_optimizer()
                box = (tuple(field.box[0].tolist()), tuple(field.box[1].tolist()))
        events.append(OccupancyRefreshed(self.step, share, box))
        if turn == 1 and self.scene.background is not None:  # without one, a ray that meets nothing is a mistake
            self.sampler.keep_hits(self.pipeline)
        return events

    # -- to continue exactly -----------------------------------------------------------------------------------------

    def _describe(self) -> None:
        """Writes down in the field where it comes from."""
        path = self.scene.default_path()
        self.field.metadata |= {
            "scene": self.scene.name,
            "format": self.scene.format,
            "steps": self.step,
            "seconds": round(self.seconds, 1),
            "train": config.to_dict(self.config),
            "path": path.to_dict() if hasattr(path, "to_dict") else dataclasses.asdict(path),
        }
        names = self.scene.train.names
        if self.gains:
            self.field.metadata["gains"] = dict(zip(names, self.gains.host().round(4).tolist(), strict=True))
        if self.refinement:
            self.field.metadata["poses"] = dict(zip(names, self.refinement.poses().round(6).tolist(), strict=True))

    def save_checkpoint(self, path: str | Path | None = None) -> Path:
        """Writes everything needed to continue with the same bits; into the run folder unless told otherwise, where
        the model as it is goes, too, to be looked at.

        Raises:
            ConfigError: there is neither a path nor a run folder.
            RunFolderError: the file cannot be written.
        """
        if path is None and self.folder is None:
            raise ConfigError("this trainer has no run folder: say where to save the checkpoint")
        arrays, plain = self.state()
        lost = [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
        if lost:
            raise DivergedError(f"training has diverged: {lost[0]} holds values that are not finite; nothing is saved")
        if path is not None:
            return checkpoint.save(path, arrays, plain)
        self.folder.preserve()
        saved = self.folder.checkpoints.save(arrays, plain)
        self._write_model(self.folder.unfinished)
        return saved

    def save_model(self) -> Path:
        """Writes the trained model into the run folder, in place of the one of the last checkpoint.

        In half precision, or in single where values are too large for it. Raises as ``Field.save``; ``ConfigError``
        without a folder.
        """
        if self.folder is None:
            raise ConfigError("this trainer has no run folder: save its field")
        self.folder.preserve()
        self._write_model(self.folder.model)
        self.folder.unfinished.unlink(missing_ok=True)
        return self.folder.model

    def _write_model(self, path: Path) -> None:
        state = self.field.state()
        wide = model_file.exceeds_half(state)
        model_file.write(model_file.convert(state, "float32" if wide else "float16"), path)

    def _tried(self, write: Callable[..., Any], *args: Any) -> Iterator[Event]:
        """Writes; a full disk, say, is no reason to stop training. Of one kind of failure the user hears once in a row.

        ``DivergedError`` is treated as in training.
        """
        try:
            written = write(*args)
        except DivergedError as error:
            yield Warned(self.step, self._step_back(error))
            return
        except RunFolderError as error:
            if self._failed != str(error):
                self._failed = str(error)
                yield Warned(self.step, f"{error}; training goes on")
            return
        if isinstance(written, Path):
            yield CheckpointSaved(self.step, written)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain data that ``load_state`` continues from exactly."""
        self._describe()
        field, optimizer = self.field, self.optimizer
        arrays = optimizer.state() | {"box": field.box}
        if self.refinement:
            arrays["poses"] = self.refinement.poses()
        if field.occupancy is not None:
            occupied = np.packbits(field.occupancy.to_cells(), bitorder="little")
            arrays |= {"occupancy": occupied, "occupancy_box": field.occupancy.box}
        sampler_arrays, sampler = self.sampler.state()
        plain = {
            "config": config.to_dict(self.config),
            "step": self.step,
            "seconds": self.seconds,
            "lr_steps": self.lr_steps,
            "adam_count": optimizer.count,
            "l1": self.l1,
            "started": self.started,
            "batch": self.n_pixels,
            "grid": list(field.grid),
            "occupancy_cells": list(field.occupancy.cells) if field.occupancy else None,
            "schedule": self.schedule.state(),
            "grew": [dataclasses.asdict(event) for event in self.grew],
            "sampler": sampler,
            "pixels": self.sampler.n_pixels,
            "quality": self.quality,
            "setbacks": self.setbacks,
            "metadata": field.metadata,
        }
        return arrays | {f"sampler.{k}": v for k, v in sampler_arrays.items()}, plain

    def load_state(self, arrays: dict[str, np.ndarray], plain: dict[str, Any]) -> None:
        """Continues from ``state()``. Raises ``ModelFileError`` if it belongs to other photographs, or fits neither the
        settings nor itself."""
        arrays = saved_state.with_present_names(arrays)
        saved_state.require_fitting(self, arrays, plain)
        field, optimizer = self.field, self.optimizer
        grid = tuple(plain["grid"])
        field.domain = field.domain.with_box(arrays["box"])
        for factors in (field.density, field.appearance):
            factors.fit(grid)
            factors.clear()
        optimizer.reset()
        optimizer.load_state(arrays)
        optimizer.count = plain["adam_count"]
        if plain["occupancy_cells"]:
            size = tuple(reversed(plain["occupancy_cells"]))
            bits = np.unpackbits(arrays["occupancy"].view(np.uint8), count=math.prod(size), bitorder="little")
            field.occupancy = Occupancy.from_cells(bits.reshape(size), arrays["occupancy_box"])
        if self.refinement:
            self.refinement.set_poses(arrays["poses"])
        self.schedule.load_state(plain["schedule"])
        sampler_arrays = {k.removeprefix("sampler."): v for k, v in arrays.items() if k.startswith("sampler.")}
        self.sampler.load_state(sampler_arrays, plain["sampler"])
        field.metadata = plain["metadata"]
        self.step, self.seconds = plain["step"], plain["seconds"]
        self._set_rank()
        self.lr_steps, self.l1, self.started = plain["lr_steps"], plain["l1"], plain["started"]
        self.n_pixels = plain["batch"]
        self.grew = [RankGrew(**event) for event in plain.get("grew", [])]
        self.quality, self.setbacks = plain.get("quality"), plain.get("setbacks", 0)

    @classmethod
    def resume(cls, run_dir: str | Path | RunFolder, scene: Scene) -> "Trainer":
        """Continues the run in a folder from its last checkpoint, on the scene that it was trained on.

        A run that was ended before its first checkpoint starts again, with its own settings.

        Raises:
            RunFolderError: no run there, or another process trains in it.
            ModelFileError: no checkpoint can be read, or they are of another version.
        """
        folder = run_dir if isinstance(run_dir, RunFolder) else RunFolder(run_dir)
        settings = folder.train_settings()
        arrays, plain, problems = None, {}, ("there is no checkpoint yet: the run starts again from its beginning",)
        if folder.checkpoints.exist():
            arrays, plain, problems = folder.checkpoints.read()
            problems = tuple(f"{problem}; an earlier one is taken" for problem in problems)
            settings = saved_state.settings_of(plain)
        trainer = cls(cls.new_field(scene, settings), scene, settings, run_dir=folder)
        if arrays is not None:
            trainer.load_state(arrays, plain)
        trainer.problems = problems
        folder.rewind(trainer.step)
        return trainer
