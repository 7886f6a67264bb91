"""The domain of a field: which part of the world it covers, in which coordinates, and what lies behind it."""

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from tslim.config import Space
from tslim.errors import ConfigError

SPACES = ("box", "ndc", "contracted")
CONTRACTED_BOX = np.array([[-2.0] * 3, [2.0] * 3], np.float32)
"""Where everything lies in field coordinates once it is contracted."""

Colour = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Domain:
    """Immutable: whoever shrinks a box makes another domain. ``Domain.of`` checks what it is given."""

    box: np.ndarray
    """(2, 3) f32 corners in field coordinates: minimum, maximum"""
    near: float = 0.0
    """distance along a ray, in world units, at which sampling starts; in ndc that of the near plane"""
    far: float = 1e10
    """distance at which it ends; limits nothing in ndc"""
    space: Space = "box"
    """"box", "ndc" or "contracted": what field coordinates are (see ``kernels.space``)"""
    background: Colour | None = (1.0, 1.0, 1.0)
    """sRGB colour behind the field, or None for the caller's choice"""
    cube: np.ndarray | None = None
    """(2, 3) world corners of the part of a contracted space that stays as it is; None in other spaces"""

    @staticmethod
    def of(
        box: np.ndarray,
        *,
        near: float = 0.0,
        far: float = 1e10,
        space: str = "box",
        background: Colour | None = (1.0, 1.0, 1.0),
    ) -> "Domain":
        """The domain of a new field. ``box`` as ``Scene.box``: in a contracted space the cube that stays as it is.

        Raises ``ConfigError`` for a box without a volume, an unknown space, or what does not fit the space.
        """
        box = np.array(box, np.float32)
        if box.shape != (2, 3) or not np.isfinite(box).all() or not (box[1] > box[0]).all():
            raise ConfigError(f"box {box.tolist()}: expected two finite corners, (minimum, maximum), that differ")
        if space not in SPACES:
            raise ConfigError(f"space {space}: known are {', '.join(SPACES)}")
        if space == "ndc" and not near > 0:
            raise ConfigError(f"near {near}: ndc needs the distance of a near plane, above 0")
        cube = None
        if space == "contracted":
            sides = box[1] - box[0]
            if not np.allclose(sides, sides[0], rtol=1e-3):
                raise ConfigError(f"box {box.tolist()}: what a contracted space leaves as it is must be a cube")
            cube, box = box, CONTRACTED_BOX.copy()
        return Domain(box, float(near), float(far), cast(Space, space), background, cube)

    def with_box(self, box: np.ndarray) -> "Domain":
        """The same domain with another box in field coordinates."""
        return replace(self, box=np.array(box, np.float32))

    @property
    def world_box(self) -> np.ndarray:
        """(2, 3) world corners of what matters: the box, the cube, or in ndc all up to four times the near plane."""
        if self.space == "ndc":
            depth = 4 * self.near
            (x0, y0), (x1, y1) = self.box[:, :2] / 2 * depth
            return np.array([[x0, y0, -depth], [x1, y1, -self.near]], np.float32)
        return self.box if self.cube is None else self.cube


class InDomain:
    """Answers for ``self.domain``: what has a domain need not be asked for it first. Read only."""

    domain: Domain

    @property
    def box(self) -> np.ndarray:
        """(2, 3) corners in field coordinates."""
        return self.domain.box

    @property
    def near(self) -> float:
        """Distance along a ray at which sampling starts."""
        return self.domain.near

    @property
    def far(self) -> float:
        """Distance along a ray at which sampling ends."""
        return self.domain.far

    @property
    def space(self) -> Space:
        """What field coordinates are: "box", "ndc" or "contracted"."""
        return self.domain.space

    @property
    def background(self) -> Colour | None:
        """sRGB colour behind the field, or None."""
        return self.domain.background

    @property
    def cube(self) -> np.ndarray | None:
        """(2, 3) world corners of the part of a contracted space that stays as it is."""
        return self.domain.cube

    @property
    def world_box(self) -> np.ndarray:
        """(2, 3) world corners of what matters."""
        return self.domain.world_box
