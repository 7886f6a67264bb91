"""The only ``ti.init``: chooses the device, describes it, and proves that gradients come out right on it.

Taichi is imported on first use, so that a missing system library becomes one clear ``BackendError``.
"""

import contextlib
import io
import os
import sys
from dataclasses import dataclass
from types import ModuleType

from tslim.device import cache, hardware, workers
from tslim.errors import BackendError

ARCHS = ("cpu", "cuda", "vulkan")


@dataclass(frozen=True)
class Backend:
    """The device that everything runs on, for the life of the process."""

    arch: str
    """cpu, cuda or vulkan"""
    device: str
    """its name, for people"""
    threads: int
    """CPU threads that Taichi may use"""
    notes: tuple[str, ...] = ()
    """what the user should know about the choice, one line each"""
    gradient_error: str | None = None
    """what the start-up probe found wrong with this device's gradients"""

    @property
    def is_cpu(self) -> bool:
        """Whether device arrays are numpy arrays."""
        return self.arch == "cpu"

    def require_gradients(self) -> None:
        """Raises ``BackendError`` on a device that computes wrong gradients: it may render, but must not train."""
        if self.gradient_error is not None:
            raise BackendError(
                f"{self.arch} ({self.device}) computes wrong gradients ({self.gradient_error}): no training on it; "
                "update its driver or use --arch cpu"
            )

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        device = f"{self.device}, {threads}" if self.is_cpu else self.device
        return "; ".join([f"{self.arch}: {device}", *self.notes])


_current: Backend | None = None


def current() -> Backend:
    """The device in use. Raises ``BackendError`` before ``init``."""
    if _current is None:
        raise BackendError("no device chosen yet: call tslim.init() first")
    return _current


def init(arch: str = "auto", *, seed: int = 0, threads: int | None = None) -> Backend:
    """Chooses and starts the device; once per process.

    Args:
        arch: ``cpu``, ``cuda``, ``vulkan``, or ``auto``: a real GPU if there is one that works, else the CPU.
        seed: of Taichi's random numbers on the device.
        threads: CPU threads; the environment's TSLIM_THREADS, else all available cores by default.

    Returns:
        What was started. A second call for the same arch, or for ``auto``, returns the device in use unchanged.

    Raises:
        BackendError: the device is not there or does not start; another one is already in use.
    """
    global _current
    if threads is None and os.environ.get("TSLIM_THREADS", "").isdigit():
        threads = int(os.environ["TSLIM_THREADS"])
    if arch not in ("auto", *ARCHS):
        raise BackendError(f"unknown arch {arch!r}; accepted: auto, {', '.join(ARCHS)}")
    if threads is not None and threads < 1:
        raise BackendError(f"threads must be at least 1, not {threads}")
    if _current is not None:
        if arch in ("auto", _current.arch):
            return _current
        raise BackendError(f"this process already runs on {_current.arch}; start another process to use {arch}")
    ti = load_taichi()
    if ti.lang.impl.get_runtime().prog is not None:
        raise BackendError(
            "Taichi was already started by other code, and can start once in a process: "
            "call tslim.init() instead of ti.init()"
        )
    notes = list(cache.prepare())
    if arch == "auto":
        arch = _best_arch(notes)
    count = threads or hardware.cpu_count()
    device = _device_name(arch, notes)
    before = workers.thread_ids()
    _start(ti, arch, seed, count)
    if arch == "cpu":
        workers.keep_apart(workers.thread_ids() - before, count)
    from tslim.device import gradient_check

    wrong = gradient_check.find_wrong(arch == "cpu")
    if wrong is not None:
        notes.append(f"wrong gradients ({wrong}): this device must not train")
    _current = Backend(arch, device, count, tuple(notes), wrong)
    return _current


def load_taichi() -> ModuleType:
    """Imports Taichi, silent also where it fails. Raises ``BackendError`` saying what to install."""
    cache.prepare()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import taichi
    except ImportError as error:
        raise BackendError(explain_import_error(error)) from error
    return taichi


def explain_import_error(error: ImportError) -> str:
    """One line on why Taichi does not load, and what to install."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "libX11" in text:
        return "Taichi needs the X11 library libX11.so.6, even without a display: sudo apt install libx11-6"
    if isinstance(error, ModuleNotFoundError) and error.name == "taichi":
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return f"Taichi is not installed for this Python ({version}): pip install taichi==1.7.4 (Python 3.9 to 3.13)"
    return f"Taichi cannot be loaded: {text}"


def _best_arch(notes: list[str]) -> str:
    """``cuda``, else a Vulkan device that is not software, else ``cpu``; what was passed over goes to ``notes``."""
    if hardware.cuda_driver() is not None:
        problem = try_arch("cuda")
        if problem is None:
            return "cuda"
        notes.append(f"cuda not used: {problem}")
    if hardware.vulkan_loader() is not None:
        try:
            real = hardware.has_real_vulkan_device(hardware.ask("vulkan_devices"))
        except RuntimeError as error:
            real = False
            notes.append(f"vulkan not used: {error}")
        if real:
            problem = try_arch("vulkan")
            if problem is None:
                return "vulkan"
            notes.append(f"vulkan not used: {problem}")
    return "cpu"


def try_arch(arch: str, *, timeout: float = 60.0) -> str | None:
    """Starts an arch and proves its gradients in a subprocess; ``None`` if all is well, else why not, in one line."""
    code = (
        "from tslim.device import backend\nfrom tslim.errors import BackendError\n"
        f"try:\n    backend.init({arch!r}).require_gradients()\n"
        "except BackendError as error:\n    raise SystemExit(str(error))\n"
    )
    try:
        done = hardware.run_python(code, timeout=timeout)
    except RuntimeError as error:
        return str(error)
    return None if done.returncode == 0 else hardware.last_line(done)


def _device_name(arch: str, notes: list[str]) -> str:
    """The device's name; raises ``BackendError`` if there is none. Asked before Taichi starts, in a subprocess."""
    if arch == "cpu":
        return hardware.cpu_name()
    try:
        devices = hardware.ask(f"{arch}_devices")
    except RuntimeError as error:
        raise BackendError(f"{arch} is not available: {error}") from None
    if not devices:
        raise BackendError(f"{arch} is not available: the driver knows no device")
    chosen = devices[0]
    if arch == "vulkan":
        index = hardware.preferred_vulkan_device(devices, os.environ.get("TI_VISIBLE_DEVICE"))
        os.environ["TI_VISIBLE_DEVICE"] = str(index)  # how Taichi is told which
        chosen = devices[index]
    if chosen.get("software"):
        notes.append("a software device: correct, but far slower than --arch cpu")
    return chosen["name"]


def _start(ti: ModuleType, arch: str, seed: int, threads: int) -> None:
    """Calls ``ti.init`` quietly; raises ``BackendError`` if it did not start what was asked for.

    ``fast_math`` stays on, since scalar loops need it for speed: kernels must not rely on NaN or infinity.
    """
    asked = os.environ.pop("TI_ARCH", None)  # would silently overrule the argument
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            ti.init(
                arch=getattr(ti, arch),
                enable_fallback=False,
                log_level=ti.ERROR,
                random_seed=seed,
                cpu_max_num_threads=threads,
                fast_math=True,
                offline_cache=True,
                default_fp=ti.f32,
                default_ip=ti.i32,
            )
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BackendError(f"{arch} does not start: {first}") from error
    finally:
        if asked is not None:
            os.environ["TI_ARCH"] = asked
    if ti.cfg.arch != getattr(ti, arch):
        raise BackendError(f"Taichi started {ti.cfg.arch} instead of {arch}")
