"""The page that ``export`` writes, in a real browser: what it draws is what the renderer renders."""

import dataclasses
import itertools
import json
import re
import struct
import zlib

import numpy as np
import pytest

from tests import browser
from tests.browser import CLOSE, SETTINGS, Hold, Tab, camera, needs_browser, page_of, psnr, smooth_state
from tslim.errors import TslimError
from tslim.model import model_file
from tslim.model.table import SizeTable
from tslim.rendering.pipeline import MarchConfig

pytestmark = needs_browser


@pytest.fixture(scope="module")
def chromium(cpu):
    with browser.chromium() as opened:
        yield opened


@pytest.fixture
def open_tab(chromium):
    """A function that opens a page, whose every complaint fails the test."""
    tabs: list[Tab] = []

    def open_page(address, **more) -> Tab:
        tabs.append(Tab(chromium, str(address) if "://" in str(address) else f"file://{address}", **more))
        return tabs[-1]

    yield open_page
    for tab in tabs:
        complaints = list(tab.complaints)
        tab.close()
        assert not complaints


def table_of(state, psnr):
    """What a file of the state says of its ranks."""
    return SizeTable.of([len(part) for part in model_file.blocks(state)][1:], psnr)


def split_page(state, folder, precision="compact"):
    """Writes a page and its model beside it; the field's renderer."""
    model_file.write(model_file.convert(state, precision), folder / "model.slim")
    return page_of(state, folder / "page.html", precision=precision, model="model.slim")[1]


QUICK = [name for name in SETTINGS if "colour" in name]
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SETTINGS]


@pytest.mark.parametrize("precision", ["compact", pytest.param("float16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_the_pages_picture_is_the_renderers(name, precision, tmp_path, open_tab):
    space, config, span = SETTINGS[name]
    state = smooth_state(space, config=config, march=MarchConfig(0.7, 1e-3, 1e-3, span))
    _, renderer = page_of(state, tmp_path / "page.html", precision=precision)
    tab, view = open_tab(tmp_path / "page.html"), camera(space)
    whole = renderer.render(view).rgb
    for rank in (1, 4, 16):
        wanted = renderer.render(view, rank=rank)
        assert psnr(tab.picture(view, rank=rank), wanted.rgb) > CLOSE, rank
        assert psnr(tab.picture(view, rank=rank, channel="opacity")[..., 0], wanted.opacity) > CLOSE, rank
        assert rank == 16 or psnr(wanted.rgb, whole) < 35, "ranks make no difference to the test's field"
    assert 0.1 < wanted.opacity.mean() < 0.95


def test_a_field_without_occupancy_scales_and_background_and_with_ranks_that_differ(tmp_path, open_tab):
    state = dataclasses.replace(smooth_state("box", ranks=6), occupancy=None, rank_scales=None)
    state.domain = dataclasses.replace(state.domain, background=None)
    state.config = dataclasses.replace(state.config, rank_scales=False)
    state = state.separate(6, 3)
    _, renderer = page_of(state, tmp_path / "page.html")
    tab, view, grey = open_tab(tmp_path / "page.html"), camera("box"), [0.3, 0.4, 0.5]
    for rank in (2, 6):
        wanted = renderer.render(view, rank=rank, background=tuple(grey)).rgb
        assert psnr(tab.picture(view, rank=rank, background=grey), wanted) > CLOSE, rank


@pytest.mark.slow
@pytest.mark.parametrize(
    ("separate_ranks", "precision"), [((6, 3), "float32"), ((3, 6), "float16"), ((3, 6), "compact")]
)
def test_ranks_that_differ_take_the_scale_and_shift_of_their_kinds_last_rank(
    separate_ranks, precision, tmp_path, open_tab
):
    renderer = split_page(smooth_state("box", ranks=6).separate(*separate_ranks), tmp_path, precision)
    view = camera("box")
    with browser.web_server(tmp_path) as address:
        tab = open_tab(f"{address}/page.html")
        for rank in (2, 5, 6):
            assert psnr(tab.picture(view, rank=rank), renderer.render(view, rank=rank).rgb) > CLOSE, rank


@pytest.mark.slow
@pytest.mark.parametrize("space", ["box", "ndc", "contracted"])
def test_depth_is_the_renderers_as_colours(space, tmp_path, open_tab):
    from tslim.preview.frame import ramp

    _, renderer = page_of(smooth_state(space, ranks=4), tmp_path / "page.html")
    view = camera(space)
    image = renderer.render(view)
    tab = open_tab(tmp_path / "page.html")
    shown = tab.picture(view, channel="depth")
    middle, steep = tab.run("tslim.page.viewer.camera.distance"), 4 if space == "box" else 1.5
    with np.errstate(divide="ignore"):
        colours = ramp(1 / (1 + (image.depth / middle) ** steep))
    opacity = image.opacity[..., None]
    assert psnr(shown, colours * opacity + np.array(renderer.field.background) * (1 - opacity)) > 45
    assert image.depth[image.opacity > 0.5].std() > 0.1


def test_the_slider_changes_picture_size_and_quality(tmp_path, open_tab):
    state = model_file.convert(smooth_state("box"), "compact")
    state.table = table_of(state, {16: 31.234, 8: 29.0, 4: 25.0})
    sizes = model_file.sizes(state)
    page_of(state, tmp_path / "page.html", psnr={2: 20.0, 16: 1.0})
    tab = open_tab(tmp_path / "page.html")
    tab.until("tslim.page.viewer.fine")
    assert tab.text("value") == "16 of 16" and tab.text("quality") == "31.23 dB"
    assert tab.text("size") == f"{sizes[15] / 1e6:.2f} MB"
    view = camera("box")
    before = tab.picture(view)
    tab.page.fill("#rank", "6")
    tab.until("tslim.page.viewer.fine")
    assert tab.text("value") == "6 of 16" and tab.text("quality") == "≈ 27.0 dB"
    assert tab.text("size") == f"{sizes[5] / 1e6:.2f} MB"
    assert not tab.page.is_checked("#auto")
    assert 10 < psnr(tab.picture(view), before) < 40
    # What the file does not say but the page knows, of a model that this one was made of, is shown roughly.
    tab.page.fill("#rank", "2")
    assert tab.text("quality") == "≈ 20.0 dB"
    tab.page.fill("#rank", "1")
    assert tab.text("quality") == "–"


@pytest.mark.parametrize("precision", ["compact", pytest.param("float16", marks=pytest.mark.slow)])
def test_a_stream_that_is_held_back_is_drawn_as_far_as_it_has_come(precision, tmp_path, open_tab):
    state = model_file.convert(smooth_state("box", ranks=6), precision)
    state.table = table_of(state, {5: 30.0})
    renderer = split_page(state, tmp_path, precision)
    sizes = model_file.sizes(state)
    hold, view = Hold("model.slim", sizes[2] + 1000), camera("box")
    with browser.web_server(tmp_path, hold) as address:
        tab = open_tab(f"{address}/page.html", wait=False)
        tab.until("tslim.page.ranks === 3 && tslim.page.viewer.fine")
        assert tab.text("value") == "3 of 6"
        # What is not there yet is known.
        assert tab.run("tslim.page.sizes") == sizes and tab.run("tslim.page.psnr") == {"5": 30.0}
        assert psnr(tab.picture(view), renderer.render(view, rank=3).rgb) > CLOSE
        hold.allowed = 1 << 40
        tab.run("tslim.ready.then(() => null)")
        assert tab.run("tslim.page.ranks") == 6
        assert psnr(tab.picture(view), renderer.render(view).rgb) > CLOSE
        assert tab.page.is_hidden("#message")


def uncoded(data: bytes, sizes: list[int]) -> bytes:
    """Compact, and of rank 3 there is too little, though it says no more and its checksum fits."""
    block = struct.pack("<I", 1000) + data[sizes[1] + 8 : sizes[1] + 1008]
    return data[: sizes[1]] + struct.pack("<I", zlib.crc32(block)) + block


def spoiled(name: str, data: bytes, before: int, sizes: list[int]) -> bytes:
    """A model file with something wrong; its first rank begins at byte ``before``."""

    def flipped(at: int) -> bytes:
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return {
        "cut within a rank": lambda: data[: sizes[2] - 5],
        "cut after a rank": lambda: data[: sizes[1]],
        "damaged in rank 3": lambda: flipped(sizes[2] - 5),
        "damaged in rank 1": lambda: flipped(sizes[0] - 5),
        "damaged in its header": lambda: flipped(40),
        "damaged before its ranks": lambda: flipped(before - 9),
        "of a length that no block has": lambda: data[: sizes[1] + 4] + b"\xff" * 4 + data[sizes[1] + 8 :],
        "of numbers that nobody coded": lambda: uncoded(data, sizes),
        "cut within its header": lambda: data[:100],
        "something else": lambda: b"<html>not found</html>" * 10,
        "of version 4": lambda: data[:8] + bytes([4]) + data[9:],
    }[name]()  # fmt: skip


@pytest.mark.parametrize(
    ("name", "ranks", "message"),
    [
        ("cut within a rank", 2, "cut short: it ends within rank 3"),
        pytest.param("cut after a rank", 2, "Only 2 of 6 ranks have arrived", marks=pytest.mark.slow),
        ("damaged in rank 3", 2, "rank 3 of the model is damaged: ranks 1 to 2 are shown"),
        pytest.param("damaged in rank 1", 0, "damaged: its first rank", marks=pytest.mark.slow),
        ("damaged in its header", 0, "damaged: its header"),
        pytest.param("damaged before its ranks", 0, "damaged: its decoder or occupancy", marks=pytest.mark.slow),
        pytest.param("cut within its header", 0, "cut short: it ends within its header", marks=pytest.mark.slow),
        pytest.param("something else", 0, "not a tslim model file", marks=pytest.mark.slow),
        pytest.param("of version 4", 0, "of version 4; this page reads versions 1, 2 and 5", marks=pytest.mark.slow),
        pytest.param("of a length that no block has", 2, "rank 3 of the model is damaged", marks=pytest.mark.slow),
        pytest.param("of numbers that nobody coded", 2, "rank 3 of the model is damaged", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_or_cut_file_is_said_in_the_page(name, ranks, message, tmp_path, open_tab):
    state = model_file.convert(smooth_state("box", ranks=6), "compact")
    blocks = list(model_file.blocks(state))
    data, sizes = b"".join(blocks), list(itertools.accumulate(map(len, blocks)))
    page_of(state, tmp_path / "page.html", model=[spoiled(name, data, sizes[0], sizes[1:])])
    tab = open_tab(tmp_path / "page.html")
    assert re.search(message, tab.text("message"), re.I) and tab.page.is_visible("#message")
    assert tab.run("tslim.page.ranks") == ranks


@pytest.mark.slow
def test_what_cannot_be_fetched_is_said_in_the_page(tmp_path, chromium):
    split_page(smooth_state("box", ranks=2), tmp_path)
    (tmp_path / "model.slim").unlink()
    with browser.web_server(tmp_path) as address:
        tab = Tab(chromium, f"{address}/page.html")
        assert "Cannot fetch model.slim (404)" in tab.text("message")
        tab.close()
    tab = Tab(chromium, f"file://{tmp_path}/page.html")
    assert "web server" in tab.text("message")
    tab.close()


COUNTS = """
window.alive = 0;
for (const kind of ["Texture", "Buffer", "Framebuffer", "Program", "VertexArray"]) {
  const device = WebGL2RenderingContext.prototype;
  const [made, gone] = [device["create" + kind], device["delete" + kind]];
  device["create" + kind] = function () { window.alive += 1; return made.call(this); };
  device["delete" + kind] = function (it) { window.alive -= +(it !== null); gone.call(this, it); };
}
"""


def test_memory_is_given_back_when_the_page_is_left(tmp_path, chromium):
    page_of(smooth_state("box", ranks=3), tmp_path / "page.html")
    tab = Tab(chromium, "about:blank", wait=False)
    tab.page.add_init_script(COUNTS)
    tab.page.goto(f"file://{tmp_path}/page.html")
    tab.run("tslim.ready.then(() => null)")
    tab.until("tslim.page.viewer.fine")
    assert tab.run("alive") > 15
    assert not tab.run("document.querySelector('[id^=part-]')"), "the model's text stays in the page"
    tab.run("window.dispatchEvent(new Event('pagehide'))")
    assert tab.run("alive") == 0 and tab.run("tslim.page.gl.isContextLost()")
    tab.close()


@pytest.mark.slow
def test_where_there_are_no_workers_the_page_reads_by_itself(tmp_path, open_tab, chromium):
    _, renderer = page_of(smooth_state("box", ranks=2), tmp_path / "page.html")
    tab = Tab(chromium, "about:blank", wait=False)
    tab.page.add_init_script("window.Worker = class { constructor() { throw new Error('none'); } };")
    tab.page.goto(f"file://{tmp_path}/page.html")
    tab.run("tslim.ready.then(() => null)")
    view = camera("box")
    assert psnr(tab.picture(view), renderer.render(view).rgb) > CLOSE
    assert tab.complaints == []
    tab.close()


@pytest.mark.slow
def test_a_lost_device_is_said_in_the_page(tmp_path, chromium):
    page_of(smooth_state("box", ranks=2), tmp_path / "page.html")
    tab = Tab(chromium, f"file://{tmp_path}/page.html")
    tab.run("tslim.page.gl.getExtension('WEBGL_lose_context').loseContext()")
    tab.until("!document.getElementById('message').hidden")
    assert "graphics device was lost" in tab.text("message")
    tab.close()


def test_strangers_names_stay_text(tmp_path, open_tab):
    title = "</script><script>window.taken = 1</script>{{about}}{{parts}}"
    state = smooth_state("box", ranks=2)
    state.metadata["cameras"] = [{"name": title, "pose": np.eye(3, 4).tolist(), "fov": 40.0}]
    page_of(state, tmp_path / "page.html", title=title)
    tab = open_tab(tmp_path / "page.html")
    assert tab.run("window.taken === undefined") and tab.page.text_content("h1") == title
    assert tab.page.title() == title


def test_the_address_sets_rank_budget_camera_and_what_is_shown(tmp_path, open_tab):
    state = smooth_state("box", ranks=6)
    state.metadata["cameras"] = [{"name": "a", "pose": camera("box").poses[0].tolist(), "fov": 33.0}]
    page_of(state, tmp_path / "page.html")
    tab = open_tab(f"file://{tmp_path}/page.html?rank=3&budget=7&camera=2&channel=opacity")
    assert tab.text("value") == "3 of 6" and tab.text("camera") == "2 / 2"
    assert tab.run("tslim.page.viewer.pace.budget") == 7
    assert tab.run("tslim.page.viewer.channel") == "opacity"
    assert np.isclose(tab.run("tslim.page.viewer.camera.fov"), np.radians(33))
    assert np.allclose(tab.run("tslim.page.viewer.camera.eye"), camera("box").poses[0][:, 3], atol=1e-5)


@pytest.mark.slow
def test_backgrounds_are_the_scenes_own_and_on_a_dark_page_a_dark_one_first(tmp_path, open_tab):
    page_of(smooth_state("box", ranks=1), tmp_path / "page.html")
    for scheme, first, count in (("light", browser.BACKGROUND, 4), ("dark", (0.08, 0.09, 0.1), 5)):
        tab = open_tab(tmp_path / "page.html", color_scheme=scheme)
        seen = [tab.run("tslim.page.viewer.background")]
        while len(seen) < 2 or seen[-1] != seen[0]:
            tab.page.keyboard.press("b")
            seen.append(tab.run("tslim.page.viewer.background"))
        assert np.allclose(seen[0], first) and len(seen) - 1 == count
        assert any(np.allclose(colour, browser.BACKGROUND) for colour in seen)


@pytest.mark.slow
def test_little_memory_takes_fewer_ranks(tmp_path, open_tab):
    page_of(smooth_state("box"), tmp_path / "page.html")
    tab = open_tab(f"file://{tmp_path}/page.html?memory=0.1")
    assert 1 <= tab.run("tslim.page.ranks") < 16
    assert "this device has room for" in tab.text("message").lower()


def test_fewer_ranks_and_pixels_while_frames_are_slow_and_all_when_they_are_quick(tmp_path, open_tab):
    page_of(smooth_state("box", ranks=8), tmp_path / "page.html")
    tab = open_tab(tmp_path / "page.html")
    tab.until("tslim.page.viewer.fine")
    choice = "tslim.page.viewer.pace.choice(8, false)"
    for ms, passes in (
        (200, lambda c: c["rank"] == 1 and c["scale"] < 0.2),
        (1, lambda c: c["rank"] == 8 and c["exact"]),
    ):
        for _ in range(12):
            tab.run(f"tslim.page.viewer.pace.took({ms})")
        assert passes(tab.run(choice)), ms
    assert tab.run("tslim.page.viewer.pace.choice(5, true).rank") == 5


MOVES = (
    ("orbit", (0.1, 0.2)), ("zoom", (0.7,)), ("pan", (0.2, -0.1)), ("orbit", (-0.3, -0.7)),
    ("fly", (0.3, -0.2, 0.9, 0.4)), ("orbit", (0.05, 1.4)),
)  # fmt: skip


@pytest.mark.slow
def test_the_camera_moves_as_that_of_the_preview(tmp_path, open_tab):
    from tslim.preview.camera import OrbitCamera

    field, _ = page_of(smooth_state("box", ranks=1), tmp_path / "page.html")
    tab = open_tab(tmp_path / "page.html")
    about = json.loads(tab.text("about"))
    start = about["cameras"][0]
    mine = OrbitCamera(field.box, up=about["view"]["up"])
    mine.center = np.array(about["view"]["target"])
    pose = np.array(start["pose"])
    focal = 50 / np.tan(np.radians(start["fov"] / 2))
    mine.snap(browser.Cameras.pinhole(pose[None], focal, (100, 100)))
    tab.run("tslim.page.home()")
    for name, arguments in MOVES:
        getattr(mine, name)(*arguments)
        tab.run(f"tslim.page.viewer.camera.{name}({', '.join(map(str, arguments))})")
        shown = tab.run("tslim.page.viewer.camera.view(100, 100)")
        wanted = mine.cameras(100, 100)
        assert np.allclose(shown["pose"], wanted.poses[0], atol=1e-4), name
        assert np.allclose(shown["intrinsics"], wanted.intrinsics[0], atol=1e-3), name


def test_mouse_and_keys(tmp_path, open_tab):
    page_of(smooth_state("box", ranks=4), tmp_path / "page.html")
    tab = open_tab(tmp_path / "page.html", size=(300, 600))
    eye = "tslim.page.viewer.camera.eye.join()"
    seen = [tab.run(eye)]

    def changes(action) -> None:
        action()
        tab.until(f"{eye} !== {json.dumps(seen[-1])}")
        seen.append(tab.run(eye))

    def drag() -> None:
        tab.page.mouse.move(150, 200)
        tab.page.mouse.down()
        tab.page.mouse.move(180, 220)
        tab.page.mouse.up()

    changes(drag)
    changes(lambda: tab.page.mouse.wheel(0, 100))
    tab.page.keyboard.down("w")
    changes(lambda: None)
    tab.page.keyboard.up("w")
    changes(lambda: tab.page.keyboard.press("r"))
    assert seen[-1] == seen[0] and tab.text("camera") == "1 / 1"
    tab.page.keyboard.press("j")
    assert tab.text("value") == "3 of 4"
    tab.page.keyboard.press("u")
    assert tab.page.is_checked("#auto")
    tab.page.keyboard.press("m")
    assert tab.page.get_attribute("[data-channel=depth]", "aria-pressed") == "true"
    changes(lambda: tab.page.keyboard.press("p"))
    tab.page.keyboard.press("p")
    tab.page.keyboard.press("q")
    assert tab.run("tslim.page.viewer.covered") == 0
    tab.page.keyboard.press("h")
    assert tab.page.is_visible("#keys")


class Fingers:
    """Touches a page as fingers do, which playwright's own touchscreen has one of, that only taps."""

    def __init__(self, tab: Tab) -> None:
        self._session = tab.context.new_cdp_session(tab.page)

    def __call__(self, kind: str, *places: tuple[float, float]) -> None:
        """``kind``: start, move or end; where all fingers are that then touch the page."""
        points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
        self._session.send("Input.dispatchTouchEvent", {"type": f"touch{kind.capitalize()}", "touchPoints": points})


def test_one_finger_turns_and_two_pinch_and_move(tmp_path, open_tab):
    page_of(smooth_state("box", ranks=4), tmp_path / "page.html")
    tab = open_tab(tmp_path / "page.html", size=(300, 600), has_touch=True, is_mobile=True)
    fingers = Fingers(tab)

    def camera_now() -> dict:
        return tab.run("(({eye, target, distance}) => ({eye, target, distance}))(tslim.page.viewer.camera)")

    start = camera_now()
    fingers("start", (150, 200))
    fingers("move", (190, 210))
    tab.until(f"tslim.page.viewer.camera.eye.join() !== '{','.join(map(str, start['eye']))}'")
    turned = camera_now()
    assert np.isclose(turned["distance"], start["distance"]) and np.allclose(turned["target"], start["target"])
    # A second finger: apart to twice the distance between them, from the middle outwards.
    fingers("start", (190, 210), (190, 310))
    fingers("move", (190, 160), (190, 360))
    tab.until(f"tslim.page.viewer.camera.distance < {0.6 * start['distance']}")
    pinched = camera_now()
    assert np.isclose(pinched["distance"], start["distance"] / 2, rtol=0.02)
    assert np.allclose(pinched["target"], start["target"], atol=0.02 * start["distance"])
    # Both move together.
    fingers("move", (230, 160), (230, 360))
    tab.until(f"Math.hypot(...tslim.page.viewer.camera.target) > {0.05 * pinched['distance']}")
    assert np.isclose(camera_now()["distance"], pinched["distance"], rtol=0.02)
    fingers("end")
    tab.until("tslim.page.gestures.pointers.size === 0")
    assert not tab.run("document.getElementById('canvas').classList.contains('dragged')")
    # The next touch goes on from there, without a jump.
    before = camera_now()
    fingers("start", (100, 100))
    fingers("move", (103, 100))
    tab.until(f"tslim.page.viewer.camera.eye.join() !== '{','.join(map(str, before['eye']))}'")
    assert np.allclose(camera_now()["eye"], before["eye"], atol=0.1 * before["distance"])
    fingers("end")


@pytest.mark.slow
def test_the_slider_and_buttons_take_a_finger(tmp_path, open_tab):
    page_of(smooth_state("box", ranks=8), tmp_path / "page.html")
    tab = open_tab(tmp_path / "page.html", size=(390, 700), has_touch=True, is_mobile=True)
    box = tab.page.locator("#rank").bounding_box()
    tab.page.touchscreen.tap(box["x"] + 0.3 * box["width"], box["y"] + box["height"] / 2)
    tab.until("document.getElementById('value').textContent === '3 of 8'")
    assert not tab.page.is_checked("#auto")
    tab.page.tap("[data-channel=depth]")
    assert tab.run("tslim.page.viewer.channel") == "depth"
    # All of it fits on the screen, and every button is as large as a finger.
    assert tab.run("document.documentElement.scrollWidth") <= 390
    for button in tab.page.locator("#panel button:visible").all():
        assert min(button.bounding_box()["width"], button.bounding_box()["height"]) >= 36


@pytest.mark.slow
def test_paths_are_those_of_videos(tmp_path, open_tab):
    from tslim.scene import paths

    page_of(smooth_state("box", ranks=1), tmp_path / "page.html")
    tab = open_tab(tmp_path / "page.html")
    orbit = paths.Orbit(center=(0.1, 0.2, 0.3), radius=3, elevation=25, up=(0.0, 1.0, 0.0))
    spiral = paths.Spiral((0.0, 1.0, 2.0), (1.0, 0.0, 0.0), (0.0, 0.6, 0.8), (0.3, 0.2, 0.1), focus=3.0)
    for path in (orbit, spiral):
        for index, pose in enumerate(path.cameras(5).poses):
            tab.run("window.found = null")
            found = tab.run(f"tslim.onPath({json.dumps(path.to_dict())}, {index / 5})")
            assert np.allclose(np.array(found["axes"]).T, pose[:, :3], atol=1e-5)
            assert np.allclose(found["eye"], pose[:, 3], atol=1e-5)


@pytest.mark.slow
def test_fewer_ranks_are_quicker(tmp_path, open_tab):
    """On a software device, where only the ratio means something."""
    page_of(smooth_state("box"), tmp_path / "page.html")
    tab, view = open_tab(tmp_path / "page.html"), camera("box", (96, 80))
    tab.until("tslim.page.viewer.fine")
    took = {rank: [] for rank in (1, 16)}
    for _ in range(3):
        for rank in took:
            began = tab.run("performance.now()")
            tab.picture(view, rank=rank)
            took[rank].append(tab.run("performance.now()") - began)
    assert min(took[16]) > 1.2 * min(took[1]), took


def test_an_unknown_path_is_an_error_before_anything_is_written(tmp_path):
    state = smooth_state("box", ranks=1)
    state.metadata["path"] = {"path": "loop"}
    with pytest.raises(TslimError, match="loop"):
        page_of(state, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())
