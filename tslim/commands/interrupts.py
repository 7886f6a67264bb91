"""Signals that end a command become exceptions, raised where Python can bear them.

A module that is interrupted while it loads stays half loaded, and C code that loads one turns the exception into an
``ImportError``. What is raised inside a finaliser or a callback from C is printed there and lost. So a signal that
comes while a module loads waits for the module, and an exception that was lost is raised again.
"""

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

PATIENCE = 3.0
"""Seconds after SIGTERM or SIGHUP in which a process may tidy up before it is asked again."""
SOON = 0.02
"""Seconds until the next look at whether modules still load."""

Result = TypeVar("Result")
_due: list[int] = []
"""The signal that is to be raised when the timer ends, if any."""
_before: list[dict[int, Any]] = []
"""The handlers that signals had before, by number: one entry for each call of ``endable`` that is not over."""


def numbers() -> list[int]:
    """The numbers of the signals that end a command here; without those that are ignored, as under nohup."""
    known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]


def endable(action: Callable[..., Result], *args: Any) -> Result:
    """Calls ``action``, which Ctrl-C ends by ``KeyboardInterrupt``, SIGTERM and SIGHUP by ``SystemExit``.

    So half-written files are removed. Outside the main thread it only calls: whoever runs us there sees to signals.
    """
    if threading.current_thread() is not threading.main_thread():
        return action(*args)
    before: dict[int, Any] = {}
    hook = sys.unraisablehook
    try:
        _before.append(before)
        sys.unraisablehook = _not_lost(hook)
        if hasattr(signal, "setitimer"):
            before[signal.SIGALRM] = signal.signal(signal.SIGALRM, _on_timer)
        for number in numbers():
            before[number] = signal.signal(number, end)
        return action(*args)
    finally:
        for number in reversed(before):
            signal.signal(number, before[number])
        sys.unraisablehook = hook
        _before.remove(before)
        _due.clear()
        _set_timer(0)


def end(number: int, frame: FrameType | None) -> None:
    """Handles a signal: raises what ends the command, at once or as soon as no module is loading.

    If the signal comes again while one loads, it is left to the handler that was there before ours.
    """
    if is_loading(frame):
        if _due and _before:
            signal.signal(number, _before[-1][number])
            signal.raise_signal(number)
        if _set_timer(SOON):
            _due[:] = [number]
            return
    _due.clear()
    if number != signal.SIGINT and _set_timer(PATIENCE):
        _due.append(number)
    raise _exception(number)


def is_loading(frame: FrameType | None) -> bool:
    """Whether a frame is inside the loading of a module that the command began, and not its caller."""
    while frame is not None and frame.f_code is not endable.__code__:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _on_timer(_number: int, frame: FrameType | None) -> None:
    if _due:
        end(_due.pop(), frame)


def _set_timer(seconds: float) -> bool:
    """Has ``_on_timer`` called in so many seconds, or with 0 never; False where the system cannot."""
    if not hasattr(signal, "setitimer"):
        return False
    signal.setitimer(signal.ITIMER_REAL, seconds)
    return True


def _exception(number: int) -> BaseException:
    return KeyboardInterrupt(number) if number == signal.SIGINT else SystemExit(128 + number)


def _not_lost(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A hook for exceptions that nothing can catch: those of signals are raised again instead of being printed."""

    def heard(lost: Any) -> None:
        error = lost.exc_value
        for number in numbers():
            ours = _exception(number)
            if type(error) is type(ours) and error.args == ours.args and _set_timer(SOON):
                _due[:] = [number]
                return
        hook(lost)

    return heard
