"""Models that were trained whole, put in order by ``reorder`` and by ``slim``, and their sizes trained further."""

import dataclasses
import re

import numpy as np
import pytest

from tests.command_line import SMALL, refused, tslim
from tslim import config, presets
from tslim.errors import ConfigError
from tslim.model import model_file, ordering
from tslim.training import prefixes


@pytest.fixture(scope="module")
def whole(cpu, tmp_path_factory):
    """A run at all four ranks, whose ranks are in no order."""
    run = tmp_path_factory.mktemp("whole") / "run"
    words = ("--schedule.policy", "fixed", "--precision", "float16")
    assert tslim("train", *SMALL, *words, "--steps", 120, "--out", run)[0] == 0
    return run


def table(printed: str) -> dict[int, list[float]]:
    """The rows of dB of a table, by rank."""
    lines = [re.findall(r"[\d.]+", line) for line in printed.splitlines() if line.startswith("│")]
    return {int(rank): [float(value) for value in values] for rank, *values in lines}


def test_slim_puts_ranks_in_order_where_some_are_dropped(whole, tmp_path):
    whole_state = model_file.read(whole / "model.slim")
    code, printed, err = tslim("slim", whole, "--rank", 2, "-o", tmp_path / "a.slim")
    assert (code, err) == (0, "") and "ranks in order: 2 of 4 hold" in printed and "warning" not in printed
    expected = ordering.reordered(whole_state).slim(2)
    small = model_file.read(tmp_path / "a.slim")
    np.testing.assert_allclose(small.density_planes[1], expected.density_planes[1], rtol=2e-3, atol=1e-4)
    assert tslim("slim", whole, "--rank", 2, "--reorder", "no", "-o", tmp_path / "b.slim")[0] == 0
    np.testing.assert_array_equal(
        model_file.read(tmp_path / "b.slim").density_planes[1], whole_state.density_planes[1][:2]
    )


@pytest.mark.parametrize(
    ("words", "orders"),
    [
        (["--rank", 4], False),
        (["--precision", "compact"], False),
        (["--max-mb", 9], False),
        (["--max-mb", 0.11], True),
        (["--density-rank", 4, "--appearance-rank", 4], False),
        (["--density-rank", 4, "--appearance-rank", 2], True),
        (["--rank", 4, "--reorder", "yes"], True),
        (["--precision", "compact", "--max-mb", 9], False),
    ],
)
def test_ranks_are_left_alone_where_none_is_dropped(whole, tmp_path, words, orders):
    code, printed, _ = tslim("slim", whole, *words, "-o", tmp_path / "a.slim")
    assert code == 0 and ("ranks in order" in printed) is orders


def test_reorder_shows_what_it_gained(whole, tmp_path):
    """At full rank next to nothing changes; at fewer, ranks in order are better, and better still when trained."""
    out = tmp_path / "a.slim"
    code, printed, _ = tslim("reorder", whole, "-o", out, "--steps", 15, "--arch", "cpu")
    assert code == 0, printed
    rows = table(printed)
    assert sorted(rows) == [1, 2, 4]
    whole_state, ordered, trained = zip(*(rows[rank] for rank in (4, 2, 1)), strict=True)
    assert ordered[0] == pytest.approx(whole_state[0], abs=0.3)
    assert min(ordered[1] - whole_state[1], ordered[2] - whole_state[2]) > 1
    assert min(after - before for after, before in zip(trained, ordered, strict=True)) > 0.05
    state = model_file.read(out)
    assert state.config.rank_scales and not ordering.is_unordered(state)
    assert "warning" not in tslim("slim", out, "--rank", 1, "-o", tmp_path / "b.slim")[1]


def test_reorder_without_photographs_needs_no_device_and_no_scene(whole, tmp_path):
    bare = model_file.read(whole / "model.slim")
    bare.metadata = {}
    model_file.write(bare, tmp_path / "bare.slim")
    code, printed, _ = tslim("reorder", tmp_path / "bare.slim", "-o", tmp_path / "a.slim", "--precision", "compact")
    assert code == 0 and "device" not in printed and "dB" not in printed
    assert model_file.read(tmp_path / "a.slim").precision == "compact"
    assert "does not hold its photographs" in refused(
        "reorder", tmp_path / "bare.slim", "-o", tmp_path / "b.slim", "--steps", 9
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-o", "{run}/model.slim"], "is the model itself"),
        (["-o", "{tmp}/a.ply"], "whose name ends in .slim"),
        (["-o", "{tmp}/a.slim", "--steps", "0"], "above 0"),
        (["-o", "{tmp}/a.slim", "--downscale", "2"], "--downscale has no effect here"),
        (["-o", "{tmp}/a.slim", "--scene", "{tmp}/none"], "none"),
    ],
)
def test_reorder_refuses_in_one_line(whole, tmp_path, words, expected):
    words = [word.format(run=whole, tmp=tmp_path) for word in words]
    assert expected in refused("reorder", whole, *words)
    assert not list(tmp_path.iterdir())


def test_prefixes_of_a_model_from_elsewhere_train_as_fine_does(whole):
    state = model_file.read(whole / "model.slim")
    own = prefixes.settings_for(state, 50)
    assert own.step_ratio == presets.tiny().step_ratio and own.steps == 50 and own.field.rank_scales
    state.metadata = {}
    other = prefixes.settings_for(state, 50)
    assert other.colour_span == presets.fine().colour_span and other.grow_steps == ()
    for settings in (own, other):
        config.require_valid(settings)
    with pytest.raises(ConfigError, match="one rank"):
        prefixes.settings_for(state.slim(1), 50)


def test_rows_that_are_added_change_nothing(whole):
    state = model_file.read(whole / "model.slim")
    state = dataclasses.replace(state, rank_scales=None, config=dataclasses.replace(state.config, rank_scales=False))
    rows = prefixes.with_rows(state)
    assert rows.config.rank_scales and prefixes.with_rows(rows) is rows
    np.testing.assert_array_equal(rows.rank_scales[:, [0, 1, 2, 28, 29, 55]], [[1, 0, 1, 1, 0, 0]] * 4)
