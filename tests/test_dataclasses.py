"""Objects can be compared and put into sets, whatever they hold."""

import dataclasses
import importlib
import pkgutil

import numpy as np
import pytest

import tslim
from tslim.rendering.renderer import Image
from tslim.training.events import Progress, Started


def every_dataclass() -> list[type]:
    found = {}
    for module in pkgutil.walk_packages(tslim.__path__, "tslim."):
        if module.name.endswith("__main__"):
            continue
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__.startswith("tslim"):
                found[f"{kind.__module__}.{kind.__qualname__}"] = kind
    return [found[name] for name in sorted(found)]


@pytest.mark.parametrize("kind", every_dataclass(), ids=lambda kind: kind.__qualname__)
def test_what_holds_arrays_is_itself_and_equal_to_nothing_else(kind):
    """Comparing arrays gives arrays, and hashing them fails: dataclasses with arrays keep object's ``==`` and hash."""
    if "__eq__" not in vars(kind):
        return
    compared = [f for f in dataclasses.fields(kind) if f.compare]
    assert not [f.name for f in compared if "ndarray" in str(f.type)]
    if kind.__hash__ is not None:
        hashed = [f for f in compared if f.hash is not False]
        assert not [f.name for f in hashed if any(word in str(f.type) for word in ("dict[", "list[", "set["))]


def test_pictures_and_events_can_be_compared_and_hashed():
    one, other = (Image(np.zeros((2, 2, 3)), np.zeros((2, 2)), np.ones((2, 2)), 0.1) for _ in range(2))
    assert one == one and one != other and len({one, other, one}) == 2
    reports = [Progress(1, 2, 3, 0.1, 10.0, 1.0, 1.0, 1.0, 1.0, 1.0, {1: 9.0}) for _ in range(2)]
    assert reports[0] == reports[1] and len(set(reports)) == 1
    assert len({Started(0, 1, {"samples": 3}), Started(0, 1, {"samples": 3})}) == 1
