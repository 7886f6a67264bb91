"""What training learns of photographs: a gain of each, and where it was taken from."""

import numpy as np
import pytest

from tslim.config import FieldConfig, ScheduleConfig, TrainConfig
from tslim.device import buffers

N_IMAGES, N_PIXELS, COPIES = 4, 60, 2
CENTRE, UNIT = np.array([0.3, -0.2, 0.5]), 2.0


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def turned(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """exp(w) x, by the exponential's own series."""
    k = np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])
    power, total = np.eye(3), np.eye(3)
    for n in range(1, 20):
        power = power @ k / n
        total = total + power
    return total @ x


def test_gains_and_their_gradients_are_those_of_the_formula(cpu, rng):
    from kernels import gains

    n = N_PIXELS * COPIES
    image = rng.integers(0, N_IMAGES, N_PIXELS).astype(np.int32)
    logs = rng.normal(0, 0.3, (N_IMAGES, 3)).astype(np.float32)
    pixel, weight = rng.random((2, n, 3)).astype(np.float32)
    seen, grad, by_gain = (buffers.upload(a.reshape(-1)) for a in (pixel, weight, np.ones_like(logs)))
    arrays = buffers.upload(image), buffers.upload(logs.reshape(-1))
    gains.apply_gains(n, N_PIXELS, *arrays, seen)
    right = pixel * np.exp(logs[np.tile(image, COPIES)])
    np.testing.assert_allclose(buffers.read(seen).reshape(n, 3), right, rtol=1e-5)
    gains.gains_backward(n, N_PIXELS, *arrays, seen, grad, by_gain)
    np.testing.assert_allclose(
        buffers.read(grad).reshape(n, 3), weight * np.exp(logs[np.tile(image, COPIES)]), rtol=1e-5
    )
    sums = np.ones((N_IMAGES, 3))  # what was there is added to
    np.add.at(sums, np.tile(image, COPIES), weight * right)  # of L = sum of weight * seen
    np.testing.assert_allclose(buffers.read(by_gain).reshape(-1, 3), sums, rtol=1e-4)


def test_gradients_of_moves_are_central_differences_of_the_moved_rays(cpu, rng):
    from kernels import poses

    n = N_PIXELS * COPIES
    image = rng.integers(0, N_IMAGES, N_PIXELS).astype(np.int32)
    o, d, by_o, by_d = rng.normal(size=(4, n, 3))
    found = buffers.array(6 * N_IMAGES)
    rays = [buffers.upload(a.astype(np.float32).reshape(-1)) for a in (o, d, by_o, by_d)]
    poses.move_gradients(n, N_PIXELS, buffers.upload(image), *rays, CENTRE.tolist(), UNIT, found)

    def loss(of: int, move: np.ndarray) -> float:
        total = 0.0
        for ray in np.flatnonzero(np.tile(image, COPIES) == of):
            moved = CENTRE + turned(move[:3], o[ray] - CENTRE) + UNIT * move[3:]
            total += by_o[ray] @ moved + by_d[ray] @ turned(move[:3], d[ray])
        return total

    right = np.array([[(loss(i, 1e-5 * e) - loss(i, -1e-5 * e)) / 2e-5 for e in np.eye(6)] for i in range(N_IMAGES)])
    np.testing.assert_allclose(buffers.read(found).reshape(-1, 6), right, rtol=1e-3, atol=1e-3)


def camera_array(rng):
    """A device table of cameras, and their axes and origins."""
    from kernels.rays import CAMERA

    table = np.zeros((N_IMAGES, CAMERA), np.float32)
    axes = np.linalg.qr(rng.normal(size=(N_IMAGES, 3, 3)))[0]
    axes *= np.linalg.det(axes)[:, None, None]
    origins = CENTRE + UNIT * rng.normal(size=(N_IMAGES, 3))
    table[:, :12] = np.concatenate([axes, origins[:, :, None]], 2).reshape(N_IMAGES, 12)
    return table, axes, origins


@pytest.mark.parametrize("size", [1e-4, 0.3])
def test_cameras_move_as_the_formula_says_and_keep_their_axes_at_right_angles(cpu, rng, size):
    from kernels import poses

    table, axes, origins = camera_array(rng)
    moves = size * rng.normal(size=(N_IMAGES, 6))
    cameras, given = buffers.upload(table.reshape(-1)), buffers.upload(moves.astype(np.float32).reshape(-1))
    poses.move_cameras(N_IMAGES, CENTRE.tolist(), UNIT, given, cameras)
    found = buffers.read(cameras).reshape(N_IMAGES, -1)[:, :12].reshape(N_IMAGES, 3, 4)
    for i, move in enumerate(moves):
        np.testing.assert_allclose(found[i, :, :3], turned(move[:3], axes[i]), atol=1e-5)
        at = CENTRE + turned(move[:3], origins[i] - CENTRE) + UNIT * move[3:]
        np.testing.assert_allclose(found[i, :, 3], at, atol=1e-5)
        np.testing.assert_allclose(found[i, :, :3] @ found[i, :, :3].T, np.eye(3), atol=1e-6)
    assert not buffers.read(given).any()


def test_what_moves_all_cameras_alike_is_taken_out_and_nothing_else(cpu, rng):
    from kernels import poses

    table, _, origins = camera_array(rng)
    arms = (origins - origins.mean(0)) / UNIT
    own = rng.normal(size=(N_IMAGES, 6))
    own -= own.mean(0)
    own[:, 3:] -= arms * (own[:, 3:] * arms).sum() / (arms * arms).sum()
    common = np.concatenate([np.ones((N_IMAGES, 1)) * [0.1, -0.2, 0.3], 0.5 * arms + [0.3, 0.1, -0.4]], 1)
    given = buffers.upload((own + common).astype(np.float32).reshape(-1))
    poses.take_out_common(N_IMAGES, UNIT, buffers.upload(table.reshape(-1)), given)
    np.testing.assert_allclose(buffers.read(given).reshape(N_IMAGES, 6), own, atol=1e-5)


SETTINGS = TrainConfig(
    field=FieldConfig(max_rank=4, density_shift=-3.0, decoder_width=32),
    schedule=ScheduleConfig(policy="fixed"),
    steps=24,
    batch_rays=256,
    grid_start=16,
    grid_end=20,
    grow_steps=(12,),
    occupancy_steps=(10,),
    occupancy_threshold=0.0042,
    report_every=8,
    image_gains=True,
    lr_gains=0.02,
    refine_poses=True,
    lr_poses=1e-3,
    poses_from=0.25,
)


@pytest.fixture(scope="module")
def scene(cpu):
    from tslim import builtin_scene

    return builtin_scene(size=32, train=6, test=0)


def finish(scene, settings=SETTINGS, until: int | None = None):
    from tslim.training.trainer import Trainer

    trainer = Trainer(Trainer.new_field(scene, settings), scene, settings)
    for event in trainer.run():
        if until is not None and event.step >= until and type(event).__name__ == "Stepped":
            break
    return trainer


def test_gains_and_poses_go_on_from_a_checkpoint_with_the_same_bits(scene):
    from tslim.training.trainer import Trainer

    whole = finish(scene)
    arrays, plain = finish(scene, until=15).state()
    other = Trainer(Trainer.new_field(scene, SETTINGS), scene, SETTINGS)
    other.load_state(arrays, plain)
    list(other.run())
    for name, values in whole.state()[0].items():
        assert np.array_equal(values, other.state()[0][name]), name
    moved = whole.refinement.poses()
    assert (np.abs(moved - scene.train.cameras.poses).max((1, 2)) > 1e-5).all()
    kept = whole.field.metadata
    np.testing.assert_allclose(list(kept["poses"].values()), moved, atol=1e-5)
    assert list(kept["gains"]) == list(scene.train.names)
    assert np.array_equal(whole.scene_as_learned().train.cameras.poses, moved)


def test_gains_of_photographs_are_found_from_their_errors(cpu, rng):
    """By the kernels and in the order of a training step, with what the field shows left as it is."""
    from kernels import adam
    from tslim.rendering.batch import Batch
    from tslim.training.gains import ImageGains

    n, right = 256, np.exp(rng.uniform(-0.2, 0.2, (N_IMAGES, 3)))
    right /= np.exp(np.log(right).mean(0))
    image, shown = rng.integers(0, N_IMAGES, n).astype(np.int32), rng.uniform(0.1, 0.7, (n, 3)).astype(np.float32)
    batch = Batch(n)
    batch.n_pixels = n
    buffers.write(batch.image, image)
    buffers.write(batch.target, (shown * right[image]).astype(np.float32).reshape(-1))
    learned = ImageGains(N_IMAGES, weight=0.0)
    m, v = (buffers.array(3 * N_IMAGES) for _ in range(2))
    for count in range(1, 81):
        buffers.write(batch.pixel, shown.reshape(-1))
        learned.apply(batch)
        batch.compare()
        learned.backward(batch)
        how = adam.AdamStep(
            lr=0.02, beta1=0.9, beta2=0.99, correction1=1 / (1 - 0.9**count), correction2=1 / (1 - 0.99**count),
            eps=1e-8,
        )  # fmt: skip
        adam.adam_flat(learned.values, learned.gradients, m, v, 0, 3 * N_IMAGES, how)
        learned.after_step()
    np.testing.assert_allclose(learned.host(), right, rtol=0.02)
    assert buffers.read(batch.loss).mean() < 1e-4
