"""transforms*.json is read in one way, whatever the file is called, and what is not used is named."""

import json

import captures
import numpy as np
import pytest

from tslim.data import load_scene
from tslim.errors import SceneError
from tslim.scene import lenses
from tslim.scene.cameras import Cameras

LENS = (lenses.POLYNOMIAL, (-0.15, 0.04, 0.01, -0.02, 0.004, -0.003))
TEST = (0, 4, 8)


def split(folder, data, beside=False, **for_train):
    """The same frames in transforms_train.json and transforms_test.json; ``beside`` keeps transforms.json, too."""
    frames = data["frames"]
    top = {k: v for k, v in data.items() if k != "frames"}
    for name, numbers in (("train", set(range(len(frames))) - set(TEST)), ("test", TEST)):
        listed = [frames[i] for i in sorted(numbers)]
        (folder / f"transforms_{name}.json").write_text(json.dumps(top | for_train | {"frames": listed}))
    if not beside:
        (folder / "transforms.json").unlink()


def angles(cameras: Cameras) -> dict:
    """Only what NeRF-synthetic's files say of a lens."""
    return {"camera_angle_x": 2 * np.arctan(18 / float(cameras.intrinsics[0, 0]))}


@pytest.mark.parametrize("name", ["transforms.json", "split", "transforms_of_mine.json"])
def test_lens_centre_and_both_focal_lengths_are_read_from_a_file_of_any_name(name, tmp_path):
    data = captures.write_transforms(tmp_path, captures.with_lens(captures.ring(), *LENS))
    if name == "split":
        split(tmp_path, data)
    else:
        (tmp_path / "transforms.json").rename(tmp_path / name)
    scene = load_scene(tmp_path)
    assert scene.format == ("blender" if name == "split" else "transforms") and scene.space == "contracted"
    captures.assert_right(scene.train)
    captures.assert_right(scene.test)
    assert scene.warnings == ()


def test_values_of_single_frames_are_read_in_split_files(tmp_path):
    plain, bent = captures.ring(), captures.with_lens(captures.ring(size=(20, 30)), *LENS)
    lens = dict(zip(("k1", "k2", "k3", "k4", "p1", "p2"), LENS[1], strict=True))
    data = captures.write_two_lenses(tmp_path, plain, bent, lens)
    split(tmp_path, data)
    scene = load_scene(tmp_path)
    captures.assert_right(scene.train)
    captures.assert_right(scene.test)


def test_split_files_that_leave_the_lens_to_transforms_json_get_it(tmp_path):
    cameras = captures.with_lens(captures.ring(), *LENS)
    data = captures.write_transforms(tmp_path, cameras)
    bare = {"frames": data["frames"], **angles(cameras)}
    split(tmp_path, bare, beside=True)
    scene = load_scene(tmp_path)
    captures.assert_right(scene.train)
    captures.assert_right(scene.test)
    assert scene.warnings == ()


def test_a_transforms_json_about_another_world_is_not_mixed_in(tmp_path):
    cameras = captures.ring()
    k = cameras.intrinsics.copy()
    k[:, 1], k[:, 2:] = k[:, 0], (18, 12)
    cameras = Cameras(cameras.poses, k, cameras.sizes, cameras.lens, cameras.distortion)
    data = captures.write_transforms(tmp_path, cameras)
    split(tmp_path, {"frames": data["frames"], **angles(cameras)}, beside=True)
    for frame in data["frames"]:
        frame["transform_matrix"][0][3] += 1.0
    captures.save_json(tmp_path, data | {"k1": 0.3, "fl_x": 99.0})
    scene = load_scene(tmp_path)
    captures.assert_right(scene.train)
    assert "transforms.json is about other photographs or poses" in scene.warnings[0]


def test_test_frames_without_a_lens_have_that_of_the_training_frames(tmp_path):
    data = captures.write_transforms(tmp_path, captures.with_lens(captures.ring(), *LENS))
    split(tmp_path, data)
    path = tmp_path / "transforms_test.json"
    path.write_text(json.dumps({"frames": json.loads(path.read_text())["frames"]}))
    captures.assert_right(load_scene(tmp_path).test)


@pytest.mark.parametrize("scale", [0.33, 0.5])
def test_the_unit_cube_is_read_from_split_files(scale, tmp_path):
    data = captures.write_transforms(tmp_path, aabb_scale=1, scale=scale, offset=[0.5, 0.5, 0.25])
    split(tmp_path, data)
    scene = load_scene(tmp_path)
    assert scene.space == "box"
    expected = (np.array([[0.0] * 3, [1.0] * 3]) - (0.5, 0.5, 0.25)) / scale
    np.testing.assert_allclose(scene.box, expected, rtol=1e-6)


def test_an_aabb_is_the_box_that_it_says(tmp_path):
    data = captures.write_transforms(tmp_path, aabb=[[-1, -2, -1], [1, 2, 1]])
    del data["aabb_scale"]
    captures.save_json(tmp_path, data)
    # instant-ngp fits the longest side, 4, into its unit cube
    np.testing.assert_allclose(load_scene(tmp_path).box, [[-2] * 3, [2] * 3])


@pytest.mark.parametrize("form", ["./{}", "./images/../{}", "\\{}", "{}"])
def test_lists_of_file_names_mean_the_same_files_however_they_are_written(form, tmp_path):
    names = [f"images/{i:04}.png" for i in range(10)]
    written = [form.format(n).replace("/", "\\") if "\\" in form else form.format(n) for n in names]
    written = [n.removeprefix("\\") for n in written]
    captures.write_transforms(tmp_path, train_filenames=written[:6], test_filenames=written[6:])
    scene = load_scene(tmp_path)
    assert scene.train.names == tuple(names[:6]) and scene.test.names == tuple(names[6:])
    assert scene.warnings == ()


def test_fields_of_view_in_degrees(tmp_path):
    cameras = captures.ring()
    fx, fy = cameras.intrinsics[0, :2].astype(float)
    data = captures.write_transforms(tmp_path, cameras)
    del data["fl_x"], data["fl_y"]
    data |= {"x_fov": np.degrees(2 * np.arctan(18 / fx)), "y_fov": np.degrees(2 * np.arctan(12 / fy))}
    captures.save_json(tmp_path, data)
    captures.assert_right(load_scene(tmp_path).train)


def test_what_others_act_on_and_is_not_used_is_named_once(tmp_path):
    data = captures.write_transforms(tmp_path, rolling_shutter=[0, 0, 1, 0], integer_depth_scale=0.001)
    for i, frame in enumerate(data["frames"]):
        frame |= {"depth_path": f"depth/{i}.png", "time": i / 10}
    captures.save_json(tmp_path, data)
    (warning,) = load_scene(tmp_path).warnings
    for word in ("depth maps (depth_path, integer_depth_scale)", "rolling shutter (rolling_shutter)", "(time)"):
        assert word in warning


def test_keys_that_say_nothing_are_not_named(tmp_path):
    data = captures.write_transforms(tmp_path, rolling_shutter=[0, 0, 0, 0], sharpen=0, envmap=None, fix_premult=False)
    for frame in data["frames"]:
        frame["time"] = 0.5
    captures.save_json(tmp_path, data)
    assert load_scene(tmp_path).warnings == ()


def test_null_is_the_same_as_nothing(tmp_path):
    captures.write_transforms(tmp_path, camera_model=None, k1=None, ply_file_path=None, train_filenames=None)
    captures.assert_right(load_scene(tmp_path).train)


@pytest.mark.parametrize("name", ["split", "filenames"])
def test_views_that_are_trained_on_and_measured_are_reported(name, tmp_path):
    data = captures.write_transforms(tmp_path)
    if name == "split":
        split(tmp_path, data)
        (tmp_path / "transforms_test.json").write_text(json.dumps(data | {"frames": data["frames"][:3]}))
        expected = "2 of the 3 test images are trained on, too (the first is images/0001.png)"
    else:
        names = [frame["file_path"] for frame in data["frames"]]
        captures.save_json(tmp_path, data | {"train_filenames": names, "test_filenames": names[:2]})
        expected = "2 train_filenames are also held out"
    assert expected in " ".join(load_scene(tmp_path).warnings)


def test_a_test_image_that_is_missing_is_not_the_training_image_of_the_same_name(tmp_path):
    cameras = captures.ring()
    names = [f"{'test' if i in TEST else 'train'}/r_{i % 4}_{i // 4}.png" for i in range(10)]
    data = captures.write_transforms(tmp_path, cameras, names)
    for i in TEST:
        (tmp_path / names[i]).rename(tmp_path / names[i].replace("test/", "kept_"))
        data["frames"][i]["file_path"] = f"test/{names[1].split('/')[1]}" if i == 0 else names[i]
    split(tmp_path, data)
    scene = load_scene(tmp_path)
    assert len(scene.test) == 0 and len(scene.train) == 7
    assert "3 of the 3 test images are missing" in scene.warnings[0]


def test_several_files_of_unknown_names_are_refused(tmp_path):
    captures.write_transforms(tmp_path)
    text = (tmp_path / "transforms.json").read_text()
    (tmp_path / "transforms.json").unlink()
    for name in ("transforms_a.json", "transforms_b.json"):
        (tmp_path / name).write_text(text)
    with pytest.raises(SceneError):
        load_scene(tmp_path)
