"""Posed images and the space that they show: what every loader returns and every trainer takes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tslim.errors import SceneError
from tslim.scene import paths
from tslim.scene.cameras import Cameras
from tslim.scene.domain import SPACES, Domain, InDomain

LEAST_ALPHA = 128
"""Pixels of less alpha (0 to 255) show nothing of use where the colour behind them is not known."""


@dataclass(frozen=True, eq=False)
class Views:
    """``n`` images with their cameras, 4 bytes a pixel."""

    cameras: Cameras
    pixels: np.ndarray
    """(total pixels,) uint32, r | g << 8 | b << 16 | a << 24, straight alpha; images one after another, rows from the
    top."""
    offsets: np.ndarray
    """(n + 1,) int64: image i is ``pixels[offsets[i]:offsets[i + 1]]``."""
    names: tuple[str, ...]
    sees: tuple[np.ndarray, ...] = ()
    """for each image the numbers (k,) of the scene's sparse points that it is known to show; () if nothing is known"""

    @staticmethod
    def none() -> "Views":
        """No images."""
        return Views(Cameras.none(), np.zeros(0, np.uint32), np.zeros(1, np.int64), ())

    def __len__(self) -> int:
        return len(self.cameras)

    def __repr__(self) -> str:
        return f"<Views: {self.cameras.in_words()}>"

    def rgba(self, index: int) -> np.ndarray:
        """(h, w, 4) uint8, straight alpha."""
        index = range(len(self))[index]
        width, height = self.cameras.sizes[index]
        packed = self.pixels[self.offsets[index] : self.offsets[index + 1]]
        return packed.astype("<u4", copy=False).view(np.uint8).reshape(height, width, 4)

    def image(self, index: int, background: Sequence[float] | None = (1.0, 1.0, 1.0)) -> np.ndarray:
        """(h, w, 3) float32 sRGB in [0, 1] over ``background``; the pixels' own colours, whatever alpha, if None."""
        rgba = self.rgba(index).astype(np.float32) / 255
        if background is None:
            return rgba[..., :3]
        alpha = rgba[..., 3:]
        return rgba[..., :3] * alpha + np.asarray(background, np.float32) * (1 - alpha)

    def valid(self, index: int) -> np.ndarray:
        """(h, w) bool: where an image whose background is not known shows something (masks are alpha)."""
        return self.rgba(index)[..., 3] >= LEAST_ALPHA

    def subset(self, indices: Sequence[int] | np.ndarray) -> "Views":
        """The images with the given numbers, in that order; pixels are copied."""
        indices = [range(len(self))[int(i)] for i in indices]
        parts = [self.pixels[self.offsets[i] : self.offsets[i + 1]] for i in indices]
        pixels = np.concatenate(parts) if parts else np.zeros(0, np.uint32)
        offsets = np.cumsum([0, *(len(p) for p in parts)], dtype=np.int64)
        sees = tuple(self.sees[i] for i in indices) if self.sees else ()
        return Views(self.cameras[indices], pixels, offsets, tuple(self.names[i] for i in indices), sees)

    def named(self, names: Sequence[str]) -> "Views":
        """The images of these names, in that order. Raises ``SceneError`` for a name that none has."""
        numbers = {name: i for i, name in reversed(list(enumerate(self.names)))}
        unknown = [name for name in names if name not in numbers]
        if unknown:
            raise SceneError(f"no photograph is called {unknown[0]!r}: there are {len(self)}, from {self.names[:1]}")
        return self.subset([numbers[name] for name in names])

    def spread(self, most: int) -> "Views":
        """At most ``most`` evenly spaced images, the first and the last among them."""
        if len(self) <= most:
            return self
        return self.subset([round(i * (len(self) - 1) / max(most - 1, 1)) for i in range(most)])

    def has_alpha(self) -> bool:
        """Whether any pixel is not fully opaque."""
        return any(
            bool((part < 0xFF000000).any()) for part in np.array_split(self.pixels, 1 + len(self.pixels) // 2**22)
        )

    def validate(self, source: str = "views") -> None:
        """Raises ``SceneError`` unless cameras are possible and the pixels match their sizes."""
        if len(self.names) != len(self) or self.offsets.shape != (len(self) + 1,):
            raise SceneError(f"{source}: {len(self)} cameras, {len(self.names)} names, {len(self.offsets) - 1} images")
        self.cameras.validate(self.names, source)
        counts = self.cameras.sizes.astype(np.int64).prod(1)
        wrong = np.flatnonzero(np.diff(self.offsets) != counts)
        if len(wrong) or self.offsets[0] != 0 or self.offsets[-1] != len(self.pixels):
            first = self.names[wrong[0]] if len(wrong) else "the last one"
            raise SceneError(f"{source}: the pixels of image {first} do not match its camera's width and height")


@dataclass(frozen=True, eq=False)
class Scene(InDomain):
    """Everything known about what is to be reconstructed."""

    name: str
    source: str
    """The folder it was read from, or "built-in"."""
    format: str
    """Name of the loader, or "built-in"."""
    train: Views
    test: Views
    """Held out from training; may be empty."""
    domain: Domain
    """Which part of the world there is to see, and what lies behind it (None where images are opaque). The space
    is "box" for an object inside a box, "ndc" for forward-facing scenes, "contracted" for everything around."""
    points: np.ndarray | None = None
    """(p, 3) float32 sparse surface points, if the data set has them."""
    warnings: tuple[str, ...] = ()
    """What the loader skipped or guessed, one line each."""
    notes: tuple[str, ...] = ()
    """What the loader found besides, and where, one line each."""

    @property
    def box(self) -> np.ndarray:
        """(2, 3) float32 corners as ``Field`` takes them: in world units except in ndc, and in a contracted space of
        the cube that stays as it is; ``tslim.data.geometry`` says more."""
        return self.domain.box if self.domain.cube is None else self.domain.cube

    def placed(self, **changes: Any) -> "Scene":
        """The same scene with another ``box``, ``near``, ``far``, ``space`` or ``background``."""
        names = ("box", "near", "far", "space", "background")
        return replace(self, domain=Domain.unchecked(**{name: getattr(self, name) for name in names} | changes))

    def __repr__(self) -> str:
        views = f"{self.train.cameras.in_words()} to train on, {len(self.test)} to test on"
        return f"<Scene {self.name} ({self.format}): {views}; space {self.space}>"

    def orbit(
        self, frames: int = 120, *, size: tuple[int, int] | None = None, elevation: float | None = None
    ) -> Cameras:
        """Cameras once around the scene, like the training cameras; ``size`` (width, height) and ``elevation``
        (degrees) override what those suggest. Whatever the size, all is shown that the images' size shows."""
        path = self.orbit_path()
        path = path if size is None else path.sized(size)
        return (path if elevation is None else replace(path, elevation=elevation)).cameras(frames)

    def spiral(self, frames: int = 120, *, size: tuple[int, int] | None = None) -> Cameras:
        """Cameras in small loops around one viewpoint, for forward-facing scenes; ``size`` as in ``orbit``."""
        path = self.spiral_path()
        return (path if size is None else path.sized(size)).cameras(frames)

    def orbit_path(self) -> paths.Orbit:
        """The orbit as a few numbers: around what the cameras look at, so that it is framed as the images are.

        Where that lies outside the object's box, around the middle of the box.
        """
        center = paths.focus_point(self.train.cameras)
        if self.space == "box" and not ((self.box[0] < center) & (center < self.box[1])).all():
            center = self.box.astype(np.float64).mean(0)
        return paths.fit_orbit(self.train.cameras, center)

    def spiral_path(self) -> paths.Spiral:
        """The spiral as a few numbers: around the middle of the training cameras, or a viewpoint of the orbit where
        they stand all around. In a contracted space it looks at what the cameras look at."""
        cameras, focus = self.train.cameras, None
        if self.space == "contracted":
            away = np.linalg.norm(paths.focus_point(cameras) - cameras.origins.astype(np.float64).mean(0))
            focus = float(away) or None
        spiral = paths.fit_spiral(cameras, self.near, self.far, focus)
        try:
            return spiral if self.space == "ndc" else paths.spiral_on_one_side(spiral, self.orbit_path())
        except SceneError:  # no orbit: all cameras stand in one place
            return spiral

    def default_path(self) -> paths.Orbit | paths.Spiral:
        """An orbit; a spiral for forward-facing scenes and for captures whose cameras don't stand all around."""
        cameras = self.train.cameras
        one_sided = self.space == "contracted" and not paths.surround(cameras, paths.focus_point(cameras))
        return self.spiral_path() if self.space == "ndc" or one_sided else self.orbit_path()

    def with_warnings(self, *lines: str) -> "Scene":
        """The same scene with more warnings."""
        return replace(self, warnings=self.warnings + lines)


def checked(scene: Scene) -> Scene:
    """The scene, with warnings about doubtful cameras; raises ``SceneError`` if it cannot be trained on.

    Every loader's result passes through here: possible cameras, matching pixels, a box with a volume, ray limits in
    order, and (for objects in a box) cameras that see the box.
    """
    if len(scene.train) == 0:
        raise SceneError(f"{scene.source}: no training images")
    scene.train.validate(scene.source)
    scene.test.validate(scene.source)
    if not (np.isfinite(scene.box).all() and (scene.box[0] < scene.box[1]).all()):
        raise SceneError(f"{scene.source}: the scene's box {scene.box.tolist()} has no volume")
    if not 0 <= scene.near < scene.far:
        raise SceneError(f"{scene.source}: near {scene.near:g} and far {scene.far:g}, expected 0 <= near < far")
    if scene.space not in SPACES:
        raise SceneError(f"{scene.source}: unknown space {scene.space}; known: {', '.join(SPACES)}")
    return _check_sight(scene) if scene.space == "box" else scene


def _check_sight(scene: Scene) -> Scene:
    blind = np.array([_longest_chord(scene, i) for i in range(len(scene.train))]) <= 0
    if not blind.any():
        return scene
    name, cameras = scene.train.names[int(np.argmax(blind))], scene.train.cameras
    distance = np.linalg.norm(cameras.origins - scene.box.mean(0), axis=1)
    where = (
        f"the box {scene.box[0].tolist()} to {scene.box[1].tolist()} between near {scene.near:g} and far {scene.far:g}"
    )
    if blind.all():
        raise SceneError(
            f"{scene.source}: no camera sees {where}: they look away from it or are too far "
            f"({distance.min():.3g} to {distance.max():.3g} from its centre); "
            "poses must be OpenGL camera-to-world matrices, looking along -z; --space contracted needs no box"
        )
    return scene.with_warnings(f"{int(blind.sum())} of {len(blind)} cameras do not see {where} (the first is {name})")


def _longest_chord(scene: Scene, index: int, grid: int = 9) -> float:
    """Longest stretch of a ray inside box and ray limits, over a grid of pixels that includes the image's corners."""
    cameras = scene.train.cameras
    steps = np.stack(np.meshgrid(np.linspace(0, 1, grid), np.linspace(0, 1, grid)), -1).reshape(-1, 2)
    origins, directions = cameras.rays(index, steps * cameras.sizes[index])
    with np.errstate(divide="ignore", invalid="ignore"):
        slabs = (scene.box[:, None, :].astype(np.float64) - origins) / directions
    enters = np.nanmax(slabs.min(0), axis=1)
    leaves = np.nanmin(slabs.max(0), axis=1)
    return float((np.minimum(leaves, scene.far) - np.maximum(enters, scene.near)).max())
