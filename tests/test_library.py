"""What the library looks like in a notebook and in an editor: short descriptions, pictures, names that complete."""

import ast
from pathlib import Path

import numpy as np
import pytest

import tslim
from tests import device_field
from tslim.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def scene():
    return tslim.builtin_scene(size=16, train=3, test=2)


@pytest.fixture(scope="module")
def field(cpu):
    return tslim.Field.from_state(device_field.random_state(np.random.default_rng(3)))


def test_editors_and_type_checkers_see_the_names_that_there_are():
    """What stands under ``TYPE_CHECKING`` is what ``__getattr__`` finds, and the package says that it has types."""
    tree = ast.parse((ROOT / "tslim" / "__init__.py").read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {alias.asname: (node.module, alias.name) for node in block.body for alias in node.names}
    assert all(name == original for name, (_, original) in seen.items())
    assert set(seen) == set(dir(tslim)) - {"__version__"}
    for name, (module, _) in seen.items():
        assert module == tslim._HOME.get(name, "tslim"), name
    assert (ROOT / "tslim" / "py.typed").is_file()
    assert 'tslim = ["py.typed"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_presets_show_presets_and_nothing_else():
    assert dir(tslim.presets) == sorted(tslim.presets.PRESETS)
    assert "quick" in dir(tslim.presets)


def test_descriptions_are_one_short_line_that_says_what_it_is(scene, field):
    image = tslim.render(field, scene.test.cameras)
    message = {
        repr(field): ("13 ranks", "7×6×9", "box", "mlp"),
        repr(field.slim(4)): ("4 of 13 ranks",),
        repr(scene): ("3 of 16×16", "2 to test on", "box"),
        repr(scene.train): ("3 of 16×16",),
        repr(scene.train.cameras): ("3 of 16×16", "°"),
        repr(tslim.Cameras.none()): ("none",),
        repr(image): ("16×16", "ms"),
    }
    for line, words in message.items():
        assert len(line) < 120 and "\n" not in line and "array" not in line
        assert all(word in line for word in words), line


def test_a_notebook_shows_a_rendered_view_as_a_picture(scene, field):
    import imageio.v3 as iio

    image = tslim.render(field, scene.test.cameras)
    shown = iio.imread(image._repr_png_(), extension=".png")
    assert np.abs(shown / 255 - image.rgb).max() <= 0.5 / 255 + 1e-6
    assert tslim.Renderer(field).render_rays(np.zeros(3), np.ones((5, 3)))._repr_png_() is None


def test_rays_of_ones_own_show_what_a_camera_shows(scene, field):
    renderer = tslim.Renderer(field, chunk_rays=100)
    image = renderer.render(scene.test.cameras, 1, rank=5)
    origins, directions = (a.reshape(16, 16, 3) for a in scene.test.cameras.rays(1))
    own = renderer.render_rays(origins[0, 0], 3 * directions, rank=5)
    assert image.opacity.max() > 0.5
    for name in ("rgb", "depth", "opacity"):
        assert getattr(own, name).shape == getattr(image, name).shape
        assert np.abs(getattr(own, name) - getattr(image, name)).max() < 1e-3, name


def test_rays_that_are_none_are_refused_in_one_line(field):
    renderer = tslim.Renderer(field)
    good = np.ones((4, 3))
    for origins, directions, message in (
        (good, np.ones((4, 2)), "expected"),
        (np.ones((3, 3)), good, "expected"),
        (good, good * [[1], [0], [1], [1]], "ray 1"),
        (good * np.nan, good, "ray 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            renderer.render_rays(origins, directions)
    for rank in (14, 0, 2.5, "2"):
        with pytest.raises(ConfigError, match="1 to 13"):
            renderer.render_rays(good, good, rank=rank)
    with pytest.raises(ConfigError, match=r"background \(0, 0\): expected three"):
        renderer.render_rays(good, good, background=(0, 0))
    with pytest.raises(ConfigError, match="step_ratio is 0"):
        tslim.MarchConfig(step_ratio=0)
    assert renderer.render_rays(np.zeros((0, 3)), np.zeros((0, 3))).rgb.shape == (0, 3)
