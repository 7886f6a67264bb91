"""The rank sweep: numbers by hand with a renderer of known errors, and the real field through a file and back."""

import json
import math
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest

from tslim.errors import ConfigError, ModelFileError, SceneError
from tslim.measuring import eval_json, evaluate
from tslim.measuring.evaluate import SweepRow
from tslim.measuring.pictures import comparison, contributions, view_at_ranks
from tslim.model import model_file
from tslim.rendering import media
from tslim.scene.cameras import Cameras
from tslim.scene.scene import Views

SIZE = (24, 16)


def make_views(n: int, *, alpha: int = 255) -> Views:
    """Noise photographs from cameras around the origin."""
    width, height = SIZE
    rng = np.random.default_rng(0)
    rgba = rng.integers(64, 192, (n, height, width, 4), dtype=np.uint8)
    rgba[..., 3] = alpha
    angles = np.linspace(0, 2, n)
    eyes = 4 * np.stack([np.cos(angles), np.sin(angles), np.full(n, 0.3)], -1)
    cameras = Cameras.look_at(eyes, (0, 0, 0), (0, 0, 1), 45, SIZE)
    pixels = rgba.reshape(-1, 4).view("<u4").ravel()
    return Views(cameras, pixels, np.arange(n + 1) * width * height, tuple(str(i) for i in range(n)))


class OffsetRenderer:
    """Renders photographs that are off by 1/rank · (1 + view) / 10, in rank · (1 + view) milliseconds."""

    def __init__(self, views: Views) -> None:
        self.views, self.calls, self.backgrounds = views, [], set()

    def render(self, cameras, index, *, rank, background):
        self.calls.append((rank, index))
        self.backgrounds.add(background)
        truth = self.views.image(index, background)
        return SimpleNamespace(rgb=truth + 0.1 / rank * (1 + index), seconds=rank * (1 + index) / 1000)


def plain_field(rank: int = 4) -> SimpleNamespace:
    """What the sweep asks of a field, without a device."""
    from test_model_file import make_state

    return SimpleNamespace(rank=rank, background=(1.0, 1.0, 1.0), state=lambda: make_state(rank=rank))


def test_rows_hold_means_over_views_highest_rank_first():
    views = make_views(2)
    renderer = OffsetRenderer(views)
    seen = []
    field = plain_field()
    rows = list(
        evaluate.rank_sweep(field, views, (1, 4, 4), renderer=renderer, on_view=lambda r, i: seen.append((r, i)))
    )
    assert [row.rank for row in rows] == [4, 1]
    assert seen == [(4, 0), (4, 1), (1, 0), (1, 1)]
    # errors of rank 4: 0.025 and 0.05, in dB 32.04 and 26.02: mean 29.03; rank 1: 20 and 13.98
    expected = -20 * (math.log10(0.025) + math.log10(0.05)) / 2
    assert rows[0].psnr == pytest.approx(expected, abs=1e-3)
    assert rows[1].psnr == pytest.approx(expected - 20 * math.log10(4), abs=1e-3)
    assert 0 < rows[1].ssim < rows[0].ssim < 1
    assert rows[0].ms_per_frame == pytest.approx(4 * 1.5) and rows[1].ms_per_frame == pytest.approx(1.5)
    assert [row.bytes for row in rows] == [model_file.sizes(field.state())[i] for i in (3, 0)]


def test_transparent_photographs_and_the_field_get_the_same_background():
    views = make_views(1, alpha=0)
    renderer = OffsetRenderer(views)
    list(evaluate.rank_sweep(plain_field(), views, (1,), renderer=renderer, background=(0.0, 0.0, 1.0)))
    assert renderer.backgrounds == {(0.0, 0.0, 1.0)}
    renderer.backgrounds.clear()
    list(evaluate.rank_sweep(plain_field(), views, (1,), renderer=renderer))
    assert renderer.backgrounds == {(1.0, 1.0, 1.0)}


def test_pictures_of_different_ranks_do_not_overwrite_each_other(tmp_path):
    views = make_views(2)
    sweep = evaluate.rank_sweep(plain_field(), views, (2, 4), renderer=OffsetRenderer(views), image_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
    list(sweep)
    names = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.png"))
    assert names == ["rank-02/000.png", "rank-02/001.png", "rank-04/000.png", "rank-04/001.png"]
    off = iio.imread(tmp_path / "rank-02/000.png") / 255.0 - views.image(0)
    assert off.mean() == pytest.approx(0.05, abs=0.003)


def test_impossible_requests_fail_at_the_call():
    views, renderer = make_views(1), None
    for ranks, message in (((5,), "ranks 1 to 4"), ((0,), "ranks 1 to 4"), ((), "no ranks")):
        with pytest.raises(ConfigError, match=message):
            evaluate.rank_sweep(plain_field(), views, ranks, renderer=renderer)
        with pytest.raises(ConfigError, match=message):
            view_at_ranks(plain_field(), views, ranks, renderer=renderer)
    with pytest.raises(SceneError, match="no test views"):
        evaluate.rank_sweep(plain_field(), make_views(0))
    with pytest.raises(SceneError, match="no test views"):
        view_at_ranks(plain_field(), make_views(0))
    with pytest.raises(TypeError, match="unknown option colour; known: background, "):
        evaluate.rank_sweep(plain_field(), views, colour=(1, 1, 1))


def test_a_row_reads_like_a_line_and_sizes_like_sizes():
    row = SweepRow(rank=8, bytes=4_100_000, psnr=32.801, ssim=0.9621, ms_per_frame=17.6)
    assert " ".join(str(row).split()) == "rank 8 4.1 MB 32.80 dB SSIM 0.962 18 ms"
    assert len(str(row)) == len(str(SweepRow(16, 36_400_000, 33.0, 0.97, 18)))
    assert [evaluate.megabytes(n) for n in (994_999, 995_000, 36_400_000)] == ["0.99 MB", "1.0 MB", "36.4 MB"]
    assert evaluate.halves(16) == (16, 8, 4, 2, 1) and evaluate.halves(5) == (5, 2, 1) and evaluate.halves(1) == (1,)


def test_eval_json_is_as_documented_and_comes_back(tmp_path):
    rows = [SweepRow(2, 100, 27.5, 0.9, 5.0), SweepRow(8, 400, math.inf, 1.0, 9.0)]
    path = eval_json.write(tmp_path / "eval.json", rows, views=3)
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "views": 3,
        "rows": [
            {"rank": 8, "bytes": 400, "psnr": None, "ssim": 1.0, "ms_per_frame": 9.0},
            {"rank": 2, "bytes": 100, "psnr": 27.5, "ssim": 0.9, "ms_per_frame": 5.0},
        ],
    }
    assert eval_json.read(path) == (rows[::-1], 3)
    for broken in ("{", "[]", '{"views": 1, "rows": [{"rank": 1}]}', '{"rows": []}'):
        path.write_text(broken)
        with pytest.raises(ModelFileError, match=r"eval\.json is not an evaluation"):
            eval_json.read(path)


@pytest.mark.parametrize(
    "lie",
    [
        {"views": 1e400},
        {"views": "3"},
        {"rows": [{}]},
        {"rows": 3},
        {"rows": [{"rank": 1, "bytes": 10, "psnr": "20", "ssim": 0.9, "ms_per_frame": 5}]},
        {"rows": [{"rank": True, "bytes": 10, "psnr": 20, "ssim": 0.9, "ms_per_frame": 5}]},
        {"rows": 2 * [{"rank": 1, "bytes": 10, "psnr": 20, "ssim": 0.9, "ms_per_frame": 5}]},
        {"rows": [{"rank": 1, "bytes": 10, "psnr": 20, "ssim": 0.9, "ms_per_frame": 5, "more": 1}]},
    ],
)
def test_an_eval_json_that_makes_no_sense_is_one_clear_error(tmp_path, lie):
    path = tmp_path / "eval.json"
    path.write_text(json.dumps({"views": 3, "rows": []} | lie))
    with pytest.raises(ModelFileError, match="is not an evaluation") as caught:
        eval_json.read(path)
    assert len(str(caught.value)) < 400
    path.write_text('{"rows": ' + "[" * 100_000)
    with pytest.raises(ModelFileError, match="is not an evaluation"):
        eval_json.read(path)


def test_a_comparison_shows_ranks_upwards_and_then_the_photograph():
    views = make_views(5)
    renderer = OffsetRenderer(views)
    sheet = comparison(view_at_ranks(plain_field(), views, (4, 1), renderer=renderer), [1000, 2000, 3000, 4000])
    assert renderer.calls == [(1, 1), (4, 1)]
    width, height = SIZE
    shown = [sheet[8 : 8 + height, 8 + i * (width + 8) : 8 + i * (width + 8) + width] for i in range(3)]
    truth = views.image(1)
    offsets = [float(np.mean(s / 255.0 - truth)) for s in shown]
    np.testing.assert_allclose(offsets, [0.2, 0.05, 0], atol=0.01)
    assert (sheet[8 + height :] < 128).any(), "captions"


def foggy_field():
    """Dense enough from the start that every rank is visible."""
    import tslim

    config = tslim.FieldConfig(max_rank=3, density_shift=-4.0, init_scale=0.5)
    return tslim.Field(np.array([[-1.0] * 3, [1.0] * 3]), config, grid=8, near=2, far=6)


def test_a_real_field_measures_the_same_after_a_file_and_slims_bit_for_bit(cpu, tmp_path):
    import tslim

    field, views = foggy_field(), make_views(2)
    whole = tslim.load(field.save(tmp_path / "a.slim", precision="float32"))
    rows = list(tslim.rank_sweep(field, views, (3, 1)))
    again = list(tslim.rank_sweep(whole, views, (3, 1), sizes=model_file.sizes(model_file.read(tmp_path / "a.slim"))))
    assert [(r.rank, r.psnr, r.ssim) for r in rows] == [(r.rank, r.psnr, r.ssim) for r in again]
    assert again[0].bytes == (tmp_path / "a.slim").stat().st_size > 1.9 * rows[0].bytes
    assert rows[0].psnr != rows[1].psnr
    for row in rows:
        small = field.slim(row.rank).save(tmp_path / "small.slim")
        assert small.stat().st_size == row.bytes
        assert field.slim(max_mb=row.bytes / 1e6).rank == row.rank
    half = tslim.load(field.save(tmp_path / "half.slim"))
    slimmed = tslim.load(field.slim(1).save(tmp_path / "one.slim"))
    assert slimmed.rank == 1
    a, b, full = (tslim.render(f, views.cameras, 1, rank=r) for f, r in ((half, 1), (slimmed, 1), (half, 3)))
    np.testing.assert_array_equal(a.rgb, b.rgb)
    np.testing.assert_array_equal(a.depth, b.depth)
    assert a.rgb.std() > 0.01 and np.abs(a.rgb - full.rgb).max() > 0.01


def test_a_real_field_is_filmed(cpu, tmp_path):
    import tslim

    field = foggy_field()
    for what in ("rgb", "depth", "opacity"):
        path = tslim.render_video(field, make_views(3).cameras, tmp_path / f"{what}.mp4", rank=1, what=what)
        assert iio.imread(path, plugin="FFMPEG").shape == (3, SIZE[1], SIZE[0], 3)


def test_contributions_show_each_prefix_above_what_it_added_and_what_is_missing_last():
    views = make_views(4)
    renderer = OffsetRenderer(views)
    picture = contributions(view_at_ranks(plain_field(), views, (1, 4, 2), index=1, renderer=renderer))
    assert renderer.calls == [(1, 1), (2, 1), (4, 1)]
    width, height = SIZE
    columns, step_x = 4, width + 8
    assert picture.shape[1] == columns * step_x + 8
    step_y = (picture.shape[0] - 8) // 2
    cells = [[picture[8 + y * step_y :, 8 + x * step_x :][:height, :width] for x in range(4)] for y in range(2)]
    truth = views.image(1, (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(cells[0][3], media.to_uint8(truth))
    np.testing.assert_array_equal(cells[0][1], media.to_uint8(truth + 0.1))
    assert (cells[1][0] == 255).all()
    # Everywhere 0.1, 0.05 and 0.05 darker: evenly dark, at full strength whatever the size of the change.
    for cell in cells[1][1:]:
        assert (cell == 0).all()


def test_contributions_of_a_rank_that_changes_nothing_are_grey():
    views = make_views(1)
    same = SimpleNamespace(
        render=lambda cameras, index, rank, background: SimpleNamespace(rgb=views.image(index, background))
    )
    picture = contributions(view_at_ranks(plain_field(), views, (1, 2), renderer=same))
    width, height = SIZE
    assert (picture[-height - 40 :, 8 + width + 8 + 2 : 8 + 2 * width] == 128).any()


def test_where_the_background_is_not_known_transparent_pixels_do_not_count():
    views = make_views(2)
    rgba = views.pixels.view(np.uint8).reshape(2, -1, 4)
    rgba[0, : len(rgba[0]) // 3, 3] = 0
    rgba[1, :, 3] = 255
    field = plain_field()
    field.background = None

    class Renderer(OffsetRenderer):
        """Right where the photographs show something, and nowhere else."""

        def render(self, cameras, index, *, rank, background):
            truth = np.where(views.valid(index)[..., None], views.image(index, None), 0.5)
            return SimpleNamespace(rgb=truth + 0.1 * views.valid(index)[..., None], seconds=0.001)

    (row,) = evaluate.rank_sweep(field, views, (4,), renderer=Renderer(views))
    assert row.psnr == pytest.approx(20.0, abs=1e-6)  # 0.1 off everywhere it counts
    assert views.valid(0).mean() == pytest.approx(2 / 3, abs=0.01)
    rgba[..., 3] = 0
    with pytest.raises(SceneError, match="masked"):
        evaluate.rank_sweep(field, views, (4,), renderer=Renderer(views))
