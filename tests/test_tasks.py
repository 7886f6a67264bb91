"""How a loop's items are shared out among CPU threads."""

from types import SimpleNamespace

import numpy as np
import pytest
import taichi as ti

from kernels import tasks
from kernels.tasks import SLICE, indices_each


@ti.kernel
def _count(n: ti.i32, items: ti.template(), visits: ti.types.ndarray(dtype=ti.i32, ndim=1)):
    spread = ti.static(indices_each(items))
    for index in range(n * spread):
        if index % spread > 0:
            continue
        visits[index // spread] += 1


@pytest.mark.parametrize("items", [1, 4, 64])
@pytest.mark.parametrize("n", [0, 1, 27, 3000])
def test_every_item_is_taken_once(cpu, n, items):
    visits = np.zeros(n + 1, np.int32)
    _count(n, items, visits)
    assert (visits[:n] == 1).all() and visits[n] == 0


def test_as_many_items_as_asked_for_make_a_thread_s_share(cpu):
    assert [items * indices_each(items) for items in (1, 4, 64)] == 3 * [SLICE]


def test_on_a_gpu_every_index_is_an_item(monkeypatch):
    vulkan = SimpleNamespace(cfg=SimpleNamespace(arch=ti.vulkan), x64=ti.x64, arm64=ti.arm64)
    monkeypatch.setattr(tasks, "ti", vulkan)
    assert indices_each(1) == 1
