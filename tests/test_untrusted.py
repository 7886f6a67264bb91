"""Files are not believed: their values pass the checks of the command line, and readers raise tslim's errors only."""

import struct

import numpy as np
import pytest

from tests import damage
from tests.test_compact import NUMBERS, with_block
from tests.test_model_file import make_state, with_header
from tslim.commands import console
from tslim.errors import ModelFileError
from tslim.model import layout, model_file, shared

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
