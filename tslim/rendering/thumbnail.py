"""A small picture of a field from where its camera path begins, for its file and its page."""

import io
from typing import TYPE_CHECKING

import numpy as np

from tslim.rendering import media
from tslim.rendering.renderer import Renderer
from tslim.scene import paths
from tslim.scene.cameras import Cameras

if TYPE_CHECKING:
    from tslim.field.field import Field

SIDE = 192
"""Pixels along each side."""
QUALITY = 60
"""WebP quality: some 2 kB."""


def thumbnail(field: "Field", renderer: Renderer | None = None) -> bytes:
    """The first view on the field's path without what is behind it, as WebP; the renderer is one to reuse."""
    from PIL import Image

    start = paths.path_of(field, field.metadata).cameras(1)
    (width, height), (fx, fy) = start.sizes[0], start.intrinsics[0, :2]
    focal = float(SIDE * (fx / width if width < height else fy / height))
    camera = Cameras.pinhole(start.poses, focal, (SIDE, SIDE))
    image = (renderer or Renderer(field)).render(camera, background=(0.0, 0.0, 0.0))
    rgba = np.concatenate([image.own_colours, image.opacity[..., None]], axis=2)
    packed = io.BytesIO()
    Image.fromarray(media.as_bytes(rgba)).save(packed, "WEBP", quality=QUALITY)
    return packed.getvalue()
