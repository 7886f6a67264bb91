"""Plots: what is drawn is what was measured; files appear whole; nothing global is touched."""

import subprocess
import sys
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest

from tslim.errors import ConfigError, RunFolderError
from tslim.measuring import plots


def rows(*points):
    return [SimpleNamespace(rank=r, bytes=b, psnr=p, views=None) for r, b, p in points]


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were saved, with the file still written."""
    figures, save = [], plots._save

    def keep(figure, path):
        figures.append(figure)
        return save(figure, path)

    monkeypatch.setattr(plots, "_save", keep)
    return figures


def test_size_quality_draws_each_measurement_and_names_ranks_once(tmp_path, drawn):
    curves = {
        "one field": rows((8, 4_100_000, 32.8), (2, 1_200_000, 27.5), (4, 2_200_000, 30.1)),
        "alone": rows((4, 2_200_000, 30.5)),
        "empty": [],
    }
    path = plots.size_quality(tmp_path / "new" / "a.png", curves, title="lego")
    axes = drawn[0].axes[0]
    assert [line.get_label() for line in axes.lines] == ["one field", "alone"]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1.2, 27.5], [2.2, 30.1], [4.1, 32.8]])
    (top,) = axes.child_axes
    drawn[0].canvas.draw()
    assert [t.get_text() for t in top.get_xticklabels()] == ["rank 2", "4", "8"] and not axes.texts
    np.testing.assert_allclose(top.get_xticks(), [1.2, 2.2, 4.1])
    assert axes.get_xscale() == "linear" and "MB" in axes.get_xlabel() and "dB" in axes.get_ylabel()
    assert axes.get_legend() is not None and axes.get_title(loc="left") == "lego"
    image = iio.imread(path)
    assert image.shape[:2] == (600, 960) and image[..., :3].std() > 5


def test_ranks_that_a_few_views_said_are_dots_without_a_name(tmp_path, drawn):
    known = [
        SimpleNamespace(rank=r, bytes=r * 1_000_000, psnr=20.0 + r, views=3 if r == 3 else None) for r in (1, 2, 3, 4)
    ]
    plots.size_quality(tmp_path / "a.png", {"f": known})
    axes = drawn[0].axes[0]
    line, dots = axes.lines
    assert line.get_markevery() == [0, 1, 3]
    np.testing.assert_allclose(line.get_xydata(), [[r, 20 + r] for r in (1, 2, 3, 4)])
    np.testing.assert_allclose(dots.get_xydata(), [[3, 23]])
    assert [t.get_text() for t in axes.texts] == ["rank 1", "2", "4"]


def test_ranks_stand_at_the_points_where_curves_give_them_other_sizes(tmp_path, drawn):
    curves = {"half": rows((1, 500_000, 20), (4, 2_000_000, 30)), "compact": rows((1, 90_000, 20), (4, 400_000, 29.9))}
    plots.size_quality(tmp_path / "a.png", curves)
    axes = drawn[0].axes[0]
    assert [t.get_text() for t in axes.texts] == ["rank 1", "4", "1", "4"] and not axes.child_axes
    assert axes.texts[0].get_color() != axes.texts[2].get_color()


def test_sizes_far_apart_get_a_logarithmic_axis_with_plain_numbers(tmp_path, drawn):
    plots.size_quality(tmp_path / "a.png", {"f": rows((1, 500_000, 20), (16, 36_000_000, 33))})
    axes = drawn[0].axes[0]
    assert axes.get_xscale() == "log" and axes.get_legend() is None
    assert [t.get_text() for t in axes.texts] == ["rank 1", "16"]
    assert {"1", "2", "5", "10", "20"} <= {t.get_text() for t in axes.get_xticklabels()}


@pytest.mark.parametrize("largest", [2e6, 40e6, 800e6, 90e9])
def test_no_tick_and_no_name_of_a_plot_covers_another(tmp_path, drawn, largest):
    curves = {name: rows((1, 90_000, 20), (4, 400_000, 29 + i / 9), (8, 420_000, 29)) for i, name in enumerate("abcde")}
    plots.size_quality(tmp_path / "a.png", curves, points={"published": [(largest / 1e6, 30.0)]})
    axes = drawn[0].axes[0]
    for texts in (axes.get_xticklabels(), axes.texts):
        around = [t.get_window_extent() for t in texts if t.get_text()]
        assert len(around) >= 2
        assert not any(a.overlaps(b) for i, a in enumerate(around) for b in around[:i])


def test_training_curves_draw_psnr_and_rank_and_skip_broken_lines(tmp_path, drawn):
    history = [{"step": s, "psnr": 20 + s / 100, "rank": 1 + s // 100, "loss": 0.01} for s in range(25, 501, 25)]
    broken = [{"step": 7}, {"step": 8, "psnr": None, "rank": 1}]
    plots.training_curves(tmp_path / "a.svg", [*history[:3], *broken, *history[3:]], title="lego")
    quality, ranks = drawn[0].axes
    steps = [line["step"] for line in history]
    np.testing.assert_allclose(quality.lines[0].get_xydata(), [[s, 20 + s / 100] for s in steps])
    np.testing.assert_allclose(ranks.lines[0].get_ydata(), [1 + s // 100 for s in steps])
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()


def test_a_rank_trace_draws_every_rank_and_every_increase(tmp_path, drawn):
    history = [
        {
            "step": 25,
            "rank": 4,
            "psnr_by_rank": {"2": 18.0, "4": 17.0},
            "grew": [{"step": 20, "rank": 4, "cause": "x"}],
        },
        {"step": 50, "rank": 4, "psnr_by_rank": {"2": 19.0, "4": 20.0}},
        {"step": 75, "rank": 16, "psnr_by_rank": {"4": 21.0, "16": 22.0}, "grew": [{"step": 60, "rank": 16}]},
        {"step": 99},
    ]
    plots.rank_trace(tmp_path / "a.png", history, title="lego")
    above, below = drawn[0].axes
    assert [line.get_label() for line in above.lines] == ["2", "4", "16"]
    np.testing.assert_allclose(above.lines[1].get_xdata(), [25, 50, 75])
    np.testing.assert_allclose(below.lines[0].get_xydata(), [[0, 2], [20, 4], [60, 16], [75, 16]])
    np.testing.assert_allclose(below.lines[1].get_xydata(), [[20, 4], [60, 16]])
    with pytest.raises(ConfigError, match="no trace of ranks"):
        plots.rank_trace(tmp_path / "b.png", [{"step": 25, "rank": 4, "psnr": 20.0}])


def test_a_rank_trace_of_a_run_without_growth_is_a_level_line(tmp_path, drawn):
    plots.rank_trace(tmp_path / "a.png", [{"step": s, "rank": 3, "psnr_by_rank": {"3": 18.0}} for s in (5, 10)])
    np.testing.assert_allclose(drawn[0].axes[1].lines[0].get_xydata(), [[0, 3], [10, 3]])


def test_smoothing_keeps_straight_lines_and_passes_over_what_is_not_finite():
    straight = list(np.linspace(0, 10, 100))
    np.testing.assert_allclose(plots._smoothed(straight), straight)
    noisy = np.random.default_rng(0).normal(size=300)
    assert np.std(plots._smoothed(noisy)) < 0.5 * np.std(noisy)
    holed = plots._smoothed([1.0, float("inf"), 1.0, 1.0])
    assert np.isfinite(holed[[0, 1, 2, 3]]).all() and holed[1] == 1


def test_nothing_to_plot_and_unknown_formats_are_said(tmp_path):
    with pytest.raises(ConfigError, match="no measurements"):
        plots.size_quality(tmp_path / "a.png", {"f": []})
    with pytest.raises(ConfigError, match="no progress"):
        plots.training_curves(tmp_path / "a.png", [{"loss": 1}])
    with pytest.raises(ConfigError, match=r"\.png, \.svg or \.pdf"):
        plots.size_quality(tmp_path / "a.jpeg2", {"f": rows((1, 1, 1))})
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write"):
        plots.size_quality(tmp_path / "file" / "a.png", {"f": rows((1, 1, 1))})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_names_of_files_from_an_ascii_locale_are_drawn(tmp_path, drawn):
    name = b"\xc3\x96".decode("ascii", "surrogateescape")
    plots.size_quality(tmp_path / "a.svg", {name: rows((1, 1e6, 20)), "b": rows((1, 2e6, 20))}, title=name)
    axes = drawn[0].axes[0]
    assert axes.get_title(loc="left") == "Ö" and axes.get_legend().get_texts()[0].get_text() == "Ö"


def test_plotting_needs_no_window_system_and_leaves_no_global_figure(root, tmp_path):
    code = (
        "import sys, tslim.measuring.plots as p; assert 'matplotlib' not in sys.modules\n"
        f"p.training_curves({str(tmp_path / 'a.png')!r}, [dict(step=1, psnr=2.0, rank=1)])\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'tkinter' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
