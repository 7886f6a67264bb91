"""What a model file says of itself: table of sizes and qualities, thumbnail; and lies about them."""

import base64
import io

import numpy as np
import pytest

from tests.test_model_file import assert_same, make_state, with_header
from tslim.errors import ConfigError, ModelFileError
from tslim.model import model_file, thumbnail
from tslim.model.table import SizeTable

PRECISIONS = ("float16", "float32", "compact")


def webp(size=(64, 48), mode="RGBA", **how) -> bytes:
    from PIL import Image

    packed = io.BytesIO()
    Image.new(mode, size, tuple([120] * len(mode))).save(packed, "WEBP", **how)
    return packed.getvalue()


def described(folder, precision="compact", **told):
    """A file of four ranks, before and after."""
    path = model_file.write(model_file.convert(make_state(rank=4, grid=(9, 8, 7)), precision), folder / "a.slim")
    before = path.read_bytes()
    model_file.describe(path, **told)
    return path, before


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_file_says_what_its_ranks_take_and_are_worth_and_they_stay_as_they_are(tmp_path, precision):
    path, before = described(tmp_path, precision, psnr={4: 31.257, 2: 28.0}, picture=webp())
    header, old = model_file.read_header(path), len(before)
    assert header.table.psnr == (None, 28.0, None, 31.26)
    assert header.table.sizes(header.fixed_bytes) == list(header.ends)
    assert path.read_bytes()[header.shared_at :] == before[old - (header.n_bytes - header.shared_at) :]
    assert thumbnail.size_of(header.metadata["thumbnail"]) == (64, 48, len(webp()))
    assert base64.b64decode(header.metadata["thumbnail"]) == webp()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_read_and_written_again_or_slimmed_says_the_same_and_is_a_prefix(tmp_path, precision):
    path, _ = described(tmp_path, precision, psnr={3: 30.0}, picture=webp())
    whole, header = path.read_bytes(), model_file.read_header(path)
    state = model_file.read(path)
    assert model_file.write(state, tmp_path / "b.slim").read_bytes() == whole
    assert model_file.write(model_file.convert(state), tmp_path / "b.slim").read_bytes() == whole
    for rank in (1, 3):
        cut = model_file.write(state.slim(rank), tmp_path / "b.slim").read_bytes()
        assert cut == whole[: header.bytes_at(rank)]
        # The cut file still says what the whole one is.
        assert len(model_file.read_header(tmp_path / "b.slim").table.blocks) == 4
    model_file.describe(tmp_path / "b.slim", psnr={1: 20.0})
    table = model_file.read_header(tmp_path / "b.slim").table
    assert table.psnr == (20.0, None, 30.0, None) and table.blocks == header.table.blocks


def test_what_is_not_that_file_any_more_does_not_say_what_it_was_worth(tmp_path):
    path, _ = described(tmp_path, psnr={4: 30.0})
    state = model_file.read(path)
    for other in (
        model_file.convert(state, "float16"),
        model_file.convert(state, "compact", 0.5),
        state.separate(4, 2),
        model_file.FieldState(**{name: getattr(state, name) for name in model_file.FieldState.__dataclass_fields__}),
    ):
        assert model_file.read_header(model_file.write(other, tmp_path / "b.slim")).table is None
    # Not even where a caller has changed it in place.
    state.density_planes[0][:] = 0
    assert model_file.read_header(model_file.write(state, tmp_path / "b.slim")).table is None


def test_a_file_that_says_nothing_reads_as_before_and_nothing_is_lost(tmp_path):
    path = model_file.write(make_state(), tmp_path / "a.slim")
    assert model_file.read_header(path).table is None
    model_file.describe(path)
    assert model_file.read_header(path).table.quality == {}
    back = model_file.read(path)
    back.table = None
    assert_same(back, make_state())


LIES = {
    "fewer qualities than sizes": {"blocks": [9, 9], "psnr": [1.0]},
    "no list": {"blocks": 4, "psnr": 4},
    "a negative size": {"blocks": [-9], "psnr": [None]},
    "a size that is a text": {"blocks": ["9"], "psnr": [None]},
    "an endless quality": {"blocks": [9], "psnr": [1e999]},
    "a quality that is a text": {"blocks": [9], "psnr": ["fine"]},
    "sizes of other ranks": {"blocks": [9, 9, 9, 9], "psnr": [None] * 4},
    "fewer ranks than there are": None,
    "nothing": [],
    "nothing in it": {},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_table_that_lies_is_refused_in_one_line(tmp_path, lie):
    path, _ = described(tmp_path)
    table = LIES[lie]
    if table is None:
        blocks = model_file.read_header(path).table.blocks[:2]
        table = {"blocks": list(blocks), "psnr": [None] * 2}
    path.write_bytes(with_header(path.read_bytes(), lambda h: h.update(table=table)))
    for read in (model_file.read_header, model_file.read, lambda p: model_file.read(p.read_bytes())):
        with pytest.raises(ModelFileError, match=r"makes no sense|table of sizes says") as caught:
            read(path)
        assert "\n" not in str(caught.value)


PICTURES = {
    "no text": 7,
    "not base64": "<script>",
    "no picture": base64.b64encode(b"x" * 100).decode(),
    "too many bytes": "A" * 100_000,
    "a PNG": base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode(),
    "cut short": base64.b64encode(webp()[:20]).decode(),
    "sixteen thousand pixels a side": base64.b64encode(
        b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(8) + b"\xff\x3f\x00" * 2 + bytes(20)
    ).decode(),
}


@pytest.mark.parametrize("lie", PICTURES)
def test_a_thumbnail_that_is_none_is_refused_in_one_line(tmp_path, lie):
    path, _ = described(tmp_path, picture=webp())
    path.write_bytes(with_header(path.read_bytes(), lambda h: h["metadata"].update(thumbnail=PICTURES[lie])))
    with pytest.raises(ModelFileError, match="metadata thumbnail") as caught:
        model_file.read(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("how", [{"lossless": True}, {"mode": "RGB"}, {"quality": 5}])
def test_every_kind_of_webp_has_its_size_read(how):
    assert thumbnail.size_of(thumbnail.packed(webp((301, 77), **how)))[:2] == (301, 77)
    with pytest.raises(ConfigError, match="at most 1024 pixels"):
        thumbnail.packed(webp((1025, 4), **how))


def test_sizes_of_a_table_are_running_sums():
    table = SizeTable.of([10, 7], {2: np.float64(3.14159), 1: np.inf, 9: 1.0})
    assert table.sizes(100) == [110, 117] and table.psnr == (None, 3.14)
