"""What the machine has, asked without Taichi and without risk: standard library only.

A graphics driver that is asked the wrong way can end the process (no exception to catch), so every question to one
is asked in a subprocess with a time limit: ``ask("vulkan_devices")`` runs ``vulkan_devices()`` in a fresh Python.
"""

import ctypes
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from tslim.device import cache

VULKAN_KINDS = ("other", "integrated GPU", "discrete GPU", "virtual GPU", "software")


def cpu_name() -> str:
    """The processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown processor"


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 (AVX-512, AMX or ARM); True where the system does not say."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return True
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def cpu_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_library(*names: str) -> ctypes.CDLL | None:
    """The first shared library of these names that loads, else ``None``."""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def cuda_driver() -> ctypes.CDLL | None:
    """NVIDIA's driver library, or ``None`` where there is no driver."""
    return load_library("nvcuda.dll") if sys.platform == "win32" else load_library("libcuda.so.1", "libcuda.so")


def vulkan_loader() -> ctypes.CDLL | None:
    """The Vulkan loader, or ``None`` where it is not installed."""
    names = {"win32": ("vulkan-1.dll",), "darwin": ("libvulkan.1.dylib", "libMoltenVK.dylib")}
    return load_library(*names.get(sys.platform, ("libvulkan.so.1", "libvulkan.so")))


def cuda_devices() -> list[dict]:
    """``[{"name", "memory", "driver"}]``, memory in bytes; raises ``RuntimeError`` if the driver does not answer."""
    cuda = cuda_driver()
    if cuda is None:
        raise RuntimeError("no NVIDIA driver (libcuda.so.1)")
    status = cuda.cuInit(0)
    if status != 0:
        raise RuntimeError(f"the NVIDIA driver does not start (cuInit says {status})")
    version, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    if cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        raise RuntimeError("the NVIDIA driver cannot count its devices")
    driver = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    found = []
    for index in range(count.value):
        device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetName(name, 256, device)
        cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        found.append({"name": name.value.decode(errors="replace"), "memory": memory.value, "driver": driver})
    return found


class _InstanceCreateInfo(ctypes.Structure):
    """VkInstanceCreateInfo, with no layers and no extensions."""

    _fields_ = [
        ("s_type", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("application", ctypes.c_void_p),
        ("n_layers", ctypes.c_uint32),
        ("layers", ctypes.c_void_p),
        ("n_extensions", ctypes.c_uint32),
        ("extensions", ctypes.c_void_p),
    ]


def vulkan_devices() -> list[dict]:
    """``[{"name", "kind", "software", "version"}]``, in the loader's order.

    Raises ``RuntimeError`` without a loader or a driver.
    """
    vulkan = vulkan_loader()
    if vulkan is None:
        raise RuntimeError("no Vulkan loader (libvulkan.so.1)")
    instance = ctypes.c_void_p()
    info = _InstanceCreateInfo(s_type=1)
    status = vulkan.vkCreateInstance(ctypes.byref(info), None, ctypes.byref(instance))
    if status != 0:
        raise RuntimeError(f"no Vulkan driver (vkCreateInstance says {status})")
    count = ctypes.c_uint32()
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
    handles = (ctypes.c_void_p * max(count.value, 1))()
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles)
    found = []
    for handle in handles[: count.value]:
        # VkPhysicalDeviceProperties begins with apiVersion, driverVersion, vendorID, deviceID, deviceType (u32 each)
        # and deviceName (256 bytes); the whole struct is 824 bytes.
        raw = ctypes.create_string_buffer(2048)
        vulkan.vkGetPhysicalDeviceProperties(ctypes.c_void_p(handle), raw)
        api = int.from_bytes(raw.raw[0:4], sys.byteorder)
        kind = int.from_bytes(raw.raw[16:20], sys.byteorder)
        found.append(
            {
                "name": raw.raw[20:276].split(b"\0", 1)[0].decode(errors="replace"),
                "kind": VULKAN_KINDS[kind] if kind < len(VULKAN_KINDS) else "other",
                "software": kind == 4,
                "version": f"Vulkan {api >> 22 & 0x7F}.{api >> 12 & 0x3FF}.{api & 0xFFF}",
            }
        )
    return found


def has_real_vulkan_device(devices: list[dict]) -> bool:
    """Whether there is a device that is not a software rasterizer."""
    return any(not d["software"] for d in devices)


def preferred_vulkan_device(devices: list[dict], asked: str | None = None) -> int:
    """Index of the device to use: the one asked for by number if it exists, else discrete before integrated before
    virtual before software."""
    if asked is not None and asked.isdigit() and int(asked) < len(devices):
        return int(asked)
    order = ("discrete GPU", "integrated GPU", "virtual GPU", "other", "software")
    return min(range(len(devices)), key=lambda i: order.index(devices[i]["kind"]))


def run_python(code: str, *, timeout: float, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a fresh process with this one's ``sys.path``. Raises ``RuntimeError`` past the time limit."""
    cache.prepare()
    prelude = f"import sys; sys.path[:] = {[p or os.getcwd() for p in sys.path]!r}\n"
    environment = {**os.environ, **(env or {})}
    environment.pop("TI_ARCH", None)
    try:
        return subprocess.run(
            [sys.executable, "-c", prelude + code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no answer within {timeout:.0f} s") from None
    except OSError as error:
        raise RuntimeError(f"cannot start a Python process: {error}") from None


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Why a process failed, in one line: the last thing it said, or how it died."""
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    if done.returncode < 0:
        return f"crashed (signal {-done.returncode})"
    return lines[-1] if lines else f"exit code {done.returncode}"


_MARK = "tslim-answer:"


def ask(question: str, *, timeout: float = 20.0) -> list[dict]:
    """The answer of one of this module's functions, run in a subprocess. Raises ``RuntimeError`` with one line."""
    code = (
        "import json\nfrom tslim.device import hardware\n"
        f"try:\n    answer = hardware.{question}()\n"
        "except RuntimeError as error:\n    answer = str(error)\n"
        f"print({_MARK!r} + json.dumps(answer))"
    )
    done = run_python(code, timeout=timeout)
    for line in done.stdout.splitlines():
        if line.startswith(_MARK):
            answer = json.loads(line[len(_MARK) :])
            if isinstance(answer, str):
                raise RuntimeError(answer)
            return answer
    raise RuntimeError(last_line(done))
