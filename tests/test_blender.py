"""The Blender loader, the registry of formats and the central checks: what is read, and what bad input is told."""

import json

import numpy as np
import pytest
from PIL import Image

import tslim
from tslim.data import known_formats, parse_colour
from tslim.errors import SceneError
from tslim.scene.paths import Orbit

ANGLE = 0.7


class Folder:
    """A small scene on disk whose parts a test can spoil."""

    def __init__(self, path, train=4, test=2, size=(8, 6)):
        self.path, self.size = path, size
        self.frames = {}
        for split, n in (("train", train), ("val", 1), ("test", test)):
            (path / split).mkdir()
            self.frames[split] = []
            elevation = {"train": 25.0, "val": 40.0, "test": 10.0}[split]
            for i, pose in enumerate(Orbit(radius=4.0, elevation=elevation).cameras(n).poses.astype(float)):
                self.picture(f"{split}/r_{i}.png", i)
                matrix = [*pose.tolist(), [0, 0, 0, 1]]
                self.frames[split].append({"file_path": f"./{split}/r_{i}", "transform_matrix": matrix})
            self.write(split)

    def picture(self, name, value, size=None):
        width, height = size or self.size
        Image.fromarray(np.full((height, width, 4), (10 * value, 100, 200, 128), np.uint8)).save(self.path / name)

    def write(self, split="train", **changes):
        data = {"camera_angle_x": ANGLE, "frames": self.frames[split], **changes}
        data = {key: value for key, value in data.items() if value is not None}
        (self.path / f"transforms_{split}.json").write_text(json.dumps(data))

    def matrix(self, i, row, column, value):
        self.frames["train"][i]["transform_matrix"][row][column] = value
        self.write()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "a scène"
    path.mkdir()
    return Folder(path)


def error(folder, **options) -> str:
    with pytest.raises(SceneError) as caught:
        tslim.load_scene(folder.path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_blender_scene_is_recognised_and_read(folder):
    scene = tslim.load_scene(folder.path)
    assert (scene.format, scene.name, scene.space, scene.warnings) == ("blender", "a scène", "box", ())
    assert (len(scene.train), len(scene.test), scene.near, scene.far) == (4, 2, 2.0, 6.0)
    assert scene.box.tolist() == [[-1.5] * 3, [1.5] * 3]
    assert scene.train.names == tuple(f"train/r_{i}.png" for i in range(4))
    # focal = 0.5 · 8 / tan(0.35), principal point in the middle
    assert np.allclose(scene.train.cameras.intrinsics[0], [10.9577, 10.9577, 4, 3], atol=1e-3)
    assert np.allclose(scene.train.cameras.poses[1], np.array(folder.frames["train"][1]["transform_matrix"])[:3])
    assert scene.train.rgba(3)[0, 0].tolist() == [30, 100, 200, 128]


def test_transparent_pixels_show_the_chosen_background(folder):
    alpha = 128 / 255
    white = tslim.load_scene(folder.path).train.image(0)
    assert white.shape == (6, 8, 3)
    assert np.allclose(white[0, 0], alpha * np.array([0, 100, 200]) / 255 + 1 - alpha, atol=1e-6)
    scene = tslim.load_scene(folder.path, background="black")
    assert scene.background == (0, 0, 0)
    assert np.allclose(scene.train.image(0, scene.background)[0, 0], alpha * np.array([0, 100, 200]) / 255, atol=1e-6)


def test_downscaling_divides_sizes_and_intrinsics(folder):
    full, small = tslim.load_scene(folder.path), tslim.load_scene(folder.path, downscale=2)
    assert small.train.cameras.sizes.tolist() == [[4, 3]] * 4
    assert np.allclose(small.train.cameras.intrinsics, full.train.cameras.intrinsics / 2)


def test_max_images_takes_evenly_spaced_ones(folder):
    scene = tslim.load_scene(folder.path, max_images=2)
    assert scene.train.names == ("train/r_0.png", "train/r_2.png")
    assert len(scene.test) == 2


def test_missing_test_images_are_skipped_with_one_warning(folder):
    (folder.path / "test/r_0.png").unlink()
    scene = tslim.load_scene(folder.path)
    assert scene.test.names == ("test/r_1.png",)
    assert scene.warnings == ("1 of the 2 test images are missing and were skipped",)


def test_validation_images_stand_in_for_a_missing_test_split(folder):
    (folder.path / "transforms_test.json").unlink()
    assert tslim.load_scene(folder.path).test.names == ("val/r_0.png",)
    (folder.path / "transforms_val.json").unlink()
    scene = tslim.load_scene(folder.path)
    assert len(scene.test) == 0
    assert "nothing is held out" in scene.warnings[0]


def test_missing_training_images_are_skipped_with_one_warning_while_enough_are_left(folder):
    (folder.path / "train/r_2.png").unlink()
    scene = tslim.load_scene(folder.path)
    assert scene.train.names == ("train/r_0.png", "train/r_1.png", "train/r_3.png")
    assert scene.warnings == ("1 of the 4 listed images are missing and were skipped (the first is ./train/r_2)",)
    (folder.path / "train/r_1.png").unlink()
    assert "2 of 4 images are missing (the first is ./train/r_1); at least 3 are needed" in error(folder)


def test_a_truncated_image_is_an_error(folder):
    path = folder.path / "train/r_2.png"
    path.write_bytes(path.read_bytes()[:-30])
    assert "r_2.png: damaged or truncated image" in error(folder)


def test_an_image_of_another_size_has_another_focal_length_or_is_an_error_where_the_size_is_said(folder):
    folder.picture("train/r_3.png", 0, (6, 8))
    scene = tslim.load_scene(folder.path)
    assert scene.train.cameras.sizes[3].tolist() == [6, 8]
    assert np.isclose(scene.train.cameras.intrinsics[3, 0], 3 / np.tan(ANGLE / 2))
    folder.write(w=8, h=6)
    assert "r_3.png: 6x8 pixels, but its camera is for 8x6" in error(folder)


def test_json_that_does_not_parse_is_an_error_with_its_line(folder):
    (folder.path / "transforms_train.json").write_text('{\n"camera_angle_x": 0.7,\n"frames": [,]\n}')
    assert "transforms_train.json: line 3, column 12: not valid json" in error(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"[1]", "holds a json list, expected an object"),
        (b"{}", "transforms_train.json lacks frames"),
        (b'{"camera_angle_x": 0.7}', "lacks frames"),
        (b'{"camera_angle_x": 0.7, "frames": []}', "lists zero frames"),
        (b'{"camera_angle_x": 0.7, "frames": [3]}', "frame 0 lacks file_path"),
        (b'{"camera_angle_x": 0.7, "frames": [{"file_path": "./train/r_0"}]}', "r_0 lacks transform_matrix"),
        (b"[" * 100_000, "not usable json"),
    ],
)
def test_json_with_the_wrong_contents_is_an_error(folder, text, message):
    (folder.path / "transforms_train.json").write_bytes(text)
    printed = error(folder)
    assert message in printed
    assert "transforms_train.json" in printed


@pytest.mark.parametrize(
    ("angle", "message"),
    [
        (None, "no focal length; expected fl_x (pixels) or camera_angle_x (radians)"),
        ("wide", "camera_angle_x is wide, expected a number"),
        (float("nan"), "camera_angle_x is nan, expected a number"),
        (39.6, "camera_angle_x is 39.6, expected radians"),
        (float("inf"), "camera_angle_x is inf, expected a number"),
    ],
)
def test_a_field_of_view_that_is_none_is_an_error(folder, angle, message):
    folder.write(camera_angle_x=angle)
    assert message in error(folder)


@pytest.mark.parametrize("matrix", [[[1, 2], [3]], "text", None, [[1.0] * 4] * 2, [["a"] * 4] * 4, [[10**400] * 4] * 4])
def test_a_pose_that_is_no_matrix_names_its_frame(folder, matrix):
    folder.frames["train"][1]["transform_matrix"] = matrix
    folder.write()
    assert "frame ./train/r_1: transform_matrix is not a 4x4 matrix of numbers" in error(folder)


def test_an_impossible_pose_names_its_frame(folder):
    good = folder.frames["train"][2]["transform_matrix"][0][0]
    folder.matrix(2, 0, 0, float("nan"))
    assert "frame train/r_2.png has NaN or infinity in its pose" in error(folder)
    folder.matrix(2, 0, 0, good + 0.3)
    assert "frame train/r_2.png has a pose whose rotation is not orthonormal" in error(folder)
    folder.matrix(2, 0, 0, good)
    for row in range(3):
        folder.matrix(2, row, 0, -folder.frames["train"][2]["transform_matrix"][row][0])
    assert "frame train/r_2.png has a mirrored pose" in error(folder)


def test_image_paths_that_leave_the_folder_are_an_error(folder):
    folder.frames["train"][1]["file_path"] = "../elsewhere.png"
    (folder.path / "train/r_1.png").rename(folder.path.parent / "elsewhere.png")
    folder.write()
    printed = error(folder)
    assert "the image path ../elsewhere.png leaves the scene's folder; --file-paths anywhere reads it" in printed
    assert len(tslim.load_scene(folder.path, file_paths="anywhere").train) == 4


def test_images_behind_a_symbolic_link_are_read(folder, tmp_path):
    (folder.path / "train").rename(tmp_path / "elsewhere")
    (folder.path / "train").symlink_to(tmp_path / "elsewhere")
    assert len(tslim.load_scene(folder.path).train) == 4


def turn_around(folder, frames):
    """Cameras that look away: x and z axes reversed, which keeps the pose a rotation."""
    for frame in frames:
        for row in range(3):
            for column in (0, 2):
                frame["transform_matrix"][row][column] *= -1
    folder.write()


def test_cameras_that_look_away_from_the_box_are_an_error(folder):
    turn_around(folder, folder.frames["train"])
    assert "no camera sees the box" in error(folder)


def test_one_camera_that_looks_away_is_a_warning(folder):
    turn_around(folder, folder.frames["train"][1:2])
    (warning,) = tslim.load_scene(folder.path).warnings
    assert "1 of 4 cameras do not see the box" in warning
    assert "the first is train/r_1.png" in warning


def test_a_camera_inside_the_usual_box_means_another_box_and_the_space_can_be_asked_for(folder):
    for row in range(3):
        folder.matrix(3, row, 3, 0.2)
    scene = tslim.load_scene(folder.path)
    assert "the camera of train/r_3.png lies inside the box of ±1.5" in scene.warnings[0]
    assert scene.space == "box" and not (scene.box == [[-1.5] * 3, [1.5] * 3]).all()
    assert tslim.load_scene(folder.path, space="contracted").space == "contracted"


def test_cameras_at_another_distance_get_limits_that_enclose_the_box(folder):
    for frame in folder.frames["train"]:
        for row in range(3):
            frame["transform_matrix"][row][3] *= 2.5
    folder.write()
    scene = tslim.load_scene(folder.path)
    half_diagonal = 1.5 * np.sqrt(3)
    assert np.allclose([scene.near, scene.far], [10 - half_diagonal, 10 + half_diagonal], atol=1e-3)
    assert "cameras stand 10 to 10 from the origin" in scene.warnings[0]


def test_a_folder_that_is_missing_or_of_no_known_format_is_an_error(tmp_path):
    with pytest.raises(SceneError, match="nowhere: no such folder"):
        tslim.load_scene(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(SceneError, match="file: not a folder"):
        tslim.load_scene(tmp_path / "file")
    with pytest.raises(SceneError, match=r"unknown format; known: .*blender \(transforms_train.json\)"):
        tslim.load_scene(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "obj"}, "unknown format obj; known: blender"),
        ({"downscale": 0}, "downscale 0: expected a whole number"),
        ({"downscale": 1.5}, "downscale 1.5: expected a whole number"),
        ({"downscale": 7}, "8x6 pixels cannot be made 7 times smaller"),
        ({"max_images": 0}, "max images 0: expected 1 or more"),
        ({"background": "pink-ish"}, "background pink-ish: expected white, black, #rrggbb"),
        ({"background": (0, 2, 0)}, "expected white, black"),
    ],
)
def test_an_option_that_makes_no_sense_is_an_error(folder, options, message):
    assert message in error(folder, **options)


def test_colours_are_names_hexadecimal_or_numbers():
    assert parse_colour("white") == (1, 1, 1)
    assert parse_colour("#ff0033") == (1, 0, 0.2)
    assert parse_colour([0, 0.5, 1]) == (0, 0.5, 1)


def test_every_format_says_what_it_is_recognised_by():
    assert "blender (transforms_train.json)" in known_formats()


def test_views_can_be_picked_and_empty(folder):
    views = tslim.load_scene(folder.path).train
    picked = views.subset([2, 0])
    picked.validate()
    assert picked.names == ("train/r_2.png", "train/r_0.png")
    assert np.array_equal(picked.rgba(1), views.rgba(0))
    assert views.has_alpha()
    nothing = views.subset([])
    nothing.validate()
    assert len(nothing) == 0


def test_the_lego_scene_is_read_as_its_authors_meant_it(shared_data):
    scene = tslim.load_scene(shared_data("blender/lego"), downscale=4, max_images=12)
    assert scene.format == "blender"
    assert (len(scene.train), len(scene.test)) == (12, 12)
    assert np.isclose(scene.train.cameras.intrinsics[0, 0], 555.5555 / 4, atol=1e-3)
    # the excavator stands around the origin: its alpha must cover the origin's projection in most views
    covered = 0
    for i in range(12):
        (x, y), depth = (a[0] for a in scene.train.cameras.project(np.zeros((1, 3)), i))
        assert np.isclose(depth, 4.03, atol=0.01)
        covered += scene.train.rgba(i)[int(y), int(x), 3] > 200
    assert covered >= 11
    path = scene.default_path()
    assert path.up == (0, 0, 1)
    assert np.isclose(path.radius, 4.031, atol=1e-2)
    assert len(scene.orbit(frames=8)) == 8
