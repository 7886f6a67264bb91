"""The command line: ``python -m tslim train | eval | slim | render | view | export | info | poses | doctor``.

``commands/`` has a file for each of them, ``commands/options.py`` what each can be told, and ``commands/parsing.py``
how that is read.
Whatever the user got wrong comes out as one line on standard error and exit code 2.
"""

import contextlib
import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tslim import presets
from tslim.commands import console
from tslim.commands.options import Doctor, Eval, Export, Info, Poses, Render, Slim, Train, View
from tslim.commands.parsing import asked, parse
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
        given = asked(kind, sys.argv[1:], "(see --help)", description=inspect.getmodule(action).__doc__)
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
        case Export():
            from tslim.commands.export import export as action
        case Info():
            from tslim.commands.info import info as action
        case Poses():
            from tslim.commands.poses import poses as action
        case Doctor():
            from tslim.commands.doctor import doctor as action
    return action
