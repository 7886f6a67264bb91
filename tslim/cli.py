"""The command line: ``python -m tslim train | eval | slim | reorder | render | view | …``.

``commands/`` has a file for each of them, ``commands/options.py`` what each can be told, and ``commands/parsing.py``
how that is read.
Whatever the user got wrong comes out as one line on standard error and exit code 2.
"""

import importlib
import inspect
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from tslim import presets
from tslim.commands import console, interrupts, output
from tslim.commands.options import Train
from tslim.commands.parsing import parse, parsed
from tslim.errors import ConfigError, TslimError
from tslim.ownership import require_own_kernels
from tslim.training.run_folder import RunFolder

LESS_MEMORY = "lower --batch-rays, --grid-end or --field.max-rank"
UNALLOCATED = "Unable to allocate"
"""What Taichi's compiler says when there is no memory for code."""
_ran_out: list[Exception] = []


def has_run_out_of_memory() -> bool:
    """Whether a command of this process ran out of memory. The process should then end at once: tidying up takes more
    memory, and crashes.
    """
    return bool(_ran_out)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, or what ``guarded`` makes of an error."""
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
        args = parsed(kind, sys.argv[1:], "(see --help)", description=inspect.getmodule(action).__doc__)
        if args is not None:
            action(args)

    return guarded(call)


def guarded(action: Callable[..., int | None], *args: Any) -> int:
    """Calls ``action``; every error becomes one line and an exit code.

    2 after what the user can do something about, 1 after a fault of tslim's own (with ``TSLIM_TRACEBACK`` set it is
    raised), 128 + the number of the signal that ended it, 141 where the reader of the output has gone.
    """
    with output.lasting() as out:
        code = _exit_code_of(action, args)
        out.flush()
        if code or out.lost is None:
            return code
        if output.reader_has_gone():
            return 128 + 13  # as a shell says of what SIGPIPE ended
        console.fail(f"cannot write standard output: {getattr(out.lost, 'strerror', None) or out.lost}")
        return 2


def _show_warning(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
    """A line for who runs a command. What is deprecated concerns those who write the packages that it uses."""
    if not issubclass(category, DeprecationWarning | PendingDeprecationWarning):
        console.fail(f"warning: {message}")


def _exit_code_of(action: Callable[..., int | None], args: tuple) -> int:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells at length where it keeps its fonts
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # it says of damaged pictures what our error says
    warnings.showwarning = _show_warning
    try:
        require_own_kernels()
        return interrupts.endable(action, *args) or 0
    except TslimError as error:
        console.fail(_of_folder(error) if isinstance(error.__cause__, OSError) else error)
    except OSError as error:
        console.fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else _of_folder(error))
    except MemoryError as error:
        _ran_out.append(error)
        console.fail(f"not enough memory: {str(error) or LESS_MEMORY}")
    except KeyboardInterrupt as error:
        console.fail("interrupted")
        return 128 + (error.args[0] if error.args else signal.SIGINT)
    except Exception as error:
        if os.environ.get("TSLIM_TRACEBACK"):
            raise
        if UNALLOCATED in str(error):
            _ran_out.append(error)
            console.fail(f"not enough memory: {LESS_MEMORY}")
            return 2
        what = f"{type(error).__name__}: {error}"
        console.fail(f"this should not have happened: {what}; set TSLIM_TRACEBACK=1 to see where, and please report it")
        return 1
    return 2


def _of_folder(error: Exception) -> object:
    """What to say of an error of the system that may name no file: the working folder may be gone."""
    try:
        os.getcwd()
    except OSError:
        return "the working folder is gone: change into another"
    return error


def _command(argv: list[str]) -> int | None:
    options = parse(argv)
    if options is None:
        return 0
    screen = console.Console()
    if isinstance(options, Train):
        from tslim.commands import train

        if options.resume and options.out:
            # Options that are not given then have the run's own values.
            return train.train(parse(argv, settings=RunFolder(options.out).train_settings()), screen)
        # Presets depend on the scene's space, which is known once it is loaded; what was typed goes before them.
        preset = presets.PRESETS[options.preset]
        return train.train(options, screen, lambda space: parse(argv, settings=preset(space)).settings)
    return _action_of(options)(options, screen)


def _action_of(options: Any) -> Callable[[Any, console.Console], None]:
    """What the command does whose options these are. Each is imported when it is asked for: help waits for none."""
    name = type(options).__name__.lower()
    return getattr(importlib.import_module(f"tslim.commands.{name}"), {"eval": "evaluate"}.get(name, name))
