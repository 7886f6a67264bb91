"""``train``: from photographs to a model, a table of sizes, pictures and a film, in one run folder."""

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tslim import __version__, commands, config, events, options
from tslim.console import Console
from tslim.errors import ConfigError, RunFolderError, TslimError
from tslim.run_folder import RunFolder, free_folder
from tslim.scene import Scene


def train(given: options.Train, console: Console) -> int:
    """Trains, or goes on training; returns 0, or 128 + signal if it was asked to stop."""
    check_settings(given.settings)
    trainer, run = _resumed(given, console) if given.resume else _started(given, console)
    signalled = _follow(trainer, run, given.preview, console)
    if signalled:
        console.line(f"saved at step {trainer.step}; continue with:")
        console.line(f"  {_resume_command(run)}", style="bold")
        return 128 + signalled
    try:
        _finish(trainer, run, console)
    except KeyboardInterrupt:
        console.line(f"interrupted; the model is in {run.model}, measure it with: tslim eval {run.path}")
        return 130
    return 0


def check_settings(settings: config.TrainConfig) -> None:
    """Raises ``ConfigError`` naming the option for a value that no training can have."""
    at_least = {
        "steps": 1, "batch_rays": 1, "grid_start": 4, "grid_end": 4, "report_every": 1, "checkpoint_every": 1, "seed": 0,
        "step_ratio": 1e-3, "lr_factors": 0, "lr_network": 0, "lr_decay": 1e-9, "occupancy_threshold": 0,
        "weight_threshold": 0, "stop_transmittance": 0, "l1_start": 0, "l1_rest": 0, "tv_density": 0, "tv_appearance": 0,
        "field.max_rank": 1, "field.feature_encoding": 0, "field.direction_encoding": 0, "field.init_scale": 0,
        "field.distance_scale": 1e-9, "schedule.upsilon": 0, "schedule.eta": 0,
    }  # fmt: skip
    for name, least in at_least.items():
        value: Any = settings
        for part in name.split("."):
            value = getattr(value, part)
        if not least <= value < 2**31:  # also catches NaN and infinity
            raise ConfigError(f"--{name.replace('_', '-')} {value:g}: expected a number of {least:g} or more")
    if settings.grid_end < settings.grid_start:
        raise ConfigError(f"--grid-end {settings.grid_end} is less than --grid-start {settings.grid_start}")
    for name in ("grow_steps", "occupancy_steps"):
        steps = getattr(settings, name)
        if list(steps) != sorted(set(steps)) or any(step < 1 for step in steps):
            raise ConfigError(f"--{name.replace('_', '-')} {' '.join(map(str, steps))}: expected growing step numbers")


def _started(given: options.Train, console: Console) -> tuple["Trainer", RunFolder]:  # noqa: F821
    if given.out is not None:
        RunFolder(given.out).require_free()
    commands.start(given.arch, console, given.settings.seed)
    from tslim.field import Field
    from tslim.trainer import Trainer

    scene = commands.open_scene(given.path, given.scene)
    _say_scene(scene, console)
    run = RunFolder(given.out or free_folder(Path("runs") / (scene.name if given.path else "builtin")))
    run.require_free()
    console.fact("run", run.path)
    settings = given.settings
    field = Field(
        scene.box,
        settings.field,
        grid=settings.grid_start,
        max_grid=settings.grid_end,
        seed=settings.seed,
        near=scene.near,
        far=scene.far,
        space=scene.space,
        background=scene.background,
    )
    trainer = Trainer(field, scene, settings, run_dir=run.path)
    run.create(
        {
            "version": __version__,
            "scene": commands.scene_record(given.path, given.scene),
            "train": config.to_dict(settings),
        }
    )
    return trainer, run


def _resumed(given: options.Train, console: Console) -> tuple["Trainer", RunFolder]:  # noqa: F821
    if given.out is None:
        raise ConfigError("--resume needs the run's folder: --out RUN")
    run = RunFolder(given.out)
    saved = saved_settings(run)
    record = run.settings()["scene"]
    different = _differences(config.to_dict(given.settings), config.to_dict(saved))
    different += [name for name, value in asdict(given.scene).items() if value not in (None, record.get(name))]
    if different:
        option = different[0].replace("_", "-")
        raise ConfigError(f"--{option} cannot be changed on --resume: a run goes on with its own settings")
    commands.start(given.arch, console, saved.seed)
    from tslim.trainer import Trainer

    scene = commands.scene_of_run(run, given.path, given.scene)
    _say_scene(scene, console)
    console.fact("run", run.path)
    return Trainer.resume(run.path, scene), run


def saved_settings(run: RunFolder) -> config.TrainConfig:
    """The settings that a run was started with; ``RunFolderError`` if its config does not hold them."""
    try:
        return config.from_dict(run.settings()["train"])
    except (ConfigError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{run.config} is no run's config: {error}") from error


def _differences(mine: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the settings in which two configs differ."""
    names = []
    for name, value in mine.items():
        if isinstance(value, dict):
            names += _differences(value, other[name], f"{prefix}{name}.")
        elif value != other[name]:
            names.append(prefix + name)
    return names


def _follow(trainer: "Trainer", run: RunFolder, preview: bool, console: Console) -> int:  # noqa: F821
    """Shows and logs a run to its end. Returns the number of the signal that stopped it, saved, before; else 0."""
    begun = False
    with contextlib.ExitStack() as stack:
        window = stack.enter_context(_preview(console)) if preview else None
        view = stack.enter_context(console.training(trainer.config.steps))
        stop = stack.enter_context(_stop_requests(view.note))
        try:
            for event in trainer.run():
                begun = begun or isinstance(event, events.Stepped)
                view.show(event)
                if window is not None:
                    window.show(event)
                if isinstance(event, events.Started):
                    run.rewind(event.step)
                elif isinstance(event, events.Progress):
                    run.log(event)
                if stop and isinstance(event, events.Stepped | events.Started):
                    break
        except TslimError:
            if not begun and not run.history():
                run.discard()
            raise
        if stop and trainer.step < trainer.config.steps:
            trainer.save_checkpoint()
            return stop[0]
    return 0


@contextlib.contextmanager
def _stop_requests(note) -> Iterator[list[int]]:
    """Collects Ctrl-C and SIGTERM, so that training ends between two steps; a second Ctrl-C ends it at once."""
    asked: list[int] = []

    def handle(number: int, _frame) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        note("stopping after this step (Ctrl-C again: at once, without saving)")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _preview(console: Console):
    from tslim.preview import Preview

    with Preview.open_if_possible() as window:
        yield window


def _finish(trainer: "Trainer", run: RunFolder, console: Console) -> None:  # noqa: F821
    """Saves the model, measures it, and takes pictures of it."""
    from tslim import evaluation_command

    field = trainer.field
    field.metadata.update(provenance(trainer))
    field.save(run.model)
    evaluation_command.report(field, trainer.scene, run, console)


def provenance(trainer: "Trainer") -> dict[str, Any]:  # noqa: F821
    """What a model file says about where it comes from, and the camera paths that suit it."""
    scene = trainer.scene
    return {
        "tslim": __version__,
        "scene": scene.name,
        "format": scene.format,
        "built_in": scene.format == commands.BUILT_IN,
        "steps": trainer.step,
        "seconds": trainer.seconds,
        "settings": config.to_dict(trainer.config),
        "paths": commands.camera_paths(scene),
        "default_path": scene.default_path().to_dict()["path"],
    }


def _say_scene(scene: Scene, console: Console) -> None:
    width, height = scene.train.cameras.sizes[0]
    console.fact(
        "scene", f"{scene.name} ({scene.format}), {len(scene.train)} + {len(scene.test)} views of {width}×{height}"
    )
    for warning in scene.warnings:
        console.warn(warning)


def _resume_command(run: RunFolder) -> str:
    return f"{shlex.quote(sys.executable)} -m tslim train --out {shlex.quote(str(run.path))} --resume"
