"""``train``: from photographs to a model, a table of sizes, pictures and a film, in one run folder."""

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tslim import __version__, commands, config, events, memory, options
from tslim.console import Console, memory_text
from tslim.errors import ConfigError, RunFolderError, TslimError
from tslim.run_folder import RunFolder, free_folder
from tslim.scene import Scene


def train(given: options.Train, console: Console) -> int:
    """Trains, or goes on training; returns 0, or 128 + signal if it was asked to stop."""
    config.require_valid(given.settings)
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


def _started(given: options.Train, console: Console) -> tuple["Trainer", RunFolder]:  # noqa: F821
    if given.out is not None:
        RunFolder(given.out).require_free()
    commands.start(given.arch, console, given.settings.seed)
    from tslim.trainer import Trainer

    scene = commands.open_scene(given.path, given.scene)
    _say_scene(scene, console)
    run = RunFolder(given.out or free_folder(Path("runs") / (scene.name if given.path else "builtin")))
    run.require_free()
    console.fact("run", run.path)
    settings = given.settings
    needs = Trainer.predicted_memory(settings, scene)
    console.fact("memory", memory_text(needs))
    memory.require(needs, "a smaller --grid-end, --field.max-rank or --batch-rays, or a larger --downscale")
    field = Trainer.new_field(scene, settings)
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
        settings = config.from_dict(run.settings()["train"])
        config.require_valid(settings)
        return settings
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
                between_steps = isinstance(event, events.Stepped | events.Started)
                if stop and between_steps and trainer.step < trainer.config.steps:
                    trainer.save_checkpoint()
                    return stop[0]
        except TslimError:
            if not begun and not run.history():
                run.discard()
            raise
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
    field.metadata |= provenance(trainer, run.settings()["scene"])
    field.save(run.model)
    evaluation_command.report(field, trainer.scene, run, console)


def provenance(trainer: "Trainer", record: dict[str, Any]) -> dict[str, Any]:  # noqa: F821
    """What a model file says beyond what the trainer notes: enough to film and measure it without its run folder."""
    return {
        "tslim": __version__,
        "built_in": record.get("path") is None,
        "scene_options": {name: value for name, value in record.items() if name != "path"},
        "paths": commands.camera_paths(trainer.scene),
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
