"""Hostile photographs, masks and scenes by the ten thousand: read, or refused by tslim's own errors, in bounded memory
and time, each reader in a process of its own."""

import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import captures
import numpy as np
import pytest
from PIL import Image

from tests import hostile
from tslim.data import image_file, images, load_scene

MEMORY = 2 << 30
"""Bytes of address space, of which Python and its packages take more than half."""


def changed_file(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed; of json often values, of text often words."""
    if rng.random() < 0.6 and (text := hostile.changed_text(data, rng)) is not None:
        return text
    data = hostile.damaged(data, rng)
    return with_right_sums(data) if data.startswith(PNG) and rng.random() < 0.7 else data


PNG = b"\x89PNG\r\n\x1a\n"


def with_right_sums(png: bytes) -> bytes:
    """The same chunks with checksums that are right, behind which damage reaches further."""
    made, at = bytearray(PNG), len(PNG)
    while at + 12 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        body = png[at + 4 : at + 8 + length]
        made += png[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + length
    return bytes(made)


# -- pictures --------------------------------------------------------------------------------------------------------


def picture(kind: str, mode: str = "RGB", **save) -> Callable[[Path], None]:
    """Writes one picture of a format, with data about its orientation."""

    def write(base: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (12, 16, 4), np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6
        drawn = Image.fromarray(noise).convert(mode)
        drawn.save(base / f"a.{kind}", **({} if kind == "bmp" else {"exif": exif}), **save)

    return write


def read_picture(base: Path) -> None:
    """As a photograph, in its size and smaller, and as a mask."""
    path = next(base.iterdir())
    for downscale in (1, 2):
        images.load_pixels([path], downscale=downscale, orient="always")
    image_file.load_mask(image_file.Mask(path), image_file.read_header(path).size)


# -- scenes ----------------------------------------------------------------------------------------------------------


def ring() -> captures.Cameras:
    return captures.ring(5, (8, 6))


def write_transforms(base: Path) -> None:
    captures.write_transforms(base, ring(), ply_file_path="points.ply")
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 20\n"
    header += "property float x\nproperty float y\nproperty float z\nend_header\n"
    points = np.random.default_rng(0).normal(0, 0.3, (20, 3)).astype("<f4")
    (base / "points.ply").write_bytes(header.encode() + points.tobytes())


def write_blender(base: Path) -> None:
    cameras = captures.ring(3, (8, 8))
    for split in ("train", "val", "test"):
        names = [f"{split}/r_{i}" for i in range(3)]
        captures.take_images(cameras, [f"{name}.png" for name in names], base)
        frames = [
            {
                "file_path": f"./{name}",
                "rotation": 0.1,
                "transform_matrix": [*pose.astype(float).tolist(), [0, 0, 0, 1]],
            }
            for name, pose in zip(names, cameras.poses, strict=True)
        ]
        (base / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))


def write_colmap(base: Path, text: bool = False) -> None:
    captures.write_colmap(base, ring(), text=text, points=np.random.default_rng(2).normal(0, 0.5, (30, 3)))


def read_scene(base: Path) -> None:
    scene = load_scene(base)
    assert len(scene.train) > 0
    assert np.isfinite(scene.box).all() and 0 <= scene.near < scene.far < np.inf
    for views in (scene.train, scene.test):
        assert np.isfinite(views.cameras.poses).all() and np.isfinite(views.cameras.intrinsics).all()
        assert len(views.pixels) < 10**6


FILES: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "png": (picture("png", "RGBA"), read_picture),
    "palette png": (picture("png", "P"), read_picture),
    "jpeg": (picture("jpg", quality=90), read_picture),
    "webp": (picture("webp", "RGBA"), read_picture),
    "bmp": (picture("bmp"), read_picture),
    "tiff": (picture("tif", "RGBA"), read_picture),
    "compressed tiff": (picture("tif", compression="tiff_lzw"), read_picture),
    "blender": (write_blender, read_scene),
    "transforms": (write_transforms, read_scene),
    "colmap": (write_colmap, read_scene),
    "colmap text": (lambda base: write_colmap(base, text=True), read_scene),
    "llff": (lambda base: captures.write_llff(base, captures.forward_facing(5, (8, 6))), read_scene),
    "nsvf": (lambda base: captures.write_nsvf(base, ring()), read_scene),
}


READERS = {name: hostile.Reader(write, read, changed_file) for name, (write, read) in FILES.items()}


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_of_scenes_refuses_or_reads_whatever_it_is_given(tmp_path, reader):
    hostile.run("tests.test_hostile_scenes", reader, tmp_path, memory=MEMORY)
