"""What tests of pages need: a headless browser with WebGL 2, and small fields whose every rank shows."""

import base64
import contextlib
import dataclasses
import functools
import http.server
import importlib.util
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tslim.config import FieldConfig
from tslim.model import model_file
from tslim.model.state import LINE_AXES, N_FEATURES, PLANE_AXES, SCALES_WIDTH, FieldState
from tslim.rendering.pipeline import MarchConfig
from tslim.scene.cameras import Cameras
from tslim.scene.domain import Domain

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = (
    "playwright (pip install -r tests/requirements.txt)"
    if importlib.util.find_spec("playwright") is None
    else None
    if CHROMIUM
    else "chromium (apt-get install chromium)"
)
needs_browser = pytest.mark.skipif(MISSING is not None, reason=f"needs a browser: {MISSING} is missing")
SOFTWARE = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox")
PATIENCE = 60.0
"""Seconds, on a machine that is busy with other things."""
CLOSE = 50.0
"""dB; rounding to 8 bits alone leaves 59"""


@contextlib.contextmanager
def chromium() -> Iterator:
    """A headless Chromium that draws on the CPU."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page that is open, and everything that it complained about."""

    def __init__(self, browser, address: str, *, size: tuple[int, int] = (160, 120), wait: bool = True, **more) -> None:
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **more)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.set_default_timeout(1000 * PATIENCE)
        self.page.goto(address)
        if wait:
            self.run("tslim.ready.then(() => null)")

    def run(self, code: str):
        """What an expression of the page's script comes to."""
        return self.page.evaluate(code)

    def until(self, code: str) -> None:
        """Waits until an expression holds."""
        end = time.monotonic() + PATIENCE
        while not self.run(code):
            assert time.monotonic() < end, f"{code} does not come true; {self.complaints}"
            time.sleep(0.02)

    def picture(self, cameras: Cameras, **options) -> np.ndarray:
        """(h, w, 3) in [0, 1] of one camera, as the page draws it."""
        width, height = (int(v) for v in cameras.sizes[0])
        view = {
            "pose": cameras.poses[0].tolist(),
            "intrinsics": cameras.intrinsics[0].tolist(),
            "width": width,
            "height": height,
        }
        packed = self.page.evaluate(
            "([view, options]) => btoa(String.fromCharCode(...tslim.picture(view, options)))", [view, options]
        )
        pixels = np.frombuffer(base64.b64decode(packed), np.uint8).reshape(height, width, 4)
        assert (pixels[..., 3] == 255).all()
        return pixels[..., :3] / 255

    def text(self, name: str) -> str:
        return self.page.text_content(f"#{name}")

    def close(self) -> None:
        self.context.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; of the file that is named ``held`` only the first ``allowed`` bytes, until there are more."""

    def log_message(self, *args) -> None:
        pass

    def copyfile(self, source, outputfile) -> None:
        hold = self.server.hold
        if not self.path.endswith(hold.name):
            return super().copyfile(source, outputfile)
        sent = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while data := source.read(min(max(hold.allowed - sent, 0), 1 << 16)) or not hold.open:
                if data is True:
                    time.sleep(0.01)
                    continue
                outputfile.write(data)
                outputfile.flush()
                sent += len(data)


@dataclasses.dataclass
class Hold:
    """How much of which file a server gives away so far."""

    name: str = "\n"
    allowed: int = 1 << 40

    @property
    def open(self) -> bool:
        return self.allowed >= 1 << 40


@contextlib.contextmanager
def web_server(folder: Path, hold: Hold | None = None) -> Iterator[str]:
    """The address of a server of a folder."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    server.hold = hold or Hold()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.hold.allowed = 1 << 40
        server.shutdown()
        server.server_close()


BACKGROUND = (0.9, 0.95, 1.0)
DOMAINS = {
    "box": Domain.of([[-1.0, -0.8, -1.1], [1.1, 0.9, 1.0]], near=0.2, far=20.0, background=BACKGROUND),
    "ndc": Domain.of([[-1.3, -1.1, -1.0], [1.2, 1.0, 1.0]], near=1.5, space="ndc", background=BACKGROUND),
    "contracted": Domain.of([[-1.0] * 3, [1.0] * 3], near=0.2, far=20.0, space="contracted", background=BACKGROUND),
}


def smooth_state(
    space: str, *, seed: int = 5, ranks: int = 16, config: FieldConfig | None = None, march: MarchConfig | None = None
) -> FieldState:
    """A field of smooth random numbers, solid in parts and thin in others, to which every rank adds something."""
    rng = np.random.default_rng(seed)
    grid = (20, 18, 22)
    config = config or FieldConfig(density_shift=-2.0, decoder_width=32, feature_encoding=1, direction_encoding=2)
    config = dataclasses.replace(config, max_rank=ranks, rank_scales=True)
    strength = 0.7 ** np.arange(ranks)

    def smooth(n: int, *sides: int) -> np.ndarray:
        coarse = rng.normal(0, 1, (n, *(6 for _ in sides)))
        for axis, side in enumerate(sides, start=1):
            at = np.linspace(0, 5, side)
            low = np.minimum(at.astype(int), 4)
            part = (at - low).reshape(-1, *(1,) * (len(sides) - axis))
            coarse = np.take(coarse, low, axis) * (1 - part) + np.take(coarse, low + 1, axis) * part
        return coarse.astype(np.float32)

    def factors(per_rank: int, scale: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
        n = per_rank * ranks
        size = (scale * np.repeat(strength, per_rank)).astype(np.float32)
        planes = [smooth(n, grid[v], grid[u]) * size[:, None, None] for u, v in PLANE_AXES]
        return planes, [smooth(n, grid[w]) for w in LINE_AXES]

    inputs = 30 + 54 * config.feature_encoding + 6 * config.direction_encoding
    width, decoder = config.decoder_width, {}
    if config.decoder == "mlp":
        for i, (a, b) in enumerate(((inputs, width), (width, width), (width, 3)), 1):
            decoder[f"w{i}"] = rng.normal(0, 1.5 * a**-0.5, (a, b)).astype(np.float32)
            decoder[f"b{i}"] = rng.normal(0, 0.1, b).astype(np.float32)
    rank_scales = np.zeros((ranks, SCALES_WIDTH), np.float32)
    rank_scales[:, 0] = rank_scales[:, 2 : 2 + N_FEATURES] = 1
    rank_scales += rng.normal(0, 0.1, rank_scales.shape).astype(np.float32)
    density, appearance = factors(1, 4.0), factors(3, 1.0)
    state = FieldState(
        config=config,
        domain=DOMAINS[space],
        grid=grid,
        density_planes=density[0],
        density_lines=density[1],
        appearance_planes=appearance[0],
        appearance_lines=appearance[1],
        basis=rng.normal(0, 0.5, (3, 3 * ranks, N_FEATURES)).astype(np.float32),
        rank_scales=rank_scales,
        decoder=decoder,
    )
    state.occupancy = lumps(rng, (40, 34, 37))
    state.occupancy_box = state.box * np.float32(0.95)
    state.metadata = {"march": dataclasses.asdict(march or MarchConfig(0.7, 1e-3, 1e-3, 1e4))}
    state.metadata["rendered"] = list(range(1, ranks + 1))
    return state


SETTINGS = {
    "box, a colour a sample": ("box", FieldConfig(density_shift=-2, decoder_width=32, feature_encoding=1), 0.0),
    "ndc, colours of groups": ("ndc", FieldConfig(density_shift=-2, decoder_width=16, feature_encoding=0), 3.0),
    "nothing encoded": (
        "ndc", FieldConfig(density_shift=-2, decoder_width=16, feature_encoding=0, direction_encoding=0), 3.0,
    ),
    "contracted, a colour a ray": ("contracted", None, 1e4),
    "relu and spherical harmonics": (
        "box", FieldConfig(density_activation="relu", density_shift=-0.5, decoder="sh"), 0.0,
    ),
    "a decoder too large for a uniform block": ("box", FieldConfig(density_shift=-2, decoder_width=128), 1e4),
}  # fmt: skip
"""Space, settings and span of a colour of fields that pages draw, by what is special"""


def page_of(state, path, *, precision="compact", **more):
    """Writes a page of a state; the field and its renderer."""
    from tslim.field.field import Field
    from tslim.rendering.renderer import Renderer
    from tslim.web.page import write_page

    state = model_file.convert(state, precision)
    field = Field.from_state(state)
    model = more.pop("model", None) or model_file.blocks(state)
    write_page(path, state, title=more.pop("title", "lumps"), model=model, **more)
    return field, Renderer(field)


def lumps(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Occupied cells in lumps of several sizes, with wide empty space between them and around the contracted camera."""
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"), -1)
    centres = rng.uniform(-0.8, 0.8, (14, 3))
    radii = rng.uniform(0.1, 0.6, 14)
    around_eye = np.linalg.norm(places - (0.23, -0.39, 0.72), axis=-1) < 0.5
    return (np.linalg.norm(places[..., None, :] - centres, axis=-1) < radii).any(-1) & ~around_eye


def camera(space: str, size: tuple[int, int] = (48, 40)) -> Cameras:
    """One camera that sees much of such a field."""
    eye, target = {
        "box": ((2.2, -1.6, 1.2), (0.0, 0.0, 0.0)),
        "ndc": ((0.1, -0.1, 0.2), (0.3, 0.1, -4.0)),
        "contracted": ((1.6, -1.2, 0.7), (-0.4, 0.3, 0.0)),
    }[space]
    return Cameras.look_at(np.array([eye]), target, (0.0, 0.0, 1.0) if space != "ndc" else (0.0, 1.0, 0.0), 55.0, size)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """dB between two pictures in [0, 1]."""
    return -10 * np.log10(max(float(np.mean((a - b) ** 2)), 1e-12))
