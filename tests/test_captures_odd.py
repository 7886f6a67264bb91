"""Data sets as exporters, other programs and people leave them: used, refused with what helps, or named; never dropped.

Each is a tiny capture of ``tests/captures.py`` with one thing changed.
"""

import json
import shutil
import struct

import captures
import numpy as np
import pytest
from PIL import Image

from tslim.data import load_scene
from tslim.errors import SceneError

NAMES = [f"images/{i:04}.png" for i in range(10)]


def refused(path, *words, **options):
    """Loading is refused in one line that has these words."""
    with pytest.raises(SceneError) as caught:
        load_scene(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def named(scene, *words):
    """One warning has these words."""
    assert any(all(word in line for word in words) for line in scene.warnings), scene.warnings


def changed(folder, change, **top):
    """A transforms.json whose data ``change`` has changed."""
    data = captures.write_transforms(folder, **top)
    change(data)
    captures.save_json(folder, data)
    return data


# --- lists and files of transforms


def test_a_frame_that_is_listed_twice_counts_once_and_with_another_pose_is_refused(tmp_path):
    data = changed(tmp_path, lambda data: data["frames"].append(dict(data["frames"][3])))
    scene = load_scene(tmp_path)
    assert len(scene.train) + len(scene.test) == 10
    named(scene, "1 frames of transforms.json repeat")
    data["frames"][-1] = json.loads(json.dumps(data["frames"][3]))
    data["frames"][-1]["transform_matrix"][0][3] += 0.5
    captures.save_json(tmp_path, data)
    refused(tmp_path, "0003.png twice")


@pytest.mark.parametrize("name", ["transforms_test.json", "transforms_val.json"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_file_for_the_test_beside_transforms_json_says_what_is_held_out(name, shared, tmp_path):
    data = captures.write_transforms(tmp_path)
    held_out = data["frames"][7:]
    (tmp_path / name).write_text(json.dumps(data | {"frames": held_out}))
    if not shared:
        captures.save_json(tmp_path, data | {"frames": data["frames"][:7]})
    scene = load_scene(tmp_path)
    assert scene.test.names == tuple(NAMES[7:]) and scene.train.names == tuple(NAMES[:7])
    assert scene.warnings == ()


def test_files_for_the_test_that_leave_nothing_and_those_that_lists_overrule_are_named(tmp_path):
    data = captures.write_transforms(tmp_path)
    (tmp_path / "transforms_test.json").write_text(json.dumps(data))
    scene = load_scene(tmp_path)
    assert len(scene.test) == 2
    named(scene, "transforms_test.json", "every eighth is held out")
    captures.save_json(tmp_path, data | {"test_filenames": NAMES[:3]})
    scene = load_scene(tmp_path)
    assert len(scene.test) == 3
    named(scene, "transforms_test.json: not used")


def test_lists_in_a_split_file_are_named(tmp_path):
    data = captures.write_transforms(tmp_path, test_filenames=NAMES[:2])
    for name, frames in (("train", data["frames"][3:]), ("test", data["frames"][:3])):
        (tmp_path / f"transforms_{name}.json").write_text(json.dumps(data | {"frames": frames}))
    (tmp_path / "transforms.json").unlink()
    named(load_scene(tmp_path), "lists of file names in transforms_train.json are not used")


def test_one_of_several_files_can_be_given_and_others_are_named(tmp_path):
    data = captures.write_transforms(tmp_path)
    (tmp_path / "transforms_b.json").write_text(json.dumps(data | {"frames": data["frames"][:6]}))
    named(load_scene(tmp_path), "transforms_b.json beside transforms.json: not read")
    scene = load_scene(tmp_path / "transforms_b.json")
    assert len(scene.train) + len(scene.test) == 6 and scene.format == "transforms"
    (tmp_path / "transforms.json").rename(tmp_path / "transforms_a.json")
    refused(tmp_path, "transforms_a.json, transforms_b.json", "give the one")
    (tmp_path / "transforms_a.json").rename(tmp_path / "transforms_test.json")
    (tmp_path / "transforms_b.json").unlink()
    refused(tmp_path, "transforms_test.json without transforms_train.json")


def test_photographs_that_are_not_listed_are_named(tmp_path):
    changed(tmp_path, lambda data: data["frames"].__delitem__(slice(6, None)))
    named(load_scene(tmp_path), "4 images in images are not listed")


def test_lists_of_names_may_leave_out_folders(tmp_path):
    names = [name.removeprefix("images/") for name in NAMES]
    captures.write_transforms(tmp_path, train_filenames=names[:7], test_filenames=names[7:])
    scene = load_scene(tmp_path)
    assert scene.test.names == tuple(NAMES[7:]) and scene.warnings == ()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_text_of_other_encodings_is_read(encoding, tmp_path):
    captures.write_transforms(tmp_path / "a")
    path = tmp_path / "a" / "transforms.json"
    path.write_text(path.read_text(), encoding=encoding)
    captures.assert_right(load_scene(tmp_path / "a").train)
    captures.write_colmap(tmp_path / "b", text=True)
    for path in (tmp_path / "b" / "sparse" / "0").iterdir():
        path.write_text(path.read_text().replace("\n", "\r\n"), encoding=encoding)
    captures.assert_right(load_scene(tmp_path / "b").train, 0.03)


def test_keys_that_name_files_and_motion_are_named(tmp_path):
    def change(data):
        for i, frame in enumerate(data["frames"]):
            frame |= {"semantic_path": f"s/{i}.png", "camera_linear_velocity": [0, 0, 0.1]}

    changed(tmp_path, change, n_extra_learnable_dims=16)
    scene = load_scene(tmp_path)
    named(scene, "other files (semantic_path)", "speeds of cameras", "n_extra_learnable_dims")


# --- lenses


def scale_lens(factor, *keys):
    def change(data):
        for key in keys:
            data[key] *= factor

    return change


def test_a_width_alone_says_for_which_size_the_lens_is(tmp_path):
    def change(data):
        scale_lens(2, "fl_x", "fl_y", "cx", "cy", "w")(data)
        del data["h"]

    changed(tmp_path, change)
    captures.assert_right(load_scene(tmp_path).train)


def test_a_lens_for_another_size_is_warned_of(tmp_path):
    def change(data):
        scale_lens(2, "fl_x", "fl_y", "cx", "cy")(data)
        del data["w"], data["h"]

    changed(tmp_path, change)
    named(load_scene(tmp_path), "centre of 10 of 10 pictures", "give width and height")


@pytest.mark.parametrize("keys", [("cx", "cy"), ("fl_x", "fl_y")])
def test_lenses_in_widths_are_refused(keys, tmp_path):
    changed(tmp_path, lambda data: data.update({key: 0.5 for key in keys}))
    refused(tmp_path, "expected it in pixels")


def test_width_and_height_that_are_swapped_are_refused_as_such(tmp_path):
    changed(tmp_path, lambda data: data.update(w=data["h"], h=data["w"]))
    refused(tmp_path, "swapped")


def test_panoramas_of_other_proportions_are_warned_of(tmp_path):
    captures.write_transforms(tmp_path, camera_model="EQUIRECTANGULAR")
    named(load_scene(tmp_path), "10 panoramas are not twice as wide as high")


def test_a_fisheye_without_coefficients_has_a_name_too(tmp_path):
    captures.write_transforms(tmp_path, camera_model="SIMPLE_FISHEYE")
    assert load_scene(tmp_path).train.cameras.lens.tolist() == [2] * 8


# --- poses


def posed(folder, change, cloud=False):
    """A capture whose 4 x 4 poses ``change`` has changed, perhaps with points around the origin."""

    def each(data):
        for frame in data["frames"]:
            frame["transform_matrix"] = np.asarray(change(np.array(frame["transform_matrix"]))).tolist()

    if cloud:
        points = np.random.default_rng(0).normal(0, 0.3, (200, 3))
        header = "ply\nformat ascii 1.0\nelement vertex 200\n" + "".join(f"property float {a}\n" for a in "xyz")
        rows = "\n".join(" ".join(map(str, row)) for row in points)
        folder.mkdir(exist_ok=True)
        (folder / "points.ply").write_text(f"{header}end_header\n{rows}\n")
    return changed(folder, each, **({"ply_file_path": "points.ply"} if cloud else {}))


def opencv(pose):
    return pose @ np.diag([1.0, -1, -1, 1])


@pytest.mark.parametrize("cloud", [True, False])
def test_poses_with_the_axes_of_opencv_are_warned_of(cloud, tmp_path):
    posed(tmp_path, opencv, cloud)
    named(load_scene(tmp_path), "those of OpenCV need their second and third column negated")


def test_poses_from_world_to_camera_see_no_points_and_are_warned_of(tmp_path):
    posed(tmp_path, np.linalg.inv, cloud=True)
    named(load_scene(tmp_path), "of the sparse points are in a picture")


def test_cameras_in_one_place_and_one_far_off_are_warned_of(tmp_path):
    def one_place(pose):
        pose[:3, 3] = 0.1
        return pose

    posed(tmp_path / "a", one_place)
    named(load_scene(tmp_path / "a"), "stand in one place")
    data = captures.write_transforms(tmp_path / "b")
    data["frames"][4]["transform_matrix"][0][3] = 5e4
    captures.save_json(tmp_path / "b", data)
    named(load_scene(tmp_path / "b"), "the camera of images/0004.png stands", "leave it out")


def scaled_world(scale, shift=(0, 0, 0)):
    def change(pose):
        pose[:3, 3] = pose[:3, 3] * scale + shift
        return pose

    return change


@pytest.mark.parametrize("scale", [3e-5, 1e4, 3e6])
def test_units_do_not_matter(scale, tmp_path):
    captures.write_transforms(tmp_path / "a")
    posed(tmp_path / "b", scaled_world(scale))
    usual, other = load_scene(tmp_path / "a"), load_scene(tmp_path / "b")
    np.testing.assert_allclose(other.box, usual.box * scale, rtol=1e-3, atol=1e-3 * scale)
    assert (other.near / scale, other.far / scale) == pytest.approx((usual.near, usual.far), rel=1e-3)
    assert other.space == usual.space and other.warnings == ()


def test_a_small_capture_far_from_the_origin_is_moved_there(tmp_path):
    captures.write_transforms(tmp_path / "a")
    posed(tmp_path / "b", scaled_world(1e-3, (700.0, 20.0, 3.0)))
    usual, other = load_scene(tmp_path / "a"), load_scene(tmp_path / "b")
    apart = [np.linalg.norm(np.diff(scene.train.cameras.origins, axis=0), axis=1) for scene in (usual, other)]
    np.testing.assert_allclose(apart[1] * 1e3, apart[0], rtol=1e-4)
    named(other, "the world is moved by -700 -20 -3")


def test_mirrored_poses_say_what_to_do(tmp_path):
    posed(tmp_path, lambda pose: pose @ np.diag([-1.0, 1, 1, 1]))
    refused(tmp_path, "mirrored", "leave such frames out, or export them again")


# --- photographs, and what lies beside them


def replaced(folder, write):
    """A capture whose photographs ``write`` has replaced: it gets the picture and its path."""
    captures.write_transforms(folder)
    for path in sorted((folder / "images").iterdir()):
        image = Image.open(path)
        image.load()
        path.unlink()
        write(image, path)


KINDS = {
    "grey": lambda image, path: image.convert("L").save(path),
    "palette": lambda image, path: image.quantize(256).save(path),
    "one bit": lambda image, path: image.convert("1").save(path),
    "grey with alpha": lambda image, path: image.convert("LA").save(path),
    "CMYK": lambda image, path: image.convert("CMYK").save(path.with_suffix(".jpg"), quality=98),
    "YCbCr TIFF": lambda image, path: image.convert("YCbCr").save(path.with_suffix(".tif")),
    "lossless WebP": lambda image, path: image.save(path.with_suffix(".webp"), lossless=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_photographs_of_many_kinds_are_read(kind, tmp_path):
    replaced(tmp_path, KINDS[kind])
    scene = load_scene(tmp_path)
    assert len(scene.train) == 8 and not scene.train.has_alpha() and scene.warnings == ()
    if kind in ("CMYK", "YCbCr TIFF", "lossless WebP"):
        captures.assert_right(scene.train, 0.03)


def test_sixteen_bits_a_channel_are_read(tmp_path):
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def write(image, path):
        rows = np.asarray(image).astype(">u2") * 257
        header = struct.pack(">IIBBBBB", *image.size, 16, 2, 0, 0, 0)
        pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
        ends = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + ends)

    replaced(tmp_path, write)
    captures.assert_right(load_scene(tmp_path).train)


HEIC = b"\0\0\0\x18ftypheic" + b"\0" * 99


@pytest.mark.parametrize(
    ("ending", "content", "words"),
    [
        (".heic", HEIC, ("10 .heic pictures", "convert them to JPEG or PNG")),
        (".exr", b"x", ("10 .exr pictures", "convert")),
        (".png", HEIC, ("a HEIC picture", "convert")),
        (".png", b"version https://git-lfs.github.com/spec/v1\n", ("git lfs pull",)),
        (".png", b"<!DOCTYPE html>", ("not an image",)),
    ],
)
def test_pictures_that_are_not_read_say_what_to_do(ending, content, words, tmp_path):
    replaced(tmp_path, lambda image, path: path.with_suffix(ending).write_bytes(content))
    refused(tmp_path, *words)


def test_pictures_that_are_all_transparent_are_warned_of(tmp_path):
    def write(image, path):
        image.putalpha(0)
        image.save(path)

    replaced(tmp_path, write)
    named(load_scene(tmp_path), "100 % of the pixels are transparent")


def pictures_beside(folder, pattern, ending=".png"):
    """For each photograph a picture that is white but for its upper third; {} stands for the name, {n} with ending."""
    for path in sorted((folder / "images").glob(f"*{ending}")):
        target = folder / pattern.format(path.stem, n=path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        mask = np.full((24, 36), 255, np.uint8)
        mask[:8] = 0
        Image.fromarray(mask).save(target)


MASKS = ["images/masks/{}.png", "images_masks/{}.png", "masks_2/{}.png", "images/{n}.mask.png", "masks/images/{}.png"]


@pytest.mark.parametrize("pattern", MASKS)
@pytest.mark.parametrize(("write", "ending"), [(captures.write_transforms, ".png"), (captures.write_colmap, ".jpg")])
def test_masks_in_other_places_are_used(pattern, write, ending, tmp_path):
    write(tmp_path)
    pictures_beside(tmp_path, pattern, ending)
    scene = load_scene(tmp_path)
    assert np.mean([scene.train.valid(i).mean() for i in range(len(scene.train))]) == pytest.approx(2 / 3)
    assert scene.warnings == ()


OTHERS = ["alpha/{}.png", "sam_masks/{}.png", "segmentation/{}.png", "images/{}_alpha.png", "images/mask_{}.png"]


@pytest.mark.parametrize("pattern", [*OTHERS, "depth/{}.png", "images/{}_depth.png", "normal/{}_normal.png"])
@pytest.mark.parametrize(("write", "ending"), [(captures.write_transforms, ".png"), (captures.write_colmap, ".jpg")])
def test_what_goes_with_photographs_and_is_not_used_is_named(pattern, write, ending, tmp_path):
    write(tmp_path)
    pictures_beside(tmp_path, pattern, ending)
    scene = load_scene(tmp_path)
    lines = scene.warnings if pattern in OTHERS else scene.notes
    assert any("not used, though named like the photographs" in line for line in lines)
    assert scene.warnings == () or pattern in OTHERS
    assert not scene.train.has_alpha()


# --- COLMAP models


def move_model(folder, where):
    captures.write_colmap(folder)
    (folder / where).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder / "sparse" / "0", folder / where)
    if not list((folder / "sparse").iterdir()):
        (folder / "sparse").rmdir()


@pytest.mark.parametrize("where", ["colmap_text", "output/sparse/0", "hloc/sfm_x", "colmap/dense/0/sparse", "model"])
def test_a_model_in_any_place_is_found(where, tmp_path):
    move_model(tmp_path, where)
    scene = load_scene(tmp_path)
    captures.assert_right(scene.train, 0.03)
    assert scene.warnings == () and f"model {where}" in scene.notes[0]


def test_a_dense_model_without_photographs_takes_those_of_the_capture_and_says_so(tmp_path):
    move_model(tmp_path, "dense/sparse")
    scene = load_scene(tmp_path)
    captures.assert_right(scene.train, 0.03)
    named(scene, "no photographs in dense/images", "undistorted")


def test_a_list_of_test_photographs_beside_a_model_says_what_is_held_out(tmp_path):
    captures.write_colmap(tmp_path)
    listing = tmp_path / "sparse" / "0" / "test.txt"
    listing.write_text("0003.jpg\n0007\n")
    scene = load_scene(tmp_path)
    assert scene.test.names == ("0003.jpg", "0007.jpg") and len(scene.train) == 8 and scene.warnings == ()
    listing.write_text("another.jpg\n")
    scene = load_scene(tmp_path)
    assert len(scene.test) == 2
    named(scene, "test.txt names 0 of the 10 photographs")


def test_sizes_may_be_written_with_a_point(tmp_path):
    captures.write_colmap(tmp_path, text=True)
    path = tmp_path / "sparse" / "0" / "cameras.txt"
    path.write_text(path.read_text().replace(" 36 24 ", " 36.0 24.0 "))
    captures.assert_right(load_scene(tmp_path).train, 0.03)


def test_points_that_no_key_names_are_said(tmp_path):
    posed(tmp_path, lambda pose: pose, cloud=True)
    data = json.loads((tmp_path / "transforms.json").read_text())
    del data["ply_file_path"]
    captures.save_json(tmp_path, data)
    scene = load_scene(tmp_path)
    assert scene.points is None and any("points.ply: not used" in note for note in scene.notes)


def test_names_with_several_spaces_are_read_from_text(tmp_path):
    captures.write_colmap(tmp_path, names=[f"a  photo  {i}.jpg" for i in range(10)], text=True)
    captures.assert_right(load_scene(tmp_path).train, 0.03)


@pytest.mark.parametrize("content", [b"", struct.pack("<Q", 0)])
def test_a_model_without_points_says_so(content, tmp_path):
    captures.write_colmap(tmp_path)
    (tmp_path / "sparse" / "0" / "points3D.bin").write_bytes(content)
    named(load_scene(tmp_path), "points3D.bin holds no points")


def test_points_may_lack_error_and_track(tmp_path):
    captures.write_colmap(tmp_path, text=True)
    path = tmp_path / "sparse" / "0" / "points3D.txt"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    path.write_text("\n".join(" ".join(line.split()[:7]) for line in lines))
    assert len(load_scene(tmp_path).points) == 200


def test_files_that_newer_versions_add_do_not_matter(tmp_path):
    captures.write_colmap(tmp_path)
    for name in ("rigs.bin", "frames.bin"):
        (tmp_path / "sparse" / "0" / name).write_bytes(bytes(8))
    assert load_scene(tmp_path).warnings == ()


# --- folders that are no data set


def test_a_folder_too_high_or_too_low_is_refused_with_the_right_one(tmp_path):
    captures.write_transforms(tmp_path / "a" / "garden")
    refused(tmp_path / "a", "one folder deeper", f"give {tmp_path / 'a' / 'garden'}")
    refused(tmp_path / "a" / "garden" / "images", f"part of the data set {tmp_path / 'a' / 'garden'}")
    captures.write_colmap(tmp_path / "a" / "cup")
    refused(tmp_path / "a", "2 data sets (cup, garden)")
    for part in ("sparse", "sparse/0"):
        refused(tmp_path / "a" / "cup" / part, f"give {tmp_path / 'a' / 'cup'},")


def test_a_model_beside_its_photographs_folder_is_refused_with_the_right_one(tmp_path):
    captures.write_colmap(tmp_path / "colmap")
    shutil.move(tmp_path / "colmap" / "images", tmp_path / "images")
    refused(tmp_path / "colmap", f"they are in {tmp_path / 'images'}: give {tmp_path}")
    captures.assert_right(load_scene(tmp_path).train, 0.03)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("cameras.xml", "<?xml version='1.0'?><document version='1.4.0'>", "Metashape"),
        ("bundle.out", "# Bundle file v0.3", "Bundler"),
        ("poses.csv", "#name,x,y,alt,heading,pitch,roll", "RealityCapture"),
        ("images/0000.xmp", "<x:xmpmeta>", "RealityCapture"),
        ("reconstruction.json", "[]", "OpenSfM"),
        ("keyframes/corrected_cameras/1.json", "{}", "Polycam"),
        ("metadata.json", '{"poses": []}', "Record3D"),
        ("frame_00000.json", '{"cameraPoseARFrame": []}', "ARKit"),
        ("train/intrinsics/0.txt", "1", "NeRF++"),
        ("cfg_args", "Namespace()", "splat"),
        ("database.db", "SQLite", "mapper"),
    ],
)
def test_cameras_of_other_programs_are_named_with_the_way_to_read_them(name, content, word, tmp_path):
    captures.take_images(captures.ring(), NAMES, tmp_path)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content)
    refused(tmp_path, word, "which is not read", "tslim poses")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.mov", ("a video", "tslim poses")),
        ("a.zip", ("unpack it",)),
        ("images.bin", ("a file of a COLMAP model",)),
        ("notes.txt", ("give the folder",)),
    ],
)
def test_a_file_that_is_no_data_set_says_what_to_do(name, words, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    refused(tmp_path / name, *words)
    if name == "a.mov":
        refused(tmp_path, "holds a video", "tslim poses")


def test_a_folder_of_pictures_that_are_not_read_says_so(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"x")
    refused(tmp_path, "1 .heic pictures", "convert them")
