"""Rays: every pixel once an epoch, in a shuffled order that is never stored, through the right point of the image."""

import numpy as np
import pytest

from tslim.device import buffers

BACKGROUND = (0.2, 0.5, 1.0)


@pytest.fixture(scope="module")
def views(cpu):
    """Three small images of different sizes, with random colours and alpha."""
    from tslim import Cameras
    from tslim.scene.scene import Views

    rng = np.random.default_rng(51)
    sizes = [(13, 7), (5, 11), (8, 8)]
    eyes = rng.normal(size=(3, 3)) * 3
    cameras = Cameras.concatenate(
        [Cameras.look_at(eyes[[i]], (0, 0, 0), (0, 0, 1), 40 + 10 * i, size) for i, size in enumerate(sizes)]
    )
    counts = [w * h for w, h in sizes]
    pixels = rng.integers(0, 2**32, sum(counts), dtype=np.uint32)
    return Views(cameras, pixels, np.concatenate([[0], np.cumsum(counts)]), ("a", "b", "c"))


def every_ray(views) -> tuple[np.ndarray, np.ndarray]:
    """(origin and direction (n, 6), colour over the background (n, 3)) of all pixels, made on the host."""
    rays, colours = [], []
    for i in range(len(views)):
        origins, directions = views.cameras.rays(i)
        rays.append(np.concatenate([origins, directions], 1))
        colours.append(views.image(i, BACKGROUND).reshape(-1, 3))
    return np.concatenate(rays), np.concatenate(colours)


def draw(sampler, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(origin and direction (n, 6), target (n, 3)) of the next batch."""
    from tslim.rendering.batch import Batch

    batch = Batch(n)
    sampler.fill(batch, n)
    origins, directions, target = (
        buffers.read(a).reshape(n, 3) for a in (batch.origins, batch.directions, batch.target)
    )
    return np.concatenate([origins, directions], 1), target


def which(rays: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The pixel of each ray; fails if a ray is none of the known ones."""
    distance = np.abs(rays[:, None] - known[None]).max(2)
    assert distance.min(1).max() < 1e-5
    return distance.argmin(1)


def test_an_epoch_draws_every_pixel_once_with_its_own_ray_and_colour(views):
    from tslim.training.sampler import PixelSampler

    known, colours = every_ray(views)
    sampler = PixelSampler(views, BACKGROUND, seed=3)
    rays, target = draw(sampler, len(known))
    pixels = which(rays, known)
    assert sorted(pixels.tolist()) == list(range(len(known)))
    assert target == pytest.approx(colours[pixels], abs=1e-6)


def test_the_order_is_shuffled_differs_between_epochs_and_seeds_and_repeats(views):
    from tslim.training.sampler import PixelSampler

    known, _ = every_ray(views)
    n = len(known)
    sampler = PixelSampler(views, BACKGROUND, seed=3)
    first, second = (which(draw(sampler, n)[0], known) for _ in range(2))
    again = which(draw(PixelSampler(views, BACKGROUND, seed=3), n)[0], known)
    other = which(draw(PixelSampler(views, BACKGROUND, seed=4), n)[0], known)
    assert (first == again).all()
    for one, two in ((first, second), (first, other), (first, np.arange(n))):
        # A random permutation keeps one entry in place on average.
        assert (one == two).sum() < 8
        # And is no rotation or reversal: its rank correlation with the other order is small.
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.25
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.25


def test_batches_of_an_epoch_do_not_overlap(views):
    from tslim.training.sampler import PixelSampler

    known, _ = every_ray(views)
    sampler = PixelSampler(views, BACKGROUND, seed=3)
    seen = np.concatenate([which(draw(sampler, 50)[0], known) for _ in range(4)])
    assert len(set(seen.tolist())) == 200


def test_a_sampler_continues_from_its_state(views):
    from tslim.training.sampler import PixelSampler

    sampler = PixelSampler(views, BACKGROUND, seed=3)
    for _ in range(5):
        draw(sampler, 60)
    arrays, plain = sampler.state()
    other = PixelSampler(views, BACKGROUND, seed=3)
    other.load_state({k: np.array(v) for k, v in arrays.items()}, plain)
    for _ in range(5):
        assert (draw(sampler, 60)[0] == draw(other, 60)[0]).all()


def test_only_pixels_in_use_are_drawn(views):
    from tslim.training.sampler import PixelSampler

    known, _ = every_ray(views)
    n = len(known)
    rng = np.random.default_rng(5)
    wanted = rng.random(n) < 0.3
    wanted[64:96] = False  # a word of 32 pixels none of which is in use
    sampler = PixelSampler(views, BACKGROUND, seed=3)
    bits = np.zeros(32 * sampler.used.shape[0], bool)
    bits[:n] = wanted
    buffers.write(sampler.used, np.packbits(bits, bitorder="little").view("<u4"))
    sampler._count()
    assert sampler.n_used == wanted.sum()
    pixels = which(draw(sampler, int(wanted.sum()))[0], known)
    assert sorted(pixels.tolist()) == np.flatnonzero(wanted).tolist()


def test_the_rays_of_an_image_come_row_by_row_and_hit_the_pixel_centres(views):
    from kernels import rays as kernels
    from tslim.rendering.batch import Batch
    from tslim.rendering.camera_table import camera_table

    for i in range(len(views)):
        width, height = (int(s) for s in views.cameras.sizes[i])
        n = width * height
        made = Batch(n)
        device = camera_table(views.cameras[[i]])
        kernels.image_rays(n - 4, 0, 4, width, device, made.origins, made.directions)
        origins, directions = views.cameras.rays(i)
        assert buffers.read(made.origins).reshape(n, 3)[: n - 4] == pytest.approx(origins[4:], abs=1e-6)
        assert buffers.read(made.directions).reshape(n, 3)[: n - 4] == pytest.approx(directions[4:], abs=1e-6)
        assert np.linalg.norm(buffers.read(made.directions).reshape(n, 3)[: n - 4], axis=1) == pytest.approx(
            1, abs=1e-6
        )


def test_alpha_is_straight_and_composited_in_srgb_over_the_background(views):
    # Red 255, alpha 51 = 1/5: 1/5 red over 4/5 of (0.2, 0.5, 1.0).
    from tslim import Cameras
    from tslim.scene.scene import Views
    from tslim.training.sampler import PixelSampler

    camera = Cameras.look_at(np.array([[3.0, 0, 0]]), (0, 0, 0), (0, 0, 1), 40, (2, 1))
    one = Views(camera, np.array([255 | 51 << 24] * 2, np.uint32), np.array([0, 2]), ("a",))
    _, target = draw(PixelSampler(one, BACKGROUND, seed=0), 2)
    assert target == pytest.approx(np.tile([0.2 + 0.8 * 0.2, 0.8 * 0.5, 0.8], (2, 1)), abs=1e-6)


def test_without_a_known_background_masked_pixels_are_left_out_and_the_others_keep_their_colour(views):
    from tslim.errors import SceneError
    from tslim.scene.scene import Views
    from tslim.training.sampler import PixelSampler

    known, _ = every_ray(views)
    colours = np.concatenate([views.image(i, None).reshape(-1, 3) for i in range(len(views))])
    opaque = np.concatenate([views.valid(i).ravel() for i in range(len(views))])
    assert 0.2 < opaque.mean() < 0.8
    sampler = PixelSampler(views, None, seed=4)
    rays, target = draw(sampler, int(opaque.sum()))
    pixels = which(rays, known)
    assert sorted(pixels) == np.flatnonzero(opaque).tolist()
    assert target == pytest.approx(colours[pixels], abs=1e-6)
    with pytest.raises(SceneError, match="everywhere"):
        PixelSampler(Views(views.cameras, views.pixels & np.uint32(0xFFFFFF), views.offsets, views.names), None, seed=4)
