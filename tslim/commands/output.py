"""Standard streams that outlive their readers: output that fails must never cost work."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class Lasting:
    """Stands in for a text stream. What cannot be written is dropped, and why is kept in ``lost``.

    A pipe whose reader has gone, a terminal that was closed or a full disk would otherwise end the command at whatever
    line it happens to print, with its work half done. Without a stream (Python has None for a closed one) everything is
    dropped.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = open(os.devnull, "w") if stream is None else stream
        self.lost: Exception | None = None

    def write(self, text: str) -> int:
        """Writes, unless an earlier write failed."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Passes on what was written."""
        self._try("flush")

    def isatty(self) -> bool:
        """Whether there is a terminal behind it."""
        return self.lost is None and self._stream.isatty()

    def _try(self, name: str, *args: Any) -> None:
        if self.lost is not None:
            return
        try:
            getattr(self._stream, name)(*args)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            self.lost = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def settle(self) -> None:
        """Flushes for the last time. After a failure the rest is dropped, or Python would try to write it again at
        exit.
        """
        self.flush()
        if self.lost is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextlib.contextmanager
def lasting() -> Iterator[Lasting]:
    """Puts both standard streams behind ``Lasting`` ones for the length of the block; yields that of the output."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError):
                stream.reconfigure(errors="replace")
    sys.stdout, sys.stderr = Lasting(before[0]), Lasting(before[1])
    try:
        yield sys.stdout
    finally:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, Lasting):
                stream.settle()
        sys.stdout, sys.stderr = before


def is_read() -> bool:
    """Whether what is printed still goes somewhere."""
    sys.stdout.flush()
    return getattr(sys.stdout, "lost", None) is None


def reader_has_gone() -> bool:
    """Whether the reader of the standard output has gone, as ``head`` does: nobody waits for more."""
    return isinstance(getattr(sys.stdout, "lost", None), BrokenPipeError)
