import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tslim.data import shots
from tslim.errors import SceneError
from tslim.scene import lenses
from tslim.scene.cameras import Cameras

K = np.array([100.0, 110.0, 50.0, 40.0])
PIXELS = np.stack(np.meshgrid(np.linspace(0, 100, 11), np.linspace(0, 80, 9)), -1)
LENSES = {
    "pinhole": (lenses.PINHOLE, []),
    "fox": (lenses.RADIAL, [0.0578421, -0.0805099, -0.000980296, 0.00015575]),
    "barrel": (lenses.RADIAL, [-0.3, 0.12, 0.002, -0.003, -0.02]),
    "ideal fisheye": (lenses.FISHEYE, []),
    "fisheye": (lenses.FISHEYE, [-0.05, 0.01, -0.004, 0.0006]),
}


def eight(coefficients):
    return np.array([*coefficients, *[0.0] * (8 - len(coefficients))])


@pytest.mark.parametrize("name", LENSES)
def test_a_ray_projects_back_to_its_pixel(name):
    lens, c = LENSES[name]
    rays = lenses.directions(PIXELS, K, lens, eight(c))
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1, atol=1e-12)
    np.testing.assert_allclose(lenses.project(2.5 * rays, K, lens, eight(c)), PIXELS, atol=1e-9)
    assert lenses.worst_inversion_error((100, 80), K, lens, eight(c)) < 1e-6


def test_a_pinhole_ray_goes_right_and_up_for_a_pixel_right_of_and_above_the_centre():
    # (60 − 50) / 100 = 0.1 right; (40 − 18) / 110 = 0.2 up; the camera looks along −z
    ray = lenses.directions(np.array([60.0, 18.0]), K)
    np.testing.assert_allclose(ray / -ray[2], [0.1, 0.2, -1])


def test_radial_tangential_distortion_by_hand():
    # x = 0.2, y = −0.1 (down): r² = 0.05; factor = 1 + 0.1·0.05 + 0.2·0.0025 + 0.4·0.000125 = 1.00555
    # x' = 0.2·1.00555 + 2·0.01·0.2·(−0.1) + 0.02·(0.05 + 2·0.04) = 0.20111 − 0.0004 + 0.0026 = 0.20331
    # y' = −0.1·1.00555 + 0.01·(0.05 + 2·0.01) + 2·0.02·0.2·(−0.1) = −0.100555 + 0.0007 − 0.0008 = −0.100655
    point = np.array([0.2, 0.1, -1.0])  # OpenGL: y up
    found = lenses.project(point, K, lenses.RADIAL, eight([0.1, 0.2, 0.01, 0.02, 0.4]))
    np.testing.assert_allclose(found, [50 + 100 * 0.20331, 40 - 110 * 0.100655], atol=1e-9)


def test_an_ideal_fisheye_keeps_angles():
    # 30° to the right of the axis lands θ = π/6 focal lengths from the centre
    point = np.array([np.sin(np.pi / 6), 0, -np.cos(np.pi / 6)])
    np.testing.assert_allclose(lenses.project(point, K, lenses.FISHEYE, eight([])), [50 + 100 * np.pi / 6, 40])


def test_a_fisheye_sees_beyond_ninety_degrees():
    pixel = np.array([50 + 100 * np.radians(100), 40])
    ray = lenses.directions(pixel, K, lenses.FISHEYE)
    np.testing.assert_allclose(ray, [np.sin(np.radians(100)), 0, -np.cos(np.radians(100))], atol=1e-12)
    np.testing.assert_allclose(lenses.project(3 * ray, K, lenses.FISHEYE), pixel)


def test_without_distortion_the_radial_lens_is_the_pinhole():
    rays = lenses.directions(PIXELS, K, lenses.RADIAL, eight([]))
    np.testing.assert_allclose(rays, lenses.directions(PIXELS, K), atol=1e-12)


def test_a_point_behind_a_pinhole_has_no_pixel():
    assert np.isnan(lenses.project(np.array([0.1, 0.1, 1.0]), K)).all()


@pytest.mark.parametrize(
    ("lens", "coefficients"),
    [(lenses.RADIAL, [-4.0]), (lenses.RADIAL, [50.0, -900.0]), (lenses.FISHEYE, [-3.0]), (lenses.RADIAL, [1e9, -1e12])],
)
def test_a_lens_that_folds_the_picture_is_found(lens, coefficients):
    assert lenses.worst_inversion_error((100, 80), K, lens, eight(coefficients)) > 0.1


MODELS = {
    **LENSES,
    "the issue's wide barrel": (lenses.RADIAL, [-0.28, 0.07]),
    "full OpenCV": (lenses.RADIAL, [0.4, 0.2, 0.001, -0.002, 0.05, 0.6, 0.25, 0.03]),
    "a pole near the corner": (lenses.RADIAL, [-0.16, 0.21, 0.001, -0.006, -0.087, -0.341, -0.019, -0.057]),
    "four radial terms": (lenses.POLYNOMIAL, [-0.2, 0.06, -0.01, 0.002, 0.001, -0.002]),
    "fisheye with tangential terms and thin prism": (
        lenses.FISHEYE,
        [0.03, -0.01, 0.003, 0, 0.002, -0.001, 0.003, 1e-3],
    ),
    "equirectangular": (lenses.EQUIRECTANGULAR, []),
}
"""Name → lens and coefficients; ``WIDTHS`` has the pictures' half widths, in focal lengths."""
WIDTHS = {
    "fisheye": 2.4,
    "ideal fisheye": 2.6,
    "fisheye with tangential terms and thin prism": 2.2,
    "equirectangular": np.pi,
}


def camera_of(lens, coefficients, half_width=0.9, width=1920, height=1080):
    """One camera whose centre is off the middle, turned somehow."""
    focal = 0.5 * width / half_width
    focals = (focal, height / np.pi) if lens == lenses.EQUIRECTANGULAR else (focal, 1.02 * focal)
    pose = Cameras.look_at([[1.0, 2.0, 3.0]], (0.3, -0.2, 0.5), (0, 0, 1), 50, (4, 4)).poses
    middle = (0.5 * width, 0.5 * height) if lens == lenses.EQUIRECTANGULAR else (0.49 * width, 0.52 * height)
    return Cameras(pose, [[*focals, *middle]], [[width, height]], [lens], [eight(coefficients)])


def pixels_off(camera, shrink=48) -> float:
    """How far device rays are from host rays at most, in pixels of the picture: their angle over that to a neighbour.

    A picture ``shrink`` times smaller is rendered, which shows the same rays, but fewer of them.
    """
    from kernels import rays as kernels
    from tslim.rendering.camera_table import camera_table

    small = camera.scaled(1 / shrink)
    width, height = (int(s) for s in small.sizes[0])
    made, origins = np.zeros(3 * width * height, np.float32), np.zeros(3 * width * height, np.float32)
    kernels.image_rays(width * height, 0, 0, width, camera_table(small), origins, made)
    made = made.reshape(-1, 3).astype(np.float64)
    assert np.abs(np.linalg.norm(made, axis=1) - 1).max() < 1e-6
    pixels = small.pixel_centers()
    _, wanted = small.rays(0, pixels)
    pitch = [np.linalg.norm(small.rays(0, pixels + step)[1] - wanted, axis=1) for step in ((0.02, 0), (0, 0.02))]
    return float((np.linalg.norm(made - wanted, axis=1) / np.minimum(*pitch)).max()) * 0.02 * shrink


@pytest.mark.parametrize("name", MODELS)
def test_the_device_sees_what_the_host_sees_to_a_hundredth_of_a_pixel(name, cpu):
    lens, coefficients = MODELS[name]
    camera = camera_of(lens, coefficients, WIDTHS.get(name, 0.9))
    assert lenses.worst_inversion_error((1920, 1080), camera.intrinsics[0], lens, camera.distortion[0]) < 1e-6
    assert pixels_off(camera) < 0.01


def test_host_and_device_name_lenses_alike(cpu):
    from kernels import lenses as device

    for name in (
        "PINHOLE",
        "RADIAL",
        "FISHEYE",
        "EQUIRECTANGULAR",
        "POLYNOMIAL",
        "TABLE",
        "RADIUS_STEPS",
        "PLANE_STEPS",
    ):
        assert getattr(device, name) == getattr(lenses, name)


small = st.floats(-0.01, 0.01)
RANDOM_LENSES = st.one_of(
    st.tuples(
        st.just(lenses.RADIAL),
        st.tuples(*[st.floats(-0.5, 0.5)] * 2, small, small, *[st.floats(-0.3, 0.3)] * 4),
    ),
    st.tuples(st.just(lenses.POLYNOMIAL), st.tuples(*[st.floats(-0.4, 0.4)] * 4, *[small] * 4)),
    st.tuples(st.just(lenses.FISHEYE), st.tuples(*[st.floats(-0.1, 0.1)] * 4, *[small] * 4)),
    st.tuples(st.just(lenses.FISHEYE), st.tuples(*[st.floats(-0.1, 0.1)] * 4)),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(RANDOM_LENSES, st.floats(0.2, 2.8))
def test_every_lens_that_is_accepted_is_rendered_as_the_host_has_it(cpu, lens, half_width):
    camera = camera_of(*lens, half_width)
    values = tuple(camera.intrinsics[0].tolist()), lens[0], tuple(camera.distortion[0].tolist())
    try:
        shots.check_camera("random", (1920, 1080), *values)
    except SceneError:
        assume(False)
    assert pixels_off(camera) < 0.01


def test_a_coefficient_next_to_nothing_folds_no_lens_and_divides_nothing():
    """Found by fuzzing: COLMAP's numbers reach down to 5e-324, and what is divided by that overflows."""
    for smallest in (5e-324, -1e-310, 1e-308):
        assert lenses.max_radius(lenses.RADIAL, np.array([0.01, smallest, 0, 0, 0, 0, 0, 0])) > 10
        bent = np.array([-0.3, 0, 0, 0, smallest, 0, 0, 0])
        alone = np.array([-0.3, 0, 0, 0, 0, 0, 0, 0])
        assert np.isclose(lenses.max_radius(lenses.RADIAL, bent), lenses.max_radius(lenses.RADIAL, alone))
