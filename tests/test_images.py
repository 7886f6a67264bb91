"""Decoding photographs: the right numbers, and one clear error for each thing that can be wrong with a file."""

import struct
import tracemalloc
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile

from tslim.data import image_file, images
from tslim.device import memory
from tslim.errors import OutOfMemoryError, SceneError


def save(path, pixels, **options):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)
    return path


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (6, 9, 4), np.uint8)


def test_pixels_are_packed_red_first_from_the_top_left(tmp_path):
    path = save(tmp_path / "a.png", [[[1, 2, 3, 4], [5, 6, 7, 8]]])
    loaded = images.load_pixels([path])
    assert loaded.pixels.tolist() == [0x04030201, 0x08070605]
    assert loaded.offsets.tolist() == [0, 2]
    assert loaded.sizes.tolist() == [[2, 1]]


def test_downscaling_weights_colours_by_alpha():
    block = np.array([[[200, 0, 0, 255], [100, 80, 0, 85]], [[9, 9, 9, 0], [40, 0, 240, 0]]], np.uint8)
    # alpha (255 + 85) / 4 = 85; red (200·255 + 100·85) / 340 = 175; green 80·85 / 340 = 20; transparent pixels: no say
    assert image_file.area_downscale(block, 2).tolist() == [[[175, 20, 0, 85]]]


def test_a_fully_transparent_block_stays_transparent():
    assert image_file.area_downscale(np.full((2, 2, 4), (7, 7, 7, 0), np.uint8), 2).tolist() == [[[0, 0, 0, 0]]]


def test_what_does_not_fill_a_block_is_cut_off(noise):
    small = image_file.area_downscale(noise, 4)
    assert small.shape == (1, 2, 4)
    assert np.array_equal(small, image_file.area_downscale(noise[:4, :8], 4))


def test_opaque_and_transparent_images_are_averaged_alike(tmp_path, noise):
    noise[..., 3] = 255
    with_alpha = image_file.load_rgba(save(tmp_path / "a.png", noise), downscale=3)
    without = image_file.load_rgba(save(tmp_path / "b.png", noise[..., :3]), downscale=3)
    assert np.abs(with_alpha.astype(int) - without).max() <= 1
    assert np.abs(without[0, 0, 0] - noise[:3, :3, 0].mean()) <= 0.5 + 1e-6


def test_every_kind_of_png_and_jpeg_becomes_rgba(tmp_path, noise):
    grey = noise[..., 0]
    noise[..., 3] = 255
    opaque = Image.fromarray(noise[..., :3])
    opaque.save(tmp_path / "rgb.png")
    opaque.quantize(16).save(tmp_path / "palette.png")
    opaque.save(tmp_path / "photo.jpg", quality=95)
    opaque.convert("CMYK").save(tmp_path / "cmyk.jpg")
    save(tmp_path / "grey.png", grey)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    Image.fromarray(grey > 127).save(tmp_path / "bits.png")
    for path in tmp_path.iterdir():
        rgba = image_file.load_rgba(path)
        assert rgba.shape == (6, 9, 4), path
        assert (rgba[..., 3] == 255).all(), path
    assert np.array_equal(image_file.load_rgba(tmp_path / "rgb.png"), noise)
    for name in ("grey.png", "grey16.png"):
        assert np.array_equal(image_file.load_rgba(tmp_path / name)[..., 1], grey)


def test_images_of_different_sizes_lie_one_after_another(tmp_path, noise):
    paths = [save(tmp_path / "a.png", noise), save(tmp_path / "b.png", noise[:2, :3]), save(tmp_path / "c.png", noise)]
    loaded = images.load_pixels(paths)
    assert loaded.sizes.tolist() == [[9, 6], [3, 2], [9, 6]]
    assert loaded.offsets.tolist() == [0, 54, 60, 114]
    assert np.array_equal(loaded.pixels[:54], loaded.pixels[60:])
    assert np.array_equal(loaded.pixels[54:60].view(np.uint8).reshape(2, 3, 4), noise[:2, :3])


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_exif_orientation_turns_a_photograph_upright(tmp_path, orientation):
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16] = (250, 10, 10)
    upright[16:, :16] = (10, 10, 250)
    stored = {
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.jpg", stored, exif=exif, quality=100, subsampling=0)
    loaded = images.load_pixels([path], orient="always")
    assert loaded.sizes.tolist() == [[48, 32]]
    rgba = loaded.pixels.view(np.uint8).reshape(32, 48, 4)
    assert np.abs(rgba[..., :3].astype(int) - upright).max() < 12
    assert images.load_pixels([path]).sizes.tolist() == [[stored.shape[1], stored.shape[0]]]
    fitted = images.load_pixels([path], orient="fit", sizes=[(48, 32)])
    if orientation >= 5:
        assert np.array_equal(fitted.pixels, loaded.pixels)
    else:  # the size fits as it is, so the data set's tools have most likely ignored the orientation
        assert np.array_equal(fitted.pixels, images.load_pixels([path]).pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("kind", ["png", "webp", "tif", "compressed tif"])
def test_every_kind_of_file_turns_the_same_way(tmp_path, noise, kind, mode, orientation):
    stored = Image.fromarray(noise).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"webp": {"lossless": True, "exact": True}, "compressed tif": {"compression": "tiff_lzw"}}.get(kind, {})
    path = tmp_path / f"a.{kind.split()[-1]}"
    stored.save(path, exif=exif, **options)
    assert image_file.read_header(path) == image_file.Header((9, 6), orientation)
    turn = image_file._TURNS.get(orientation)
    for orient, expected in (("never", stored), ("always", stored.transpose(turn) if turn is not None else stored)):
        loaded = images.load_pixels([path], orient=orient)
        assert loaded.sizes.tolist() == [list(expected.size)]
        pixels = loaded.pixels.view(np.uint8).reshape(expected.height, expected.width, 4)
        assert np.array_equal(pixels, np.asarray(expected.convert("RGBA"))), orient
    mask = image_file.load_mask(image_file.Mask(path), (9, 6))
    values = np.asarray(stored)
    assert np.array_equal(mask, values if mode == "L" else values[..., 3] if mode == "RGBA" else values.max(-1))


def test_black_parts_of_a_mask_become_transparent(tmp_path, noise):
    noise[..., 3] = 200
    mask = np.zeros((6, 9), np.uint8)
    mask[:, 4:] = 255
    path, mask_path = save(tmp_path / "a.png", noise), save(tmp_path / "m.png", mask)
    alpha = (
        images.load_pixels([path], masks=[(image_file.Mask(mask_path),)]).pixels.view(np.uint8).reshape(6, 9, 4)[..., 3]
    )
    assert (alpha[:, :4] == 0).all()
    assert (alpha[:, 4:] == 200).all()
    with pytest.raises(SceneError, match="m.png: the mask is 9x3 pixels, its image 9x6"):
        images.load_pixels([path], masks=[(image_file.Mask(save(tmp_path / "m.png", mask[:3])),)])


def damaged(tmp_path, noise):
    good = save(tmp_path / "good.png", noise)
    photo = tmp_path / "good.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(photo)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-40])
    (tmp_path / "cut.jpg").write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    (tmp_path / "stub.png").write_bytes(good.read_bytes()[:20])
    (tmp_path / "folder.png").mkdir()
    zero = bytearray(good.read_bytes())
    zero[16:20] = b"\0\0\0\0"  # the width in the header
    (tmp_path / "zero.png").write_bytes(bytes(zero))
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.png", "none.png: image missing"),
        ("empty.png", "empty.png: empty file; readable are PNG"),
        ("text.png", "text.png: not an image"),
        ("cut.png", "cut.png: damaged or truncated image"),
        ("cut.jpg", "cut.jpg: damaged or truncated image"),
        ("stub.png", "stub.png: "),
        ("folder.png", "folder.png: a folder, expected an image"),
        ("zero.png", "zero.png: "),
        ("float.tif", "float.tif: floating-point pixels"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(tmp_path, noise, name, message):
    damaged(tmp_path, noise)
    with pytest.raises(SceneError, match=message) as caught:
        images.load_pixels([tmp_path / "good.png", tmp_path / name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raised", [MemoryError(), struct.error("bad\nchunk"), TypeError(), KeyError(7)], ids=repr)
def test_whatever_pillow_raises_on_damaged_bytes_is_one_line(tmp_path, noise, monkeypatch, raised):
    """Found by fuzzing: a chunk that claims 2 GB is a MemoryError, others are errors of Pillow's own making."""
    path = save(tmp_path / "a.png", noise)

    def fail(*_):
        raise raised

    for read in (lambda: image_file.load_rgba(path), lambda: image_file.load_mask(image_file.Mask(path), (9, 6))):
        with monkeypatch.context() as patch, pytest.raises(SceneError, match=r"a\.png: damaged or truncated") as caught:
            patch.setattr(ImageFile.ImageFile, "load", fail)
            read()
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(SceneError, match=r"a\.png: cannot be read"):
        image_file.read_header(path)


def test_pillow_warns_nobody_of_damaged_pictures(tmp_path, noise):
    """Found by fuzzing: a TIFF that ends early, EXIF data larger than their file, a palette as a mask."""
    palette = Image.fromarray(noise).convert("P")
    palette.save(tmp_path / "palette.png", transparency=bytes(range(200)))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise[..., :3]).save(tmp_path / "a.jpg", exif=exif)
    photo = bytearray((tmp_path / "a.jpg").read_bytes())
    at = photo.index(b"Exif\0\0") + 6
    entry = at + 8 + 2
    photo[entry + 4 : entry + 8] = b"\xff" * 4  # so many values
    (tmp_path / "a.jpg").write_bytes(photo)
    Image.fromarray(noise).save(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-20])
    filters = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_file.load_mask(image_file.Mask(tmp_path / "palette.png"), (9, 6))
        image_file.read_header(tmp_path / "a.jpg")
        with pytest.raises(SceneError):
            images.load_pixels([tmp_path / "a.tif"] * 8)
        assert images.load_pixels([save(tmp_path / "good.png", noise)] * 40).sizes.shape == (40, 2)
    assert warnings.filters == filters


def test_an_image_of_another_size_than_expected_is_named(tmp_path, noise):
    paths = [save(tmp_path / "a.png", noise), save(tmp_path / "b.png", noise[:5])]
    with pytest.raises(SceneError, match="b.png: 9x5 pixels, expected 9x6 as a.png"):
        images.load_pixels(paths, same_size=True)
    with pytest.raises(SceneError, match="b.png: 9x5 pixels, expected 8x5 as the data set says"):
        images.load_pixels(paths, sizes=[None, (8, 5)])
    with pytest.raises(SceneError, match="b.png: 9x5 pixels cannot be made 6 times smaller"):
        images.load_pixels(paths, downscale=6)


def test_images_that_do_not_fit_into_memory_are_refused_before_decoding(tmp_path, noise, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 100)
    with pytest.raises(OutOfMemoryError, match=r"1 images need .* GB are free: load them smaller \(--downscale\)"):
        images.load_pixels([save(tmp_path / "a.png", noise)])


def test_available_memory_is_between_nothing_and_a_petabyte():
    assert 0 < memory.available() < 1e15


def test_memory_is_bounded_by_the_result_and_a_few_full_images(tmp_path):
    big = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8).repeat(5, 0).repeat(5, 1)
    path = save(tmp_path / "a.jpg", big, quality=60)
    tracemalloc.start()
    loaded = images.load_pixels([path] * 40, downscale=5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert loaded.sizes[0].tolist() == [200, 150]
    # 40 images of 1000×750 at 4 bytes would be 120 MB; the result is 4.8 MB
    assert peak < 4.8e6 + 4 * 8 * 1000 * 750
