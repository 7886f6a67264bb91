"""Published figures: one file of them, and measured curves beside it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.test_model_file import make_state
from tslim.errors import ConfigError
from tslim.measuring.evaluate import SweepRow
from tslim.sweeps import beside
from tslim.sweeps.published import FILE, MEAN, published

ROOT = Path(__file__).resolve().parent.parent
SCENES = ("chair", "drums", "ficus", "hotdog", "lego", "materials", "mic", "ship", MEAN)
OURS = [SweepRow(16, 2_000_000, 35.9, 0.97, 10.0), SweepRow(4, 830_000, 34.95, 0.96, 8.0)]


def test_published_figures_say_how_they_came_about():
    found = [other for scene in SCENES for other in published([scene], means=scene == MEAN)]
    rows = [line for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert len(found) == len(rows) - 1, "every line is of a known scene"
    for other in found:
        assert 10 < other.psnr < 40 and 0.1 < other.mb < 1000
        assert other.background in ("white", "black", "not said") and other.source
        assert other.counted in ("MiB, converted", "as printed", "reckoned")
    whole = {(o.method, o.scene): o.psnr for o in found if not o.is_cut}
    for method in ("Plenoxels", "DVGO", "TensoRF VM-192", "SlimmeRF-16"):
        each = [whole[method, scene] for scene in SCENES[:-1]]
        assert sum(each) / 8 == pytest.approx(whole[method, MEAN], abs=0.011), method


def test_mebibytes_are_converted():
    wavelets = [other.mb for other in published(["lego"], means=False) if other.method == "masked wavelet VM"]
    assert [round(1e6 * mb / 2**20, 2) for mb in wavelets] == [0.79, 1.11, 1.65], "as that paper prints them"


def test_a_point_is_compared_with_the_best_of_ours_in_as_many_bytes(tmp_path):
    assert beside.best_within(OURS, 1e6).rank == 4 and beside.best_within(OURS, 1e5) is None
    worse_at_more = [*OURS, SweepRow(8, 1_000_000, 30.0, 0.9, 9.0)]
    assert beside.best_within(worse_at_more, 1.5e6).rank == 4
    written = beside.write(
        tmp_path, {"one file": OURS}, published(["lego"], means=False), scene="lego", background="white", setting="Set."
    )
    assert [path.suffix for path in written] == [".md", ".csv", ".png"]
    text = written[0].read_text()
    assert "| masked wavelet VM | 1.168 | 35.16 | 34.95 (-0.21), rank 4 | white | MiB, converted |" in text
    assert "| HAC++ | 1.917 | 35.77 | 34.95, rank 4 | (black) |" in text, "black and white are not compared"
    assert "| masked wavelet VM | 0.825 | 34.93 | – |" in text, "it takes fewer bytes than any of ours"
    assert text.index("**34.95**") < text.index("| masked wavelet VM | 1.168") < text.index("**35.90**"), "by size"
    rows = list(csv.DictReader(written[1].read_text().splitlines()))
    assert tuple(rows[0]) == beside.COLUMNS and rows[0]["kind"] == "measured" and rows[0]["bytes"] == "2000000"
    assert next(row for row in rows if row["method"] == "HAC++")["bytes"] == "844000"
    assert written[2].stat().st_size > 20_000
    with pytest.raises(ConfigError, match="no measurements"):
        beside.write(tmp_path, {"one file": []}, [], scene="lego", background="white", setting="")


def app(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "apps" / "beside_published.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_app_takes_what_eval_measured(tmp_path):
    (tmp_path / "model").mkdir()
    rows = [vars(row) for row in OURS]
    (tmp_path / "model" / "eval.json").write_text(json.dumps({"views": 200, "rows": rows}))
    done = app("--models", tmp_path / "model" / "eval.json", "--name", "mean", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "model: as eval measured it on 200 views." in (tmp_path / "out" / "beside-published.md").read_text()
    done = app("--models", tmp_path / "model" / "eval.json", "--name", "truck", "-o", tmp_path / "out")
    assert done.returncode == 2 and "nothing is published here of a scene 'truck'" in done.stderr


def test_a_share_of_the_wavelet_coefficients_is_what_is_left():
    pytest.importorskip("pywt", reason="needs PyWavelets: pip install PyWavelets")
    from apps import _wavelets as wavelets

    state = make_state(grid=(40, 36, 32), occupancy=None)
    whole, weighs = wavelets.sparse(state, 1.0)
    halved, less = wavelets.sparse(state, 0.5)
    tenth, least = wavelets.sparse(state, 0.1)
    assert weighs > less > least > 1000
    for name in ("density_planes", "appearance_planes"):
        for mode in range(3):
            wanted, kept = getattr(state, name)[mode], getattr(whole, name)[mode]
            assert kept.shape == wanted.shape and kept.dtype == np.float32
            np.testing.assert_allclose(kept, wanted, atol=0.05 * np.abs(wanted).max())
            errors = [np.square(getattr(s, name)[mode] - wanted).mean() for s in (whole, halved, tenth)]
            assert errors[0] < errors[1] < errors[2] < 1.5 * np.square(wanted).mean()
    again, same = wavelets.sparse(tenth, 0.1)
    assert abs(same - least) < 0.1 * least, "what is sparse stays as it is"
    np.testing.assert_allclose(again.density_planes[0], tenth.density_planes[0], atol=0.05)


@pytest.mark.slow
def test_the_app_trains_what_others_do(tmp_path):
    pytest.importorskip("pywt", reason="needs PyWavelets: pip install PyWavelets")
    words = "--own-runs --quick --steps 8 --rays 64 --views 1 --max-images 4 --downscale 8 --arch cpu".split()
    done = app(*words, "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "beside-published.md").read_text()
    for name in (
        "tslim",
        "tslim, compact",
        "TensoRF, cut",
        "TensoRF, put in order, cut",
        "TensoRF in wavelets",
        "all prefixes (CCNeRF)",
    ):
        assert f"| **{name}, trained here** |" in text
