"""The errors that tslim raises on bad input: each message says what was found, what is accepted and what to do next.

The command line prints such an error as one line and exits with code 2.
"""

import reprlib
from typing import Any


class TslimError(Exception):
    """Base of every error that tslim raises on purpose."""


class SceneError(TslimError, ValueError):
    """A data set that cannot be used: unknown format, broken json, missing or damaged image, impossible pose."""


class ConfigError(TslimError, ValueError):
    """A setting, or a combination of settings, that makes no sense."""


class ModelFileError(TslimError, ValueError):
    """A model file or checkpoint that is damaged, truncated, of another kind or from another version."""


class RunFolderError(TslimError, OSError):
    """A run folder that cannot be written, holds another run already, or holds none."""


class DivergedError(TslimError, ArithmeticError):
    """Training has diverged: its loss or its parameters are not finite; the message says what to lower."""


class BackendError(TslimError, RuntimeError):
    """A compute device that was asked for and is not there, or computes wrong gradients."""


class OutOfMemoryError(TslimError, MemoryError):
    """The run would need more memory than there is; the message says what to lower."""


class MissingPackageError(TslimError, ImportError):
    """Something optional was asked for whose package is not installed; the message says how to install it."""


def short(value: Any) -> str:
    """A value as messages show it: cut short, however much of it there is."""
    return reprlib.repr(value)
