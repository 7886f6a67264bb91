"""Models from paths, bytes and streams, whole and as they arrive."""

import io
import os
import threading

import numpy as np
import pytest

import tslim
from tests.test_model_file import assert_same, make_state
from tslim.errors import ModelFileError
from tslim.model import model_file

PRECISIONS = ("float16", "compact")


class Dribble(io.RawIOBase):
    """Gives at most three bytes at a time, cannot seek, and counts what it gave."""

    def __init__(self, data: bytes) -> None:
        self._data, self.given = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, into) -> int:
        part = self._data[self.given : self.given + min(3, len(into))]
        into[: len(part)] = part
        self.given += len(part)
        return len(part)


def written(folder, precision="compact", rank=4):
    """A model file with a field's decoder."""
    rng = np.random.default_rng(2)
    state = make_state(rank=rank, grid=(6, 5, 7))
    state.decoder = tslim.Field(state.box, state.config, grid=5).state().decoder
    state.rank_scales = state.rank_scales + rng.normal(0, 0.1, state.rank_scales.shape).astype(np.float32)
    return model_file.write(model_file.convert(state, precision), folder / "a.slim")


def same(a: tslim.Field, b: tslim.Field) -> None:
    assert_same(a.state(), b.state())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_path_bytes_and_streams_that_dribble_give_the_same_field(cpu, tmp_path, precision):
    path = written(tmp_path, precision)
    data, wanted = path.read_bytes(), tslim.load(path)
    for source in (str(path), data, bytearray(data), io.BytesIO(data), Dribble(data)):
        same(tslim.load(source), wanted)
    same(tslim.load(Dribble(data), rank=2), tslim.load(path, rank=2))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_field_gains_ranks_as_they_arrive_and_nothing_is_read_ahead(cpu, tmp_path, precision):
    path = written(tmp_path, precision)
    ends, stream = model_file.read_header(path).ends, Dribble(path.read_bytes())
    for rank, field in enumerate(tslim.load_stream(stream), start=1):
        assert stream.given == ends[rank - 1]
        same(field, tslim.load(path, rank=rank))
    assert rank == 4


def test_a_pipe_that_is_still_being_written_shows_what_has_come(cpu, tmp_path):
    path = written(tmp_path)
    data, ends = path.read_bytes(), model_file.read_header(path).ends
    receiving, sending = os.pipe()
    go_on = threading.Event()

    def send() -> None:
        with open(sending, "wb", buffering=0) as out:
            out.write(data[: ends[1] + 9])
            assert go_on.wait(60)
            out.write(data[ends[1] + 9 :])

    writer = threading.Thread(target=send)
    writer.start()
    with open(receiving, "rb", buffering=0) as stream:
        fields = tslim.load_stream(stream)
        assert [next(fields).rank, next(fields).rank] == [1, 2]
        go_on.set()
        assert [field.rank for field in fields] == [3, 4]
    writer.join()


def test_a_stream_that_ends_within_a_rank_ends_with_the_one_before_and_without_one_is_refused(cpu, tmp_path):
    path = written(tmp_path)
    data, ends = path.read_bytes(), model_file.read_header(path).ends
    assert [field.rank for field in tslim.load_stream(data[: ends[2] - 1])] == [1, 2]
    with pytest.raises(ModelFileError, match="cut short: it ends within its first rank"):
        next(tslim.load_stream(data[: ends[0] - 1]))
    broken = data[: ends[1] + 50] + bytes([data[ends[1] + 50] ^ 1]) + data[ends[1] + 51 :]
    fields = tslim.load_stream(broken)
    assert [next(fields).rank, next(fields).rank] == [1, 2]
    with pytest.raises(ModelFileError, match="ranks 1 to 2 are intact"):
        next(fields)
