"""Scales and shifts of ranks that training never renders: they lie between those of ranks that it does, always."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tslim import config
from tslim.config import FieldConfig, ScheduleConfig, TrainConfig
from tslim.errors import ConfigError
from tslim.model import model_file, rank_rows
from tslim.model.header import CHECKSUM
from tslim.training.schedules import POLICIES, make_schedule

OLD = Path(__file__).parent / "data" / "stale-rows.slim"
"""6 ranks of which 1, 2, 4 and 6 were rendered, as tslim wrote it when rows 3 and 5 were left behind."""
SETTINGS = TrainConfig(
    field=FieldConfig(max_rank=9, density_shift=-3.0, decoder="sh", rank_scales=True),
    schedule=ScheduleConfig(
        policy="staged", stage_ranks=(2, 5, 9), stage_starts=(0, 0.3, 0.6), anchors=(1, 2, 6), prefix_share=0.5
    ),
    steps=12,
    batch_rays=64,
    grid_start=8,
    grid_end=8,
    grow_steps=(),
    occupancy_steps=(),
    lr_scales=0.05,
)


@pytest.fixture(scope="module")
def scene(cpu):
    from tslim import builtin_scene

    return builtin_scene(size=32, train=4, test=0)


@pytest.fixture
def as_written(monkeypatch):
    """Reads a file without putting its rows right."""

    def read(path: Path) -> model_file.FieldState:
        with monkeypatch.context() as patch:
            patch.setattr(rank_rows, "heal_from", lambda metadata, n: ())
            return model_file.read(path)

    return read


def rows_of(trainer) -> np.ndarray:
    return trainer.field.state().rank_scales


def test_a_row_is_made_of_the_nearest_rendered_ones_by_their_distances():
    below, above, share = rank_rows.brackets(8, (2, 3, 6, 40))
    # Rows 0 to 7: rank 1 has the first rendered one's, 4 and 5 lie between 3 and 6, 7 and 8 have the last one's.
    assert below.tolist() == [1, 1, 2, 2, 2, 5, 5, 5]
    assert above.tolist() == [1, 1, 2, 5, 5, 5, 5, 5]
    np.testing.assert_allclose(share, [0, 0, 0, 1 / 3, 2 / 3, 0, 0, 0], rtol=1e-6)
    with pytest.raises(ConfigError, match="none of ranks 1 to 3"):
        rank_rows.brackets(3, (4, 0))


def test_the_kernel_interpolates_as_numpy_does_and_leaves_rendered_rows_alone(cpu):
    from kernels.rank_rows import interpolate_rows
    from tslim.device import buffers

    rows = np.random.default_rng(0).normal(size=(9, 56)).astype(np.float32)
    below, above, share = rank_rows.brackets(9, (2, 5, 8))
    on_device = buffers.upload(rows.ravel())
    interpolate_rows(9, buffers.upload(below), buffers.upload(above), buffers.upload(share), on_device)
    found = buffers.read(on_device).reshape(9, 56)
    for column in range(56):
        expected = np.interp(np.arange(9), [1, 4, 7], rows[[1, 4, 7], column])
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-5, atol=1e-6)
    assert (found[[1, 4, 7]] == rows[[1, 4, 7]]).all()


def test_while_it_trains_no_row_is_left_behind_and_what_is_rendered_learns_the_same_bits(new_trainer, monkeypatch):
    trainer = new_trainer()
    seen = []
    for event in trainer.run():
        if type(event).__name__ == "Stepped":
            rank, rows = trainer.rank, trainer.field.rank_scales.reshape(-1, 56).copy()
            rendered = [r for r in (1, 2, 6) if r < rank] + [rank]
            for column in range(56):
                at = np.interp(np.arange(1, 10), rendered, rows[np.array(rendered) - 1, column])
                np.testing.assert_allclose(rows[:, column], at, rtol=1e-5, atol=1e-6)
            seen.append((rank, rendered))
            assert trainer.field.metadata["rendered"] == rendered
    assert {rank for rank, _ in seen} == {2, 5, 9}
    assert (rows[0] != rows[1]).all() and (rows[8] != rows[5]).all(), "the rendered ones have learned, each its own"
    with_rows, _ = trainer.state()
    del trainer
    from tslim.field.field import Field

    before = 2

    def inherit(field, rendered):
        """All that new ranks need where the others are never looked at."""
        nonlocal before
        rows, active = field.rank_scales.reshape(-1, 56), rendered[-1]
        rows[before:active] = rows[before - 1]
        before = active

    monkeypatch.setattr(Field, "interpolate_rows", inherit)
    trainer = new_trainer()
    list(trainer.run())
    without, _ = trainer.state()
    rendered = np.array([1, 2, 6, 9]) - 1
    for name in with_rows:
        rows = [a[name].reshape(-1, 56)[rendered] if name == "rank_scales.p" else a[name] for a in (with_rows, without)]
        assert (rows[0] == rows[1]).all(), name


def test_a_resumed_run_has_the_same_rows_to_the_bit(new_trainer):
    trainer = new_trainer()
    for event in trainer.run():
        if type(event).__name__ == "Stepped" and event.step == 7:
            break
    arrays, plain = trainer.state()
    list(trainer.run())
    whole, _ = trainer.state()
    del trainer
    again = new_trainer()
    again.load_state(arrays, json.loads(json.dumps(plain)))
    assert (rows_of(again) == arrays["rank_scales.p"].reshape(-1, 56)[: again.rank]).all()
    list(again.run())
    resumed, _ = again.state()
    assert all((resumed[name] == whole[name]).all() for name in whole)


def test_a_checkpoint_of_before_is_put_right_when_it_is_taken_up(new_trainer):
    trainer = new_trainer()
    list(trainer.run())
    arrays, plain = trainer.state()
    del plain["metadata"]["rendered"]
    for part in "pmv":
        arrays[f"affine.{part}"] = arrays.pop(f"rank_scales.{part}").copy()  # its name then
    arrays["affine.p"].reshape(-1, 56)[3] = 7.0
    trainer.load_state(arrays, plain)
    rows = rows_of(trainer)
    np.testing.assert_allclose(rows[3], (rows[1] + rows[5]) / 2, rtol=1e-5, atol=1e-6)
    assert trainer.field.metadata["rendered"] == [1, 2, 6, 9]


CASES = {
    "train": ScheduleConfig(policy="train"),
    "fixed": ScheduleConfig(policy="fixed"),
    "linear": ScheduleConfig(policy="linear"),
    "bcd": ScheduleConfig(policy="bcd"),
    "all_prefixes": ScheduleConfig(policy="all_prefixes"),
    "staged": ScheduleConfig(policy="staged"),
    "bounded": ScheduleConfig(policy="bounded"),
    "ordered": ScheduleConfig(policy="ordered"),
    "staged without prefixes": ScheduleConfig(policy="staged", prefix_share=0),
    "every ray at several": ScheduleConfig(policy="staged", prefix_share=0, prefixes_per_ray=2, anchors=(2, 2, 8)),
    "all ranks": ScheduleConfig(policy="staged", anchors=()),
}


@pytest.mark.parametrize("max_rank", [1, 5, 16, 24])
@pytest.mark.parametrize("schedule", CASES.values(), ids=CASES)
def test_settings_say_of_an_old_file_what_its_schedule_rendered_at_the_end(schedule, max_rank):
    assert {case.policy for case in CASES.values()} == set(POLICIES)
    trained = dataclasses.replace(SETTINGS, field=FieldConfig(max_rank=max_rank), schedule=schedule)
    made = make_schedule(schedule, max_rank, trained.steps)
    made.rank = max_rank
    rendered = made.rendered(trained.steps)
    drawn = made.ray_ranks(trained.steps, 4000, np.random.default_rng(0))
    assert set(np.unique(drawn)) == set(rendered), "what is said to be rendered is"
    found = rank_rows.heal_from({"train": config.to_dict(trained), "march": {}}, max_rank)
    assert found == (() if rendered == tuple(range(1, max_rank + 1)) and not found else rendered)
    assert rank_rows.heal_from({"train": config.to_dict(trained), "rendered": [1]}, max_rank) == ()


def test_an_old_file_is_put_right_when_it_is_read(as_written):
    old, healed = as_written(OLD), model_file.read(OLD)
    assert (old.rank_scales[[0, 1, 3, 5]] == healed.rank_scales[[0, 1, 3, 5]]).all()
    for rank in (3, 5):
        between = (old.rank_scales[rank - 2] + old.rank_scales[rank]) / 2
        np.testing.assert_allclose(healed.rank_scales[rank - 1], between, rtol=1e-6)
        assert np.abs(old.rank_scales[rank - 1] - between).max() > 0.1, "it was left behind"
    assert healed.metadata["rendered"] == [1, 2, 4, 6]
    assert all((a == b).all() for a, b in zip(old.density_planes, healed.density_planes, strict=True))


def test_a_prefix_of_an_old_file_is_put_right_as_the_whole_is(tmp_path, as_written):
    whole = model_file.read(OLD)
    for rank in range(1, 7):
        some = model_file.read(OLD, rank=rank)
        assert some.rank == rank and (some.rank_scales == whole.rank_scales[:rank]).all()
        model_file.write(some, tmp_path / "some.slim")
        assert (model_file.read(tmp_path / "some.slim").rank_scales == some.rank_scales).all(), "written, it is sound"
    # Bytes that were cut off hold the next sound row: then the last one stands in for it.
    cut = tmp_path / "cut.slim"
    cut.write_bytes(OLD.read_bytes()[: model_file.read_header(OLD).bytes_at(5)])
    found = model_file.read(cut)
    assert (found.rank_scales[:4] == whole.rank_scales[:4]).all() and (
        found.rank_scales[4] == found.rank_scales[3]
    ).all()


def test_damage_behind_the_ranks_that_are_asked_for_keeps_nobody_from_them(tmp_path):
    ends, data = model_file.read_header(OLD).ends, bytearray(OLD.read_bytes())
    data[ends[4] + CHECKSUM.size + 9] ^= 0xFF
    (tmp_path / "damaged.slim").write_bytes(data)
    found = model_file.read(tmp_path / "damaged.slim", rank=5)
    assert found.rank == 5 and (found.rank_scales[4] == found.rank_scales[3]).all()


def test_separate_ranks_are_put_right_as_far_as_each_kind_reaches(tmp_path, as_written):
    old = as_written(OLD)
    model_file.write(old.separate(6, 3), tmp_path / "separate.slim")
    healed, whole = model_file.read(tmp_path / "separate.slim"), model_file.read(OLD)
    assert (healed.rank_scales[:, :2] == whole.rank_scales[:, :2]).all(), "all density's rows are there"
    assert (healed.rank_scales[:2, 2:] == whole.rank_scales[:2, 2:]).all()
    assert (healed.rank_scales[2:, 2:] == old.rank_scales[1, 2:]).all(), (
        "of appearance rank 2 is the last that is sound"
    )


@pytest.mark.parametrize("broken", [{}, {"train": 3}, {"train": {"schedule": {"anchors": ["x"]}}}, {"train": {"x": 1}}])
def test_a_trained_model_that_lacks_its_settings_is_taken_to_be_a_presets(broken):
    assert rank_rows.heal_from({"march": {}, **broken}, 16) == (1, 2, 3, 4, 6, 8, 10, 12, 14, 16)
    assert rank_rows.heal_from({"march": {}, **broken}, 24)[-2:] == (14, 24)
    assert rank_rows.heal_from({"march": {}, **broken}, 5)[-2:] == (14, 16), "its full rank was cut away"


def test_a_model_that_nobody_trained_keeps_the_rows_that_it_was_given(tmp_path, as_written):
    state = dataclasses.replace(as_written(OLD), metadata={"note": "made by hand"})
    model_file.write(state, tmp_path / "own.slim")
    found = model_file.read(tmp_path / "own.slim")
    assert (found.rank_scales == state.rank_scales).all() and found.metadata == state.metadata
