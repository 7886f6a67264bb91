"""All ranks measured: those in between on a few views, beside ranks that are measured on all."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from tests.test_evaluate import make_views, plain_field
from tslim.measuring import eval_json
from tslim.measuring.evaluate import Measure, SweepRow
from tslim.measuring.every_rank import better_below, every_rank, falls_text, n_renders

NOISE = (0.02, 0.05, 0.01, 0.08, 0.03, 0.02, 0.06, 0.04, 0.01, 0.07)
"""How far off views are, each for itself"""


class Renderer:
    """Pictures that are off by what their view and their rank say, multiplied: PSNR is the sum of the two in dB."""

    def __init__(self, views, by_rank: dict[int, float]) -> None:
        self.views, self.by_rank, self.calls = views, by_rank, []

    def render(self, cameras, index, *, rank, background):
        self.calls.append((rank, index))
        off = NOISE[index] * self.by_rank[rank]
        return SimpleNamespace(rgb=self.views.image(index, background) + off, seconds=0.01)


def measured(rank: int, views, **how) -> list[SweepRow]:
    field = plain_field(rank)
    return every_rank(field, Measure(field, views, **how))


def test_ranks_in_between_come_out_as_if_all_views_had_been_looked_at():
    views, by_rank = make_views(10), {1: 1.0, 2: 0.8, 3: 0.9, 4: 0.7, 5: 0.6, 6: 0.65, 7: 0.5, 8: 0.4}
    renderer, seen = Renderer(views, by_rank), []
    rows = measured(8, views, renderer=renderer, on_view=lambda rank, index: seen.append((rank, index)))
    assert [row.rank for row in rows] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert [row.views for row in rows] == [None, 3, 3, 3, None, 3, None, None]
    assert len(seen) == n_renders(8, 10) == 4 * 10 + 4 * 3
    assert {index for rank, index in seen if rank == 3} == {0, 4, 9}, "evenly spaced ones"
    every = np.mean([-20 * math.log10(noise) for noise in NOISE])
    for row in rows:
        assert row.psnr == pytest.approx(every - 20 * math.log10(by_rank[row.rank]), abs=1e-4), row
        assert 0 < row.ssim < 1
    assert rows[0].bytes > rows[1].bytes > rows[-1].bytes
    assert falls_text(rows) == "rank 3 has 1.02 dB less than rank 2, rank 6 has 0.70 dB less than rank 5"


def test_where_there_are_few_views_all_ranks_are_measured_on_all():
    views = make_views(3)
    rows = measured(4, views, renderer=Renderer(views, dict.fromkeys(range(1, 5), 1.0)))
    assert [(row.rank, row.views) for row in rows] == [(4, None), (3, None), (2, None), (1, None)]
    assert n_renders(4, 3) == 12 and n_renders(1, 3) == 3 and n_renders(16, 200) == 5 * 200 + 11 * 10


def test_pictures_without_an_error_leave_the_others_as_they_are():
    views = make_views(10)
    rows = measured(4, views, renderer=Renderer(views, {1: 1.0, 2: 0.5, 3: 0.5, 4: 0.0}))
    assert rows[0].psnr == math.inf and math.isfinite(rows[1].psnr)


def test_a_rank_is_beaten_by_the_best_below_it_and_by_nothing_above():
    rows = [SweepRow(rank, 100 * rank, psnr, 0.5, 1.0) for rank, psnr in ((1, 20.0), (2, 26.0), (4, 25.0), (6, 25.97))]
    assert better_below(rows, 4).rank == 2 and better_below(rows, 6).rank == 2
    assert better_below(rows, 1) is None and better_below(rows, 2) is None
    assert better_below(rows, 5) is None, "nobody measured it"
    assert better_below([SweepRow(r, 1, 30.0, 0.5, 1.0) for r in (1, 2)], 2) is None, "as good is not better"
    assert falls_text(rows) == "rank 4 has 1.00 dB less than rank 2", "0.03 dB are not worth a word"


def test_eval_json_says_of_how_many_views_a_row_is_and_keeps_what_all_views_said(tmp_path):
    path, few = tmp_path / "eval.json", SweepRow(3, 300, 27.0, 0.9, 5.0, views=3)
    rows = [SweepRow(4, 400, 28.0, 0.9, 5.0), few]
    eval_json.write(path, rows, 10, of="a")
    assert eval_json.read(path) == (rows, 10)
    assert str(few).endswith("5 ms   (3 views)")
    whole = SweepRow(3, 300, 27.1, 0.9, 5.0)
    eval_json.write(path, [whole], 10, of="a")
    assert eval_json.merged_with_file(path, rows, 10, "a") == [rows[0], whole]
    assert eval_json.merged_with_file(path, rows, 10, "b") == eval_json.merged_with_file(path, rows, 9, "a") == rows
