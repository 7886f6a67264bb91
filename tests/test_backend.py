"""The device: chosen without risk, started quietly and once, and proven before anything trains on it."""

import sys

import numpy as np
import pytest

from tslim.device import backend, hardware
from tslim.errors import BackendError


def run(code: str, **env: str):
    """Runs code in a fresh Python that sees this checkout."""
    return hardware.run_python(code, timeout=120, env=env)


def test_starting_prints_nothing(root):
    done = run("import tslim\nb = tslim.init('cpu')\nassert b.is_cpu and b.arch == 'cpu' and b.threads >= 1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_second_start_returns_the_first_and_another_arch_is_refused(cpu):
    assert backend.init("cpu") is cpu
    assert backend.init() is cpu
    assert backend.current() is cpu
    with pytest.raises(BackendError, match="already runs on cpu"):
        backend.init("vulkan")


def test_nothing_is_started_behind_the_users_back():
    done = run(
        "from tslim.device import backend\nfrom tslim.errors import BackendError\n"
        "try:\n    backend.current()\nexcept BackendError as error:\n    print(error)"
    )
    assert done.stdout.strip() == "no device chosen yet: call tslim.init() first"


def test_taichi_started_by_other_code_is_refused_before_its_fields_die():
    done = run(
        "import taichi as ti\nti.init(ti.cpu, log_level=ti.ERROR)\nx = ti.field(ti.f32, 4)\nx.fill(3)\n"
        "from tslim.device import backend\nfrom tslim.errors import BackendError\n"
        "try:\n    backend.init('cpu')\nexcept BackendError as error:\n    print(error)\nassert x[0] == 3"
    )
    assert done.returncode == 0 and "already started by other code" in done.stdout


def test_an_environment_variable_cannot_overrule_the_arch_that_was_asked_for():
    code = (
        "import os\nos.environ['TI_ARCH'] = 'vulkan'\nfrom tslim.device import backend\n"
        "b = backend.init('cpu')\nimport taichi as ti\nassert ti.cfg.arch == ti.cpu\nassert os.environ['TI_ARCH']"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_an_unknown_arch_and_a_senseless_thread_count_are_named():
    with pytest.raises(BackendError, match="unknown arch 'metal'; accepted: auto, cpu, cuda, vulkan"):
        backend.init("metal")
    with pytest.raises(BackendError, match="at least 1"):
        backend.init("cpu", threads=0)


def test_a_missing_cuda_driver_is_one_clear_line():
    if hardware.cuda_driver() is not None:
        pytest.skip("this machine has an NVIDIA driver")
    assert backend.try_arch("cuda") == "cuda is not available: no NVIDIA driver (libcuda.so.1)"


@pytest.fixture
def machine(monkeypatch):
    """A pretended machine: which drivers load, which Vulkan devices there are, what starting an arch says."""

    def pretend(cuda=False, vulkan=(), problems=None):
        monkeypatch.setattr(hardware, "cuda_driver", lambda: object() if cuda else None)
        monkeypatch.setattr(hardware, "vulkan_loader", lambda: object() if vulkan else None)
        monkeypatch.setattr(hardware, "ask", lambda question: list(vulkan))
        monkeypatch.setattr(backend, "try_arch", lambda arch: (problems or {}).get(arch))

    return pretend


LAVAPIPE = {"name": "llvmpipe", "kind": "software", "software": True}
RADEON = {"name": "Radeon", "kind": "discrete GPU", "software": False}


def test_auto_takes_a_real_gpu_and_never_a_software_one(machine):
    machine(cuda=True, vulkan=[RADEON])
    assert backend._best_arch([]) == "cuda"
    machine(vulkan=[LAVAPIPE, RADEON])
    assert backend._best_arch([]) == "vulkan"
    machine(vulkan=[LAVAPIPE])
    assert backend._best_arch([]) == "cpu"
    machine()
    assert backend._best_arch([]) == "cpu"


def test_auto_passes_over_a_gpu_that_fails_and_says_why(machine):
    machine(cuda=True, vulkan=[RADEON], problems={"cuda": "computes wrong gradients", "vulkan": "crashed (signal 11)"})
    notes: list[str] = []
    assert backend._best_arch(notes) == "cpu"
    assert notes == ["cuda not used: computes wrong gradients", "vulkan not used: crashed (signal 11)"]


def test_a_question_that_kills_or_hangs_its_process_becomes_a_line(monkeypatch):
    done = run("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert hardware.last_line(done) == "crashed (signal 11)"
    with pytest.raises(RuntimeError, match="no answer within 1 s"):
        hardware.run_python("import time\ntime.sleep(60)", timeout=1)
    with pytest.raises(RuntimeError, match="no_such_question"):
        hardware.ask("no_such_question")


def test_the_probe_accepts_this_device(cpu):
    from tslim.device import gradient_check

    assert cpu.gradient_error is None
    assert gradient_check.find_wrong(is_cpu=True) is None


def test_the_probe_catches_each_kind_of_wrong_answer(cpu, monkeypatch):
    from kernels import selfcheck
    from tslim.device import gradient_check

    def lost_loop_value(sigma, colour, n_rays, n_samples, light, grad_sigma):
        grad_sigma[:] = light.repeat(n_samples) * colour

    def zeros(sigma, colour, n_rays, n_samples, light, grad_sigma):
        grad_sigma[:] = 0

    def lost_addition(values, n, n_bins, bins, sums, atomic):
        sums[:] = np.bincount(np.arange(n - 7) % n_bins, values[: n - 7])

    for wrong in (lost_loop_value, zeros):
        with monkeypatch.context() as patch:
            patch.setattr(selfcheck, "composite_adjoint", wrong)
            assert "gradient of compositing" in gradient_check.find_wrong(is_cpu=True)
    with monkeypatch.context() as patch:
        patch.setattr(selfcheck, "scatter", lost_addition)
        assert "sum of gradients" in gradient_check.find_wrong(is_cpu=True)


def test_a_device_with_wrong_gradients_says_so_and_must_not_train():
    device = backend.Backend("vulkan", "Some GPU", 4, gradient_error="the sum of gradients off by 12 %")
    with pytest.raises(BackendError, match="Some GPU.*wrong gradients.*12 %.*--arch cpu"):
        device.require_gradients()
    backend.Backend("vulkan", "Some GPU", 4).require_gradients()


def test_a_missing_x11_library_is_explained_with_the_package_to_install():
    error = ImportError("libX11.so.6: cannot open shared object file: No such file or directory")
    assert "libx11-6" in backend.explain_import_error(error)
    missing = ModuleNotFoundError("No module named 'taichi'", name="taichi")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"({version}): pip install taichi" in backend.explain_import_error(missing)


def test_vulkan_prefers_hardware_wherever_it_stands_in_the_list_unless_asked_by_number():
    iris = {"name": "Iris", "kind": "integrated GPU", "software": False}
    pick = hardware.preferred_vulkan_device
    assert pick([LAVAPIPE, iris, RADEON]) == 2
    assert pick([LAVAPIPE, iris]) == 1
    assert pick([LAVAPIPE]) == 0
    assert pick([LAVAPIPE, iris, RADEON], "0") == 0
    assert pick([LAVAPIPE, iris], "7") == 1
