"""numpy's BLAS, which the decoder's matrix products run in on the CPU: which kernels it picks, on how many threads.

OpenBLAS chooses its kernels by the processor's model when numpy is loaded, and falls back to AVX2 where it does not
know the model: on AMD's Zen 5 that halves the speed of a matrix product. Only the environment can overrule it, and only
before. This module imports numpy and threadpoolctl inside functions, so that ``tslim`` can ask it first.
"""

import contextlib
import functools
import os
import sys
from pathlib import Path

_VARIABLE = "OPENBLAS_CORETYPE"
_AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
"""What OpenBLAS's SkylakeX kernels need."""


def prefer_avx512() -> None:
    """Has OpenBLAS use its AVX-512 kernels on AMD processors that have the instructions. Linux, before numpy is loaded.

    Leaves the variable alone where the user has set it. Intel's processors are told apart by OpenBLAS itself.
    """
    if "numpy" not in sys.modules and _VARIABLE not in os.environ and _amd_with_avx512():
        os.environ[_VARIABLE] = "SKYLAKEX"


@functools.cache
def _amd_with_avx512() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    except OSError:
        return False
    facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    facts = {name.strip(): value for name, value in facts.items()}
    return "AuthenticAMD" in facts.get("vendor_id", "") and set(facts.get("flags", "").split()) >= _AVX512


def hint() -> str | None:
    """One line for the user if numpy was loaded before ``tslim`` and its BLAS runs at half speed, else ``None``."""
    slow = [lib for lib in _libraries().info() if lib.get("architecture") in ("Haswell", "Zen")]
    if slow and _amd_with_avx512():
        return f"numpy's BLAS runs at half speed on this CPU: import tslim before numpy, or set {_VARIABLE}=SKYLAKEX"
    return None


def single_threaded() -> contextlib.AbstractContextManager:
    """While open, a matrix product runs on the thread that asks for it, so that threads can each do their own."""
    return _libraries().limit(limits=1)


@functools.cache
def _libraries():
    """The BLAS libraries that are loaded, numpy's among them."""
    import numpy  # noqa: F401
    import threadpoolctl

    return threadpoolctl.ThreadpoolController().select(user_api="blas")
