import subprocess
import sys

import captures
import numpy as np
import pytest
from PIL import Image, ImageColor

from tslim.data import load_scene
from tslim.scene import plots_scene


def share(path, colour: str) -> float:
    """Share of an image's pixels that have about this colour."""
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return float((np.abs(image - ImageColor.getrgb(colour)).max(-1) < 40).mean())


@pytest.mark.parametrize("name", captures.WRITERS)
def test_cameras_and_box_are_drawn_for_every_format(name, tmp_path):
    captures.WRITERS[name](tmp_path)
    path = plots_scene.plot_scene(load_scene(tmp_path), tmp_path / "scene.png")
    assert Image.open(path).size == (1400, 700)
    for colour in (plots_scene.TRAIN_COLOUR, plots_scene.TEST_COLOUR, plots_scene.BOX_COLOUR):
        assert share(path, colour) > 1e-4


def test_a_scene_without_held_out_views_is_drawn(tmp_path):
    captures.write_nsvf(tmp_path, names=[f"0_{i:04}" for i in range(10)])
    scene = load_scene(tmp_path)
    assert len(scene.test) == 0
    assert share(plots_scene.plot_scene(scene, tmp_path / "a.png"), plots_scene.TEST_COLOUR) == 0


def test_pyramids_open_towards_what_the_camera_sees_with_the_tick_above():
    cameras = captures.ring(4)
    lines = plots_scene._pyramids(cameras, 0.5).reshape(4, -1, 2, 3)
    for i in range(4):
        corners = lines[i, :4, 1]  # the edges lead from the centre to the corners of the picture
        np.testing.assert_allclose(lines[i, :4, 0], np.tile(cameras.origins[i], (4, 1)), atol=1e-6)
        depth = (corners - cameras.origins[i]) @ cameras.forward[i]
        np.testing.assert_allclose(depth, 0.5, rtol=1e-5)
        tick = lines[i, -1, 0] - corners.mean(0)
        assert tick @ cameras.poses[i, :, 1] > 0.5 * np.abs(tick).max()


def test_info_draws_a_data_set_and_refuses_what_it_cannot_draw(root, tmp_path):
    def info(*words):
        command = [sys.executable, "-m", "tslim", "info", *map(str, words)]
        return subprocess.run(command, cwd=root, capture_output=True, text=True)

    captures.write_colmap(tmp_path / "scene")
    done = info(tmp_path / "scene", "--plot", tmp_path / "new" / "cameras.png")
    assert done.returncode == 0, done.stderr
    assert "pinhole" in done.stdout and "200" in done.stdout and "contracted" in done.stdout
    assert share(tmp_path / "new" / "cameras.png", plots_scene.BOX_COLOUR) > 1e-4
    wrong = info(tmp_path / "scene", "--plot", tmp_path / "cameras.xyz")
    assert wrong.returncode == 2 and ".svg" in wrong.stderr and len(wrong.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "cameras.xyz").exists()
    (tmp_path / "model.slim").write_bytes(b"?")
    model = info(tmp_path / "model.slim", "--plot", tmp_path / "cameras.png")
    assert model.returncode == 2 and "--plot" in model.stderr


def test_matplotlib_is_imported_only_to_draw(root):
    program = "import sys, tslim.scene.plots_scene, tslim.data; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=root).returncode == 0
