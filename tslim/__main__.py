"""``python -m tslim``. Imports nothing that may be missing before it can say so in one line."""

import os
import sys

try:
    import signal
except KeyboardInterrupt:  # from the next lines on, it is heard
    os.write(2, b"tslim: interrupted\n")
    os._exit(130)

_ended: list[int] = []
"""The exit code, once there is one."""


def main() -> int:
    """Runs the command line; returns the exit code. The process is expected to end with it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    _open_standard_streams()
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        return _stop(f"needs Python 3.10 to 3.13 (Taichi has no wheels for others); this is {sys.version.split()[0]}")
    try:
        from tslim import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("tslim", "kernels"):
            raise
        return _stop(
            f"the package {error.name} is not installed for {sys.executable}: "
            "use the venv's python, or run: python -m pip install -r requirements.txt"
        )
    _ended.append(cli.main())
    if cli.has_run_out_of_memory():
        os._exit(_ended[0])
    return _ended[0]


def _leave(number: int, _frame: object) -> None:
    """Handles Ctrl-C before a command handles it, and after.

    There is nothing to save then. The process ends at once: modules that are interrupted while they load, and a Python
    that shuts down, would print anything but that.
    """
    os._exit(_ended[0] if _ended else _stop("interrupted", 128 + number))


def _open_standard_streams() -> None:
    """Opens standard streams that are closed on nothing: the next file that is opened would take their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _stop(message: str, code: int = 2) -> int:
    try:
        os.write(2, f"tslim: {message}\n".encode(errors="replace"))
    except OSError:
        pass  # nobody reads it
    return code


if __name__ == "__main__":
    sys.exit(main())
