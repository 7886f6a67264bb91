"""Packages that tslim can do without: imported where they are used, and missed in one line."""

import importlib
import importlib.util
from types import ModuleType

from tslim.errors import MissingPackageError


def has(name: str) -> bool:
    """Whether the package ``name`` is installed."""
    return importlib.util.find_spec(name) is not None


def need(name: str, what: str, install: str | None = None) -> ModuleType:
    """Imports the package ``name`` for ``what`` (the beginning of a sentence).

    Raises ``MissingPackageError`` with the command that installs it: ``install``, or pip with the package's name.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        how = install or f"pip install {name.partition('.')[0]}"
        raise MissingPackageError(f"{what} needs {name}, which is not installed: {how}") from None
