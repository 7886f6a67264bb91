"""Photographs, masks, models and points are found where people have them; what is ambiguous is not guessed."""

import shutil
import unicodedata

import captures
import numpy as np
import pytest
from PIL import Image

from tslim.data import load_scene
from tslim.data.image_file import Mask, load_mask
from tslim.data.pictures import Tree, cleaned, key
from tslim.errors import SceneError
from tslim.scene.cameras import Cameras

JPEG = 0.03
NAMES = [f"{i:04}.jpg" for i in range(10)]


def move(where):
    def run(folder):
        (folder / "images").rename(folder / "kept")
        (folder / where).parent.mkdir(parents=True, exist_ok=True)
        (folder / "kept").rename(folder / where)

    return run


def beside_the_model(folder):
    for path in (folder / "images").iterdir():
        path.rename(folder / path.name)
    (folder / "images").rmdir()


def renamed(change):
    def run(folder):
        for path in list((folder / "images").iterdir()):
            path.rename(path.with_name(change(path.name)))

    return run


def as_png(folder):
    for path in list((folder / "images").iterdir()):
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()


def halved(folder, remove=False, names=NAMES):
    """images_2 with copies; the full pictures go if ``remove``."""
    (folder / "images_2").mkdir()
    for name in names:
        image = Image.open(folder / "images" / name)
        image.reduce(2).save(folder / "images_2" / name, quality=98, subsampling=0)
    if remove:
        shutil.rmtree(folder / "images")


FOUND = {
    "in input": move("input"),
    "in a folder of another name": move("My pictures"),
    "in a folder in images": move("images/cam0"),
    "beside the model": beside_the_model,
    "with an ending in capitals": renamed(str.upper),
    "with another ending": as_png,
    "only copies of half the size": lambda folder: halved(folder, remove=True),
}


@pytest.mark.parametrize("name", FOUND)
def test_photographs_are_found(name, tmp_path):
    captures.write_colmap(tmp_path)
    FOUND[name](tmp_path)
    scene = load_scene(tmp_path)
    assert len(scene.train) == 8
    captures.assert_right(scene.train, 0.06 if "half" in name else JPEG)
    assert bool(scene.warnings) == ("half" in name)


@pytest.mark.parametrize(
    "listed", ["images/{}", "C:\\Users\\me\\scene\\images\\{}", "./{}", "/home/me/scene/images/{}"]
)
def test_listed_names_may_have_more_folders_than_there_are(listed, tmp_path):
    captures.write_colmap(tmp_path, names=NAMES)
    captures.write_colmap(tmp_path / "listed", names=[listed.format(name).replace("/home", "x/home") for name in NAMES])
    path = tmp_path / "listed/sparse/0/images.bin"
    data = path.read_bytes()
    if listed.startswith("/home"):
        data = data.replace(b"x/home", b"/home")
    (tmp_path / "sparse/0/images.bin").write_bytes(data)
    shutil.rmtree(tmp_path / "listed")
    scene = load_scene(tmp_path)
    assert len(scene.train) == 8
    captures.assert_right(scene.train, JPEG)


def test_names_in_another_form_of_unicode_are_the_same(tmp_path):
    names = [f"Ünï {i}.jpg" for i in range(10)]
    captures.write_colmap(tmp_path, names=[unicodedata.normalize("NFC", n) for n in names])
    for path in list((tmp_path / "images").iterdir()):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))
    captures.assert_right(load_scene(tmp_path).train, JPEG)


def test_pictures_in_several_folders_are_told_apart(tmp_path):
    names = [f"cam{i % 2}/{i // 2:03}.png" for i in range(10)]
    captures.write_transforms(tmp_path, names=names)
    captures.assert_right(load_scene(tmp_path).train)


def test_a_name_that_could_be_two_pictures_is_missing(tmp_path):
    for name in ("a/x.png", "b/x.png", "c/y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / name)
    tree = Tree(tmp_path)
    assert tree.find("x.png") is None
    assert tree.find("a/x.jpg") == tmp_path / "a/x.png"
    assert tree.find("Y.JPG") == tmp_path / "c/y.png"
    assert tree.find("d/y.png") is None, "another folder is another picture"
    assert tree.find("../elsewhere/c/y.png") == tmp_path / "c/y.png", "but for paths from elsewhere"


def test_names_are_compared_without_ending_case_and_form():
    assert key("A/Ünï.JPG") == key(unicodedata.normalize("NFD", "a/ünï.heic"))
    assert key("frame.0001") == "frame.0001" and key("a.jpg.png") == "a.jpg"
    assert cleaned("C:\\a\\.\\b.png") == "/a/b.png" and cleaned("./a/../b.png") == "b.png"


def test_incomplete_copies_are_not_used(tmp_path):
    full = captures.ring(size=(72, 48))
    captures.write_colmap(tmp_path, full)
    halved(tmp_path, names=NAMES[:5])
    scene = load_scene(tmp_path, downscale=2)
    assert len(scene.train) == 8 and scene.train.cameras.sizes[0].tolist() == [36, 24]
    assert "images_2 has copies of 5 of the 10 photographs only" in scene.warnings[0]
    captures.assert_right(scene.train, 0.06)


def test_nothing_found_says_where_pictures_are(tmp_path):
    captures.write_colmap(tmp_path)
    for path in list((tmp_path / "images").iterdir()):
        path.rename(path.with_name("x" + path.name))
    with pytest.raises(
        SceneError, match=r"none of its 10 photographs .*images \(10\); put them into its folder images"
    ):
        load_scene(tmp_path)


def test_photographs_outside_need_a_word(tmp_path):
    data = captures.write_transforms(tmp_path / "scene")
    (tmp_path / "scene/images").rename(tmp_path / "images")
    for frame in data["frames"]:
        frame["file_path"] = f"../{frame['file_path']}"
    captures.save_json(tmp_path / "scene", data)
    with pytest.raises(SceneError, match="leaves the scene's folder; --file-paths anywhere"):
        load_scene(tmp_path / "scene")
    captures.assert_right(load_scene(tmp_path / "scene", file_paths="anywhere").train)


MODELS = {
    "sparse/1": lambda f: (f / "sparse/0").rename(f / "sparse/1"),
    "sparse": lambda f: (
        (f / "sparse/0").rename(f / "kept"),
        (f / "sparse").rmdir(),
        (f / "kept").rename(f / "sparse"),
    ),
    "colmap/sparse/0": lambda f: ((f / "colmap").mkdir(), (f / "sparse").rename(f / "colmap/sparse")),
    "beside the photographs": lambda f: [p.rename(f / p.name) for p in (f / "sparse/0").iterdir()],
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_found(name, tmp_path):
    captures.write_colmap(tmp_path)
    MODELS[name](tmp_path)
    scene = load_scene(tmp_path)
    assert scene.format == "colmap" and len(scene.points) == 200
    captures.assert_right(scene.train, JPEG)


def test_the_undistorted_model_of_colmap_has_its_own_photographs(tmp_path):
    captures.write_colmap(tmp_path / "dense/0", captures.ring())
    model = tmp_path / "dense/0/sparse"
    for path in list((model / "0").iterdir()):
        path.rename(model / path.name)
    captures.take_images(captures.ring(seed=5), [f"images/{n}" for n in NAMES], tmp_path)
    captures.assert_right(load_scene(tmp_path).train, JPEG)


def test_of_several_models_the_largest_is_read(tmp_path):
    captures.write_colmap(tmp_path, captures.ring())
    (tmp_path / "sparse/0").rename(tmp_path / "sparse/1")
    captures.write_colmap(tmp_path / "small", captures.ring()[:3], NAMES[:3])
    (tmp_path / "small/sparse/0").rename(tmp_path / "sparse/0")
    shutil.rmtree(tmp_path / "small")
    scene = load_scene(tmp_path)
    assert len(scene.train) + len(scene.test) == 10
    assert "sparse/1 with 10 images is read, and not sparse/0 (3)" in scene.warnings[0]
    captures.assert_right(scene.train, JPEG)


def test_points_may_be_a_ply_file(tmp_path):
    captures.write_colmap(tmp_path)
    (tmp_path / "sparse/0/points3D.bin").unlink()
    header = (
        "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    )
    (tmp_path / "sparse/0/points3D.ply").write_text(header + "0 0 1\n0.5 0 0\n")
    scene = load_scene(tmp_path)
    assert scene.points.tolist() == [[0, 0, 1], [0.5, 0, 0]] and scene.warnings == ()


def test_an_images_file_without_second_lines_keeps_every_image(tmp_path):
    captures.write_colmap(tmp_path, text=True)
    path = tmp_path / "sparse/0/images.txt"
    lines = [line for line in path.read_text().splitlines() if line.endswith(".jpg")]
    path.write_text("\n".join(lines) + "\n")
    scene = load_scene(tmp_path)
    assert len(scene.train) + len(scene.test) == 10 and scene.warnings == ()
    captures.assert_right(scene.train, JPEG)


def test_of_two_descriptions_the_one_with_lens_and_points_is_read_if_it_is_as_complete(tmp_path):
    captures.write_llff(tmp_path, captures.ring())
    captures.write_colmap(tmp_path, captures.ring(), [f"{i:03}.png" for i in range(10)])
    captures.take_images(captures.ring(), [f"images/{i:03}.png" for i in range(10)], tmp_path)
    scene = load_scene(tmp_path)
    assert scene.format == "colmap" and "llff (poses_bounds.npy)" in scene.warnings[0]
    captures.assert_right(scene.train)
    assert load_scene(tmp_path, format="llff").format == "llff"
    captures.write_colmap(tmp_path / "small", captures.ring()[:4], [f"{i:03}.png" for i in range(4)])
    shutil.rmtree(tmp_path / "sparse")
    (tmp_path / "small/sparse").rename(tmp_path / "sparse")
    shutil.rmtree(tmp_path / "small")
    assert load_scene(tmp_path).format == "llff"


KEPT = np.full((24, 36), 255, np.uint8)
KEPT[:, :9] = 0


def dark_colours(mask):
    image = Image.fromarray((mask > 0).astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 100, 0, 0])
    return image


def in_alpha(mask):
    image = Image.new("RGBA", (36, 24), (9, 9, 9, 255))
    image.putalpha(Image.fromarray(mask))
    return image


VALUES = {
    "0 and 255": Image.fromarray,
    "0 and 1": lambda m: Image.fromarray((m > 0).astype(np.uint8)),
    "labels": lambda m: Image.fromarray((m > 0).astype(np.uint8) * 7),
    "a palette of dark colours": dark_colours,
    "one bit": lambda m: Image.fromarray(m).convert("1"),
    "sixteen bits": lambda m: Image.fromarray((m > 0).astype(np.uint16) * 65535),
    "sixteen bits of 0 and 1": lambda m: Image.fromarray((m > 0).astype(np.uint16)),
    "colour": lambda m: Image.fromarray(m).convert("RGB"),
    "alpha": in_alpha,
    "twice the size": lambda m: Image.fromarray(m).resize((72, 48), Image.Resampling.NEAREST),
    "half the size": lambda m: Image.fromarray(m).resize((18, 12), Image.Resampling.BOX),
}


@pytest.mark.parametrize("values", VALUES)
def test_masks_of_all_kinds_keep_the_same_pixels(values, tmp_path):
    VALUES[values](KEPT).save(tmp_path / "m.png")
    mask = load_mask(Mask(tmp_path / "m.png"), (36, 24)).copy()
    if values == "half the size":  # its edge lies within a pixel
        mask[:, 8:10] = KEPT[:, 8:10]
    np.testing.assert_array_equal(mask, KEPT)


PLACES = ["masks/{}.jpg.png", "masks/{}.png", "masks/{}.PNG", "mask/{}.png", "masks/images/{}.png", "masks/{}.mask.png",
          "Masks/{}.png", "images/{}_mask.png", "images/dynamic_mask_{}.png"]  # fmt: skip


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("name", ["colmap", "transforms", "llff", "nsvf"])
def test_masks_are_found_for_every_format(name, where, tmp_path):
    captures.WRITERS[name](tmp_path)
    folder = {"nsvf": "rgb"}.get(name, "images")
    pictures = sorted((tmp_path / folder).iterdir())
    for path in pictures:
        mask = tmp_path / where.replace("images", folder).replace("{}.jpg", f"{{}}{path.suffix}").format(path.stem)
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - KEPT if "dynamic" in where else KEPT).save(mask)
    scene = load_scene(tmp_path)
    assert len(scene.train) >= 7 and any("masks for" in note for note in scene.notes)
    for i in range(len(scene.train)):
        np.testing.assert_array_equal(scene.train.rgba(i)[..., 3], KEPT)
    assert scene.background is None or name == "nsvf"


def test_a_jpeg_mask_is_read_in_spite_of_its_noise(tmp_path):
    Image.fromarray(KEPT).save(tmp_path / "m.jpg", quality=60)
    mask = load_mask(Mask(tmp_path / "m.jpg"), (36, 24))
    assert ((mask >= 128) == (KEPT > 0)).mean() > 0.97
    Image.fromarray(255 - KEPT).save(tmp_path / "d.jpg", quality=60)
    mask = load_mask(Mask(tmp_path / "d.jpg", inverted=True), (36, 24))
    assert ((mask >= 128) == (KEPT > 0)).mean() > 0.97


def test_masks_of_the_full_size_fit_smaller_copies(tmp_path):
    full = captures.ring(size=(72, 48))
    captures.write_colmap(tmp_path, full)
    halved(tmp_path)
    (tmp_path / "masks").mkdir()
    for name in NAMES:
        Image.fromarray(KEPT).resize((72, 48), Image.Resampling.NEAREST).save(tmp_path / "masks" / f"{name}.png")
    scene = load_scene(tmp_path, downscale=2)
    assert "images_2" in scene.notes[0]
    np.testing.assert_array_equal(scene.train.rgba(0)[..., 3], KEPT)


def test_masks_that_fit_nothing_and_masks_that_hide_everything_are_warned_of(tmp_path):
    captures.write_colmap(tmp_path)
    (tmp_path / "masks").mkdir()
    for i in range(10):
        Image.fromarray(KEPT).save(tmp_path / f"masks/mask{i}.png")
    scene = load_scene(tmp_path)
    assert "masks holds 10 pictures, none of which has a photograph's name" in scene.warnings[0]
    for i in range(10):
        Image.new("L", (36, 24), 0).save(tmp_path / f"masks/{i:04}.png")
    assert "masks leave out 100 %" in " ".join(load_scene(tmp_path).warnings)


def test_some_masks_are_said(tmp_path):
    captures.write_colmap(tmp_path)
    (tmp_path / "masks").mkdir()
    for i in range(1, 5):
        Image.fromarray(KEPT).save(tmp_path / f"masks/{i:04}.png")
    scene = load_scene(tmp_path)
    assert any("masks for 4 of 8 training images" in note for note in scene.notes)
    assert scene.train.rgba(6)[..., 3].min() == 255


def test_cameras_of_copies_fit_where_the_file_says_no_size(tmp_path):
    full = captures.ring(size=(72, 48))
    k = full.intrinsics.copy()
    k[:, 2:] = 36, 24
    data = captures.write_transforms(tmp_path, Cameras(full.poses, k, full.sizes, full.lens, full.distortion))
    for i in range(10):
        image = Image.open(tmp_path / f"images/{i:04}.png").reduce(2)
        (tmp_path / "images_2").mkdir(exist_ok=True)
        image.save(tmp_path / f"images_2/{i:04}.png")
    shutil.rmtree(tmp_path / "images")
    del data["w"], data["h"], data["cx"], data["cy"]
    captures.save_json(tmp_path, data)
    scene = load_scene(tmp_path)
    assert scene.train.cameras.sizes[0].tolist() == [36, 24]
    captures.assert_right(scene.train, 0.05)
