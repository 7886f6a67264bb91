"""Fixtures and markers that every test may use.

One process, one ``ti.init``: tests that compute ask for ``cpu``; tests of another arch run in a subprocess.
"""

import importlib.util
import os
import re
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


NEEDS_TORCH = re.compile(
    r"^(import torch|from torch|from tests import .*\b(reference|device_field)|from tests\.reference|from benchmarks)",
    re.M,
)
collect_ignore = (
    []
    if importlib.util.find_spec("torch")
    else [path.name for path in Path(__file__).parent.glob("test_*.py") if NEEDS_TORCH.search(path.read_text())]
)


def pytest_report_header() -> list[str]:
    """Says what is left out for want of torch."""
    if not collect_ignore:
        return []
    left_out = ", ".join(sorted(collect_ignore))
    return [f"torch is missing, so these are left out: {left_out} (python -m pip install -r tests/requirements.txt)"]


def pytest_configure(config):
    """Ctrl-C reaches what tests start, also where a shell runs the tests in the background and so ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run tests marked slow, too")
    parser.addoption("--long", action="store_true", help="run tests marked long, too: each takes many minutes")


def pytest_collection_modifyitems(config, items):
    if config.getoption("-m"):
        return
    left_out = {mark for mark in ("slow", "long") if not config.getoption(f"--{mark}")}
    dropped = [item for item in items if left_out & set(item.keywords)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if not left_out & set(item.keywords)]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def cpu():
    """The backend, initialised once for the whole session: the CPU, unless ``TSLIM_TEST_ARCH`` says otherwise.

    That is how tests/test_gpu.py runs the same tests on another arch, in a subprocess.
    """
    import tslim

    return tslim.init(os.environ.get("TSLIM_TEST_ARCH", "cpu"))


@pytest.fixture
def new_trainer(request, scene):
    """Makes trainers on the module's ``scene``, with its ``SETTINGS`` if a test gives none.

    A test does not keep two of them at a time: each needs arenas, and kernels compiled for them.
    """
    from tslim.training.trainer import Trainer

    def make(settings=request.module.SETTINGS):
        return Trainer(Trainer.new_field(scene, settings), scene, settings)

    return make


@pytest.fixture(params=["vulkan", "cuda"])
def gpu(request) -> str:
    """An arch of which this machine has a device."""
    from tslim.device import hardware

    try:
        devices = hardware.ask(f"{request.param}_devices")
    except RuntimeError as error:
        pytest.skip(f"needs {request.param}: {error}")
    if not devices:
        pytest.skip(f"needs {request.param}: the driver knows no device")
    return request.param


@pytest.fixture(scope="session")
def shared_data():
    """A function from a scene's relative path, such as ``blender/lego``, to its folder; skips where it is absent."""
    base = Path(os.environ.get("TSLIM_DATA") or ROOT.parent / "shared" / "data")

    def find(name: str) -> Path:
        folder = base / name
        if not folder.is_dir():
            pytest.skip(f"needs the scene {name}: no folder {folder} (set TSLIM_DATA to where the scenes are)")
        return folder

    return find
