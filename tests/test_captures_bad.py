"""Every broken capture is one line that names the file; nothing else escapes a loader."""

import os
import struct

import captures
import numpy as np
import pytest
from PIL import Image

from tslim.data import FORMATS, load_scene
from tslim.errors import SceneError
from tslim.scene import lenses


def refuse(folder, *words: str, **options) -> str:
    """Loads and expects one line with all the words."""
    with pytest.raises(SceneError) as caught:
        load_scene(folder, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    for word in words:
        assert word in message, message
    return message


def edit(folder, change) -> None:
    """Writes transforms.json with ``change(data)`` applied."""
    data = captures.write_transforms(folder)
    change(data)
    captures.save_json(folder, data)


def frame(i, **values):
    return lambda data: data["frames"][i].update(values)


def turned(by):
    pose = np.eye(4)
    pose[:3, :3] = by
    return pose.tolist()


TRANSFORMS = {
    "frames missing": (lambda d: d.pop("frames"), ["lacks frames"]),
    "frames empty": (lambda d: d.update(frames=[]), ["zero frames"]),
    "frames an object": (lambda d: d.update(frames={}), ["lacks frames"]),
    "a frame is a number": (lambda d: d["frames"].__setitem__(3, 7), ["frame 3"]),
    "file_path missing": (lambda d: d["frames"][3].pop("file_path"), ["frame 3", "file_path"]),
    "file_path empty": (frame(3, file_path=""), ["empty or impossible name"]),
    "file_path with a zero byte": (frame(3, file_path="a\0b.png"), ["impossible name"]),
    "file_path too long": (
        lambda d: [f.update(file_path="x" * 5000 + str(i)) for i, f in enumerate(d["frames"])],
        ["none of its 10 photographs", "images (10)"],
    ),
    "absolute path": (frame(3, file_path="/etc/passwd"), ["/etc/passwd", "leaves", "--file-paths anywhere"]),
    "a frame twice": (frame(3, file_path="images/0004.png"), ["lists images/0004.png twice"]),
    "matrix missing": (lambda d: d["frames"][3].pop("transform_matrix"), ["images/0003.png", "transform_matrix"]),
    "matrix of words": (frame(3, transform_matrix=[["a"] * 4] * 4), ["images/0003.png", "4x4"]),
    "matrix ragged": (frame(3, transform_matrix=[[1, 0, 0], [0, 1], [0]]), ["images/0003.png", "4x4"]),
    "matrix 3x3": (frame(3, transform_matrix=np.eye(3).tolist()), ["4x4"]),
    "matrix with NaN": (frame(3, transform_matrix=turned(np.nan)), ["images/0003.png", "NaN"]),
    "matrix with infinity": (frame(3, transform_matrix=turned(np.inf)), ["images/0003.png", "infinity"]),
    "matrix with a number beyond float32": (frame(3, transform_matrix=turned(1e300)), ["images/0003.png"]),
    "matrix of zeros": (frame(3, transform_matrix=np.zeros((4, 4)).tolist()), ["images/0003.png", "orthonormal"]),
    "matrix sheared": (frame(3, transform_matrix=turned([[2, 1, 0], [0, 1, 0], [0, 0, 1]])), ["orthonormal"]),
    "matrix transposed": (
        frame(3, transform_matrix=[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 2, 3, 1]]),
        ["0003.png", "transpose"],
    ),
    "matrix mirrored": (frame(3, transform_matrix=turned(np.diag([1.0, 1, -1]))), ["images/0003.png", "mirrored"]),
    "focal length zero": (lambda d: d.update(fl_x=0), ["focal length 0", "expected it in pixels"]),
    "focal length negative": (lambda d: d.update(fl_y=-30), ["focal length"]),
    "focal length a word": (lambda d: d.update(fl_x="wide"), ["fl_x is wide"]),
    "focal length true": (lambda d: d.update(fl_x=True), ["fl_x is True"]),
    "focal length NaN": (lambda d: d.update(fl_x=float("nan")), ["fl_x is nan"]),
    "focal length beyond a float": (lambda d: d.update(fl_x=10**400), ["fl_x is 1000"]),
    "no focal length": (lambda d: (d.pop("fl_x"), d.pop("fl_y")), ["fl_x", "camera_angle_x"]),
    "angle of half a turn": (lambda d: (d.pop("fl_x"), d.update(camera_angle_x=3.2)), ["camera_angle_x is 3.2"]),
    "f-theta lens": (lambda d: d.update(ftheta_p0=0.0, ftheta_p1=1e-3), ["f-theta", "OPENCV_FISHEYE"]),
    "centre far outside": (lambda d: d.update(cx=1e6), ["centre"]),
    "width zero": (lambda d: d.update(w=0), ["image size 0x24"]),
    "width huge": (lambda d: d.update(w=10**9), ["image size"]),
    "width a fraction": (lambda d: d.update(w=36.5), ["whole numbers"]),
    "size of other proportions": (lambda d: d.update(w=24, h=36), ["36x24", "its camera is for 24x36"]),
    "camera model unknown": (lambda d: d.update(camera_model="ORTHOPHOTO"), ["ORTHOPHOTO", "OPENCV_FISHEYE"]),
    "camera model a list": (lambda d: d.update(camera_model=[1]), ["camera_model"]),
    "coefficients that fold": (lambda d: d.update(k1=-9.0), ["fold"]),
    "coefficient NaN": (lambda d: d.update(k1=float("nan")), ["k1 is nan"]),
    "k5 on a polynomial lens": (lambda d: d.update(k5=0.1), ["k5", "FULL_OPENCV"]),
    "k6 on a fisheye": (lambda d: d.update(camera_model="OPENCV_FISHEYE", k6=0.1), ["k6"]),
    "k1 on an equirectangular picture": (lambda d: d.update(camera_model="EQUIRECTANGULAR", k1=0.1), ["k1"]),
    "aabb_scale zero": (lambda d: d.update(aabb_scale=0), ["aabb_scale is 0"]),
    "aabb_scale a word": (lambda d: d.update(aabb_scale="big"), ["aabb_scale is big"]),
    "offset of two numbers": (lambda d: d.update(aabb_scale=1, offset=[1, 2]), ["offset"]),
    "scale zero": (lambda d: d.update(aabb_scale=1, scale=0), ["scale"]),
    "offset absurd": (lambda d: d.update(aabb_scale=1, offset=1e200), ["offset", "absurdly large"]),
    "camera absurdly far": (
        frame(3, transform_matrix=[[1, 0, 0, 1e9], [0, 1, 0, 0], [0, 0, 1, 0]]),
        ["0003.png", "far"],
    ),
    "train_filenames a word": (lambda d: d.update(train_filenames="all"), ["train_filenames", "list"]),
    "train_filenames of numbers": (lambda d: d.update(train_filenames=[1]), ["train_filenames", "list"]),
    "train_filenames match nothing": (lambda d: d.update(train_filenames=["x.png"]), ["no training images"]),
    "mask missing": (frame(3, mask_path="masks/3.png"), ["mask masks/3.png is missing"]),
    "mask a number": (frame(3, mask_path=3), ["mask_path"]),
    "mask outside": (frame(3, mask_path="../m.png"), ["leaves", "--file-paths"]),
    "aabb of words": (lambda d: (d.pop("aabb_scale"), d.update(aabb="big")), ["aabb is big", "2 x 3"]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_bad_transforms_json(name, tmp_path):
    change, words = TRANSFORMS[name]
    edit(tmp_path, change)
    refuse(tmp_path, "transforms.json" if "proportions" not in name else "0001.png", *words)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "not valid json"),
        ("{", "line 1"),
        ('{"frames": [\n{"file_path": "a"', "line 2"),
        ("[]", "list"),
        ("null", "NoneType"),
        ("[" * 100_000, "transforms.json"),
        ('{"frames": [1, 2], "frames": 5}', "lacks frames"),
        ("\x00\x01", "not valid json"),
    ],
)
def test_a_json_that_is_none(text, word, tmp_path):
    captures.write_transforms(tmp_path)
    (tmp_path / "transforms.json").write_text(text)
    refuse(tmp_path, "transforms.json", word)


def test_a_json_that_is_not_text(tmp_path):
    captures.write_transforms(tmp_path)
    (tmp_path / "transforms.json").write_bytes(b'{"frames": "\xff\xfe"}')
    refuse(tmp_path, "transforms.json", "UTF-8")


def test_a_json_that_is_a_folder(tmp_path):
    (tmp_path / "transforms.json").mkdir()
    refuse(tmp_path, "transforms.json", "cannot be read", format="transforms")


def truncate(name: str, keep: float):
    def change(folder):
        path = folder / name
        path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])

    return change


def patch(name: str, at: int, layout: str, *values):
    def change(folder):
        data = bytearray((folder / name).read_bytes())
        struct.pack_into(layout, data, at, *values)
        (folder / name).write_bytes(data)

    return change


def write(name: str, content: str | bytes):
    def change(folder):
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


PLY = b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not a PLY"),
        (b"ply\nend_header", "not a PLY"),
        (PLY.replace(b"ascii", b"secret") + b"1 2 3\n4 5 6\n", "format"),
        (PLY.replace(b"float z", b"float w") + b"1 2 3\n4 5 6\n", "lack x, y or z"),
        (PLY.replace(b"float z", b"list uchar int z") + b"1 2 3\n4 5 6\n", "property"),
        (PLY.replace(b"vertex", b"face") + b"1 2 3\n4 5 6\n", "expected vertex"),
        (PLY.replace(b"vertex 2", b"vertex " + b"9" * 5000), "number of vertices"),
        (PLY + b"1 2 3\n", "truncated"),
        (PLY + b"1 2\n3 4\n", "line of numbers"),
        (
            PLY.replace(b"ascii", b"binary_little_endian").replace(b"vertex 2", b"vertex 99999999999") + b"123",
            "truncated",
        ),
    ],
)
def test_bad_ply(content, word, tmp_path):
    captures.write_transforms(tmp_path, ply_file_path="points.ply")
    (tmp_path / "points.ply").write_bytes(content)
    refuse(tmp_path, "points.ply", word)


C, P, X = (f"sparse/0/{name}.bin" for name in ("cameras", "images", "points3D"))
NAN = float("nan")
# cameras.bin: count (8), then id (4), model (4), width (8), height (8), fx fy cx cy
# images.bin: count (8), then id (4), qw qx qy qz tx ty tz (56), camera (4), name 0000.jpg\0 (9), count of points (8)
COLMAP = {
    "cameras truncated": (truncate(C, 0.7), [C, "bytes"]),
    "cameras empty": (write(C, b""), [C, "truncated"]),
    "images truncated": (truncate(P, 0.7), [P]),
    "images cut within a count": (write(P, b"\1\0\0"), [P, "truncated"]),
    "points truncated": (truncate(X, 0.7), [X]),
    "cameras announce too many": (patch(C, 0, "<Q", 2**60), [C, "announces"]),
    "images announce too many": (patch(P, 0, "<Q", 2**63), [P, "announces"]),
    "points announce too many": (patch(X, 0, "<Q", 10**12), [X, "announces"]),
    "an image announces too many points": (patch(P, 8 + 4 + 56 + 4 + 9, "<Q", 2**61), [P, "of image '0000.jpg'"]),
    "a track too long": (patch(X, 8 + 43, "<Q", 2**62), [X, "track"]),
    "no image": (write(P, struct.pack("<Q", 0)), [P, "no image has a pose"]),
    "a name without an end": (write(P, struct.pack("<Qi7di", 1, 1, 1, 0, 0, 0, 0, 0, 0, 1) + b"x" * 90), [P, "no end"]),
    "a name that is not UTF-8": (patch(P, 8 + 4 + 56 + 4, "<B", 0xFF), [P, "UTF-8"]),
    "lens model unsupported": (patch(C, 12, "<i", 7), [C, "FOV", "SIMPLE_RADIAL"]),
    "lens model unknown": (patch(C, 12, "<i", -5), [C, "number -5", "OPENCV_FISHEYE"]),
    "width zero": (patch(C, 16, "<Q", 0), [C, "camera 1", "image size 0x24"]),
    "width huge": (patch(C, 16, "<Q", 2**63), [C, "image size"]),
    "focal length zero": (patch(C, 32, "<d", 0.0), [C, "camera 1", "focal length 0"]),
    "focal length NaN": (patch(C, 32, "<d", NAN), [C, "finite"]),
    "quaternion NaN": (patch(P, 12, "<d", NAN), [P, "0000.jpg", "quaternion"]),
    "quaternion zero": (patch(P, 12, "<4d", 0, 0, 0, 0), [P, "0000.jpg", "quaternion"]),
    "translation infinite": (patch(P, 44, "<d", float("inf")), [P, "0000.jpg", "finite"]),
    "translation beyond float32": (patch(P, 44, "<d", 1e200), [P, "0000.jpg"]),
    "a camera that is not there": (patch(P, 68, "<i", 99), [P, "0000.jpg", "camera 99"]),
    "an image twice": (patch(P, 72, "<4s", b"0002"), [P, "0002.jpg twice"]),
    "cameras only": (lambda f: (f / P).unlink(), ["sparse/0", "images file"]),
}


@pytest.mark.parametrize("name", COLMAP)
def test_bad_colmap_binary(name, tmp_path):
    change, words = COLMAP[name]
    captures.write_colmap(tmp_path)
    change(tmp_path)
    refuse(tmp_path, *words)


CT, PT, XT = (f"sparse/0/{name}.txt" for name in ("cameras", "images", "points3D"))
COLMAP_TEXT = {
    "camera of three words": (write(CT, "1 PINHOLE 36\n"), [CT, ":1:", "CAMERA_ID MODEL"]),
    "camera with a word for a number": (write(CT, "1 PINHOLE 36 24 1 2 x 4\n"), [CT, ":1:", "'x'"]),
    "camera without parameters": (write(CT, "1 PINHOLE 36 24 1 2\n"), [CT, "4 parameters, found 2"]),
    "camera model unknown": (write(CT, "1 NONSENSE 36 24 1 2\n"), [CT, "NONSENSE", "accepted"]),
    "binary named text": (write(CT, b"\xff\xfe\0\1"), [CT, ".bin"]),
    "no camera": (write(CT, "# nothing\n"), ["camera 1", CT, "lacks"]),
    "pose of four words": (write(PT, "1 1 0 0\n\n"), [PT, ":1:", "IMAGE_ID"]),
    "pose with a word": (write(PT, "1 1 0 0 0 x 0 0 1 0000.jpg\n\n"), [PT, "'x'"]),
    "point of three words": (write(XT, "1 2 3\n"), [XT, "POINT3D_ID"]),
    "huge number of digits": (write(CT, "1 PINHOLE " + "9" * 5000 + " 24 1 2 3 4\n"), [CT]),
}


@pytest.mark.parametrize("name", COLMAP_TEXT)
def test_bad_colmap_text(name, tmp_path):
    change, words = COLMAP_TEXT[name]
    captures.write_colmap(tmp_path, text=True)
    change(tmp_path)
    refuse(tmp_path, *words)


def rows(change):
    def run(folder):
        table = np.load(folder / "poses_bounds.npy")
        np.save(folder / "poses_bounds.npy", change(table))

    return run


def setting(index, value):
    def change(table):
        table[index] = value
        return table

    return rows(change)


L = "poses_bounds.npy"
LLFF = {
    "truncated": (truncate(L, 0.6), [L, "readable"]),
    "empty": (write(L, b""), [L]),
    "a text": (write(L, "hello" * 30), [L]),
    "a header that lies": (
        lambda f: (f / L).write_bytes((f / L).read_bytes().replace(b"(10, 17)", b"(99999999999999, 17)")),
        [L],
    ),
    "a header that is no dictionary": (patch(L, 10, "<8s", b"__import"), [L]),
    "pickled": (lambda f: np.save(f / L, np.array([{"a": 1}], object), allow_pickle=True), [L]),
    "complex": (rows(lambda t: t.astype(complex)), [L, "(10, 17)"]),
    "flat": (rows(lambda t: t.ravel()), [L, "(images, 17)"]),
    "too few columns": (rows(lambda t: t[:, :14]), [L, "(10, 14)"]),
    "no rows": (rows(lambda t: t[:0]), [L, "0 poses"]),
    "one row less": (rows(lambda t: t[:-1]), [L, "9 poses, but 10 images"]),
    "one image less": (lambda f: (f / "images/003.png").unlink(), [L, "10 poses, but 9 images"]),
    "NaN": (setting((3, 4), np.nan), [L, "row 3"]),
    "bounds swapped": (setting((3, 15), 50.0), [L, "row 3", "near < far"]),
    "bounds zero": (setting((3, 15), 0.0), [L, "row 3", "near < far"]),
    "focal length zero": (setting((slice(None), 14), 0.0), [L, "000.png", "focal length 0"]),
    "image size zero": (setting((slice(None), 9), 0.0), [L, "image size 0x24"]),
    "rotation scaled": (setting((3, 0), 7.0), [L, "003.png", "orthonormal"]),
    "no images": (lambda f: [p.unlink() for p in (f / "images").iterdir()], ["10 poses, but no images", "images_8"]),
}


NSVF = {
    "no intrinsics": (lambda f: (f / "intrinsics.txt").unlink(), ["intrinsics.txt", "no such file"]),
    "intrinsics of two numbers": (write("intrinsics.txt", "1 2"), ["intrinsics.txt", "matrix"]),
    "intrinsics of words": (write("intrinsics.txt", "a b c d"), ["intrinsics.txt", "numbers only"]),
    "intrinsics with NaN": (write("intrinsics.txt", "30 nan 12"), ["intrinsics.txt", "NaN"]),
    "intrinsics empty": (write("intrinsics.txt", ""), ["intrinsics.txt", "matrix"]),
    "intrinsics transposed": (
        write("intrinsics.txt", "30 0 0 0\n0 30 0 0\n18 12 1 0\n0 0 0 1"),
        ["intrinsics.txt", "third row"],
    ),
    "focal length zero": (write("intrinsics.txt", "0 18 12"), ["intrinsics.txt", "focal length 0"]),
    "binary intrinsics": (write("intrinsics.txt", b"\xff\xfe\0"), ["intrinsics.txt"]),
    "box of five numbers": (write("bbox.txt", "1 2 3 4 5"), ["bbox.txt", "5 numbers"]),
    "box without volume": (write("bbox.txt", "-1 -1 2 1 1 1"), ["bbox.txt", "no volume"]),
    "box infinite": (write("bbox.txt", "-1 -1 -inf 1 1 1"), ["bbox.txt", "infinity"]),
    "box absurdly large": (write("bbox.txt", "-1e30 -1 -1 1 1 1"), ["bbox.txt", "absurdly large"]),
    "pose of nine numbers": (write("pose/0_0001.txt", "1 0 0 0 1 0 0 0 1"), ["0_0001.txt", "9 numbers"]),
    "pose of words": (write("pose/0_0001.txt", "x " * 16), ["0_0001.txt", "numbers only"]),
    "pose mirrored": (write("pose/0_0001.txt", "1 0 0 0 0 1 0 0 0 0 -1 0 0 0 0 1"), ["0_0001", "mirrored"]),
    "no pose folder": (lambda f: (f / "pose").rename(f / "poses"), ["pose: no such folder"]),
    "no rgb folder": (lambda f: (f / "rgb").rename(f / "images"), ["rgb: no such folder"]),
    "no training images": (
        lambda f: [p.rename(p.with_name("1" + p.name[1:])) for d in ("rgb", "pose") for p in (f / d).iterdir()],
        ["no training images", "0_"],
    ),
    "no images": (lambda f: [p.unlink() for p in (f / "rgb").iterdir()], ["rgb", "10 of 10 images are missing"]),
    "no poses": (lambda f: [p.unlink() for p in (f / "pose").iterdir()], ["0 images with poses"]),
}


@pytest.mark.parametrize(
    ("write_good", "change", "words"),
    [
        pytest.param(write_good, *case, id=f"{write_good.__name__.removeprefix('write_')} {name}")
        for write_good, cases in ((captures.write_llff, LLFF), (captures.write_nsvf, NSVF))
        for name, case in cases.items()
    ],
)
def test_bad_llff_and_nsvf(write_good, change, words, tmp_path):
    write_good(tmp_path)
    change(tmp_path)
    refuse(tmp_path, *words)


IMAGES = {
    "transforms": "images/0001.png",
    "colmap": "images/0001.jpg",
    "llff": "images/001.png",
    "nsvf": "rgb/0_0001.png",
}


@pytest.mark.parametrize("name", IMAGES)
def test_bad_images(name, tmp_path):
    captures.WRITERS[name](tmp_path)
    path = tmp_path / IMAGES[name]
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    refuse(tmp_path, path.name, "truncated")
    path.write_bytes(b"")
    refuse(tmp_path, path.name, "empty file")
    path.write_bytes(b"GIF89a" + good)
    refuse(tmp_path, path.name, "not an image")
    if name != "nsvf":  # its camera file doesn't say for which size it is
        Image.new("RGB", (11, 24)).save(path)
        refuse(tmp_path, path.name, "11x24 pixels", "36x24")


def test_a_jpeg_named_png_loads(tmp_path):
    captures.write_transforms(tmp_path)
    path = tmp_path / "images/0001.png"
    Image.open(path).convert("RGB").save(path, format="JPEG", quality=98)
    assert len(load_scene(tmp_path).train) == 8


@pytest.mark.parametrize("name", IMAGES)
def test_downscaling_below_one_pixel(name, tmp_path):
    captures.WRITERS[name](tmp_path)
    refuse(tmp_path, "36x24 pixels cannot be made 25 times smaller", downscale=25)


def test_too_few_images_left(tmp_path):
    captures.write_transforms(tmp_path)
    for i in range(2, 10):
        os.unlink(tmp_path / f"images/{i:04}.png")
    refuse(tmp_path, "8 of 10 images are missing", "images/0002.png", "at least 3")


def test_a_link_in_a_circle_is_a_missing_image(tmp_path):
    captures.write_transforms(tmp_path)
    (tmp_path / "images/0003.png").unlink()
    (tmp_path / "images/0003.png").symlink_to(tmp_path / "images/0003.png")
    assert "images/0003.png" in load_scene(tmp_path).warnings[0]


def test_a_mask_of_another_size(tmp_path):
    captures.write_colmap(tmp_path)
    (tmp_path / "masks").mkdir()
    Image.new("L", (5, 5)).save(tmp_path / "masks/0001.png")
    refuse(tmp_path, "masks/0001.png", "5x5")


def test_a_camera_file_for_huge_pictures_does_not_reserve_memory_for_them(tmp_path):
    data = captures.write_transforms(tmp_path)
    data |= {key: data[key] * 1500 for key in ("fl_x", "fl_y", "cx", "cy", "w", "h")}
    captures.save_json(tmp_path, data)  # 54000 x 36000; the files are scaled copies of that
    assert load_scene(tmp_path).train.cameras.sizes[0].tolist() == [36, 24]


@pytest.mark.parametrize("name", [f for f in FORMATS if f != "blender"])
def test_a_format_that_is_forced_on_an_empty_folder(name, tmp_path):
    refuse(tmp_path, str(tmp_path), format=name)


def test_a_fisheye_of_more_than_half_the_world_loads(tmp_path):
    cameras = captures.ring()
    narrow = cameras.intrinsics * np.array([0.25, 0.25, 1, 1], np.float32)
    wide = type(cameras)(cameras.poses, narrow, cameras.sizes, np.full(10, lenses.FISHEYE), cameras.distortion)
    captures.write_transforms(tmp_path, wide)
    scene = load_scene(tmp_path)
    assert captures.disagreement(scene.train, 0) < 0.006


def test_the_message_for_an_unknown_folder_lists_every_format(tmp_path):
    message = refuse(tmp_path, "unknown format")
    for name in FORMATS:
        assert name in message
