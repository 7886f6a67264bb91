"""Matrix products by tiles and threads."""

import numpy as np
import pytest
import threadpoolctl

from tslim.decoder import blas
from tslim.device import backend

pytestmark = pytest.mark.usefixtures("cpu")


@pytest.fixture(params=[1, 2, 5])
def threads(request, monkeypatch, cpu):
    """Runs the test with this many threads."""
    other = backend.Backend(cpu.arch, cpu.device, request.param)
    monkeypatch.setattr(backend, "current", lambda: other)
    return request.param


@pytest.mark.parametrize("n", [0, 1, blas.TILE, blas.TILE + 1, 4 * blas.TILE - 3, 9 * blas.TILE + 5])
def test_every_sample_is_in_exactly_one_tile(n, threads):
    visits = np.zeros(n, int)
    seen = set()

    def work(start: int, stop: int, thread: int) -> None:
        assert start % blas.tile_size(n) == 0 and stop - start <= blas.tile_size(n) <= blas.TILE
        visits[start:stop] += 1
        seen.add(thread)

    blas.for_tiles(n, work)
    assert (visits == 1).all()
    assert seen <= set(range(threads))


def test_a_few_samples_make_tiles_for_several_threads():
    for n in (2 * blas.LEAST, 1356, 2700, 5000, blas.FEW * blas.TILE):
        assert blas.n_tiles(n) == -(-n // blas.tile_size(n))
        assert blas.LEAST <= blas.tile_size(n) and min(n // blas.LEAST, 6) <= blas.n_tiles(n) <= blas.FEW
    assert blas.tile_size(20 * blas.TILE) == blas.TILE


@pytest.mark.parametrize("n", [0, 1, 1000, 5001])
def test_products_are_those_of_numpy_for_any_number_of_threads(n, threads):
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=shape).astype(np.float32) for shape in ((n, 48), (48, 27), (n, 27)))
    out, gradient, of_a = np.full((n, 27), np.nan, np.float32), np.full((48, 27), 0.5, np.float32), a.copy()
    blas.product(a, b, out)
    blas.product_backward(of_a, b, c, gradient)
    np.testing.assert_allclose(out, a.astype(float) @ b, atol=1e-4)
    np.testing.assert_allclose(gradient, 0.5 + a.astype(float).T @ c, atol=1e-3)
    np.testing.assert_allclose(of_a, c.astype(float) @ b.T, atol=1e-4)


def test_a_product_with_whole_cache_lines_is_numpys(threads):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(1500, 20)).astype(np.float32), rng.normal(size=(20, 32)).astype(np.float32)
    out = np.full((1500, 32), np.nan, np.float32)
    blas.product(a, b, out)
    np.testing.assert_allclose(out, a.astype(float) @ b, atol=1e-4)


def test_the_number_of_threads_does_not_change_a_bit(monkeypatch, cpu):
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=shape).astype(np.float32) for shape in ((9000, 48), (48, 27), (9000, 27)))
    found = []
    for count in (1, 2, 3):
        other = backend.Backend(cpu.arch, cpu.device, count)
        monkeypatch.setattr(backend, "current", lambda other=other: other)
        found.append(np.zeros((48, 27), np.float32))
        blas.product_backward(a.copy(), b, c, found[-1])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_an_error_in_a_tile_reaches_the_caller(threads):
    def work(start: int, stop: int, thread: int) -> None:
        if start > 0:
            raise ValueError("tile 1")

    with pytest.raises(ValueError, match="tile 1"):
        blas.for_tiles(3 * blas.TILE, work)


def test_the_number_of_blas_threads_is_as_before_afterwards():
    def counts() -> list[int]:
        return [library["num_threads"] for library in threadpoolctl.threadpool_info()]

    before, inside = counts(), []
    blas.for_tiles(1, lambda *_: inside.extend(counts()))
    assert counts() == before
    numpy_only = [library for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]
    assert numpy_only and inside.count(1) >= len(numpy_only)
