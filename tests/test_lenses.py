import numpy as np
import pytest

from tslim.scene import lenses

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
