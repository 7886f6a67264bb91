"""Pictures and videos: what is written is what was given, whole or not at all."""

import sys
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest

from tslim.errors import ConfigError, RunFolderError
from tslim.rendering import media
from tslim.rendering.colours import depth_colours


def gradient(h: int, w: int, blue: float = 0.5) -> np.ndarray:
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([x / w, y / h, np.full((h, w), blue)], -1).astype(np.float32)


def test_a_png_holds_the_picture_rounded_to_nearest(tmp_path):
    picture = gradient(5, 7)
    picture[0, 0] = -0.5, 1.5, np.nan
    path = media.write_png(tmp_path / "new" / "a.png", picture)
    back = iio.imread(path)
    assert back.shape == (5, 7, 3) and back.dtype == np.uint8
    assert back[0, 0].tolist() == [0, 255, 0]
    assert np.abs(back[1:] / 255.0 - picture[1:]).max() <= 0.5 / 255 + 1e-6
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_bytes_and_grey_pictures_are_kept_as_they_are(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    back = iio.imread(media.write_png(tmp_path / "a.png", grey))
    np.testing.assert_array_equal(back, np.repeat(grey[..., None], 3, 2))
    with pytest.raises(ConfigError, match="shape"):
        media.to_uint8(np.zeros((4, 4, 2)))


@pytest.mark.parametrize("suffix", media.VIDEO_SUFFIXES)
@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_a_film_has_its_frames_in_order_and_even_sides(tmp_path, suffix, size):
    levels = [0.1, 0.5, 0.9]
    path = media.write_video(tmp_path / f"a{suffix}", (np.full((*size, 3), v) for v in levels), fps=10)
    frames = iio.imread(path, plugin="FFMPEG" if suffix == ".mp4" else "pillow")
    assert len(frames) == 3
    expected = (size[0] + size[0] % 2, size[1] + size[1] % 2) if suffix == ".mp4" else size
    assert frames.shape[1:3] == expected
    np.testing.assert_allclose(frames.mean((1, 2, 3)) / 255, levels, atol=0.02)
    if suffix == ".mp4":
        about = iio.immeta(path, plugin="FFMPEG")
        assert about["codec"] == "h264" and about["pix_fmt"].startswith("yuv420p") and about["fps"] == 10
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", media.VIDEO_SUFFIXES)
def test_a_film_that_fails_leaves_nothing_and_spares_the_old_one(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text("old")

    def breaks():
        yield gradient(16, 16)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        media.write_video(path, breaks())
    with pytest.raises(ConfigError, match="frames of 16x16 and 18x16"):
        media.write_video(path, [gradient(16, 16), gradient(16, 18)])
    with pytest.raises(ConfigError, match="at least one frame"):
        media.write_video(path, [])
    with pytest.raises(ConfigError, match="1 frame a second"):
        media.write_video(path, [gradient(16, 16)], fps=0)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_film_that_ffmpeg_could_not_finish_is_noticed(tmp_path, monkeypatch):
    import imageio_ffmpeg

    monkeypatch.setattr(imageio_ffmpeg, "count_frames_and_secs", lambda path: (1, 0.1))
    with pytest.raises(RunFolderError, match=r"a\.mp4: ffmpeg wrote 1 of 2 frames"):
        media.write_video(tmp_path / "a.mp4", [gradient(16, 16)] * 2)
    assert list(tmp_path.iterdir()) == []


def test_a_film_into_an_impossible_place_is_refused_before_the_first_frame(tmp_path):
    (tmp_path / "file").write_text("")
    rendered = []

    def frames():
        rendered.append(1)
        yield gradient(16, 16)

    with pytest.raises(RunFolderError, match="cannot write"):
        media.write_video(tmp_path / "file" / "a.mp4", frames())
    with pytest.raises(ConfigError, match=r"\.mp4 or \.gif"):
        media.write_video(tmp_path / "a.avi", frames())
    with pytest.raises(RunFolderError, match="cannot write"):
        media.write_png(tmp_path / "file" / "a.png", gradient(4, 4))
    assert rendered == []


def test_a_grid_holds_every_picture_untouched_with_a_caption_below():
    pictures = [gradient(40, 60, b) for b in (0, 0.5, 1)]
    sheet = media.grid(pictures, ["rank 8\n4.1 MB 32.8 dB", "a very long caption that must be made smaller", ""])
    gap = 8
    for i, picture in enumerate(pictures):
        x = gap + i * (60 + gap)
        np.testing.assert_array_equal(sheet[gap : gap + 40, x : x + 60], media.to_uint8(picture))
    below = sheet[gap + 41 :]
    inked = [int((below[:, gap + i * 68 : gap + i * 68 + 60] < 128).sum()) for i in range(3)]
    assert inked[0] > 30 and inked[1] > 30 and inked[2] == 0
    assert (below[:, 68 : gap + 68] == 255).all(), "a caption stays within its picture's width"


def test_a_grid_breaks_into_rows_and_centres_smaller_pictures():
    sheet = media.grid([np.zeros((20, 30, 3)), np.zeros((10, 10, 3)), np.zeros((20, 30, 3))], columns=2)
    assert sheet.shape == (2 * 20 + 3 * 8, 2 * 30 + 3 * 8, 3)
    assert (sheet[8 + 5 : 8 + 15, 46 + 10 : 46 + 20] == 0).all()
    assert (sheet[8 : 8 + 5, 46 : 46 + 30] == 255).all()
    with pytest.raises(ConfigError, match="1 pictures, 2 captions"):
        media.grid([np.zeros((4, 4, 3))], ["a", "b"])
    with pytest.raises(ConfigError, match="0 pictures"):
        media.grid([])


def test_depth_colours_go_from_bright_near_to_dark_far_and_white_where_nothing_is():
    depth = np.linspace(2, 6, 50, dtype=np.float32)[None].repeat(2, 0)
    opacity = np.ones_like(depth)
    opacity[1] = 0
    colours = media.to_uint8(depth_colours(depth, opacity)).astype(int)
    brightness = colours[0].sum(-1)
    assert (np.diff(brightness) <= 0).all() and brightness[0] > 2.5 * brightness[-1]
    assert (colours[1] == 255).all()
    assert (depth_colours(np.full((3, 3), np.nan), np.zeros((3, 3))) == 1).all()


def test_each_part_of_a_rendered_image_can_be_shown():
    image = SimpleNamespace(rgb=gradient(4, 4), depth=np.full((4, 4), 3.0), opacity=np.full((4, 4), 0.5))
    assert media.picture(image, "rgb").shape == (4, 4, 3)
    assert (media.picture(image, "opacity") == 128).all()
    near = media.picture(image, "depth", (3, 6)).sum()
    assert near > media.picture(image, "depth", (0, 3)).sum()
    with pytest.raises(ConfigError, match="known: rgb, depth, opacity"):
        media.picture(image, "normals")


def test_media_is_imported_without_imageio_or_matplotlib(root):
    import subprocess

    heavy = {"imageio", "matplotlib", "PIL", "taichi"}
    code = f"import sys, tslim.rendering.media; print(sorted({heavy} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
