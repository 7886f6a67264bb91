"""``train``: from photographs to a model, a table of sizes, pictures and a video, in one run folder."""

import contextlib
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from tslim import __version__, config, files
from tslim.commands import interrupts, output, shared
from tslim.commands.console import Console, fail, memory_text
from tslim.commands.options import Train
from tslim.commands.poses import posed
from tslim.device import memory
from tslim.errors import ConfigError, TslimError
from tslim.model import model_file
from tslim.scene.scene import Scene
from tslim.training import events
from tslim.training.run_folder import RunFolder
from tslim.web.page import start_views

PREVIEW_SHARE = 0.10
"""Share of wall time that the preview may cost, unless the user changes it there."""
START_CAMERAS = 12
"""How many of the photographs' cameras a model's file carries."""

if TYPE_CHECKING:
    from tslim.preview.preview import Preview
    from tslim.training.trainer import Trainer


def train(
    args: Train, console: Console, settings_for: Callable[[config.Space], config.TrainConfig] | None = None
) -> int:
    """Trains, or goes on training; returns 0, or 128 + signal if it was asked to stop.

    ``settings_for`` gives the settings of a new run by the scene's space; without, they are as given.
    """
    config.require_valid(args.settings)
    shared.require_serving(args.serving)
    if args.preview and args.serving.serve is not None:
        raise ConfigError("--preview opens a window and --serve is for browsers: choose one")
    settings_for = settings_for or (lambda space: args.settings)
    with contextlib.ExitStack() as owned:
        return _train_and_measure(args, console, owned, settings_for)


def _train_and_measure(
    args: Train,
    console: Console,
    owned: contextlib.ExitStack,
    settings_for: Callable[[config.Space], config.TrainConfig],
) -> int:
    """What ``train`` does, with the run's folder ``owned``."""
    # Where nothing can listen is known before anything is begun.
    served = shared.served_preview(args.serving, share=PREVIEW_SHARE)
    if served is not None:
        owned.callback(served.close)
        served.say_notices(console.line)
    if args.resume:
        trainer, run = _resumed(args, console, owned)
    else:
        trainer, run = _started(args, console, owned, settings_for)
    signalled = _follow(trainer, run, served if served is not None or not args.preview else _window(), console)
    if signalled:
        console.line(f"saved at step {trainer.step}; continue with:")
        console.line(f"  {_resume_command(run)}", style="bold")
        if not output.is_read():
            fail(f"saved at step {trainer.step}; continue with: {_resume_command(run)}")
        return 128 + signalled
    if args.model_only:
        console.written([run.model])
        return 0
    from tslim.commands.eval import report

    scene = trainer.scene
    del trainer  # gives back what only training needs, before views are rendered
    try:
        report(scene, run, console)
    except KeyboardInterrupt:
        console.line(f"interrupted; the model is in {run.model}, measure it with: tslim eval {run.path}")
        return 130
    return 0


def _started(
    args: Train,
    console: Console,
    owned: contextlib.ExitStack,
    settings_for: Callable[[config.Space], config.TrainConfig],
) -> tuple["Trainer", RunFolder]:
    if args.path is not None and RunFolder(args.path).is_run():
        raise ConfigError(
            f"{args.path} is a run, not photographs: to continue it, tslim train --out {shlex.quote(str(args.path))} "
            "--resume"
        )
    if args.out is not None:
        RunFolder(args.out).require_free()
    path = posed(args.path, console) if args.find_poses else args.path
    shared.start(args.arch, console, args.settings.seed)
    from tslim.training import forecast
    from tslim.training.trainer import Trainer

    scene = shared.open_scene(path, args.scene)
    shared.require_measurable(scene)
    _say_scene(scene, console)
    run = RunFolder(args.out or files.free_path(Path("runs") / (scene.name if path else "builtin")))
    run.require_free()
    owned.enter_context(run.owned())
    console.fact("run", run.path)
    settings = settings_for(scene.space)
    config.require_valid(settings)
    needs = forecast.memory_of(settings, scene)
    console.fact("memory", memory_text(needs))
    memory.require(needs, "a smaller --grid-end, --field.max-rank or --batch-rays, or a larger --downscale")
    field = Trainer.new_field(scene, settings)
    trainer = Trainer(field, scene, settings, run_dir=run)
    run.create(
        {
            "version": __version__,
            "scene": shared.scene_record(path, args.scene),
            "train": config.to_dict(settings),
        }
    )
    field.metadata |= provenance(trainer, shared.scene_record(path, args.scene))
    return trainer, run


def _resumed(args: Train, console: Console, owned: contextlib.ExitStack) -> tuple["Trainer", RunFolder]:
    if args.out is None:
        raise ConfigError("--resume needs the run's folder: --out RUN")
    if args.find_poses:
        raise ConfigError("--find-poses has no effect on --resume: the run has its cameras")
    run = RunFolder(args.out)
    saved = run.train_settings()
    owned.enter_context(run.owned())
    record = run.settings()["scene"]
    different = _differences(config.to_dict(args.settings), config.to_dict(saved))
    different += [name for name, value in asdict(args.scene).items() if value not in (None, record.get(name))]
    if different:
        option = different[0].replace("_", "-")
        raise ConfigError(f"--{option} cannot be changed on --resume: a run goes on with its own settings")
    shared.start(args.arch, console, saved.seed)
    from tslim.training.trainer import Trainer

    scene = shared.scene_of_run(run, args.path, args.scene)
    shared.require_measurable(scene)
    _say_scene(scene, console)
    console.fact("run", run.path)
    return Trainer.resume(run, scene), run


def _differences(mine: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the settings in which two configs differ."""
    names = []
    for name, value in mine.items():
        if isinstance(value, dict):
            names += _differences(value, other[name], f"{prefix}{name}.")
        elif value != other[name]:
            names.append(prefix + name)
    return names


def _follow(trainer: "Trainer", run: RunFolder, window: "Preview | None", console: Console) -> int:
    """Shows a run to its end. Returns the number of the signal that stopped it before, its state saved; else 0."""
    begun = False
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequests())
        if window is not None:
            stack.enter_context(window)
        view = stack.enter_context(console.training(trainer.config.steps))
        try:
            for event in trainer.run():
                begun = begun or isinstance(event, events.Stepped)
                view.show(event)
                if window is not None:
                    with stop.at_once():
                        window.show(event)
                    window.say_notices(view.note)
                between_steps = isinstance(event, events.Stepped | events.Started)
                wanted = stop.signal or (signal.SIGPIPE if output.reader_has_gone() else 0)
                if wanted and between_steps and trainer.step < trainer.config.steps:
                    trainer.save_checkpoint()
                    return wanted
        except BaseException:
            if not begun and not run.history():
                run.discard()
            raise
        _save_model(trainer, run, view.note)
        if window is not None and window.is_watched:
            view.note("training is finished: close the preview to go on")
            stack.enter_context(stop.at_once())
    return 0


class StopRequests:
    """While entered: Ctrl-C, SIGTERM and SIGHUP are noted in ``signal``, so that training ends between two steps.

    A second one ends it at once. What is ignored, as by nohup, stays so. Nothing is printed here: the step that is
    being done may be printing, and output that fails would end it unsaved.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._waiting = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequests":
        for number in interrupts.numbers():
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """For a block that may wait for the user between two steps: a request ends it, and is kept."""
        self._waiting = True
        try:
            yield
        except KeyboardInterrupt:
            pass
        finally:
            self._waiting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.signal = self.signal, self.signal or number
        if again:
            interrupts.end(self.signal, frame)
        elif self._waiting and not interrupts.is_loading(frame):
            raise KeyboardInterrupt(self.signal)


def _window() -> "Preview":
    from tslim.preview.preview import Preview

    return Preview.open_if_possible(share=PREVIEW_SHARE)


def _save_model(trainer: "Trainer", run: RunFolder, say: Callable[[str], None]) -> None:
    """Writes the model, before anyone is waited for."""
    trainer.field.metadata |= provenance(trainer, run.record()["scene"])
    path = trainer.save_model()
    if model_file.read_header(path).precision == "float32" != trainer.config.precision:
        say("the model holds values too large for half precision and is written in single: was learning too fast?")


def provenance(trainer: "Trainer", record: dict[str, Any]) -> dict[str, Any]:
    """What a model file says beyond what the trainer notes: enough to render and measure it without its run folder."""
    return {
        "tslim": __version__,
        "built_in": record.get("path") is None,
        "scene_options": {k: v for k, v in record.items() if k not in ("path", "train_views", "test_views")},
        "paths": camera_paths(trainer.scene_as_learned()),
        "cameras": start_cameras(trainer.scene_as_learned()),
    }


def camera_paths(scene: Scene) -> dict[str, dict[str, Any]]:
    """The orbit and spiral that suit a scene, as plain data; what the cameras do not allow is left out."""
    found = {}
    for name, make in (("orbit", scene.orbit_path), ("spiral", scene.spiral_path)):
        with contextlib.suppress(TslimError):
            found[name] = make().to_dict()
    return found


def start_cameras(scene: Scene) -> list[dict[str, Any]]:
    """Some of the cameras that photographs were taken with, for viewers to start from."""
    views = scene.test if len(scene.test) else scene.train
    chosen = sorted({round(i * (len(views) - 1) / max(START_CAMERAS - 1, 1)) for i in range(START_CAMERAS)})
    return start_views(views.cameras[chosen], [views.names[i] for i in chosen])


def _say_scene(scene: Scene, console: Console) -> None:
    width, height = scene.train.cameras.sizes[0]
    console.fact(
        "scene", f"{scene.name} ({scene.format}), {len(scene.train)} + {len(scene.test)} views of {width}×{height}"
    )
    console.fact("space", shared.space_text(scene.space, scene.box, scene.near))
    shared.warn_about(scene, console)


def _resume_command(run: RunFolder) -> str:
    return f"{shlex.quote(sys.executable)} -m tslim train --out {shlex.quote(str(run.path))} --resume"
