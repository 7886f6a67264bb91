"""Facts about this machine, for people and for bug reports: what works, what does not, what to install.

Nothing here may fail, whatever is missing or broken: every fact is found on its own, with the standard library or in
a subprocess with a time limit. In particular ``import tslim.device.doctor`` needs neither Taichi nor numpy.
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tslim.device import backend, cache, display, hardware

PACKAGES = ("taichi", "numpy", "threadpoolctl", "pillow", "imageio", "imageio-ffmpeg", "rich", "tyro", "matplotlib")
OPTIONAL = {
    "pycolmap": "cameras of photographs: tslim poses, train --find-poses",
    "torch": "checkpoints (.th), tslim.torch, --decoder-precision bfloat16, and the tests",
    "scikit-image": "meshes: export to .ply, .obj, .glb",
    "ray": "several trainings of a sweep at a time",
    "lpips": "tslim eval --lpips",
}
"""What tslim can do without, and who misses it."""
LIBRARIES = (
    ("X11", "libX11.so.6", "libx11-6", "Taichi does not even load without it"),
    ("Vulkan loader", "libvulkan.so.1", "libvulkan1", "needed by --arch vulkan and by the window"),
)
USEFUL = (
    ("window: cursors", "libXcursor.so.1", "libxcursor1"),
    ("window: input", "libXi.so.6", "libxi6"),
    ("window: screens", "libXinerama.so.1", "libxinerama1"),
    ("window: modes", "libXrandr.so.2", "libxrandr2"),
)


@dataclass(frozen=True)
class Row:
    """One fact. ``ok`` is ``None`` where there is nothing to judge; ``advice`` says what to do about it."""

    name: str
    value: str
    ok: bool | None = None
    advice: str = ""

    def __str__(self) -> str:
        mark = {True: "ok  ", False: "NO  ", None: "    "}[self.ok]
        return f"  {mark}{self.name:<18} {self.value}" + (f"  -> {self.advice}" if self.advice else "")


@dataclass(frozen=True)
class Section:
    """Facts that belong together."""

    title: str
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        return "\n".join([self.title, *map(str, self.rows)])


def report() -> list[Section]:
    """Everything, in the order to read it. Takes a few seconds; never raises."""
    parts = (
        ("Python", _python),
        ("Optional", _optional),
        ("Machine", _machine),
        ("Libraries", _libraries),
        ("Devices", _devices),
        ("Archs", _archs),
        ("Window", _window),
    )
    with ThreadPoolExecutor(len(parts)) as pool:
        rows = list(pool.map(_collect, (find for _, find in parts)))
    sections = [Section(title, found) for (title, _), found in zip(parts, rows, strict=True)]
    return [*sections, _summary(sections)]


def text(sections: list[Section]) -> str:
    """The report as plain text, for a terminal or a bug report."""
    return "\n\n".join(map(str, sections))


def _collect(find: Callable[[], Iterator[Row]]) -> tuple[Row, ...]:
    """The rows of a section; a failure becomes a row, and keeps those that came before it."""
    rows: list[Row] = []
    try:
        for row in find():
            rows.append(row)
    except Exception as error:  # whatever is broken here is itself a finding
        rows.append(Row("(not found out)", f"{type(error).__name__}: {error}", False))
    return tuple(rows)


def _python() -> Iterator[Row]:
    version = platform.python_version()
    good = (3, 10) <= sys.version_info[:2] <= (3, 13)
    yield Row("Python", f"{version} ({sys.executable})", good, "" if good else "Taichi runs on Python 3.10 to 3.13")
    import tslim

    yield Row("tslim", f"{tslim.__version__} ({Path(tslim.__file__).parent})")
    for name in PACKAGES:
        try:
            yield Row(name, metadata.version(name), True)
        except metadata.PackageNotFoundError:
            yield Row(name, "not installed", False, "pip install -r requirements.txt")
    yield _import_row()


def _optional() -> Iterator[Row]:
    for name, use in OPTIONAL.items():
        try:
            yield Row(name, f"{metadata.version(name)}, for {use}", True)
        except metadata.PackageNotFoundError:
            yield Row(name, f"not installed, for {use}", None, f"pip install {name}")


def _import_row() -> Row:
    """Whether Taichi loads, asked in a subprocess."""
    code = "from tslim.device import backend\nfrom tslim.errors import BackendError\n"
    code += "try:\n    backend.load_taichi()\nexcept BackendError as error:\n    raise SystemExit(str(error))\n"
    try:
        done = hardware.run_python(code, timeout=60)
    except RuntimeError as error:
        return Row("import taichi", str(error), False)
    if done.returncode == 0:
        return Row("import taichi", "works", True)
    return Row("import taichi", hardware.last_line(done), False)


def _machine() -> Iterator[Row]:
    yield Row("system", f"{_system_name()}, {platform.system()} {platform.release()}, {platform.machine()}")
    cores = hardware.cpu_count()
    yield Row("processor", f"{hardware.cpu_name()}, {cores} core{'s' * (cores != 1)} usable")
    if hardware.has_bfloat16():
        yield Row("bfloat16", "the processor has it: --preset paper is quicker with --decoder-precision bfloat16", True)
    else:
        yield Row("bfloat16", "the processor has no instructions for it")
    memory = _memory()
    if memory is not None:
        yield Row("memory", f"{memory[0] / 1e9:.1f} GB, {memory[1] / 1e9:.1f} GB available")
    notes = cache.prepare()
    yield Row("kernel cache", "; ".join([os.environ[cache.VARIABLE], *notes]), True)


def _system_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except (OSError, AttributeError):
        return platform.platform(terse=True)


def _memory() -> tuple[int, int] | None:
    """Total and available bytes, where the system says so."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        return sizes["MemTotal"], sizes["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _libraries() -> Iterator[Row]:
    if not sys.platform.startswith("linux"):
        return
    for name, library, package, need in LIBRARIES:
        if hardware.load_library(library) is not None:
            yield Row(name, library, True)
        else:
            yield Row(name, f"{library} is missing: {need}", False, f"install {package}")
    for name, library, package in USEFUL:
        found = hardware.load_library(library) is not None
        advice = "" if found else f"install {package}"
        yield Row(name, library if found else f"{library} is missing, the window can do without", found or None, advice)


def _devices() -> Iterator[Row]:
    for name in ("cuda", "vulkan"):
        try:
            devices = hardware.ask(f"{name}_devices")
        except RuntimeError as error:
            yield Row(name, str(error))
            continue
        for device in devices:
            facts = [device["name"], device.get("kind", ""), device.get("version", device.get("driver", ""))]
            if "memory" in device:
                facts.append(f"{device['memory'] / 1e9:.1f} GB")
            yield Row(name, ", ".join(f for f in facts if f))
        if not devices:
            yield Row(name, "the driver knows no device")


def _archs() -> Iterator[Row]:
    """Starts each arch in a subprocess, gradient probe included."""
    for arch in backend.ARCHS:
        began = time.perf_counter()
        problem = backend.try_arch(arch)
        if problem is None:
            yield Row(arch, f"starts, gradients right ({time.perf_counter() - began:.1f} s)", True)
        else:
            prefix = f"{arch} is not available: "
            # Only the CPU must work everywhere.
            yield Row(arch, problem.removeprefix(prefix), False if arch == "cpu" or prefix not in problem else None)


def _window() -> Iterator[Row]:
    if sys.platform.startswith("linux"):
        yield Row("DISPLAY", os.environ.get("DISPLAY") or "not set")
    problem = display.why_no_window()
    if problem is None:
        yield Row("window", "opens", True)
    else:
        yield Row("window", problem.reason, False, problem.advice)


def _summary(sections: list[Section]) -> Section:
    """What to do, gathered from all sections."""
    rows = [row for section in sections for row in section.rows if row.ok is False]
    if not rows:
        return Section("Everything works", ())
    advised: dict[str, Row] = {}
    for row in rows:
        advised.setdefault(row.advice or row.value, Row(row.name, row.advice or row.value))
    todo = list(advised.values())
    packages = [r.advice.removeprefix("install ") for r in rows if r.advice.startswith("install lib")]
    names = sorted({word for p in packages for word in p.replace(",", " ").split() if word.startswith("lib")})
    if any("Vulkan driver" in r.value or "Vulkan loader" in r.value for r in rows):
        names.append("mesa-vulkan-drivers")
    if names and _is_debian():
        todo.append(Row("all at once", "sudo apt install " + " ".join(names)))
    return Section("To do", tuple(todo))


def _is_debian() -> bool:
    """Whether apt names are the right ones."""
    try:
        release = platform.freedesktop_os_release()
    except (OSError, AttributeError):
        return False
    return "debian" in (release.get("ID", ""), *release.get("ID_LIKE", "").split())
