"""Makes sure that ``import kernels`` finds tslim's kernels: PyPI has an unrelated package of that name."""

import importlib.util
import sys
from pathlib import Path

from tslim.errors import BackendError

_OURS = "march.py"
"""A file of our kernels that the other package does not have."""


def require_own_kernels() -> None:
    """Raises ``BackendError`` if another package hides tslim's kernels, or they are not there. Imports nothing."""
    home = Path(__file__).resolve().parent.parent
    if "kernels" in sys.modules:
        found = getattr(sys.modules["kernels"], "__path__", [])
    else:
        spec = importlib.util.find_spec("kernels")
        found = (spec.submodule_search_locations or []) if spec else None
    if found is None:
        raise BackendError(f"tslim's kernels are not beside it in {home}: install tslim anew")
    places = [Path(place) for place in found]
    if not any((place / _OURS).is_file() for place in places):
        where = places[0] if places else "a single file"
        raise BackendError(
            f"another package called kernels ({where}) hides tslim's own: "
            "use an environment without it (python -m pip uninstall kernels, then install tslim anew)"
        )
