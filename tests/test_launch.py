"""Kernels are launched with what they are called with, the second time as the first."""

import subprocess
import sys

import numpy as np
import pytest
import taichi as ti
from taichi.lang.kernel_impl import Kernel

from kernels import launch
from kernels.launch import kernel
from kernels.types import Values, f32_1d, i32_1d, ivec3, record, u32_1d, vec3
from tslim.device import backend

pytestmark = pytest.mark.usefixtures("cpu")


@record
class Grid:
    offset: vec3
    cell: ivec3

    @ti.func
    def corner(self) -> ti.f32:
        return self.offset[0] + 10.0 * self.offset[2] + ti.cast(self.cell[1] - self.cell[2], ti.f32)


@record
class Mixture:
    key: ti.u32
    grid: Grid
    scale: ti.f32


@ti.func
def _mixed(mixture: Mixture, number: ti.f32, integer: ti.i32, word: ti.u32) -> ti.f32:
    value = number * mixture.scale + ti.cast(integer, ti.f32) + mixture.grid.corner()
    return value + ti.cast(word ^ mixture.key, ti.f32)


def _plain_mix_of_records(
    n: ti.i32,
    mixture: Mixture,
    of_floats: f32_1d,
    twice: ti.template(),
    of_ints: i32_1d,
    of_words: u32_1d,
    grid: Grid,
    out: f32_1d,
):
    """``_mix`` with its numbers in records; ``grid`` counts for nothing but where it differs from the inner one."""
    for i in range(n):
        inner = Grid(mixture.grid.offset, mixture.grid.cell)
        value = _mixed(mixture, of_floats[i], of_ints[i], of_words[i]) + grid.corner() - inner.corner()
        if ti.static(twice):
            value *= 2.0
        out[i] = value


def _plain_mix(
    n: ti.i32,
    of_floats: f32_1d,
    twice: ti.template(),
    of_ints: i32_1d,
    key: ti.u32,
    of_words: u32_1d,
    scale: ti.f32,
    offset: vec3,
    cell: ivec3,
    out: f32_1d,
):
    """A number of everything."""
    for i in range(n):
        value = of_floats[i] * scale + ti.cast(of_ints[i], ti.f32) + offset[0] + 10.0 * offset[2]
        value += ti.cast(of_words[i] ^ key, ti.f32) + ti.cast(cell[1] - cell[2], ti.f32)
        if ti.static(twice):
            value *= 2.0
        out[i] = value


_mix, _mix_of_records = kernel(_plain_mix), kernel(_plain_mix_of_records)


def _arguments(rng: np.random.Generator, twice: bool = False) -> tuple[list, np.ndarray]:
    """Arguments of ``_mix``, and what it should write."""
    room = int(rng.integers(3, 50))
    n = room - 2
    floats, scale = rng.random(room, np.float32), float(rng.random())
    ints, words = rng.integers(-9, 9, room).astype(np.int32), rng.integers(0, 99, room).astype(np.uint32)
    key, offset, cell = int(rng.integers(0, 99)), rng.random(3).tolist(), rng.integers(-9, 9, 3).tolist()
    wanted = floats * scale + ints + offset[0] + 10 * offset[2] + (words ^ np.uint32(key)) + cell[1] - cell[2]
    wanted[n:] = np.nan
    out = np.full(room, np.nan, np.float32)
    if not backend.current().is_cpu:  # it may leave anything where nothing is written
        out, wanted = out[:n], wanted[:n]
    return [n, floats, twice, ints, key, words, scale, offset, cell, out], wanted * (1 + twice)


def _in_records(args: list, grid: Values | None = None) -> list:
    """The arguments of ``_mix_of_records`` that come to the same as those of ``_mix``."""
    n, floats, twice, ints, key, words, scale, offset, cell, out = args
    made = Grid(offset=offset, cell=cell)
    mixture = Mixture(key=key, grid=made, scale=scale)
    return [n, mixture, floats, twice, ints, words, grid or made, out]


def _calls_of_taichi(monkeypatch) -> list:
    calls, inner = [], Kernel.__call__
    monkeypatch.setattr(Kernel, "__call__", lambda self, *args: (calls.append(1), inner(self, *args))[1])
    return calls


def test_every_call_computes_with_its_own_arguments(monkeypatch):
    rng = np.random.default_rng(0)
    for twice in (False, True):
        _mix(*_arguments(rng, twice)[0])
    calls = _calls_of_taichi(monkeypatch)
    for i in range(20):
        args, wanted = _arguments(rng, twice=i % 3 == 0)
        _mix(*args)
        np.testing.assert_allclose(args[-1], wanted, rtol=1e-5)
    assert not calls  # the quick way


def test_every_call_with_records_computes_with_its_own(monkeypatch):
    rng = np.random.default_rng(4)
    for twice in (False, True):
        _mix_of_records(*_in_records(_arguments(rng, twice)[0]))
    calls = _calls_of_taichi(monkeypatch)
    for i in range(20):
        args, wanted = _arguments(rng, twice=i % 3 == 0)
        _mix_of_records(*_in_records(args))
        np.testing.assert_allclose(args[-1], wanted, rtol=1e-5, atol=1e-4)
    assert not calls  # the quick way


def test_a_record_that_taichi_made_goes_its_way(monkeypatch):
    args, wanted = _arguments(np.random.default_rng(5))
    passed = _in_records(args)
    passed[1] = passed[1].as_struct()
    calls = _calls_of_taichi(monkeypatch)
    for _ in range(2):
        args[-1].fill(np.nan)
        _mix_of_records(*passed)
        np.testing.assert_allclose(args[-1], wanted, rtol=1e-5, atol=1e-4)
    assert len(calls) >= 2


def test_a_record_of_another_kind_is_refused_the_second_time_as_the_first():
    args, _ = _arguments(np.random.default_rng(6))
    passed = _in_records(args)
    _mix_of_records(*passed)
    passed[1] = passed[6]
    for _ in range(2):
        with pytest.raises(ti.TaichiRuntimeTypeError):
            _mix_of_records(*passed)


def test_a_record_is_checked_when_it_is_made_and_does_not_change():
    grid = Grid(offset=np.array([1, 2, 3]), cell=np.array([4, 5, 6]))
    assert grid.offset == (1.0, 2.0, 3.0) and grid.cell == (4, 5, 6) and grid.numbers == (1.0, 2.0, 3.0, 4, 5, 6)
    assert grid.replace(cell=(7, 8, 9)).numbers[3:] == (7, 8, 9) and grid.cell == (4, 5, 6)
    with pytest.raises(TypeError, match="made of offset, cell"):
        Grid(offset=(1, 2, 3))
    with pytest.raises(TypeError, match="Grid.cell"):
        Grid(offset=(1, 2, 3), cell=(1, 2))
    with pytest.raises(TypeError, match="Grid.cell"):
        Grid(offset=(1, 2, 3), cell=(1.5, 2, 3))
    with pytest.raises(TypeError, match="Mixture.grid: a Grid"):
        Mixture(key=1, grid=(1, 2), scale=1.0)
    with pytest.raises(AttributeError, match="Grid has no size"):
        grid.size  # noqa: B018


@pytest.mark.parametrize("broken", ["_put_record", "NdarrayType"])
def test_where_taichi_is_another_than_thought_its_own_launch_is_used(broken, monkeypatch):
    def wrong(at, annotation):
        def put(context, value):
            raise AttributeError("gone in a later Taichi")

        return put

    monkeypatch.setattr(launch, "_verdict", (None, False))
    monkeypatch.setattr(launch, broken, wrong if broken.startswith("_") else None)
    mix, mix_of_records = kernel(_plain_mix), kernel(_plain_mix_of_records)
    calls = _calls_of_taichi(monkeypatch)
    for i in range(3):
        for function, converted in ((mix, list), (mix_of_records, _in_records)):
            args, wanted = _arguments(np.random.default_rng(i), twice=False)
            function(*converted(args))
            np.testing.assert_allclose(args[-1], wanted, rtol=1e-5, atol=1e-4)
    assert len(calls) >= 6 and not launch._is_trusted()


def test_a_launch_that_hands_over_other_numbers_is_found_out(monkeypatch):
    taken = launch._put_record
    monkeypatch.setattr(launch, "_verdict", (None, False))

    def other(at, annotation):
        put = taken(at, annotation)
        return lambda context, value: put(context, value.replace(scale=value.scale + 1))

    monkeypatch.setattr(launch, "_put_record", other)
    assert not launch._is_trusted()
    monkeypatch.undo()
    monkeypatch.setattr(launch, "_verdict", (None, False))
    assert launch._is_trusted() and launch._put_record is taken


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, np.int64(3)), (4, np.uint32(7)), (6, np.float32(0.5)), (7, vec3(1, 2, 3)), (8, np.array([1, 2, 3]))],
)
def test_what_else_taichi_accepts_goes_its_way(at, value, monkeypatch):
    args, _ = _arguments(np.random.default_rng(1))
    args[at] = [1.0, 2.0, 3.0] if at == 7 else [1, 2, 3] if at == 8 else value.item()
    _mix(*args)
    wanted = args[-1].copy()
    calls = _calls_of_taichi(monkeypatch)
    args[at], args[-1] = value, np.full_like(wanted, np.nan)
    _mix(*args)
    np.testing.assert_array_equal(args[-1], wanted)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 1.5),
        (1, np.zeros(60)),
        (1, np.zeros((60, 1), np.float32)),
        (1, np.zeros(120, np.float32)[::2]),
        (3, np.zeros(60, np.float32)),
        (6, "1"),
        (8, [1.5, 2.0, 3.0]),
        (9, None),
    ],
)
def test_wrong_arguments_are_refused_the_second_time_as_the_first(at, value):
    args, _ = _arguments(np.random.default_rng(2))
    _mix(*args)
    before = args[-1].copy()
    args[at] = value
    for _ in range(2):
        with pytest.raises((ValueError, TypeError, ti.TaichiRuntimeTypeError)):
            _mix(*args)
    if at < 9:
        np.testing.assert_array_equal(args[-1], before)


def test_a_wrong_number_of_arguments_is_refused():
    args, _ = _arguments(np.random.default_rng(3))
    _mix(*args)
    for wrong in (args[:-1], [*args, 1]):
        with pytest.raises((TypeError, ti.TaichiSyntaxError), match="[aA]rgument|missing"):
            _mix(*wrong)


def test_kernels_work_after_taichi_started_anew(tmp_path):
    code = """
import numpy as np, taichi as ti
from kernels.rays import repeat
for scalar in (1.0, 2.0, 3.0):
    ti.init(arch=ti.cpu, offline_cache=False, log_level=ti.ERROR)
    for n in (1, 2, 3):
        values = np.zeros(2 * n, np.float32)
        values[:n] = scalar
        repeat(n, 2, values)
        assert (values == scalar).all(), values
    ti.reset()
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "fine" in done.stdout, done.stderr
