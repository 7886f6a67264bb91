"""Experiments: several trainings on one scene with equal rays, measured alike, as one table. What such apps share.

The engine is that of ``tslim sweep`` (``tslim.sweeps``): Ray where it is installed, here or on a cluster, else this
machine, one training after another. Each is a run folder of its own inside the experiment's folder. A run that is
already there is not trained again if it has the same settings, and continued if it was interrupted; with other settings
it is refused.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from apps import _report as report
from apps._report import Variant
from tslim import __version__, config, presets
from tslim.commands import shared
from tslim.commands.console import Console
from tslim.commands.options import Arch, SceneOptions
from tslim.config import TrainConfig
from tslim.errors import ConfigError
from tslim.scene.scene import Scene, Views
from tslim.sweeps import engine
from tslim.sweeps import table as sweep_table
from tslim.sweeps.plan import Plan, Prepared
from tslim.sweeps.single import is_done
from tslim.training.run_folder import RunFolder

RANKS = (1, 2, 4, 6, 8, 12, 16)
"""Prefixes that are measured: the stages, and some between them."""


@dataclass(frozen=True)
class Options:
    """What an experiment can be told."""

    scene: Positional[Annotated[Path | None, arg(metavar="[PATH]", help_behavior_hint="")]] = None
    """folder of posed photographs; if not given, the built-in scene"""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """small pictures and short training: a few minutes on two CPU cores"""
    preset: Literal["quick", "fine", "best", "demo", "paper"] = "quick"
    """settings of the full experiment; --quick has its own"""
    steps: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """optimiser steps of each training, its growth and refreshes moved in proportion; the preset's if not given"""
    rays: Annotated[int | Literal["preset"] | None, arg(metavar="INT|preset", help_behavior_hint="")] = None
    """rays of a step; 4096 if not given, with --quick 1024. preset: as many as the preset's steps take, which may
    differ from step to step and from line to line"""
    views: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """measure on so many evenly spaced test views; on all if not given, with --quick on 10"""
    seeds: int = 1
    """train each line so many times, with seeds from 0 on; the table has the means"""
    table: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """train nothing: the table of the lines that are finished"""
    out: Annotated[Path | None, arg(metavar="PATH", aliases=("-o",), help_behavior_hint="")] = None
    """folder for runs and results; runs/EXPERIMENT-SCENE if not given, ending in -quick with --quick"""
    arch: Arch = "auto"
    """device; auto takes a GPU that works, else the CPU"""
    address: Annotated[str | None, arg(metavar="ADDRESS", help_behavior_hint="")] = None
    """Ray cluster to train on, such as auto or 10.0.0.1:6379; this machine if not given"""
    cpus: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """cores that a training takes, as many at a time as there are such; all, one at a time, if not given (needs Ray)"""
    gpus: float = 0.0
    """GPUs that a training takes (needs Ray)"""
    scene_options: Annotated[SceneOptions, arg(name="")] = field(default_factory=SceneOptions)

    def place(self) -> engine.Place:
        """Where trainings run."""
        return engine.Place(self.address, self.cpus, self.gpus, self.arch)


def base_settings(args: Options, space: config.Space = "box") -> TrainConfig:
    """What all trainings of an experiment have in common, by the scene's space.

    Every step takes as many rays, unless they are to be the preset's.

    Raises ``ConfigError`` for steps, rays or views that make no sense.
    """
    settings = presets.demo(space) if args.quick else presets.PRESETS[args.preset](space)
    if args.quick:
        settings = scaled_down(settings)
    if args.steps is not None:
        settings = config.with_steps(settings, args.steps)
    rays = args.rays if args.rays is not None else 1024 if args.quick else 4096
    if rays != "preset":
        settings = dataclasses.replace(settings, batch_rays=rays, batch_decoded=0)
    if args.views is not None and args.views < 1:
        raise ConfigError(f"views is {args.views}: expected 1 or more")
    if args.seeds < 1:
        raise ConfigError(f"seeds is {args.seeds}: expected 1 or more")
    config.require_valid(settings)
    return settings


def scaled_down(settings: TrainConfig, steps: int = 600) -> TrainConfig:
    """The same as a short run on a coarse grid.

    Such a run measures empty space while the field is still young: the preset's threshold would cut objects away, and
    so would a first look at what a tenth of the run has not brought to light yet.
    """
    settings = config.with_steps(settings, steps)
    looks = tuple(step for step in settings.occupancy_steps if step >= settings.steps // 10)
    return dataclasses.replace(settings, grid_start=48, grid_end=96, occupancy_steps=looks, occupancy_threshold=1e-4)


@dataclass(frozen=True)
class Line:
    """What a line of the table is to say: what is trained, on which photographs, and at which ranks it is measured."""

    name: str
    settings: TrainConfig
    ranks: Sequence[int] = RANKS
    """those that the model comes to have are measured"""
    scene: Scene | None = None
    """with other photographs to train on, or to measure on, than the experiment's"""


class Experiment:
    """Trainings of one scene in one folder, run as those of ``tslim sweep`` are.

    Args:
        name: of the experiment, as in the folder's.
        args: the user's options.
        console: where to say what is going on.

    Raises as loading a scene and starting a device do.
    """

    def __init__(self, name: str, args: Options, console: Console | None = None) -> None:
        self.name, self.args = name, args
        self.console = console or Console()
        shared.start(args.arch, self.console, base_settings(args).seed)
        scene_options = args.scene_options
        if args.quick and scene_options.downscale is None:
            scene_options = dataclasses.replace(scene_options, downscale=2 if args.scene is None else 4)
        self.scene = shared.open_scene(args.scene, scene_options)
        self.settings = base_settings(args, self.scene.space)
        self.record = shared.scene_record(args.scene, scene_options)
        shared.warn_about(self.scene, self.console)
        named = f"{name}-{self.scene.name}".lower() + ("-quick" if args.quick else "")
        self.folder = args.out or Path("runs") / named
        self.views = self._views(self.scene)
        self.console.fact("folder", self.folder)

    def _views(self, scene: Scene) -> Views:
        """What is measured on: some of the test views, or all training views where there are none."""
        if not len(scene.test):
            return scene.train
        return scene.test.spread(self.args.views or (10 if self.args.quick else len(scene.test)))

    def train(self, *lines: Line, whole: bool = False) -> list[Variant]:
        """Trains and measures what was not before; returns the lines in their order, each with the means of its seeds.

        With ``--table`` nothing is trained, and only the lines of which all seeds are there are returned; ``whole``:
        all must be. The history of a line is that of its first seed. Raises ``RunFolderError`` where the folder of a
        training holds something else, and ``ConfigError`` where one has failed, or with ``--table`` has not been done.
        """
        plan = self._plan(lines)
        if self.args.table:
            return self._finished(plan, lines, whole)
        for training in plan.runs:
            training.prepare(RunFolder(plan.folder(training)))
        waiting = [training for training in plan.runs if not is_done(plan, training)]
        if waiting:
            self.console.line(f"{len(waiting)} of {len(plan.runs)} trainings to do; each writes {plan.out}/NAME.log")
        place, failed = self.args.place(), ""
        for count, end in enumerate(engine.run(plan, waiting, place) if waiting else (), start=1):
            self.console.line(f"{count}/{len(waiting)} {end.run.name}: {end.problem or 'done'}")
            failed = failed or end.problem and f"{end.run.name}: {end.problem}"
        if failed:
            raise ConfigError(failed)
        return self._variants(plan, lines)

    def _finished(self, plan: Plan, lines: Sequence[Line], whole: bool) -> list[Variant]:
        """The lines of which all trainings are done; says which are not."""
        missing = list(dict.fromkeys(run.line for run in plan.runs if not is_done(plan, run)))
        done = [line for line in lines if line.name not in missing]
        if missing and (whole or not done):
            raise ConfigError(f"not finished in {plan.out}: {', '.join(missing)}")
        if missing:
            self.console.line(f"not finished: {', '.join(missing)}")
        return self._variants(plan, done)

    def _variants(self, plan: Plan, lines: Sequence[Line]) -> list[Variant]:
        """What trainings that are done measured."""
        cells = sweep_table.entries(plan)
        return [
            Variant(
                line.name,
                sorted((cell.row() for cell in cells if cell.line == line.name), key=lambda row: -row.rank),
                line.settings,
                self.run(line.name).history(),
            )
            for line in lines
        ]

    def _plan(self, lines: Sequence[Line]) -> Plan:
        """The trainings, as those of a sweep: their models hold numbers in half precision, whatever the preset."""
        runs = []
        for line in lines:
            record = self._scene_record(line.scene)
            for seed in range(self.args.seeds):
                train = dataclasses.replace(line.settings, seed=line.settings.seed + seed, precision="float16")
                known = {"scene": record, "train": config.to_dict(train)}
                name = self.run(line.name, seed).path.name
                runs.append(Prepared(self.scene.name, line.name, name, seed, known, tuple(line.ranks)))
        return Plan(self.folder.absolute(), tuple(runs), RANKS, self.folder)

    def _scene_record(self, scene: Scene | None) -> dict[str, Any]:
        """What ``config.json`` has of the scene, with the names of photographs where they are not all."""
        record, scene = dict(self.record), scene or self.scene
        if len(scene.train) != len(self.scene.train):
            record["train_views"] = list(scene.train.names)
        views = self._views(scene)
        if len(scene.test) and len(views) != len(self.scene.test):
            record["test_views"] = list(views.names)
        return record

    def run(self, name: str, seed: int = 0) -> RunFolder:
        """The folder of one of a line's trainings."""
        words = re.sub(r"[^\w.]+", "-", name.lower()).strip("-")
        return RunFolder(self.folder / (f"{words}-seed-{seed}" if seed else words))

    def report(
        self,
        title: str,
        variants: Sequence[Variant],
        *,
        reference: str | None = None,
        extra: Mapping[str, Mapping[str, str]] | None = None,
    ) -> list[Path]:
        """Shows the table; writes ``table.md``, ``results.json`` and two plots into the folder, and returns them.

        Args:
            title: what is compared.
            variants: the lines.
            reference: the name of the line that the others' differences are given to, in brackets.
            extra: further columns: their headings, each with cells by line name.
        """
        heads, cells = report.table(variants, reference=reference, extra=extra)
        self.console.table(heads, cells, title=title)
        facts = {
            "title": title,
            "command": report.command(),
            "version": __version__,
            "scene": self.scene.name,
            "views": len(self.views),
            "train": config.to_dict(self.settings),
        }
        written = [
            report.write_table(self.folder / "table.md", title, self._setting(), heads, cells),
            report.write_json(self.folder / "results.json", facts, variants, extra),
            *report.write_plots(self.folder, f"{self.scene.name}: {title}", variants),
        ]
        self.console.written(written)
        return written

    def _setting(self) -> str:
        """The settings in words, with the command."""
        s, (width, height) = self.settings, self.scene.train.cameras.sizes[0]
        rays = f"at most {s.batch_rays}" if s.batch_decoded else s.batch_rays
        seeds = f"seed {s.seed}" if self.args.seeds == 1 else f"means of {self.args.seeds} seeds"
        return (
            f"Mean PSNR in dB over {len(self.views)} views of {self.scene.name} ({width}×{height}; "
            f"{len(self.scene.train)} to train on) by ranks kept; {s.steps} steps of {rays} rays, grid "
            f"{s.grid_start}³ to {s.grid_end}³, {s.field.decoder} decoder of width {s.field.decoder_width}, "
            f"{seeds}. Command: `{report.command()}`"
        )
