"""LPIPS: what the package is given, what is said without it, and where the number goes. Nothing is downloaded."""

import json
import sys
import types
from importlib.util import find_spec

import numpy as np
import pytest

from tslim import cli
from tslim.commands.console import Console
from tslim.errors import MissingPackageError
from tslim.measuring import eval_json
from tslim.measuring.evaluate import SweepRow
from tslim.measuring.perceptual import Perceptual


@pytest.fixture
def stand_in(monkeypatch):
    """A package whose distance is the mean difference of pictures, and that wants them as the real one does."""
    torch = pytest.importorskip("torch", reason="torch, which LPIPS runs on, is not installed (tests/requirements.txt)")

    class LPIPS:
        def __init__(self, net, verbose):
            assert net == "vgg" and not verbose

        def __call__(self, one, other, normalize):
            assert normalize and one.shape == other.shape == (1, 3, 40, 36) and one.dtype == torch.float32
            return (one - other).abs().mean().reshape(1, 1, 1, 1)

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=LPIPS))


def test_pictures_are_compared_where_they_count(stand_in):
    truth = np.random.default_rng(0).random((40, 36, 3)).astype(np.float32)
    measure, other = Perceptual(), 0.5 * truth
    assert measure(truth, truth) == 0
    assert measure(other, truth) == pytest.approx(float((0.5 * truth).mean()), rel=1e-5)
    valid = np.zeros((40, 36), bool)
    assert measure(other, truth, valid) == 0
    valid[:20] = True
    assert measure(other, truth, valid) == pytest.approx(float((0.5 * truth[:20]).mean()) / 2, rel=1e-5)
    assert np.isnan(measure(other[:31], truth[:31])), "too small for the network"


def test_who_lacks_the_package_or_the_network_is_told_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(MissingPackageError, match="LPIPS needs lpips, which is not installed: pip install lpips"):
        Perceptual()
    (tmp_path / "model.slim").write_bytes(b"")
    assert cli.main(["eval", str(tmp_path / "model.slim"), "--lpips"]) == 2
    assert "pip install lpips" in capsys.readouterr().err

    pytest.importorskip("torch", reason="torch, which LPIPS runs on, is not installed (tests/requirements.txt)")
    for problem in (OSError("no route to host"), RuntimeError("invalid hash value\nexpected 397923af"), EOFError()):

        def offline(net, verbose, problem=problem):
            raise problem

        monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=offline))
        with pytest.raises(MissingPackageError, match="could not be downloaded .(no route|invalid hash|EOFError)") as e:
            Perceptual()
        assert "\n" not in str(e.value)


def test_the_package_itself_measures_with_made_up_weights(monkeypatch):
    torch = pytest.importorskip("torch", reason="torch, which LPIPS runs on, is not installed (tests/requirements.txt)")
    if find_spec("lpips") is None:
        pytest.skip("lpips is not installed (pip install lpips)")
    asked = []

    def vgg16(**options):
        """The layers of VGG-16 up to the last that LPIPS looks at, with weights drawn at random."""
        asked.append(options)
        torch.manual_seed(0)
        layers, wide = [], 3
        for width, deep in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(deep):
                layers += [torch.nn.Conv2d(wide, width, 3, padding=1), torch.nn.ReLU()]
                wide = width
            layers.append(torch.nn.MaxPool2d(2))
        return types.SimpleNamespace(features=torch.nn.Sequential(*layers))

    models = types.SimpleNamespace(vgg16=vgg16)
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(models=models))
    for name in [name for name in sys.modules if name.split(".")[0] == "lpips"]:
        monkeypatch.delitem(sys.modules, name)
    truth = np.random.default_rng(0).random((40, 36, 3)).astype(np.float32)
    measure = Perceptual()
    assert len(asked) == 1 and measure(truth, truth) == 0
    near, far = measure(0.9 * truth, truth), measure(0.5 * truth, truth)
    assert 0 < near < far and far == measure(0.5 * truth, truth)


def test_it_stands_in_the_table_and_in_the_file_only_where_it_was_measured(tmp_path, capsys):
    without, measured = SweepRow(4, 400, 30.0, 0.9, 5.0), SweepRow(4, 400, 30.0, 0.9, 5.0, lpips=0.1234)
    Console().sweep_table([without])
    assert "LPIPS" not in capsys.readouterr().out
    Console().sweep_table([measured])
    shown = capsys.readouterr().out
    assert "LPIPS" in shown and "0.1234" in shown and "LPIPS 0.123" in str(measured)
    path = tmp_path / "eval.json"
    eval_json.write(path, [without], 3, of="the same")
    assert "lpips" not in json.loads(path.read_text())["rows"][0]
    eval_json.write(path, [measured], 3, of="the same")
    assert eval_json.read(path)[0] == [measured]
    eval_json.write(path, eval_json.merged_with_file(path, [without], 3, "the same"), 3, of="the same")
    assert eval_json.read(path)[0] == [measured], "measuring again without it does not lose it"
