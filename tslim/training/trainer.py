"""Training as an iterator of events: the consumer decides what to show, when to pause, and when to stop."""

import contextlib
import dataclasses
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tslim import config
from tslim.device import backend, memory
from tslim.errors import ConfigError, DivergedError
from tslim.field.field import Field
from tslim.rendering.batch import Batch
from tslim.rendering.penalties import Penalties
from tslim.rendering.pipeline import MarchConfig, Pipeline
from tslim.scene.scene import Scene
from tslim.training import forecast, saved_state, sparse_points, writing
from tslim.training.divergence import ADVICE, lead_back, step_back
from tslim.training.events import Event, Finished, RankGrew, Started, Stepped, Warned
from tslim.training.gains import ImageGains
from tslim.training.maintenance import maintain
from tslim.training.optim import Optimizer
from tslim.training.progress import Window
from tslim.training.refinement import PoseRefinement, with_poses
from tslim.training.run_folder import RunFolder
from tslim.training.sampler import PixelSampler
from tslim.training.schedules import make_schedule
from tslim.training.sparse_points import SparsePoints
from tslim.training.state_checks import settings_of
from tslim.training.step import train_step
from tslim.training.unseen import UnseenCameras
from tslim.training.watch import Watch
from tslim.training.writing import attempt


class Trainer:
    """Trains a field on a scene. ``run()`` yields events; stop iterating to pause, iterate again to go on.

    Args:
        field: what to train; ``Trainer.new_field`` makes one that fits the settings.
        scene: posed images; only ``scene.train`` is ever looked at.
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
        if settings.anneal_share and field.space == "contracted":
            raise ConfigError("anneal_share in a contracted space: its rays have no middle to start from; set it to 0")
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
        if settings.unseen_occlusion or settings.unseen_depth:
            self.unseen = UnseenCameras(
                field, scene.train.cameras, settings.unseen_rays, settings.unseen_spread,
                Penalties(
                    occlusion=settings.unseen_occlusion, occlusion_range=settings.occlusion_range,
                    depth=settings.unseen_depth,
                ),
                self.march_config, settings.seed,
            )  # fmt: skip
        self.points = None
        if settings.point_depth and sparse_points.are_there(scene, settings):
            self.points = SparsePoints(
                field, scene, settings.point_rays, settings.point_depth, self.march_config, settings.seed
            )
        n_images = len(scene.train)
        self.gains = ImageGains(n_images, settings.gain_weight) if settings.image_gains else None
        self.refinement = None
        if settings.refine_poses:
            self.refinement = PoseRefinement(scene.train, self.sampler.cameras, self.batch.max_rays)
        self.optimizer = Optimizer(
            field, (settings.lr_first_ranks or settings.lr_factors) / settings.lr_factors,
            [learned.parameter for learned in self.of_images()],
        )  # fmt: skip
        self._begin()
        field.rank = self.schedule.rank
        field.prepare(self.optimizer.scratch())
        field.metadata["march"] = dataclasses.asdict(self.march_config)

    def _begin(self) -> None:
        """What a run keeps count of, as it is before the first step."""
        self.step = 0
        """Optimiser steps done."""
        self.seconds = 0.0
        """Time spent training."""
        self.lr_steps = 0
        """Steps since the learning rates last started afresh."""
        self.n_pixels = self.config.batch_rays
        """Pixels of the next step."""
        self.l1 = self.config.l1_start
        self.started = False
        """Whether anything is to be seen yet. Until then there is no L1: on an empty field at low rank its gradient
        outweighs that of the images, and the field would stay empty for ever."""
        self.grew: list[RankGrew] = []
        """Rank increases since the last progress report."""
        self.quality: float | None = None
        """PSNR of the training rays in the last report, dB."""
        self.setbacks = 0
        """How often training diverged and went back: each time learning became slower by ``divergence.SLOWER``."""
        self.window = self.new_window()
        """What has happened since the last progress report."""
        self.watch = Watch()
        """Whether training leads anywhere."""
        self.problems: tuple[str, ...] = ()
        """What the user should know of how the run was found, one line each."""
        self.last_failure = ""
        """What the last failure to write said."""

    def of_images(self) -> list[ImageGains | PoseRefinement]:
        """What is learned of each image."""
        return [learned for learned in (self.gains, self.refinement) if learned is not None]

    def new_window(self) -> Window:
        """Sums for a progress report that begins now."""
        return Window(self.seconds, self.step, self.field.max_rank)

    @property
    def rank(self) -> int:
        """The active rank."""
        return self.schedule.rank

    @staticmethod
    def new_field(scene: Scene, settings: config.TrainConfig) -> Field:
        """A field for the scene and settings, with room for the final grid."""
        return Field.in_domain(
            scene.domain, settings.field, grid=settings.grid_start, max_grid=settings.grid_end, seed=settings.seed
        )

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> Iterator[Event]:
        """Trains until the planned number of steps is done. Every event's step counts finished steps.

        Where training diverges, it goes back to the last checkpoint and on from there at lower learning rates, at most
        ``divergence.MOST_SETBACKS`` times. What cannot be written into the run folder on the way is a warning, no more.

        Raises ``DivergedError`` where it diverges and there is no way back.
        """
        settings = self.config
        yield Started(
            self.step, settings.steps, self.memory, self.step > 0, self.field, self.scene,
            self.folder.path if self.folder else None,
        )  # fmt: skip
        yield from [Warned(self.step, problem) for problem in self.problems]
        while self.step < settings.steps:
            began = time.perf_counter()
            try:
                with np.errstate(over="ignore", invalid="ignore"):  # looked for below, where it can be mended
                    events = maintain(self, train_step(self))
            except DivergedError as error:
                yield Warned(self.step, step_back(self, error))
                continue
            self.seconds += time.perf_counter() - began
            yield Stepped(self.step, self.rank)
            yield from events
            if self.step % settings.report_every == 0 or self.step == settings.steps:
                progress = self.window.report(self.step, settings.steps, self.rank, self.seconds, tuple(self.grew))
                lost = self.watch.look(self.window.shown(), self.step - self.window.first)
                self.window = self.new_window()
                if lost:
                    yield Warned(self.step, lead_back(self, lost))
                    if not self.watch.is_lost:  # it is back where it was good
                        continue
                self.grew.clear()
                self.quality = progress.psnr
                if self.folder:
                    yield from attempt(self, self.folder.log, progress)
                yield progress
            if self.folder and (self.step % settings.checkpoint_every == 0 or self.step == settings.steps):
                yield from attempt(self, self.save_checkpoint)
        if verdict := self.watch.verdict():
            yield Warned(self.step, f"{verdict}: {ADVICE}")
        saved_state.describe(self)
        yield Finished(self.step, self.seconds)

    def scene_as_learned(self) -> Scene:
        """The scene, its training cameras where they were refined to."""
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

    def set_rank(self) -> None:
        """Tells the field how many ranks it has now, and which of them are rendered from now on."""
        self.field.rank = self.rank
        self.field.interpolate_rows(self.schedule.rendered(self.step))

    # -- to continue exactly -----------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain data that ``load_state`` continues from exactly."""
        return saved_state.state_of(self)

    def load_state(self, arrays: dict[str, np.ndarray], plain: dict[str, Any]) -> None:
        """Continues from ``state()``. Raises as ``saved_state.restore``."""
        saved_state.restore(self, arrays, plain)

    def save_checkpoint(self, path: str | Path | None = None) -> Path:
        """Writes all that is needed to continue with the same bits; see ``writing.save_checkpoint``."""
        return writing.save_checkpoint(self, path)

    def save_model(self) -> Path:
        """Writes the trained model into the run folder; see ``writing.save_model``."""
        return writing.save_model(self)

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
        if not folder.checkpoints.exist():
            trainer = cls(cls.new_field(scene, settings), scene, settings, run_dir=folder)
            trainer.problems = ("there is no checkpoint yet: the run starts again from its beginning",)
        else:
            arrays, plain, damaged = folder.checkpoints.read()
            settings = settings_of(plain)
            trainer = cls(cls.new_field(scene, settings), scene, settings, run_dir=folder)
            trainer.load_state(arrays, plain)
            trainer.problems = tuple(f"{problem}; an earlier one is taken" for problem in damaged)
        folder.rewind(trainer.step)
        return trainer
