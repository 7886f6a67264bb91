import json
import struct

import captures
import numpy as np
import pytest
from PIL import Image

from tslim.data import load_scene, sniff_format
from tslim.scene import lenses
from tslim.scene.cameras import Cameras
from tslim.scene.domain import contract, to_ndc


def order(names: tuple[str, ...]) -> list[int]:
    """The numbers of the cameras that the names came from."""
    return [int("".join(c for c in name.split("/")[-1] if c.isdigit())[-4:]) for name in names]


@pytest.mark.parametrize("name", ["transforms", "colmap", "nsvf"])
def test_every_pixel_of_every_format_shows_what_its_ray_hits(name, tmp_path):
    captures.WRITERS[name](tmp_path)
    scene = load_scene(tmp_path)
    assert scene.format == name and sniff_format(tmp_path) == name
    tolerance = 0.03 if name == "colmap" else 0.006  # its images are JPEGs
    captures.assert_right(scene.train, tolerance)
    captures.assert_right(scene.test, tolerance)
    np.testing.assert_allclose(
        scene.train.cameras.poses, captures.ring().poses[order(scene.train.names)], atol=1e-5, err_msg="world moved"
    )


def test_a_wrong_convention_would_be_seen_by_that_test(tmp_path):
    captures.write_transforms(tmp_path)
    views = load_scene(tmp_path).train
    flipped = views.cameras.poses * np.array([1, -1, -1, 1])
    c = views.cameras
    assert captures.disagreement(views, 0, Cameras(flipped, c.intrinsics, c.sizes, c.lens, c.distortion)) > 0.2
    shifted = c.intrinsics + np.array([0, 0, 0.5, 0])
    assert captures.disagreement(views, 0, Cameras(c.poses, shifted, c.sizes, c.lens, c.distortion)) > 0.015


def test_llff_is_turned_and_moved_as_a_whole_so_that_the_mean_camera_is_the_origin(tmp_path):
    truth = captures.forward_facing()
    captures.write_llff(tmp_path, truth)
    scene = load_scene(tmp_path)
    assert scene.space == "ndc"
    loaded = Cameras.concatenate([scene.test.cameras, scene.train.cameras])
    names = scene.test.names + scene.train.names
    truth = truth[order(names)]

    def relative(cameras):
        square = np.tile(np.eye(4), (len(cameras), 1, 1))
        square[:, :3] = cameras.poses
        return np.linalg.inv(square[0]) @ square

    np.testing.assert_allclose(relative(loaded), relative(truth), atol=1e-5)
    np.testing.assert_allclose(loaded.origins.mean(0), 0, atol=1e-5)
    mean_back = loaded.poses[:, :, 2].mean(0)
    np.testing.assert_allclose(mean_back / np.linalg.norm(mean_back), [0, 0, 1], atol=1e-5)
    assert loaded.poses[:, 1, 1].min() > 0.9
    # the pictures belong to the poses: they show the world of the cameras as they stood before
    before = captures.forward_facing()[order(scene.train.names)]
    for i in range(len(scene.train)):
        assert captures.disagreement(scene.train, i, before) < 0.006


def test_ndc_box_holds_what_the_cameras_see_beyond_the_near_plane(tmp_path):
    captures.write_llff(tmp_path, bounds=(1.6, 9.0))
    scene = load_scene(tmp_path)
    assert scene.near == pytest.approx(0.75 * 1.6) and scene.far == pytest.approx(9)
    assert scene.box[:, 2].tolist() == [-1, 1]
    for i in range(len(scene.train)):
        origin, direction = scene.train.cameras.rays(i)
        start = (scene.near + origin[:, 2]) / -direction[:, 2]
        for far in (0, 0.3, 5, 1e5):
            at = to_ndc(origin + (start + far)[:, None] * direction, scene.near)
            assert (at > scene.box[0] - 1e-4).all() and (at < scene.box[1] + 1e-4).all()
    assert np.ptp(scene.box[:, :2], axis=0).max() < 8


def test_llff_cameras_all_around_are_contracted_instead(tmp_path):
    ring = captures.ring()
    middle = Cameras.pinhole(ring.poses, ring.intrinsics[0, 0], tuple(ring.sizes[0]))
    captures.write_llff(tmp_path, middle)
    scene = load_scene(tmp_path)
    assert scene.space == "contracted"
    captures.assert_right(scene.train)


def test_llff_focal_length_is_scaled_to_the_image_width(tmp_path):
    truth = captures.forward_facing()
    captures.write_llff(tmp_path, truth, factor=8)
    scene = load_scene(tmp_path, downscale=8)
    np.testing.assert_allclose(scene.train.cameras.intrinsics, truth.intrinsics[1:8].tolist() + [truth.intrinsics[9]])
    assert scene.warnings == ()
    assert "images_8, 8 times smaller" in load_scene(tmp_path).warnings[0]


def test_the_smallest_fitting_image_folder_is_taken(tmp_path):
    full = captures.forward_facing(size=(72, 48))
    captures.write_llff(tmp_path, full)
    captures.take_images(full.scaled(1 / 4), [f"images_4/{i:03}.png" for i in range(10)], tmp_path)
    assert load_scene(tmp_path).train.names[0] == "images/001.png"
    assert load_scene(tmp_path, downscale=2).train.names[0] == "images/001.png"
    quarter = load_scene(tmp_path, downscale=4).train
    assert quarter.names[0] == "images_4/001.png" and quarter.cameras.sizes[0].tolist() == [18, 12]
    eighth = load_scene(tmp_path, downscale=8).train
    assert eighth.names[0] == "images_4/001.png" and eighth.cameras.sizes[0].tolist() == [9, 6]
    assert captures.disagreement(eighth, 0, full.scaled(1 / 8)[1:]) < 0.05


RADIAL = (lenses.RADIAL, (-0.15, 0.04, 0.004, -0.003))
FISHEYE = (lenses.FISHEYE, (-0.03, 0.008, -0.002, 0.0004))


@pytest.mark.parametrize(
    "lens",
    [
        FISHEYE,
        (lenses.POLYNOMIAL, (-0.15, 0.04, 0.01, -0.02, 0.004, -0.003)),
        (lenses.RADIAL, (-0.1, 0.03, 0.001, 0.002, -0.01, 0.2, 0.05, 0.01)),
        (lenses.FISHEYE, (-0.03, 0.008, -0.002, 0.0004, 0.003, -0.002)),
    ],
)
def test_transforms_lens_models(lens, tmp_path):
    captures.write_transforms(tmp_path, captures.with_lens(captures.ring(), *lens))
    scene = load_scene(tmp_path)
    assert (scene.train.cameras.lens == lens[0]).all()
    captures.assert_right(scene.train)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("model", captures.COLMAP_MODELS)
def test_colmap_lens_models_binary_and_text(model, text, tmp_path):
    cameras = captures.ring()
    if model.startswith("SIMPLE") or model.startswith("RADIAL"):
        k = cameras.intrinsics.copy()
        k[:, 1] = k[:, 0]
        cameras = Cameras(cameras.poses, k, cameras.sizes, cameras.lens, cameras.distortion)
    lens = {
        "SIMPLE_RADIAL": (lenses.RADIAL, (-0.1,)),
        "RADIAL": (lenses.RADIAL, (-0.1, 0.02)),
        "OPENCV": RADIAL,
        "OPENCV_FISHEYE": FISHEYE,
        "FULL_OPENCV": (lenses.RADIAL, (-0.15, 0.04, 0.004, -0.003, 0.02, 0.1, 0.05, -0.02)),
        "SIMPLE_RADIAL_FISHEYE": (lenses.FISHEYE, (0.04,)),
        "RADIAL_FISHEYE": (lenses.FISHEYE, (0.04, -0.01)),
        "THIN_PRISM_FISHEYE": (lenses.FISHEYE, (0.04, -0.01, 0.003, -0.001, 0.004, -0.003, 0.002, -0.001)),
    }.get(model, (lenses.PINHOLE, ()))
    captures.write_colmap(tmp_path, captures.with_lens(cameras, *lens), model=model, text=text)
    scene = load_scene(tmp_path)
    assert (scene.train.cameras.lens == lens[0]).all()
    assert len(scene.points) == 200
    captures.assert_right(scene.train, 0.03)
    captures.assert_right(scene.test, 0.03)


def test_a_lens_whose_coefficients_are_all_zero_is_a_pinhole(tmp_path):
    captures.write_colmap(tmp_path, model="FULL_OPENCV", text=True)
    scene = load_scene(tmp_path)
    assert (scene.train.cameras.lens == lenses.PINHOLE).all()
    captures.assert_right(scene.train, 0.03)


@pytest.mark.parametrize("key", [{}, {"camera_model": None, "equirectangular": True}])
def test_equirectangular_pictures_show_all_directions(key, tmp_path):
    inside = captures.ring(size=(48, 24))
    around = Cameras(inside.poses, [[24 / np.pi, 24 / np.pi, 24, 12]] * 10, inside.sizes, [3] * 10, inside.distortion)
    data = captures.write_transforms(tmp_path, around)
    for name in ("fl_x", "fl_y", "cx", "cy"):
        del data[name]
    captures.save_json(tmp_path, data | key)
    scene = load_scene(tmp_path)
    assert (scene.train.cameras.lens == lenses.EQUIRECTANGULAR).all()
    captures.assert_right(scene.train)
    said = [line for line in scene.warnings if "instant-ngp means one of equal areas" in line]
    assert len(said) == len(key) // 2


def test_transforms_frames_may_have_their_own_lens_and_size(tmp_path):
    a, b = captures.ring(size=(36, 24)), captures.with_lens(captures.ring(size=(20, 30)), *RADIAL)
    data = captures.write_two_lenses(tmp_path, a, b, dict(zip(("k1", "k2", "p1", "p2"), RADIAL[1], strict=True)))
    captures.save_json(tmp_path, data)
    scene = load_scene(tmp_path)
    assert {tuple(size) for size in scene.train.cameras.sizes.tolist()} == {(36, 24), (20, 30)}
    captures.assert_right(scene.train)


def test_transforms_field_of_view_in_place_of_focal_lengths(tmp_path):
    cameras = captures.ring()
    fx, fy = cameras.intrinsics[0, :2].astype(float)
    data = captures.write_transforms(tmp_path, cameras)
    for key in ("fl_x", "fl_y", "w", "h"):
        del data[key]
    data |= {"camera_angle_x": 2 * np.arctan(18 / fx), "camera_angle_y": 2 * np.arctan(12 / fy)}
    captures.save_json(tmp_path, data)
    captures.assert_right(load_scene(tmp_path).train)


def test_applied_transform_is_already_in_the_poses(tmp_path):
    captures.write_transforms(tmp_path, applied_transform=[[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 5]])
    captures.assert_right(load_scene(tmp_path).train)


def test_transforms_split_by_file_names(tmp_path):
    names = [f"images/{i:04}.png" for i in range(10)]
    captures.write_transforms(
        tmp_path, train_filenames=names[:6], val_filenames=names[6:8], test_filenames=[names[8], "images/none.png"]
    )
    scene = load_scene(tmp_path)
    assert scene.train.names == tuple(names[:6]) and scene.test.names == (names[8],)
    assert scene.warnings == ("1 of the 2 test_filenames are no frames (the first is images/none.png)",)


def test_an_image_is_never_in_both_splits(tmp_path):
    names = [f"images/{i:04}.png" for i in range(10)]
    captures.write_transforms(tmp_path, train_filenames=names, test_filenames=names[:2])
    scene = load_scene(tmp_path)
    assert scene.train.names == tuple(names[2:]) and scene.test.names == tuple(names[:2])
    assert "2 train_filenames are also held out" in scene.warnings[0]


@pytest.mark.parametrize("name", ["transforms", "colmap", "llff"])
def test_every_eighth_image_by_name_is_held_out_where_there_is_no_split(name, tmp_path):
    captures.WRITERS[name](tmp_path)
    scene = load_scene(tmp_path)
    assert order(scene.test.names) == [0, 8]
    assert order(scene.train.names) == [1, 2, 3, 4, 5, 6, 7, 9]


def test_nsvf_prefixes_and_box(tmp_path):
    captures.write_nsvf(tmp_path)
    scene = load_scene(tmp_path)
    assert scene.space == "box" and scene.box.tolist() == [[-1, -1.5, -0.5], [1, 1.5, 0.75]]
    assert order(scene.test.names) == [3, 7] and len(scene.train) == 8
    captures.write_nsvf(tmp_path / "b", names=[f"{int(i > 5) + int(i > 7)}_{i:04}" for i in range(10)])
    scene = load_scene(tmp_path / "b")
    assert order(scene.train.names) == [0, 1, 2, 3, 4, 5] and order(scene.test.names) == [8, 9]
    captures.write_nsvf(tmp_path / "c", names=[f"view{i:04}" for i in range(10)])
    assert order(load_scene(tmp_path / "c").test.names) == [0, 8]


def test_nsvf_old_form_of_intrinsics(tmp_path):
    ring = captures.ring()
    k = ring.intrinsics.copy()
    k[:, 1] = k[:, 0]
    captures.write_nsvf(tmp_path, Cameras(ring.poses, k, ring.sizes, ring.lens, ring.distortion))
    (tmp_path / "intrinsics.txt").write_text(f"{k[0, 0]} {k[0, 2]} {k[0, 3]} 0.\n0. 0. 0.\n1.\n0.\n36 24\n")
    captures.assert_right(load_scene(tmp_path).train)


def test_ray_limits_of_a_box_enclose_it_for_every_ray(tmp_path):
    captures.write_nsvf(tmp_path)
    scene = load_scene(tmp_path)
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * np.ptp(scene.box, axis=0)
    distance = np.linalg.norm(scene.train.cameras.origins[:, None] - (corners + scene.box[0]), axis=-1)
    assert scene.near < distance.min() and scene.far > distance.max()


def test_a_small_aabb_scale_is_an_object_in_the_unit_cube(tmp_path):
    captures.write_transforms(tmp_path, aabb_scale=1)
    scene = load_scene(tmp_path)
    assert scene.space == "box"
    np.testing.assert_allclose(scene.box, [[-0.5 / 0.33] * 3, [0.5 / 0.33] * 3], rtol=1e-6)
    captures.write_transforms(tmp_path, aabb_scale=1, scale=0.5, offset=[0.5, 0.5, 0.25])
    np.testing.assert_allclose(load_scene(tmp_path).box, [[-1, -1, -0.5], [1, 1, 1.5]], rtol=1e-6)


def test_transparent_images_without_aabb_scale_are_an_object_that_the_cameras_surround(tmp_path):
    data = captures.write_transforms(tmp_path)
    del data["aabb_scale"]
    captures.save_json(tmp_path, data)
    assert load_scene(tmp_path).space == "contracted"
    for i in range(10):
        rgba = Image.open(tmp_path / f"images/{i:04}.png").convert("RGBA")
        rgba.paste((0, 0, 0, 0), (0, 0, 36, 8))
        rgba.save(tmp_path / f"images/{i:04}.png")
    scene = load_scene(tmp_path, background="black")
    assert scene.space == "box" and scene.background == (0, 0, 0)
    assert np.abs(scene.box.mean(0)).max() < 0.3 and 0.3 < np.ptp(scene.box[:, 0]) / 2 < 3
    assert scene.near < 2 and scene.far > 3


def test_a_contracted_box_is_a_cube_around_what_the_cameras_look_at(tmp_path):
    captures.write_colmap(tmp_path)
    scene = load_scene(tmp_path)
    assert scene.space == "contracted" and scene.background is None
    side = np.ptp(scene.box, axis=0)
    np.testing.assert_allclose(side, side[0], rtol=1e-6)
    assert np.abs(scene.box.mean(0)).max() < 0.3
    assert side[0] == pytest.approx(3.1, rel=0.15)  # the cameras stand 3.1 from the middle
    assert 0 < scene.near < 2 and scene.far > 10 * side[0]


def ply_header(form: str, count: int) -> str:
    return (
        f"ply\nformat {form} 1.0\ncomment by hand\nelement vertex {count}\nproperty float x\nproperty double y\n"
        "property uchar red\nproperty float z\nelement face 0\nproperty list uchar int vertex_indices\nend_header\n"
    )


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_points_of_a_ply_file_set_the_ray_limits(form, tmp_path):
    points = np.random.default_rng(0).normal(0, 0.2, (50, 3)).astype(np.float32)
    if form == "ascii":
        body = "".join(f"{x} {y} 7 {z}\n" for x, y, z in points.tolist()).encode()
    else:
        order = "<" if "little" in form else ">"
        body = b"".join(struct.pack(order + "fdBf", x, y, 7, z) for x, y, z in points.tolist())
    captures.write_transforms(tmp_path, ply_file_path="sparse_pc.ply")
    assert "sparse_pc.ply are missing" in load_scene(tmp_path).warnings[0]
    (tmp_path / "sparse_pc.ply").write_bytes(ply_header(form, 50).encode() + body)
    scene = load_scene(tmp_path)
    np.testing.assert_array_equal(scene.points, points)
    (tmp_path / "sparse_pc.ply").unlink()
    assert scene.near > 1.5 * load_scene(tmp_path).near  # the points are 2 to 4 away; without them: a cautious guess


def test_contraction_by_hand():
    box = np.array([[-1.0, -1, -1], [3, 3, 3]])  # centre 1, half side 2
    points = np.array([[1.0, 1, 1], [2, 0, 1], [9, 1, 3], [1, -9, 3]])
    # (9 − 1) / 2 = 4 → 2 − 1/4 = 1.75; (3 − 1) / 2 / 4 = 0.25; (−9 − 1) / 2 = −5 → −1.8; 1 / 5 = 0.2
    expected = [[0, 0, 0], [0.5, -0.5, 0], [1.75, 0, 0.25], [0, -1.8, 0.2]]
    np.testing.assert_allclose(contract(points, box), expected)


def test_missing_images_are_skipped_with_one_warning(tmp_path):
    captures.write_transforms(tmp_path)
    for i in (2, 5, 7):
        (tmp_path / f"images/{i:04}.png").unlink()
    scene = load_scene(tmp_path)
    assert len(scene.train) + len(scene.test) == 7
    assert scene.warnings == ("3 of the 10 listed images are missing and were skipped (the first is images/0002.png)",)


def test_colmap_skips_images_without_a_pose_and_poses_without_an_image(tmp_path):
    captures.write_colmap(tmp_path)
    (tmp_path / "images/0003.jpg").unlink()
    captures.take_images(captures.ring()[:1], ["images/unplaced.jpg"], tmp_path)
    warnings = load_scene(tmp_path).warnings
    assert warnings == (
        "1 of the 10 listed images are missing and were skipped (the first is 0003.jpg)",
        "1 images in images have no pose in the COLMAP model and were skipped",
    )


def test_colmap_without_points_still_loads(tmp_path):
    captures.write_colmap(tmp_path)
    (tmp_path / "sparse/0/points3D.bin").unlink()
    scene = load_scene(tmp_path)
    assert scene.points is None and "no points3D" in scene.warnings[0]


def test_nsvf_skips_images_without_a_pose_and_poses_without_an_image(tmp_path):
    captures.write_nsvf(tmp_path)
    (tmp_path / "rgb/0_0001.png").unlink()
    (tmp_path / "pose/0_0002.txt").unlink()
    scene = load_scene(tmp_path)
    assert order(scene.train.names) == [0, 4, 5, 6, 8, 9]
    assert [w.split(" and ")[0] for w in scene.warnings[:2]] == [
        "1 of the 9 listed images are missing",
        "1 images in rgb have no file in pose",
    ]


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_rotation_is_undone_only_where_the_camera_asks_for_it(orientation, tmp_path):
    """Pose tools look at the pixels as stored: only a picture whose proportions are wrong unless it is turned, is."""
    captures.write_colmap(tmp_path)
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for i in range(10):
        path = tmp_path / f"images/{i:04}.jpg"
        image = Image.open(path)
        if orientation != 3 and i % 2:
            image = image.transpose(back)  # what a phone stores
        image.save(path, exif=exif, quality=98, subsampling=0)
    scene = load_scene(tmp_path)
    captures.assert_right(scene.train, 0.04)
    captures.assert_right(scene.test, 0.04)


def test_copies_of_another_size_get_scaled_cameras(tmp_path):
    full = captures.ring(size=(72, 48))
    captures.write_colmap(tmp_path, full)
    captures.take_images(
        full.scaled(0.5), [f"images/{i:04}.jpg" for i in range(10)], tmp_path, quality=98, subsampling=0
    )
    scene = load_scene(tmp_path)
    assert scene.train.cameras.sizes[0].tolist() == [36, 24]
    captures.assert_right(scene.train, 0.03)


@pytest.mark.parametrize("name", ["transforms", "colmap", "nsvf"])
def test_downscaled_cameras_still_see_what_the_pixels_show(name, tmp_path):
    captures.WRITERS[name](tmp_path, captures.ring(size=(73, 50)))
    scene = load_scene(tmp_path, downscale=2)
    assert scene.train.cameras.sizes[0].tolist() == [36, 25]
    captures.assert_right(scene.train, 0.03)


def test_masks_make_pixels_unknown(tmp_path):
    """Black in a mask becomes alpha 0, and the scene has no background: such pixels say nothing."""
    mask = np.full((24, 36), 255, np.uint8)
    mask[:, :9] = 0
    captures.write_colmap(tmp_path / "colmap")
    data = captures.write_transforms(tmp_path / "json")
    for i in range(10):
        (tmp_path / "colmap/masks").mkdir(exist_ok=True)
        (tmp_path / "json/masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / f"colmap/masks/{i:04}.jpg.png")
        Image.fromarray(mask).save(tmp_path / f"json/masks/m{i}.png")
        data["frames"][i]["mask_path"] = f"masks/m{i}.png"
    captures.save_json(tmp_path / "json", data)
    for folder in ("colmap", "json"):
        scene = load_scene(tmp_path / folder)
        assert scene.background is None and scene.space == "contracted"
        for i in range(len(scene.train)):
            np.testing.assert_array_equal(scene.train.rgba(i)[..., 3], mask)


def test_names_with_spaces_and_other_scripts(tmp_path):
    names = [f"Fotos à trier/Ünï {i:04} 日本.png" for i in range(10)]
    captures.write_transforms(tmp_path / "мой дом", names=names)
    assert load_scene(tmp_path / "мой дом").train.names[0] == names[1]
    jpegs = [f"Ünï {i:04} 日本.jpg" for i in range(10)]
    captures.write_colmap(tmp_path / "b", names=jpegs)
    assert load_scene(tmp_path / "b").train.names[0] == jpegs[1]
    captures.write_colmap(tmp_path / "c", names=jpegs, text=True)
    assert load_scene(tmp_path / "c").train.names[0] == jpegs[1]


def test_images_behind_symbolic_links_load(tmp_path):
    captures.write_transforms(tmp_path / "scene")
    (tmp_path / "scene/images").rename(tmp_path / "elsewhere")
    (tmp_path / "scene/images").symlink_to(tmp_path / "elsewhere")
    assert len(load_scene(tmp_path / "scene").train) == 8


def test_extensions_may_be_left_out_or_absolute_paths_point_inside(tmp_path):
    data = captures.write_transforms(tmp_path)
    for i, frame in enumerate(data["frames"]):
        frame["file_path"] = f"./images/{i:04}" if i % 2 else str(tmp_path / frame["file_path"])
    captures.save_json(tmp_path, data)
    assert len(load_scene(tmp_path).train) == 8


def test_max_images_keeps_evenly_spaced_ones_of_each_split(tmp_path):
    captures.write_colmap(tmp_path)
    scene = load_scene(tmp_path, max_images=4)
    assert order(scene.train.names) == [1, 3, 5, 7] and order(scene.test.names) == [0, 8]


def test_a_json_of_ten_thousand_frames_with_one_bad_entry_names_it_quickly(tmp_path):
    data = captures.write_transforms(tmp_path)
    (tmp_path / "images").rename(tmp_path / "kept")
    (tmp_path / "images").mkdir()
    pose = data["frames"][0]["transform_matrix"]
    data["frames"] = [{"file_path": f"images/{i}.png", "transform_matrix": pose} for i in range(10_000)]
    for i in range(10_000):
        (tmp_path / f"images/{i}.png").symlink_to(tmp_path / "kept/0000.png")
    bad = json.loads(json.dumps(pose))
    bad[1][2] = float("nan")
    data["frames"][7777]["transform_matrix"] = bad
    captures.save_json(tmp_path, data)
    with pytest.raises(ValueError, match=r"transforms.json: frame images/7777.png has NaN"):
        load_scene(tmp_path)


@pytest.mark.parametrize("circle", [True, False])
def test_the_black_around_a_fisheyes_circle_is_left_out_and_dark_pictures_are_not(circle, tmp_path):
    cameras = captures.with_lens(captures.ring(), lenses.FISHEYE, (0.01,))
    data = captures.write_transforms(tmp_path, cameras)
    x, y = np.meshgrid(np.arange(36) + 0.5, np.arange(24) + 0.5)
    outside = np.hypot(x - data["cx"], (y - data["cy"]) * data["fl_x"] / data["fl_y"]) > 12.5
    rng = np.random.default_rng(0)
    for file in sorted((tmp_path / "images").iterdir()):
        picture = np.array(Image.open(file).convert("RGB")).astype(np.float64) / 2 + 60
        if circle:
            picture[outside] = rng.uniform(0, 20, (outside.sum(), 3))  # as noisy as sensors are
        else:
            picture[:, :18] = 5  # half of it in the dark, as far as the corners
        Image.fromarray(picture.astype(np.uint8)).save(file)
    scene = load_scene(tmp_path)
    valid = np.stack([scene.train.valid(i) for i in range(len(scene.train))])
    said = [line for line in scene.warnings if "image circle" in line]
    if circle:
        assert said and not valid[:, outside].any() and valid[:, ~outside].mean() > 0.93
        assert len(scene.test) and not scene.test.valid(0)[outside].any()
        assert scene.space != "box" and scene.background is None
    else:
        assert not said and valid.all()
