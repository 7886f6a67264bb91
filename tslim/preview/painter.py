"""Renders what the preview shows: the chosen channel of the field, beside the image and the error."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tslim.field.field import Field
from tslim.measuring import metrics
from tslim.model.header import ModelHeader
from tslim.model.sizes import Forecast
from tslim.preview.camera import OrbitCamera, every_kth_pixel
from tslim.preview.controls import Controls
from tslim.preview.frame import (
    Pane,
    depth_picture,
    error_picture,
    opacity_picture,
    pane_size,
    rank_picture,
    ranks_needed,
)
from tslim.rendering.renderer import Image, Renderer
from tslim.scene.cameras import Cameras
from tslim.scene.paths import path_from_dict
from tslim.scene.scene import Scene, Views

CLOSE = 0.02
"""A pixel has the ranks that it needs when it is within this of the picture with all (mean over colours, 0 to 1)."""
FINEST = 1600
"""Longest side of a picture."""
BAND_PIXELS = 8192
"""Pixels rendered between two looks at whether the picture is still wanted."""


class Interrupted(Exception):  # noqa: N818
    """The picture is not wanted any more: the user has moved on."""


@dataclass(frozen=True, eq=False)
class Painting:
    """What was painted: panes from left to right, and the PSNR, and over how many pixels, where there is an image."""

    panes: list[Pane]
    psnr: float | None
    size: tuple[int, int]


class Painter:
    """Paints one field; ``scene`` gives images to compare with, ``model`` is the file that it is from, or None."""

    def __init__(self, field: Field, scene: Scene | None, model: ModelHeader | None = None) -> None:
        self.field, self.scene, self.model = field, scene, model
        self.background = (scene.background if scene else None) or field.background or (1.0, 1.0, 1.0)
        self._renderer = Renderer(field)
        self._truth_of: tuple[str, int] | None = None
        self._forecast: tuple[tuple, Forecast] | None = None

    @property
    def views(self) -> dict[str, Views]:
        """Data-set views by set, held-out ones first; only sets that have any."""
        if self.scene is None:
            return {}
        return {name: views for name, views in (("test", self.scene.test), ("train", self.scene.train)) if len(views)}

    def first_camera(self) -> OrbitCamera:
        """Where the preview starts to look from."""
        views = self.views
        if views:
            return OrbitCamera.like(next(iter(views.values())).cameras, self.field.world_box)
        path = self.field.metadata.get("path")
        if path:
            camera = OrbitCamera.like(path_from_dict(path).cameras(8), self.field.world_box)
            camera.exact = None  # there is no image to compare with
            return camera
        return OrbitCamera(self.field.world_box)

    def full_size(self, controls: Controls, area: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the finest picture for an ``area`` of the window: an image's own size, else what
        fits the pane."""
        exact = _dataset_camera(controls)
        if exact is not None:
            width, height = (int(s) for s in exact.sizes[0])
        else:
            width, height = pane_size(*area, 1, curves=controls.trains)
        shrunk = min(1.0, FINEST / max(width, height))
        return max(int(width * shrunk), 1), max(int(height * shrunk), 1)

    def n_renders(self, controls: Controls) -> int:
        """Renderings that one painting takes."""
        return len(_ladder(controls.rank)) if controls.channel == "ranks" else 1

    def paint(
        self, controls: Controls, full: tuple[int, int], scale: float, unwanted: Callable[[], bool] = lambda: False
    ) -> Painting:
        """The panes at ``scale`` times the full size; of a data-set view, every k-th pixel.

        ``unwanted`` is asked every now and then; raises ``Interrupted`` when it says yes.
        """
        self._unwanted = unwanted
        truth = valid = None
        exact = _dataset_camera(controls)
        if exact is not None:
            native = exact.sizes[0]
            step = int(np.clip(round(native[0] / (full[0] * scale)), 1, native.min()))
            camera = every_kth_pixel(exact, step)
            truth, valid = (p[step // 2 :: step, step // 2 :: step] for p in self._truth(controls))
        else:
            camera = controls.camera.cameras(max(round(full[0] * scale), 8), max(round(full[1] * scale), 8))
        width, height = (int(s) for s in camera.sizes[0])
        image = self._render(camera, controls.rank)
        psnr = None
        if truth is not None and valid is not None and valid.any():
            psnr = float(metrics.psnr(image.rgb, truth, valid))
        channel = "colour" if controls.channel == "error" and truth is None else controls.channel
        what = f"ranks needed, yellow is {controls.rank}" if channel == "ranks" else f"{channel}, rank {controls.rank}"
        caption = what + (f", {psnr:.2f} dB" if psnr is not None and channel in ("colour", "error") else "")
        if truth is not None and controls.compare:
            panes = [
                Pane(self._channel(image, camera, controls), caption),
                Pane(truth, f"ground truth ({controls.split} {controls.view})"),
                Pane(error_picture(image.rgb, truth), "error, yellow is 0.2 and more"),
            ]
        elif truth is not None and controls.channel == "error":
            panes = [Pane(error_picture(image.rgb, truth), caption + ", yellow is 0.2 and more")]
        else:
            panes = [Pane(self._channel(image, camera, controls), caption)]
        return Painting(panes, psnr, (width, height))

    def _render(self, camera: Cameras, rank: int) -> Image:
        """Renders in bands from the top, so that it can be given up between two of them."""
        width, height = (int(s) for s in camera.sizes[0])
        rows = max(BAND_PIXELS // width, 1)
        parts: list[Image] = []
        for first in range(0, height, rows):
            if parts and self._unwanted():
                raise Interrupted
            band = dataclasses.replace(
                camera,
                sizes=np.array([[width, min(rows, height - first)]]),
                intrinsics=camera.intrinsics - np.array([0, 0, 0, first], np.float32),
            )
            parts.append(self._renderer.render(band, 0, rank=rank, background=self.background))
        rgb, depth, opacity = (np.concatenate([getattr(p, n) for p in parts]) for n in ("rgb", "depth", "opacity"))
        return Image(rgb, depth, opacity, sum(p.seconds for p in parts))

    def _channel(self, image: Image, camera: Cameras, controls: Controls) -> np.ndarray:
        """The picture of one channel; colour also stands in for the error where there is no image."""
        if controls.channel == "depth":
            return depth_picture(image.depth, image.opacity)
        if controls.channel == "opacity":
            return opacity_picture(image.opacity)
        if controls.channel == "ranks":
            ranks = _ladder(controls.rank)
            pictures = [self._render(camera, r).rgb for r in ranks[:-1]] + [image.rgb]
            return rank_picture(ranks_needed(pictures, ranks, image.opacity, close=CLOSE), controls.rank)
        return image.rgb

    def _truth(self, controls: Controls) -> tuple[np.ndarray, np.ndarray]:
        """The image of the current data-set view, and which of its pixels show something; the last is kept."""
        key = (controls.split, controls.view)
        if self._truth_of != key:
            self._truth_of = key
            views = self.views[controls.split]
            picture = views.image(controls.view, self.background)
            known = self.scene is not None and self.scene.background is not None
            self._picture = picture, np.ones(picture.shape[:2], bool) if known else views.valid(controls.view)
        return self._picture

    def file_bytes(self, rank: int) -> int:
        """Size of the file that ``rank`` ranks make, to within a few bytes; measured anew when the grid grows."""
        if self.model is not None:
            return self.model.bytes_at(rank)
        key = (self.field.grid, id(self.field.occupancy))
        if self._forecast is None or self._forecast[0] != key:
            self._forecast = key, Forecast(self.field.slim(1).state(), self.field.separate_ranks)
        return self._forecast[1].bytes_of(rank)

    def file_text(self, rank: int) -> str:
        """The same in words: in the model's own file, or in half precision, in which one in training is saved."""
        how = "as float16" if self.model is None else "as file"
        return f"{self.file_bytes(rank) / 1e6:.2f} MB {how}"


def _dataset_camera(controls: Controls) -> Cameras | None:
    """The data-set camera that the controls look through, if they do."""
    return controls.camera.exact if controls.on_view else None


def _ladder(rank: int) -> list[int]:
    """Ranks 1, 2, 3, 4, 6, 8, 12, 16, … up to ``rank``: what the rank channel renders."""
    steps = sorted({1, *(n * 2**k for n in (2, 3) for k in range(8))})
    return [r for r in steps if r < rank] + [rank]
