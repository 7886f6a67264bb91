"""Experiments: several trainings on one scene with equal rays, measured alike, as one table. What such apps share.

The engine is that of ``tslim sweep`` (``tslim.sweeps``): Ray where it is installed, here or on a cluster, else this
machine, one training after another. Each is a run folder of its own inside the experiment's folder. A run that is
already there is not trained again if it has the same settings, and continued if it was interrupted; with other settings
it is refused.
"""

import dataclasses
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from tslim import __version__, config, files, presets
from tslim.commands import shared
from tslim.commands.console import Console
from tslim.commands.options import Arch, SceneOptions
from tslim.config import ScheduleConfig, TrainConfig
from tslim.errors import ConfigError
from tslim.measuring import plots
from tslim.measuring.evaluate import SweepRow
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
    rays: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """rays of a step; 4096 if not given, with --quick 1024"""
    views: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """measure on so many evenly spaced test views; on all if not given, with --quick on 10"""
    seeds: int = 1
    """train each line so many times, with seeds from 0 on; the table has the means"""
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
    """What all trainings of an experiment have in common, by the scene's space. Every step takes as many rays.

    Raises ``ConfigError`` for steps, rays or views that make no sense.
    """
    settings = presets.demo(space) if args.quick else presets.PRESETS[args.preset](space)
    if args.quick:
        settings = scaled_down(settings)
    if args.steps is not None:
        settings = config.with_steps(settings, args.steps)
    rays = 1024 if args.quick else 4096
    settings = dataclasses.replace(settings, batch_rays=rays if args.rays is None else args.rays, batch_decoded=0)
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


def plain(settings: TrainConfig, policy: str, **schedule: Any) -> TrainConfig:
    """TensoRF's field, without scales and shifts per rank, all of whose ranks learn at one rate, under a policy."""
    return dataclasses.replace(
        settings,
        lr_first_ranks=0.0,
        field=dataclasses.replace(settings.field, rank_scales=False),
        schedule=ScheduleConfig(policy=policy, **schedule),
    )


def ours(settings: TrainConfig, *, more_rays: float = 1.0, **schedule: Any) -> TrainConfig:
    """tslim's schedule in stages, that of the preset demo, scales and shifts per rank; ``more_rays`` times the rays."""
    return dataclasses.replace(
        settings,
        batch_rays=round(settings.batch_rays * more_rays),
        field=dataclasses.replace(settings.field, rank_scales=True),
        schedule=dataclasses.replace(presets.demo().schedule, **schedule),
    )


def ordered(settings: TrainConfig, *, more_rays: float = 1.0) -> TrainConfig:
    """As the preset quick for objects: all ranks, put in order, then prefix rays; scales and shifts per rank."""
    return dataclasses.replace(ours(settings, more_rays=more_rays), schedule=presets.quick().schedule)


def six_ranks_a_ray(settings: TrainConfig) -> TrainConfig:
    """The same pixels in as many steps, with every ray rendered at full rank and at five prefixes from rank 2 up.

    All ranks are there after 200 steps (or a third of a shorter run): every prefix goes on learning anyway. Errors at
    prefixes count for a quarter, since all six renders teach the first ranks, and half as much again at rank 2, which
    has least to be good with. Rank 1 would take from all others what it needs of their planes. Where so many renders
    say where to go, factors may start larger, the last ranks learn faster than those of a model that is never rendered
    at fewer, and so may what all ranks share and what each has of its own.
    """
    renders, growth = 6, min(1 / 3, 200 / settings.steps)
    return dataclasses.replace(
        settings,
        field=dataclasses.replace(settings.field, rank_scales=True, init_scale=2 * settings.field.init_scale),
        schedule=ScheduleConfig(
            policy="staged",
            stage_starts=tuple(round(growth * share, 4) for share in (0.0, 0.2, 0.36, 0.53, 0.7, 0.85, 1.0)),
            prefix_ranks=(2, 2, 2, 3, 4, 4, 4, 4, 6, 6, 8, 8, 10, 12, 12, 14),
            prefixes_per_ray=renders - 1,
            prefix_weight=0.25,
            lowest_weight=1.5,
        ),
        batch_decoded=renders * settings.batch_decoded,
        lr_factors=1.25 * settings.lr_factors,
        lr_first_ranks=max(settings.lr_first_ranks, 1.5 * settings.lr_factors),
        lr_network=1.5 * settings.lr_network,
        lr_scales=4 * settings.lr_scales,
    )


@dataclass(frozen=True)
class Variant:
    """A line of the table: what was trained and what it measured."""

    name: str
    rows: Sequence[SweepRow]
    settings: TrainConfig | None = None
    """None where the rows come from several trainings"""
    history: Sequence[Mapping[str, Any]] = ()
    """the lines of its ``metrics.jsonl``"""

    def psnr(self, rank: int) -> float | None:
        """Mean PSNR of the prefix of that rank, dB; None if it was not measured."""
        return next((row.psnr for row in self.rows if row.rank == rank), None)

    def seconds(self) -> float:
        """How long training took, with the first seed."""
        return float(self.history[-1]["seconds"])

    def reached(self) -> int:
        """The active rank at the end of training."""
        return int(self.history[-1]["rank"])


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

    def train(self, *lines: Line) -> list[Variant]:
        """Trains and measures what was not before; returns the lines in their order, each with the means of its seeds.

        The history of a line is that of its first seed. Raises ``RunFolderError`` where the folder of a training holds
        something else, and ``ConfigError`` where one has failed.
        """
        plan = self._plan(lines)
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
        heads, cells = table(variants, reference=reference, extra=extra)
        self.console.table(heads, cells, title=title)
        text = "\n".join([f"### {title}", "", self._setting(), "", *sweep_table.markdown(heads, cells), ""])
        written = [files.write_bytes(self.folder / "table.md", text.encode())]
        written.append(files.write_bytes(self.folder / "results.json", self._json(title, variants, extra)))
        curves = {variant.name: variant.rows for variant in variants}
        written.append(
            plots.size_quality(self.folder / "size-quality.png", curves, title=f"{self.scene.name}: {title}")
        )
        histories = {variant.name: variant.history for variant in variants if variant.history}
        if histories:
            path = self.folder / "training.png"
            written.append(plots.compare_training(path, histories, title=f"{self.scene.name}: {title}"))
        self.console.written(written)
        return written

    def _setting(self) -> str:
        """The settings in words, with the command."""
        s, (width, height) = self.settings, self.scene.train.cameras.sizes[0]
        seeds = f"seed {s.seed}" if self.args.seeds == 1 else f"means of {self.args.seeds} seeds"
        return (
            f"Mean PSNR in dB over {len(self.views)} views of {self.scene.name} ({width}×{height}; "
            f"{len(self.scene.train)} to train on) by ranks kept; {s.steps} steps of {s.batch_rays} rays, grid "
            f"{s.grid_start}³ to {s.grid_end}³, {s.field.decoder} decoder of width {s.field.decoder_width}, "
            f"{seeds}. Command: `{self._command()}`"
        )

    def _command(self) -> str:
        return shlex.join(["python", f"apps/{Path(sys.argv[0]).name}", *sys.argv[1:]])

    def _json(self, title: str, variants: Sequence[Variant], extra: Mapping[str, Mapping[str, str]] | None) -> bytes:
        lines = []
        for v in variants:
            line: dict[str, Any] = {"name": v.name, "rows": [dataclasses.asdict(row) for row in v.rows]}
            if v.settings is not None:
                line["train"] = config.to_dict(v.settings)
            line |= {head: by_name[v.name] for head, by_name in (extra or {}).items() if v.name in by_name}
            lines.append(line)
        found = {
            "title": title,
            "command": self._command(),
            "version": __version__,
            "scene": self.scene.name,
            "views": len(self.views),
            "train": config.to_dict(self.settings),
            "variants": lines,
        }
        return (json.dumps(found, indent=2) + "\n").encode()


def table(
    variants: Sequence[Variant],
    *,
    reference: str | None = None,
    extra: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[list[str], list[list[str]]]:
    """Headings, and the cells of each variant: its name, then its PSNR at each rank that any of them was measured at.

    See ``Experiment.report`` for the arguments. Raises ``ConfigError`` if no variant has the reference's name.
    """
    ranks = sorted({row.rank for variant in variants for row in variant.rows})
    against = next((variant for variant in variants if variant.name == reference), None)
    if reference is not None and against is None:
        raise ConfigError(f"no line is called {reference!r}: there are {', '.join(v.name for v in variants)}")
    extra = extra or {}
    lines = []
    for variant in variants:
        line = [variant.name]
        for rank in ranks:
            psnr, other = variant.psnr(rank), against.psnr(rank) if against else None
            cell = "–" if psnr is None else f"{psnr:.2f}"
            if psnr is not None and other is not None and variant is not against:
                cell += f" ({psnr - other:+.2f})"
            line.append(cell)
        lines.append(line + [by_name.get(variant.name, "–") for by_name in extra.values()])
    return ["trained as", *map(str, ranks), *extra], lines
