"""The command line: ``python -m tslim train | eval | slim | render | view | info | doctor``.

``commands/`` has a file for each of them, and ``commands/options.py`` what each can be told.
Whatever the user got wrong comes out as one line on standard error and exit code 2.
"""

import contextlib
import dataclasses
import difflib
import inspect
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Union

import tyro

from tslim import __version__, presets
from tslim.commands import console
from tslim.commands.options import COMMANDS, Doctor, Eval, Info, Render, Slim, Train, View
from tslim.errors import ConfigError, TslimError
from tslim.ownership import require_own_kernels
from tslim.training.run_folder import RunFolder


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 after the user's mistake, 130 after Ctrl-C."""
    return guarded(_command, list(sys.argv[1:] if argv is None else argv))


def app(action: Callable[..., None]) -> int:
    """Calls a script's function with the words of its command line, with errors as those of the commands."""

    def call() -> None:
        words = sys.argv[1:]
        try:
            inspect.signature(action).bind(*words)
        except TypeError:
            usage = (inspect.getmodule(action).__doc__ or "").strip().split("\n")[0]
            raise ConfigError(f"{len(words)} arguments given. {usage}") from None
        action(*words)

    return guarded(call)


def experiment(action: Callable[[Any], None], kind: type) -> int:
    """Calls a script's function with the options of its command line, a dataclass; errors as those of the commands."""

    def call() -> None:
        given = _asked(kind, sys.argv[1:], "(see --help)", description=inspect.getmodule(action).__doc__)
        if given is not None:
            action(given)

    return guarded(call)


def guarded(action: Callable[..., int | None], *args: Any) -> int:
    """Calls ``action``; whatever the user can do something about becomes one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")
    try:
        require_own_kernels()
        with _terminable():
            return action(*args) or 0
    except BrokenPipeError:
        # Whoever read our output has gone: say nothing more, and keep Python from trying at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except TslimError as error:
        console.fail(error)
    except OSError as error:
        console.fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error)
    except MemoryError as error:
        console.fail(f"not enough memory: {error or 'lower --batch-rays, --grid-end or --field.max-rank'}")
    except KeyboardInterrupt:
        console.fail("interrupted")
        return 130
    return 2


TERMINATION_PATIENCE = 3.0
"""Seconds after SIGTERM in which a process may tidy up before it is asked again."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM end the process as an exception does, so that half-written files are removed.

    An exception that rises inside a finaliser or a callback from C is swallowed there, so it is raised again while the
    process goes on.
    """
    again = getattr(signal, "setitimer", None)

    def stop(_number: int, _frame: object) -> None:
        if again:
            again(signal.ITIMER_REAL, TERMINATION_PATIENCE)
        raise SystemExit(128 + signal.SIGTERM)

    numbers = [signal.SIGTERM, signal.SIGALRM] if again else [signal.SIGTERM]
    try:
        before = {number: signal.signal(number, stop) for number in numbers}
    except ValueError:  # not in the main thread: whoever runs us there sees to signals
        yield
        return
    try:
        yield
    finally:
        if again:
            again(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _command(argv: list[str]) -> int | None:
    options = parse(argv)
    if options is None:
        return 0
    screen = console.Console()
    if isinstance(options, Train):
        from tslim.commands import train

        if options.resume and options.out:
            # Options that are not given then have the run's own values.
            return train.train(parse(argv, settings=train.saved_settings(RunFolder(options.out))), screen)
        # Presets depend on the scene's space, which is known once it is loaded; what was typed goes before them.
        preset = presets.PRESETS[options.preset]
        return train.train(options, screen, lambda space: parse(argv, settings=preset(space)).settings)
    return _action(options)(options, screen)


def _action(options: Any) -> Callable[[Any, console.Console], None]:
    """What the command does whose options these are. Each is imported when it is asked for: help waits for none."""
    match options:
        case Eval():
            from tslim.commands.eval import evaluate as action
        case Slim():
            from tslim.commands.slim import slim as action
        case Render():
            from tslim.commands.render import render as action
        case View():
            from tslim.commands.view import view as action
        case Info():
            from tslim.commands.info import info as action
        case Doctor():
            from tslim.commands.doctor import doctor as action
    return action


def parse(argv: Sequence[str], **defaults: Any) -> Any:
    """The options of one command as its dataclass; None if help or the version was asked for and shown.

    ``defaults`` replaces the default values of fields of ``Train``. Raises ``ConfigError`` in one line.
    """
    argv = list(argv)
    if not argv:
        argv = ["--help"]
    if argv == ["--version"]:
        print(f"tslim {__version__}")
        return None
    if argv[0] not in (*COMMANDS, "-h", "--help"):
        near = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ";"
        raise ConfigError(f"unknown command {argv[0]}{hint} known: {', '.join(COMMANDS)}")
    if argv[0] in COMMANDS:
        _require_known(argv[0], argv[1:])
    train = Train(**{"settings": presets.PRESETS[_preset(argv)](), **defaults})
    kinds = tuple(
        Annotated[kind, tyro.conf.subcommand(name, default=train) if kind is Train else tyro.conf.subcommand(name)]
        for name, kind in COMMANDS.items()
    )
    return _asked(
        Union[kinds],  # noqa: UP007
        argv,
        f"(see tslim {argv[0]} --help)",
        prog="tslim",
        description="One radiance field from photographs; choose its size afterwards.",
    )


def _asked(kind: Any, argv: Sequence[str], hint: str, **more: Any) -> Any:
    """tyro's reading of a command line; None if help was asked for, ``ConfigError`` in one line and with a hint."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=argv, **more)
    except SystemExit as stop:
        if stop.code in (0, None):
            return None
        raise ConfigError(f"{_one_line(said.getvalue())} {hint}") from None


def _preset(argv: Sequence[str]) -> str:
    """The preset that the arguments name, read before the rest since it sets the other options' defaults."""
    for i, word in enumerate(argv):
        name = word.partition("=")[2] if word.startswith("--preset=") else "".join(argv[i + 1 : i + 2])
        if word.split("=")[0] == "--preset" and name in presets.PRESETS:
            return name
    return "quick"


def _one_line(box: str) -> str:
    """What tyro says in a box, up to its first rule, as one line."""
    box = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│| \t") for line in box.splitlines()[1:]]
    rules = [i for i, line in enumerate(lines) if re.match(r"[─-]{3}|[╰+]", line)]
    # Where boxes are drawn in ASCII, there is a rule below the title as well.
    begin = 1 if rules and rules[0] == 0 else 0
    end = next((i for i in rules if i > begin), len(lines))
    body = [line for line in lines[begin:end] if line]
    text = re.sub(r"^Missing from [\w ]+:", "missing:", " ".join(body)).replace(" (required)", "")
    return text.replace("Unrecognized options:", "unexpected:") or "wrong arguments"


def _require_known(command: str, words: Sequence[str]) -> None:
    """Raises ``ConfigError`` for the first word that looks like an option and is none."""
    known = flags(COMMANDS[command])
    for word in words:
        name, equals, _ = word.partition("=")
        if equals and name in ("--resume", "--preview", "--save-images", "--separate"):
            raise ConfigError(f"{name} takes no value (see tslim {command} --help)")
        if re.match(r"-(?![\d.])", name) and name.replace("_", "-") not in (*known, "--help", "-h", "-o"):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"unknown option {name}{hint} (see tslim {command} --help)")


def flags(kind: type, prefix: str = "") -> list[str]:
    """The long options that a dataclass of options makes, as typed."""
    names = []
    for f in dataclasses.fields(kind):
        marks = getattr(f.type, "__metadata__", ())
        inner = f.type.__origin__ if marks else f.type
        name = prefix + f.name.replace("_", "-")
        if dataclasses.is_dataclass(inner):
            unnamed = any(getattr(mark, "name", None) == "" for mark in marks)
            names += flags(inner, prefix if unnamed else f"{name}.")
        elif tyro.conf.Positional not in marks:
            names.append(f"--{name}")
            if inner is bool and tyro.conf.FlagCreatePairsOff not in marks:
                names.append(f"--{prefix}no-{f.name.replace('_', '-')}")
    return names
