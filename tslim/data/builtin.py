"""The scene that needs no data: an armillary globe and its company on a round table, ray traced on the spot.

It is made to be hard in the ways that photographs are: detail of several scales (checker, grain, graduation), parts
that are thin (rings, rods, a lattice), highlights that move with the eye, edges that cover pixels in part.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tslim.device import backend
from tslim.errors import SceneError
from tslim.scene.cameras import Cameras
from tslim.scene.domain import Domain
from tslim.scene.scene import Scene, Views, checked

SIZE = 200
"""Pixels along each side of a photograph, unless asked otherwise."""
TRAIN, TEST = 80, 10
"""Photographs to train and to test on, unless asked otherwise."""
DISTANCE = 4.0
"""Distance of the cameras from the origin."""
FOV = 39.6
"""Field of view in degrees, as in NeRF-synthetic."""
NEAR, FAR = 2.0, 6.0
BOX = ((-1.3, -1.3, -0.9), (1.3, 1.3, 1.1))
SUN = (0.55, -0.35, 0.85)
FLOOR = -0.6
"""Height of the table's top."""

Vector = Sequence[float] | np.ndarray


def builtin_scene(*, size: int = SIZE, train: int = TRAIN, test: int = TEST, seed: int = 0) -> Scene:
    """Photographs of the built-in scene: square, RGBA, ``size`` pixels wide; the same bits for the same arguments.

    ``train`` and ``test`` cameras look at the origin from all over the upper hemisphere; ``seed`` places them.
    Raises ``SceneError`` for impossible arguments and ``BackendError`` before ``tslim.init()``.
    """
    if size < 8 or train < 1 or test < 0:
        raise SceneError(
            f"built-in scene: size {size}, {train} train and {test} test images; expected at least 8, 1 and 0"
        )
    backend.current()
    rng = np.random.default_rng(seed)
    return checked(
        Scene(
            name="built-in",
            source="built-in",
            format="built-in",
            train=render_views(hemisphere(train, size, rng), "train"),
            test=render_views(hemisphere(test, size, rng), "test"),
            domain=Domain.of(np.array(BOX), near=NEAR, far=FAR),
        )
    )


def hemisphere(n: int, size: int, rng: np.random.Generator) -> Cameras:
    """``n`` cameras that look at the origin from 3 to 80 degrees above the horizon, evenly spread (a jittered
    Fibonacci spiral) in an order that does not follow the spiral."""
    if n == 0:
        return Cameras.none()
    i = rng.permutation(n)
    z = np.sin(np.radians(3)) + (np.sin(np.radians(80)) - np.sin(np.radians(3))) * (i + rng.random(n)) / n
    turn = 2.399963 * i + rng.random() * 2 * np.pi + (rng.random(n) - 0.5) * min(1.0, 2 / np.sqrt(n))
    flat = np.sqrt(1 - z * z)
    eyes = DISTANCE * np.stack([flat * np.cos(turn), flat * np.sin(turn), z], 1)
    return Cameras.look_at(eyes, (0, 0, 0), (0, 0, 1), FOV, (size, size))


def render_views(cameras: Cameras, name: str = "view") -> Views:
    """The built-in scene as seen by pinhole cameras of one size and focal length, principal point in the middle."""
    from kernels import builtin_scene  # compiled code: needs a started Taichi

    n = len(cameras)
    if n == 0:
        return Views.none()
    width, height = (int(s) for s in cameras.sizes[0])
    pixels = np.zeros(n * width * height, np.uint32)
    shot = builtin_scene.Shot(focal=cameras.intrinsics[0, 0], width=width, height=height, sun=SUN, floor_height=FLOOR)
    builtin_scene.render_images(shot, cameras.poses.reshape(n, 12), *_Model().tables(), pixels)
    offsets = width * height * np.arange(n + 1, dtype=np.int64)
    return Views(cameras, pixels, offsets, tuple(f"{name}/{i}" for i in range(n)))


ELLIPSOID, BOX_KIND, FRUSTUM, TORUS = range(4)
PLAIN, CHECKER, SPOKES, BANDS, HELIX, VEINS, WOOD, DOTS, PLANET = range(9)


@dataclass(frozen=True)
class Material:
    """How a solid looks; the kernel's file says how these are used."""

    colour: str
    other: str = "#000000"
    pattern: int = PLAIN
    scale: float = 1.0
    """of the pattern; spokes: how many"""
    shine: float = 0.8
    gloss: float = 50.0
    coarse: float = 0.0
    """frequency of the noise that shapes the pattern"""
    fine: float = 0.0
    """frequency of the noise on top"""
    grain: float = 1.0
    relief: float = 0.0
    """strength of the noise on top"""

    def row(self) -> list[float]:
        """The kernel's 14 numbers."""
        colours = [*_linear(self.colour), *_linear(self.other)]
        noise = [self.coarse, self.fine, self.grain, self.relief]
        return [self.pattern, *colours, self.scale, self.shine, self.gloss, *noise]


MATERIALS = {
    "table": Material("#efe6d2", "#3d5a66", CHECKER, 5.0, 0.35, 60, fine=9.0, relief=0.5),
    "table edge": Material("#8a5a34", "#5b3820", SPOKES, 48, 0.2, 20, fine=26.0, relief=0.6),
    "brass": Material("#d9a441", shine=1.0),
    "graduated": Material("#e2b24d", "#6d4413", SPOKES, 36, 0.9),
    "steel": Material("#8d98a3", shine=0.9, gloss=60),
    "globe": Material("#000000", pattern=PLANET, gloss=40, coarse=5.2, fine=21.0, relief=0.35),
    "plinth": Material("#e9e2d8", "#5d4b44", VEINS, 1.0, 0.5, 60, coarse=5.0, fine=12.0, relief=0.2),
    "teal": Material("#1d8a8a", shine=0.7, gloss=40),
    "coral": Material("#e0503a", gloss=70),
    "mustard": Material("#efb830"),
    "leaf": Material("#5f9e3f"),
    "sky": Material("#3f84c9"),
    "plum": Material("#7d3f83"),
    "oak": Material("#c58d55", "#6b4021", WOOD, 14, 0.25, 25, coarse=4.0, fine=50.0, grain=0.12, relief=0.3),
    "walnut": Material("#7a4f30", "#3a2113", WOOD, 18, 0.25, 25, coarse=4.0, fine=60.0, grain=0.12, relief=0.3),
    "candy": Material("#f4efe6", "#c8283c", HELIX, 8.0, 0.9, 70),
    "mint": Material("#f2f1e4", "#2f8f6b", HELIX, 11.0, 0.9, 70),
    "navy bands": Material("#f0e9da", "#24406e", BANDS, 22.0, 0.8, 60),
    "die": Material("#f6f1e7", "#b3202c", DOTS, 12.0, 0.6, 60),
    "ivory": Material("#f3ead8", "#b39b78", VEINS, 1.0, 0.9, 70, coarse=9.0, fine=25.0, relief=0.15),
    "ebony": Material("#2b2724", "#8a7a68", VEINS, 1.0, 0.9, 70, coarse=9.0, fine=25.0, relief=0.15),
}


class _Model:
    """The scene's solids, group by group, as the kernel's tables."""

    def __init__(self) -> None:
        self.materials = list(MATERIALS)
        self.primitives: list[list[float]] = []
        self.groups: list[list[float]] = []
        self.occluders: list[list[float]] = []
        for build in (_table, _globe, _lattice, _abacus, _blocks, _poles, _pawns):
            first = len(self.primitives)
            build(self)
            self._close_group(first)

    def tables(self) -> tuple[np.ndarray, ...]:
        """groups (g, 6), primitives (n, 18), materials (m, 14), occluders (s, 4), all float32."""
        materials = [material.row() for material in MATERIALS.values()]
        return tuple(np.array(t, np.float32) for t in (self.groups, self.primitives, materials, self.occluders))

    def add(self, kind: int, material: str, center: Vector, size: Vector, axes: np.ndarray | None = None) -> None:
        """One solid; the columns of ``axes`` are its own x, y, z in the world."""
        size = (*size, *(0.0,) * (3 - len(size)))
        bound = {
            ELLIPSOID: max(size),
            BOX_KIND: float(np.linalg.norm(size)),
            FRUSTUM: float(np.hypot(max(size[:2]), size[2])),
            TORUS: size[0] + size[1],
        }[kind]
        own = np.eye(3) if axes is None else np.asarray(axes).T
        self.primitives.append([kind, self.materials.index(material), *center, *own.ravel(), *size, bound + 1e-3])

    def ball(self, material: str, center: Vector, radius: float, *, shadow: bool = True) -> None:
        """A sphere that also hides the sky from its surroundings."""
        self.add(ELLIPSOID, material, center, (radius,) * 3)
        if shadow:
            self.occluders.append([*center, radius])

    def rod(self, material: str, start: Vector, end: Vector, radius: float, end_radius: float | None = None) -> None:
        """A round rod, or a cone, from point to point."""
        first, last = np.asarray(start, float), np.asarray(end, float)
        length = float(np.linalg.norm(last - first))
        end_radius = radius if end_radius is None else end_radius
        self.add(
            FRUSTUM, material, (first + last) / 2, (radius, end_radius, length / 2), _axes((last - first) / length)
        )

    def _close_group(self, first: int) -> None:
        rows = np.array(self.primitives[first:])
        centers, radii = rows[:, 2:5], rows[:, 17]
        middle = (centers.min(0) + centers.max(0)) / 2
        bound = (np.linalg.norm(centers - middle, axis=1) + radii).max()
        self.groups.append([first, len(self.primitives), *middle, bound])


def _table(model: _Model) -> None:
    model.add(FRUSTUM, "table", (0, 0, FLOOR - 0.01), (1.2, 1.2, 0.01))
    model.add(FRUSTUM, "table edge", (0, 0, FLOOR - 0.08), (1.08, 1.17, 0.06))
    model.add(TORUS, "graduated", (0, 0, FLOOR), (1.19, 0.022))
    model.add(FRUSTUM, "walnut", (0, 0, FLOOR - 0.19), (0.75, 0.6, 0.05))


def _globe(model: _Model) -> None:
    center = np.array([0, 0, 0.24])
    pole = _unit((0.35, 0.15, 0.92))
    model.add(ELLIPSOID, "globe", center, (0.36,) * 3, _axes(pole))
    model.occluders.append([*center, 0.36])
    model.rod("steel", center - 0.72 * pole, center + 0.72 * pole, 0.014)
    model.ball("coral", center + 0.72 * pole, 0.035, shadow=False)
    model.add(TORUS, "graduated", center, (0.50, 0.022), _axes(pole))
    model.add(TORUS, "brass", center, (0.60, 0.016), _axes(_unit((1, -0.5, 0.25))))
    model.add(TORUS, "steel", center, (0.66, 0.013), _axes(_unit((-0.35, -1, 0.35))))
    model.add(FRUSTUM, "plinth", (0, 0, FLOOR + 0.03), (0.30, 0.28, 0.03))
    model.add(FRUSTUM, "plinth", (0, 0, FLOOR + 0.10), (0.20, 0.08, 0.04))
    model.rod("brass", (0, 0, FLOOR + 0.13), (0, 0, -0.10), 0.03)
    model.occluders.append([0, 0, FLOOR + 0.02, 0.24])


def _lattice(model: _Model) -> None:
    """A wire cube of 2×2×2 cells with two balls caught in it."""
    turn, half = _turn(20), 0.21
    center = np.array([*_place(0), FLOOR + half + 0.015])
    steps = (-half, 0.0, half)
    for axis in range(3):
        for u in steps:
            for v in steps:
                start, end = (center + turn @ np.insert([u, v], axis, s) for s in (-half, half))
                model.rod("teal", start, end, 0.013)
    for material, cell in (("coral", (-1, 1, -1)), ("mustard", (1, -1, 1))):
        model.ball(material, center + turn @ (np.array(cell) * half / 2), 0.085)


def _abacus(model: _Model) -> None:
    turn, x = _turn(72), 0.27
    base = np.array([*_place(72), FLOOR])

    def at(along: float, above: float) -> np.ndarray:
        return base + turn @ np.array([0.0, along, above])

    for side in (-x, x):
        model.add(BOX_KIND, "oak", at(side, 0.25), (0.03, 0.022, 0.25), turn)
    for height in (0.02, 0.49):
        model.add(BOX_KIND, "walnut", at(0, height), (0.045, x + 0.03, 0.02), turn)
    for row, material in enumerate(("plum", "sky", "leaf", "mustard", "coral")):
        height = 0.095 + 0.08 * row
        model.rod("steel", at(-x, height), at(x, height), 0.007)
        for bead in range(6):
            left = bead < (2, 5, 1, 4, 3)[row]
            u = -x + 0.055 + 0.05 * bead if left else x - 0.055 - 0.05 * (5 - bead)
            model.add(ELLIPSOID, material, at(u, height), (0.034, 0.034, 0.023), _axes(turn[:, 1]))
    for u in (-0.18, 0, 0.18):
        for w in (0.08, 0.26):
            model.occluders.append([*at(u, w), 0.06])


def _blocks(model: _Model) -> None:
    """A stack of wooden blocks, each turned a little, and a die on top."""
    height, base = FLOOR, _place(144)
    for material, half, angle in (
        ("oak", (0.24, 0.17, 0.055), 10),
        ("navy bands", (0.19, 0.15, 0.05), 38),
        ("walnut", (0.15, 0.12, 0.05), -8),
    ):
        model.add(BOX_KIND, material, (*base, height + half[2]), half, _turn(angle))
        model.occluders.append([*base, height + half[2], 0.8 * half[1]])
        height += 2 * half[2]
    model.add(BOX_KIND, "die", (*base, height + 0.083), (0.083, 0.083, 0.083), _turn(25))


def _poles(model: _Model) -> None:
    """Three candy poles with golden balls."""
    base = np.array([*_place(216), FLOOR])
    for material, (u, v), height, radius in (
        ("candy", (0.0, 0.10), 0.62, 0.06),
        ("mint", (0.13, -0.10), 0.44, 0.055),
        ("navy bands", (-0.14, -0.08), 0.30, 0.05),
    ):
        foot = base + (u, v, 0)
        model.rod(material, foot, foot + (0, 0, height), radius)
        model.ball("brass", foot + (0, 0, height + 0.8 * radius), 1.15 * radius)
        for share in (0.15, 0.5, 0.85):
            model.occluders.append([*(foot + (0, 0, share * height)), radius])


def _pawns(model: _Model) -> None:
    """Two chessmen of turned stone and a striped ball."""
    x, y = _place(288)
    for material, (u, v), scale in (("ivory", (-0.12, -0.04), 1.0), ("ebony", (0.15, 0.08), 0.8)):
        foot = np.array([x + u, y + v, FLOOR])
        for low, high, start, end in ((0, 0.05, 0.14, 0.13), (0.05, 0.08, 0.11, 0.09), (0.08, 0.28, 0.085, 0.04)):
            model.rod(material, foot + (0, 0, scale * low), foot + (0, 0, scale * high), scale * start, scale * end)
        model.add(ELLIPSOID, material, foot + (0, 0, scale * 0.29), (scale * 0.075, scale * 0.075, scale * 0.018))
        model.ball(material, foot + (0, 0, scale * 0.36), scale * 0.075)
        model.occluders.append([*(foot + (0, 0, 0.06 * scale)), 0.11 * scale])
    model.add(ELLIPSOID, "navy bands", (x + 0.02, y - 0.20, FLOOR + 0.09), (0.09,) * 3, _axes(_unit((0.5, 0.3, 1))))
    model.occluders.append([x + 0.02, y - 0.20, FLOOR + 0.09, 0.09])


def _place(degrees: float, radius: float = 0.82) -> np.ndarray:
    """A spot on the table."""
    return radius * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def _turn(degrees: float) -> np.ndarray:
    """(3, 3) rotation about z."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _axes(z: np.ndarray) -> np.ndarray:
    """(3, 3) right-handed frame whose third column is ``z``."""
    x = _unit(np.cross((0, 1, 0) if abs(z[1]) < 0.9 else (1, 0, 0), z))
    return np.stack([x, np.cross(z, x), z], 1)


def _unit(vector: Vector) -> np.ndarray:
    return np.asarray(vector, float) / np.linalg.norm(vector)


def _linear(colour: str) -> list[float]:
    """Linear light of "#rrggbb"."""
    srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).tolist()
