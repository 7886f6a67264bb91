"""Files are not believed: their values pass the checks of the command line, and readers raise tslim's errors only."""

import json
import random
import struct

import numpy as np
import pytest

from tests import damage
from tests.test_compact import NUMBERS, with_block
from tests.test_model_file import make_state, with_header
from tslim import config
from tslim.commands import console
from tslim.errors import ModelFileError, TslimError
from tslim.model import layout, model_file, shared
from tslim.training import checkpoint
from tslim.training.run_folder import RunFolder

NAN, INF = float("nan"), float("inf")
LIES = {
    **{f"step ratio {v!r}": lambda h, v=v: h["metadata"].update(march={"step_ratio": v})
       for v in (-1, 0, NAN, INF, "0.5", 1e-7, None, True, [1], 1e300)},
    "an unknown way to march": lambda h: h["metadata"].update(march={"stride": 1}),
    "a march that is a list": lambda h: h["metadata"].update(march=[1]),
    "a threshold below 0": lambda h: h["metadata"].update(march={"weight_threshold": -1}),
    "a distance scale of NaN": lambda h: h["config"].update(distance_scale=NAN),
    "a distance scale of 0": lambda h: h["config"].update(distance_scale=0),
    "a density shift of infinity": lambda h: h["config"].update(density_shift=INF),
    "a hundred frequencies": lambda h: h["config"].update(feature_encoding=100),
    "half a frequency": lambda h: h["config"].update(direction_encoding=0.5),
    "steps that are text": lambda h: h["metadata"].update(steps="many"),
    "seconds of NaN": lambda h: h["metadata"].update(seconds=NAN),
    "a path that is a number": lambda h: h["metadata"].update(path=3),
    "a path of no kind": lambda h: h["metadata"].update(path={"path": "square"}),
    "a path of enormous pictures": lambda h: h["metadata"].update(path={"path": "orbit", "size": [10**6, 10**6]}),
    "a path with a radius of NaN": lambda h: h["metadata"].update(path={"path": "orbit", "radius": NAN}),
    "paths that are a list": lambda h: h["metadata"].update(paths=[1]),
    "a rounding that is text": lambda h: h["metadata"].update(rounding="fine"),
    "a scene that is a list": lambda h: h["metadata"].update(scene=[1]),
    "scene options that nest": lambda h: h["metadata"].update(scene_options={"downscale": [[1]]}),
    "cameras without a pose": lambda h: h["metadata"].update(cameras=[{"name": "x"}]),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_values_in_a_model_file_pass_the_checks_of_the_command_line(tmp_path, lie):
    path = model_file.write(make_state(), tmp_path / "a.slim")
    path.write_bytes(with_header(path.read_bytes(), LIES[lie]))
    with pytest.raises(ModelFileError, match=r"a\.slim has a header that makes no sense") as caught:
        model_file.read(path)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_weights_that_are_no_numbers_are_refused_behind_a_checksum_that_fits(tmp_path, monkeypatch, bad, precision):
    for module in (layout, shared):
        monkeypatch.setattr(module, "to_bytes", lambda values, dtype, what: np.asarray(values).astype(dtype).tobytes())
    for name, spoil in {
        "rank 1 of": lambda s: s.density_planes[1].__setitem__((0, 0, 0), bad),
        "rank 2 of": lambda s: s.appearance_lines[2].__setitem__((3, 0), bad),
        "rank 3 of": lambda s: s.basis.__setitem__((1, 8, 5), bad),
        "the decoder of": lambda s: next(iter(s.decoder.values())).__setitem__(0, bad),
    }.items():
        state = make_state()
        spoil(state)
        path = model_file.write(model_file.convert(state, precision), tmp_path / "a.slim")
        with pytest.raises(ModelFileError, match=rf"^{name} .*a\.slim holds values that are not finite"):
            model_file.read(path)


def test_steps_whose_multiples_are_too_large_are_refused(tmp_path):
    path = tmp_path / "a.slim"
    path.write_bytes((damage.ROOT / "tests" / "data" / "model_files" / "v3-compact.slim").read_bytes())
    largest = struct.pack("<f", 3e38)
    with_block(path, lambda b: b[:NUMBERS] + 24 * largest + b[NUMBERS + 4 * 24 :])
    with pytest.raises(ModelFileError, match=r"rank 1 of .*a\.slim holds values that are not finite"):
        model_file.read(path)


def test_names_of_metadata_that_nobody_knows_are_kept(tmp_path):
    path = model_file.write(
        make_state(metadata={"mine": [1, {"a": None}], "march": {"step_ratio": 1}}), tmp_path / "a.slim"
    )
    assert model_file.read(path).metadata["mine"] == [1, {"a": None}]


def test_names_cannot_command_a_terminal(capsys):
    console.fail("\x1b]0;owned\x07 no such file \x9b31m\u202egnp.exe")
    printed = capsys.readouterr().err
    assert printed.isprintable() or printed[:-1].isprintable()
    assert "no such file" in printed


def test_long_messages_are_cut_in_their_middle(capsys):
    console.fail("beginning " + "x" * 10_000 + " end")
    printed = capsys.readouterr().err
    assert len(printed) < 450 and "beginning" in printed and printed.endswith("end\n") and "…" in printed


# Fuzz: in a process of its own, with so much memory and no more

FUZZ = """
import resource, sys, time
from tests.test_untrusted import READERS
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
reader, folder, inputs, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
READERS[reader](folder, inputs, seed)
"""


def _hostile(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed as chance and malice would: cut, flipped, doubled, overwritten with extreme numbers."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(max(len(data), 1))
        kind = rng.randrange(6)
        if kind == 0:
            del data[at:]
        elif kind == 1 and data:
            data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[at : at + 4] = rng.choice([b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff", b"\x80" + b"\x00" * 3])
        elif kind == 3:
            data[at:at] = data[at : at + rng.randrange(1, 64)]
        elif kind == 4:
            del data[at : at + rng.randrange(1, 64)]
        else:
            data[at : at + 8] = rng.randbytes(8)
    return bytes(data)


ODD = [None, True, -1, 0, 1.5, 2**31, 2**63, 10**30, NAN, INF, "", "x", "\x1b[2J", [], [[]], {}, {"a": 1}, [0, 0, 0],
       [-1] * 3, [2**20] * 3, [[0] * 3] * 2, "box", "compact"]  # fmt: skip


def _twisted(value, rng: random.Random):
    """Plain data with one value somewhere replaced by an odd one, or left out."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != name}
        return value | {name: _twisted(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.6:
        at = rng.randrange(len(value))
        return [*value[:at], _twisted(value[at], rng), *value[at + 1 :]]
    return rng.choice(ODD)


def fuzz_models(folder: str, inputs: int, seed: int) -> None:
    from pathlib import Path

    rng, path = random.Random(seed), Path(folder) / "m.slim"
    told = make_state(metadata={"march": {"step_ratio": 0.5}, "path": {"path": "orbit"}, "steps": 3})
    states = (told, model_file.convert(make_state(), "compact"))
    wholes = [model_file.write(state, path).read_bytes() for state in states]
    for _ in range(inputs):
        whole = rng.choice(wholes)
        if rng.random() < 0.7:  # a header that lies behind a right checksum reaches further

            def lie(header):
                changed = _twisted(dict(header), rng)
                changed = changed if isinstance(changed, dict) else {"config": changed}
                header.clear()
                header.update(changed)

            data = with_header(whole, lie)
        else:
            data = _hostile(whole, rng)
        path.write_bytes(data)
        try:
            state = model_file.read(path)
            assert all(a.shape[1] > 0 for a in state.density_planes)
        except TslimError:
            pass


def fuzz_checkpoints(folder: str, inputs: int, seed: int) -> None:
    from pathlib import Path

    rng, path = random.Random(seed), Path(folder) / "c.npz"
    arrays = {"a": np.arange(30, dtype=np.float32).reshape(5, 6), "b": np.zeros(3, np.uint32)}
    whole = checkpoint.save(path, arrays, {"step": 3, "config": {"steps": 5}}).read_bytes()
    for _ in range(inputs):
        path.write_bytes(_hostile(whole, rng))
        try:
            checkpoint.load(path)
        except TslimError:
            pass


def fuzz_configs(folder: str, inputs: int, seed: int) -> None:
    rng, run = random.Random(seed), RunFolder(folder)
    plain = json.loads(
        json.dumps({"scene": {"path": None, "downscale": 5}, "train": config.to_dict(config.TrainConfig())})
    )
    row = {"step": 1, "rank": 1, "loss": 0.1, "psnr": 10.0, "seconds": 1.0, "psnr_by_rank": {"1": 9.0},
           "grew": [{"step": 1, "rank": 2, "cause": "x"}]}  # fmt: skip
    for _ in range(inputs):
        text = json.dumps(_twisted(plain, rng)).encode()
        run.config.write_bytes(text if rng.random() < 0.7 else _hostile(text, rng))
        line = json.dumps(_twisted(row, rng)).encode()
        run.metrics.write_bytes(line if rng.random() < 0.7 else _hostile(line, rng))
        try:
            run.train_settings()
        except TslimError:
            pass
        run.history()


READERS = {"models": fuzz_models, "checkpoints": fuzz_checkpoints, "configs": fuzz_configs}


@pytest.mark.parametrize("inputs", [150, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_refuses_or_reads_whatever_it_is_given_in_little_memory(tmp_path, reader, inputs):
    done = damage.python(FUZZ, reader, tmp_path, inputs, 1, cwd=damage.ROOT, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
