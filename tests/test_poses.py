"""Cameras from photographs alone: collecting pictures, the process that pycolmap runs in, and known cameras found."""

import json
import sys
import zlib
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from tslim import cli
from tslim.data import load_scene, sniff_format
from tslim.errors import SceneError
from tslim.poses import mapping
from tslim.poses.images import collect, sharpness
from tslim.poses.mapping import Progress, Report, find_poses
from tslim.poses.options import PoseOptions

NOISE = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)


def gathered(source: Path, images: Path, frames: int = 4):
    """What ``collect`` returns, and what it yielded."""
    told, collecting = [], collect(source, images, frames=frames)
    while True:
        try:
            told.append(next(collecting))
        except StopIteration as done:
            return done.value, told


def write_pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(NOISE).save(folder / name)


def test_pictures_of_all_folders_are_collected_once_and_what_cannot_be_decoded_is_named(tmp_path):
    write_pictures(tmp_path / "in", "a.jpg", "b/a.JPG", "b/c.png", "d.webp", ".hidden/e.png")
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    found, told = gathered(tmp_path / "in", tmp_path / "out")
    assert sorted(found.names) == ["a.jpg", "b_a.JPG", "b_c.png", "d.png"] and not found.in_order
    assert found.unreadable == ("broken.jpg",) and told[-1] == (5, 5)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(found.names)
    assert (tmp_path / "out" / "a.jpg").read_bytes() == (tmp_path / "in" / "a.jpg").read_bytes()


def test_a_picture_that_lies_on_its_side_is_turned(tmp_path):
    write_pictures(tmp_path, "a.png", "b.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(NOISE).save(tmp_path / "c.jpg", exif=exif)
    gathered(tmp_path, tmp_path / "out")
    with Image.open(tmp_path / "out" / "c.jpg") as turned:
        assert turned.size == (24, 32) and turned.getexif().get(0x0112, 1) == 1


def test_pictures_of_other_formats_are_written_upright_and_in_eight_bits(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(NOISE).save(tmp_path / "turned.tif", exif=exif)
    grey = NOISE[..., 0].astype(np.uint16) * 257
    Image.fromarray(grey).save(tmp_path / "deep.tiff")
    write_pictures(tmp_path, "a.webp")
    gathered(tmp_path, tmp_path / "out")
    assert np.array_equal(iio.imread(tmp_path / "out" / "turned.png"), np.rot90(NOISE, -1))
    assert np.array_equal(iio.imread(tmp_path / "out" / "deep.png")[..., 0], NOISE[..., 0])


def test_a_picture_that_claims_too_much_is_left_out(tmp_path, recwarn):
    write_pictures(tmp_path, "a.png", "b.png", "c.png")
    bomb = bytearray((tmp_path / "a.png").read_bytes())
    bomb[16:24] = (20_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    (tmp_path / "d.png").write_bytes(bomb)
    assert gathered(tmp_path, tmp_path / "out")[0].unreadable == ("d.png",)
    assert not recwarn.list


def test_of_a_video_the_sharpest_frame_of_each_part_is_taken(tmp_path):
    detailed = np.kron(NOISE, np.ones((4, 4, 1), np.uint8))
    flat = np.full_like(detailed, 127)
    assert sharpness(detailed) > 10 * sharpness(flat)
    frames = [detailed if i % 5 == 2 else flat for i in range(20)]
    iio.imwrite(tmp_path / "walk.mp4", np.stack(frames), plugin="FFMPEG", fps=10)
    found, told = gathered(tmp_path / "walk.mp4", tmp_path / "out", frames=4)
    assert found.names == tuple(f"walk_{i:04}.jpg" for i in range(4)) and found.in_order and told[-1] == (4, 4)
    for name in found.names:
        assert sharpness(iio.imread(tmp_path / "out" / name)) > 0.3 * sharpness(detailed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: None, "expected a folder of pictures or a video"),
        (lambda f: f.mkdir(), "no pictures in it"),
        (lambda f: write_pictures(f, "a.png", "b.png"), "2 readable pictures"),
    ],
)
def test_too_little_to_work_on_is_one_clear_line(tmp_path, make, message):
    make(tmp_path / "in")
    with pytest.raises(SceneError, match=message):
        gathered(tmp_path / "in", tmp_path / "out")


def test_a_file_that_is_no_video_is_one_clear_line(tmp_path):
    (tmp_path / "walk.mp4").write_bytes(b"not a video")
    with pytest.raises(SceneError, match="cannot be read as a video"):
        gathered(tmp_path / "walk.mp4", tmp_path / "out")


def test_a_folder_of_pictures_without_cameras_names_the_command_that_finds_them(tmp_path):
    write_pictures(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    with pytest.raises(SceneError, match="3 pictures, but no cameras .* 'tslim poses .* -o NEW_FOLDER'.*--find-poses"):
        sniff_format(tmp_path)


@pytest.mark.parametrize(
    ("source", "out"), [("garden", "garden"), ("garden/images", "garden"), ("garden", "new/../garden")]
)
def test_a_data_set_does_not_go_where_the_photographs_are(tmp_path, monkeypatch, source, out):
    monkeypatch.setattr("tslim.poses.mapping.require_pycolmap", lambda: None)
    (tmp_path / "new").mkdir()
    write_pictures(tmp_path / "garden" / "images", "a.jpg", "b.jpg", "c.jpg")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SceneError, match="copied among themselves; choose another -o, such as .*-posed"):
        next(find_poses(tmp_path / source, tmp_path / out))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--find-poses"], "--find-poses needs photographs"),
        (["--find-poses", "--resume", "-o", "run"], "no effect on --resume"),
        (["posed", "--find-poses"], "has cameras already"),
    ],
)
def test_finding_poses_where_there_is_nothing_to_find_is_refused(tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "posed" / "sparse" / "0").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"scene": {}, "train": {}}')
    assert cli.main(["train", *args]) == 2
    assert message in capsys.readouterr().err


def test_training_goes_on_with_the_cameras_that_it_found(tmp_path, monkeypatch):
    from tslim.commands import poses
    from tslim.commands.console import Console

    scripted(monkeypatch, MAPPED)
    write_pictures(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    out = poses.posed(tmp_path / "in", Console())
    assert out == tmp_path / "in-posed" and sniff_format(out) == "colmap"
    scripted(monkeypatch, "raise SystemExit('they are looked for again')")
    assert poses.posed(tmp_path / "in", Console()) == out


def scripted(monkeypatch, code: str) -> None:
    """Another program in place of pycolmap's process; ``stage`` is what it is asked for."""
    monkeypatch.setattr(mapping, "require_pycolmap", lambda: None)
    monkeypatch.setattr(
        mapping,
        "_command",
        lambda job: [sys.executable, "-c", f"stage = {job.stage!r}; models = {job.models!r}\n{code}"],
    )


MAPPED = """
import json, pathlib
if stage == "mapping":
    for i, names in enumerate((["a.jpg"], ["b.jpg", "c.jpg"])):
        (pathlib.Path(models) / str(i)).mkdir(parents=True)
        (pathlib.Path(models) / str(i) / "images.bin").write_text(str(i))
        print(json.dumps({"model": i, "names": names, "points": 7, "error": 0.5}))
    print("not json"); print(json.dumps({"registered": 2}))
"""


def test_the_largest_model_is_kept_and_the_report_says_what_was_not_found(tmp_path, monkeypatch):
    scripted(monkeypatch, MAPPED)
    write_pictures(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    *events, report = find_poses(tmp_path / "in", tmp_path / "out")
    assert Progress("mapping", 2, 3) in events and isinstance(report, Report)
    assert (report.registered, report.missing, report.points) == (("b.jpg", "c.jpg"), ("a.jpg",), 7)
    assert "2 of 3 cameras found" in str(report) and "not found: a.jpg" in str(report) and "overlap" in str(report)
    assert (tmp_path / "out" / "sparse" / "0" / "images.bin").read_text() == "1"
    assert json.loads((tmp_path / "out" / "poses.json").read_text())["missing"] == ["a.jpg"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["images", "poses.json", "sparse"]
    with pytest.raises(SceneError, match="has cameras already"):
        next(find_poses(tmp_path / "in", tmp_path / "out"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.abort()", "stage features: pycolmap was ended by SIGABRT"),
        ("raise SystemExit('it went wrong')", "stage features: pycolmap ended with code 1: it went wrong"),
        ("", "no cameras found: the 3 pictures share too few details"),
    ],
)
def test_a_process_that_dies_or_finds_nothing_is_one_line(tmp_path, monkeypatch, code, message):
    scripted(monkeypatch, code)
    write_pictures(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    with pytest.raises(SceneError, match=message):
        list(find_poses(tmp_path / "in", tmp_path / "out"))
    assert not (tmp_path / "out" / "sparse").exists()


def test_who_lacks_pycolmap_is_told_the_one_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tslim.optional.has", lambda name: False)
    assert cli.main(["poses", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "pip install pycolmap" in capsys.readouterr().err


def corner_views(n: int, size: tuple[int, int] = (360, 270), focal: float = 330.0):
    """Pictures of two noise-textured planes at a right angle, floor z = 0 and wall y = 1, from cameras on an arc.

    Returns pictures and camera-to-world positions.
    """
    rng = np.random.default_rng(1)
    textures = [np.kron(rng.integers(0, 255, (96, 96)), np.ones((8, 8))) for _ in range(2)]
    textures = [sum(np.roll(t, (i, j), (0, 1)) for i in range(3) for j in range(3)) / 9 for t in textures]
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    local = np.stack([(x - size[0] / 2) / focal, (y - size[1] / 2) / focal, np.ones_like(x)], -1)
    pictures, centres = [], []
    for angle in np.linspace(-0.5, 0.5, n):
        centre = np.array([2.2 * np.sin(angle), 1 - 2.2 * np.cos(angle), 1.0 + 0.2 * np.cos(7 * angle)])
        forward = np.array([0, 0.9, 0.35]) - centre
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward], 1)
        d = local @ rotation.T
        floor, wall = -centre[2] / d[..., 2], (1 - centre[1]) / d[..., 1]
        floor, wall = (np.where(t > 0, t, np.inf) for t in (floor, wall))
        picture = np.zeros(x.shape)
        for t, axes, texture, nearer in (
            (floor, (0, 1), textures[0], floor < wall),
            (wall, (0, 2), textures[1], wall <= floor),
        ):
            hit = centre + np.where(np.isfinite(t), t, 0)[..., None] * d
            u, v = (np.clip((hit[..., a] + 2) * 190, 0, 766) for a in axes)
            iu, iv = u.astype(int), v.astype(int)
            fu, fv = u - iu, v - iv
            value = (texture[iv, iu] * (1 - fu) + texture[iv, iu + 1] * fu) * (1 - fv)
            value += (texture[iv + 1, iu] * (1 - fu) + texture[iv + 1, iu + 1] * fu) * fv
            picture = np.where(nearer & np.isfinite(t), value, picture)
        pictures.append(np.repeat(picture[..., None], 3, -1).astype(np.uint8))
        centres.append(centre)
    return pictures, np.array(centres)


@pytest.mark.slow
def test_known_cameras_are_found_and_the_data_set_loads(tmp_path):
    pytest.importorskip("pycolmap", reason="pycolmap, which finds cameras, is not installed (tests/requirements.txt)")
    pictures, centres = corner_views(12)
    (tmp_path / "in").mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "in" / f"{i:02}.png")
    assert (
        cli.main(["poses", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--camera-model", "SIMPLE_RADIAL"]) == 0
    )
    scene = load_scene(tmp_path / "out", space="contracted")
    views = {
        name: o for part in (scene.train, scene.test) for name, o in zip(part.names, part.cameras.origins, strict=True)
    }
    assert len(views) == 12
    found = np.array([views[name] for name in sorted(views)], np.float64)
    # Up to a similarity (Umeyama 1991).
    a, b = found - found.mean(0), centres - centres.mean(0)
    u, s, v = np.linalg.svd(b.T @ a)
    turn = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ v))]) @ v
    scale = (s * [1, 1, np.sign(np.linalg.det(u @ v))]).sum() / (a**2).sum()
    errors = np.linalg.norm(scale * a @ turn.T - b, axis=1)
    assert errors.max() < 0.02 * np.ptp(centres, axis=0).max(), errors


def test_options_are_those_of_the_command(tmp_path):
    options = cli.parse(["poses", "in", "-o", "out", "--frames", "80", "--matching", "sequential", "--cameras", "one"])
    assert options.options == PoseOptions(frames=80, matching="sequential", cameras="one")
