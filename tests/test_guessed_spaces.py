"""The space that is guessed fits the photographs, cameras and points, or is corrected, or warned of."""

import json

import captures
import numpy as np
import pytest
from PIL import Image

from tslim.data import geometry, load_scene, look
from tslim.scene.cameras import Cameras
from tslim.scene.scene import Views

HEIGHT = 60.0


def flight(n=(6, 5), gap=12.0, jitter=0.3, size=(36, 24)) -> Cameras:
    """A mapping flight: cameras on a grid HEIGHT above the ground z = 0, looking down but for a jitter in degrees."""
    rng = np.random.default_rng(4)
    x, y = np.meshgrid(gap * np.arange(n[0]), gap * np.arange(n[1]))
    eyes = np.stack([x.ravel(), y.ravel(), np.full(x.size, HEIGHT)], 1) - (30, 24, 0)
    aim = (
        eyes
        - (0, 0, HEIGHT)
        + np.append(HEIGHT * np.radians(jitter) * rng.normal(size=(len(eyes), 2)), np.zeros((len(eyes), 1)), 1)
    )
    return Cameras.look_at(eyes, aim, (0, 1, 0), 50, size)


def ground(n=600) -> np.ndarray:
    """Sparse points of the ground and of what stands on it."""
    rng = np.random.default_rng(5)
    return np.append(rng.uniform(-45, 45, (n, 2)), rng.uniform(0, 8, (n, 1)), 1)


def moved_world(cameras: Cameras, offset=(0.0, 0.0, 0.0)) -> Cameras:
    """Poses from which the tests' world, a ball of radius 6, can be photographed: positions only matter to spaces."""
    poses = cameras.poses.copy()
    poses[:, :, 3] = 0.01 * (poses[:, :, 3] - offset)
    return Cameras(poses, cameras.intrinsics, cameras.sizes, cameras.lens, cameras.distortion)


def write_flight(folder, cameras: Cameras, points) -> None:
    captures.write_colmap(folder, cameras, points=np.zeros((0, 3)) if points is None else points)


@pytest.fixture
def plainly_drawn(monkeypatch):
    """Photographs of noise: only cameras and points matter."""
    rng = np.random.default_rng(6)
    monkeypatch.setattr(
        captures, "draw", lambda cameras, i: rng.integers(0, 255, (*cameras.sizes[i][::-1], 3), np.uint8)
    )


def test_a_mapping_flight_goes_to_ndc_or_has_its_cube_around_the_ground(plainly_drawn, tmp_path):
    write_flight(tmp_path, flight(), ground())
    scene = load_scene(tmp_path)
    assert scene.space == "ndc" and 0.5 * HEIGHT < scene.near < HEIGHT - 8 and scene.warnings == ()
    scene = load_scene(tmp_path, space="contracted")
    inside = ((scene.points > scene.box[0]) & (scene.points < scene.box[1])).all(1).mean()
    assert inside > 0.5
    distance = np.linalg.norm(scene.box.mean(0) - scene.train.cameras.origins.mean(0))
    assert 0.7 * HEIGHT < distance < 1.3 * HEIGHT, "not far below the ground"
    assert scene.near < HEIGHT - 8 and scene.warnings == ()


def test_a_mapping_flight_without_points_is_guessed_from_its_overlap_and_warned_of(plainly_drawn, tmp_path):
    write_flight(tmp_path, flight(), None)
    scene = load_scene(tmp_path)
    assert scene.near < 0.3 * HEIGHT and 0.2 * HEIGHT < np.ptp(scene.box[:, 2]) / 2 < 2 * HEIGHT
    ahead = scene.train.cameras.forward.mean(0)
    assert 0.4 * HEIGHT < (scene.box.mean(0) - scene.train.cameras.origins.mean(0)) @ ahead < 2.5 * HEIGHT
    assert "points would be better" in scene.warnings[-1]


def test_cameras_that_look_at_something_converge_and_those_of_a_flight_do_not():
    assert geometry.converge(captures.ring())
    assert geometry.converge(captures.forward_facing()) in (True, False)
    assert not geometry.converge(flight())
    around = captures.ring()
    outwards = around.poses * np.array([-1, 1, -1, 1])
    assert not geometry.converge(Cameras(outwards, around.intrinsics, around.sizes, around.lens, around.distortion))


def test_cameras_close_together_that_look_one_way_at_points_go_to_ndc(tmp_path):
    captures.write_colmap_of_one_side(tmp_path, farthest=5)
    scene = load_scene(tmp_path)
    assert scene.space == "ndc" and 0.5 < scene.near < 2
    assert load_scene(tmp_path, space="contracted").space == "contracted"


def rgba(folder, alpha) -> None:
    """Makes the photographs transparent where ``alpha(i)`` (24, 36) says so."""
    for i, path in enumerate(sorted((folder / "images").iterdir())):
        image = Image.open(path).convert("RGBA")
        image.putalpha(Image.fromarray(alpha(i)))
        image.save(path)


def without_aabb(folder) -> None:
    data = json.loads((folder / "transforms.json").read_text())
    del data["aabb_scale"]
    captures.save_json(folder, data)


def border(i):
    alpha = np.full((24, 36), 255, np.uint8)
    alpha[0], alpha[:, -1] = 0, 0
    return alpha


def corners(i):
    """What undistorting leaves: the same in every photograph."""
    y, x = np.mgrid[:24, :36]
    return np.where(((x - 17.5) / 20) ** 2 + ((y - 11.5) / 14) ** 2 > 1, 0, 255).astype(np.uint8)


def object_in_the_middle(i):
    y, x = np.mgrid[:24, :36]
    return np.where(np.hypot(x - 18 - i % 3, y - 12 + i % 2) > 8, 0, 255).astype(np.uint8)


def movers(i):
    """Somebody who walks through the picture, cut out."""
    alpha = np.full((24, 36), 255, np.uint8)
    alpha[8:20, 3 * i : 3 * i + 4] = 0
    return alpha


@pytest.mark.parametrize("alpha", [border, corners, movers])
def test_transparent_borders_and_movers_are_left_out_and_make_no_object(alpha, tmp_path):
    captures.write_transforms(tmp_path)
    without_aabb(tmp_path)
    rgba(tmp_path, alpha)
    scene = load_scene(tmp_path)
    assert scene.space == "contracted" and scene.background is None
    assert "% of the pixels are transparent: they are taken for a border" in scene.warnings[0]


def test_an_object_in_the_middle_is_cut_out(tmp_path):
    captures.write_transforms(tmp_path)
    without_aabb(tmp_path)
    rgba(tmp_path, object_in_the_middle)
    scene = load_scene(tmp_path, background="black")
    assert scene.space == "box" and scene.background == (0, 0, 0) and scene.warnings == ()
    assert look.looked_at(scene.train).transparent > 0.5


def as_split(folder, **changes) -> None:
    """transforms_train.json alone, with what NeRF-synthetic's has."""
    data = json.loads((folder / "transforms.json").read_text())
    top = {"camera_angle_x": 2 * np.arctan(0.5 * data["w"] / data["fl_x"])} | changes
    (folder / "transforms_train.json").write_text(json.dumps(top | {"frames": data["frames"]}))
    (folder / "transforms.json").unlink()


def test_an_opaque_blender_world_is_everything_around(tmp_path):
    captures.write_transforms(tmp_path)
    as_split(tmp_path)
    scene = load_scene(tmp_path)
    assert scene.space == "contracted" and scene.background is None


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (90, 120, 60)])
def test_opaque_pictures_before_a_plain_background_are_of_an_object_before_that_colour(colour, tmp_path):
    captures.write_transforms(tmp_path)
    as_split(tmp_path)
    for i, path in enumerate(sorted((tmp_path / "images").iterdir())):
        image = Image.new("RGB", (36, 24), colour)
        image.paste(Image.open(path), mask=Image.fromarray(object_in_the_middle(i)))
        image.save(path)
    scene = load_scene(tmp_path)
    assert scene.space == "box" and scene.box.tolist() == [[-1.5] * 3, [1.5] * 3]
    assert scene.background == pytest.approx(np.array(colour) / 255)


def test_an_export_that_says_that_there_is_more_is_not_cut(tmp_path):
    captures.write_transforms(tmp_path)
    as_split(tmp_path, aabb_scale=16)
    assert load_scene(tmp_path).space == "contracted"


def disc(cameras: Cameras, i: int, radius: float, height=0.0) -> np.ndarray:
    """(h, w) alpha of a flat disc around the origin."""
    origins, directions = cameras.rays(i)
    t = (height - origins[:, 2]) / directions[:, 2]
    hit = (t > 0) & (np.hypot(*(origins + t[:, None] * directions)[:, :2].T) < radius)
    return (255 * hit).astype(np.uint8).reshape(cameras.sizes[i][::-1])


@pytest.mark.parametrize(("radius", "fits"), [(1.2, True), (2.2, False)])
def test_an_object_that_reaches_out_of_the_usual_box_gets_one_that_holds_it(radius, fits, tmp_path):
    cameras = Cameras.look_at(
        np.array([[4 * np.cos(a), 4 * np.sin(a), 2.5] for a in np.linspace(0, 6, 12)]),
        (0, 0, 0),
        (0, 0, 1),
        65,
        (36, 24),
    )
    captures.write_transforms(tmp_path, cameras)
    as_split(tmp_path)
    rgba(tmp_path, lambda i: disc(cameras, i, radius))
    scene = load_scene(tmp_path)
    assert scene.space == "box" and (scene.box.tolist() == [[-1.5] * 3, [1.5] * 3]) == fits
    assert look.opaque_beside(scene.train, scene.box) < 0.01
    assert any("look past the box of ±1.5" in w for w in scene.warnings) != fits


def test_the_hull_of_an_object_is_found(tmp_path):
    """A ball of radius 0.5 at (0.2, 0.1, -0.3), seen from all sides."""
    rng = np.random.default_rng(8)
    eyes = rng.normal(size=(24, 3))
    eyes *= 4 / np.linalg.norm(eyes, axis=1, keepdims=True)
    cameras = Cameras.look_at(eyes, (0, 0, 0), (0.1, 0.2, 1), 40, (40, 30))
    center, pixels = np.array([0.2, 0.1, -0.3]), []
    for i in range(24):
        origins, directions = cameras.rays(i)
        along = ((center - origins) * directions).sum(1)
        missed = np.linalg.norm(origins + along[:, None] * directions - center, axis=1) > 0.5
        pixels.append(np.where(missed, 0, 0xFF808080).astype(np.uint32))
    views = Views(cameras, np.concatenate(pixels), 1200 * np.arange(25), tuple("abcdefghijklmnopqrstuvwx"))
    box = look.hull_box(views)
    assert (box[0] < center - 0.5).all() and (box[1] > center + 0.5).all()
    assert (np.ptp(box, axis=0) < 2.2).all()
    assert look.hull_box(views.subset(range(5))) is None, "few photographs leave cones"


def test_a_named_box_that_most_pixels_look_past_is_warned_of(tmp_path):
    captures.write_transforms(tmp_path, aabb_scale=0.25)
    (warning,) = load_scene(tmp_path).warnings
    assert "opaque pixels look past the box of aabb_scale" in warning and "--space contracted" in warning


@pytest.mark.parametrize("name", ["colmap", "transforms", "llff", "nsvf"])
def test_geographic_coordinates_are_moved_in_double_precision(name, tmp_path):
    """A world of 1 m, 4000 km from its origin, whose photographs still fit."""
    offset = np.array([431_725.0, 4_582_113.0, 210.0])
    captures.WRITERS[name](tmp_path / "near")
    reference = load_scene(tmp_path / "near")
    captures.WRITERS[name](tmp_path / "far")
    shift(tmp_path / "far", name, offset)
    scene = load_scene(tmp_path / "far")
    assert "coordinates are large: the world is moved by -43172" in scene.warnings[0]
    difference = scene.train.cameras.origins.astype(float) - reference.train.cameras.origins
    assert np.abs(difference - difference[0]).max() < 1e-4
    assert np.abs(scene.train.cameras.origins).max() < 10
    if name == "colmap":
        moved = scene.points - reference.points
        assert np.abs(moved - difference[0]).max() < 1e-4
    if scene.space == "box":
        assert np.abs(scene.box - reference.box - difference[0]).max() < 1e-3


def shift(folder, name, offset):
    """Adds ``offset`` to every position that a capture's files hold."""
    if name == "transforms":
        data = json.loads((folder / "transforms.json").read_text())
        for frame in data["frames"]:
            for row in range(3):
                frame["transform_matrix"][row][3] += offset[row]
        captures.save_json(folder, data)
    elif name == "llff":
        rows = np.load(folder / "poses_bounds.npy")
        rows[:, [3, 8, 13]] += offset
        np.save(folder / "poses_bounds.npy", rows)
    elif name == "nsvf":
        for path in (folder / "pose").iterdir():
            matrix = np.loadtxt(path)
            matrix[:3, 3] += offset
            np.savetxt(path, matrix)
        corners = np.array([[-1, -1.5, -0.5], [1, 1.5, 0.75]]) + offset
        np.savetxt(folder / "bbox.txt", corners.reshape(1, 6))
    else:
        captures.write_colmap(folder, text=True)
        for file in folder.glob("sparse/0/*.bin"):
            file.unlink()
        path = folder / "sparse/0/images.txt"
        lines = path.read_text().splitlines()
        for i, line in enumerate(lines):
            words = line.split()
            if len(words) == 10 and words[0].isdecimal():
                turn = geometry.rotations(np.array([[float(w) for w in words[1:5]]]))[0]
                moved = np.array([float(w) for w in words[5:8]]) - turn @ offset
                lines[i] = " ".join([*words[:5], *map(repr, moved.tolist()), *words[8:]])
        path.write_text("\n".join(lines) + "\n")
        path = folder / "sparse/0/points3D.txt"
        lines = path.read_text().splitlines()
        for i, line in enumerate(lines):
            words = line.split()
            if words[0].isdecimal():
                words[1:4] = [repr(float(w) + o) for w, o in zip(words[1:4], offset.tolist(), strict=True)]
                lines[i] = " ".join(words)
        path.write_text("\n".join(lines) + "\n")


def test_scaled_rotations_are_rotations(tmp_path):
    data = captures.write_transforms(tmp_path)
    for frame in data["frames"]:
        matrix = np.array(frame["transform_matrix"])
        matrix[:3, :3] *= 0.01
        frame["transform_matrix"] = matrix.tolist()
    captures.save_json(tmp_path, data)
    scene = load_scene(tmp_path)
    captures.assert_right(scene.train)
    assert scene.warnings == ("the rotations of 10 cameras have a scale of 0.01 in them, which is left out",)


def test_an_nsvf_scene_without_a_box_is_what_its_photographs_show(tmp_path):
    captures.write_nsvf(tmp_path)
    (tmp_path / "bbox.txt").unlink()
    scene = load_scene(tmp_path)
    assert scene.space == "contracted" and "no bbox.txt" in scene.warnings[0]
    captures.assert_right(scene.train)
    assert load_scene(tmp_path, space="box").space == "box"


@pytest.mark.parametrize("name", ["colmap", "transforms", "nsvf"])
@pytest.mark.parametrize("space", ["box", "contracted"])
def test_the_space_that_is_asked_for_is_the_one(name, space, tmp_path):
    captures.WRITERS[name](tmp_path)
    assert load_scene(tmp_path, space=space).space == space
