"""Data sets as people have them, each with what is right about it in its README.txt: loaded as that says."""

import os
from pathlib import Path

import numpy as np
import pytest

from tslim.data import load_scene
from tslim.scene import lenses

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def case():
    """A function from a case's name to its scene; skips where the cases are absent."""
    base = Path(os.environ.get("TSLIM_CASES") or ROOT.parent / "shared" / "cases")

    def load(name: str, **options):
        if not (base / name).is_dir():
            pytest.skip(f"needs the case {name}: no folder {base / name} (set TSLIM_CASES to where the cases are)")
        return load_scene(base / name, **options)

    return load


CONTRACTED = ("b_nerfstudio_split", "b_opaque_world", "c_basename", "c_full_opencv_zero", "c_mask_jpg", "c_multi",
              "c_noblank", "c_simple_radial_fisheye", "l_360_both", "t_alpha_edge", "t_dynamic_mask", "t_mask01",
              "t_splitnames")  # fmt: skip


@pytest.mark.parametrize("name", CONTRACTED)
def test_a_capture_of_everything_around_is_one(name, case):
    scene = case(name)
    assert scene.space == "contracted" and scene.background is None
    assert np.abs(scene.box.mean(0)).max() < 0.2 and 1 < np.ptp(scene.box[:, 0]) / 2 < 2.5
    n = 38 if name == "c_multi" else 40
    assert len(scene.train) + len(scene.test) == n and len(scene.test) == 5


@pytest.mark.parametrize(
    ("name", "valid_share"),
    [("c_mask_jpg", 0.79), ("t_alpha_edge", 0.98), ("t_dynamic_mask", 0.82), ("t_mask01", 0.86)],
)
def test_masks_leave_out_what_they_should(name, valid_share, case):
    train = case(name).train
    assert np.mean([train.valid(i).mean() for i in range(len(train))]) == pytest.approx(valid_share, abs=0.01)


def test_lens_and_centre_are_those_of_the_reference(case):
    split, reference = case("b_split_lens_rgba"), case("b_split_lens_rgba_ref")
    for name in ("intrinsics", "distortion", "lens", "poses"):
        assert np.array_equal(getattr(split.train.cameras, name), getattr(reference.train.cameras, name)), name
    np.testing.assert_allclose(split.box, reference.box)


def test_lenses_are_what_they_are(case):
    fisheye = case("c_simple_radial_fisheye").train.cameras
    assert (fisheye.lens == lenses.FISHEYE).all()
    assert fisheye.distortion[0].tolist() == pytest.approx([0.04, *[0] * 7])
    assert (case("c_full_opencv_zero").train.cameras.lens == lenses.PINHOLE).all()


def test_scaled_rotations_are_rotations(case):
    scene = case("b_scaledR")
    assert "scale of 0.01" in scene.warnings[0] and scene.space == "box"


def test_the_richer_of_two_descriptions_is_read_and_the_larger_of_two_models(case):
    both = case("l_360_both")
    assert both.format == "colmap" and len(both.points) > 100
    np.testing.assert_allclose(both.train.cameras.intrinsics[0, 2:], [50.5, 46.2], atol=1e-3)
    assert "sparse/1 with 38 images is read, and not sparse/0 (4)" in case("c_multi").warnings[0]


def test_a_flight_sees_its_ground(case):
    scene = case("c_nadir")
    points = scene.points if scene.space == "ndc" else scene.points[:, :]
    if scene.space != "ndc":
        assert ((points > scene.box[0]) & (points < scene.box[1])).all(1).mean() > 0.5
    assert 20 < scene.near < 60


def test_the_space_can_be_asked_for(case):
    for space in ("box", "contracted"):
        assert case("b_opaque_world", space=space).space == space
    assert case("c_nadir", space="ndc").space == "ndc"
