"""Presets: what each is made of, in every space."""

import dataclasses

import pytest

from tslim import config, presets
from tslim.training.schedules import make_schedule

SPACES = pytest.mark.parametrize("space", ["box", "ndc", "contracted"])


@SPACES
@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_is_valid(name, space):
    settings = presets.PRESETS[name](space)
    config.require_valid(settings)
    assert config.from_dict(config.to_dict(settings)) == settings


def test_published_settings_of_other_data_sets_are_those_of_paper_in_their_spaces():
    llff, tanks = presets.paper("ndc"), presets.paper("contracted")
    assert (llff.field.density_activation, llff.field.density_shift, llff.field.max_rank) == ("relu", 0.0, 24)
    assert (llff.schedule.upsilon, llff.schedule.eta, llff.grid_end) == (0.1, 100, 640)
    assert (llff.tv_density, llff.l1_rest, tanks.tv_density, tanks.schedule.upsilon) == (1.0, 0.0, 0.1, 0.2)


def test_quick_trains_an_object_whole_and_then_its_prefixes_and_open_spaces_in_stages():
    box = presets.quick("box")
    schedule = make_schedule(box.schedule, box.field.max_rank, box.steps)
    assert schedule.first_rank() == box.field.max_rank and schedule.prefixes(0) == (0.0, ())
    assert schedule.prefixes(box.steps)[0] == 0.5 and schedule.orders(round(0.6 * box.steps))
    assert all(presets.quick(space).schedule.policy == "staged" for space in ("ndc", "contracted"))


@SPACES
def test_fine_and_best_learn_as_quick_does_and_look_closer_for_longer(space):
    quick, fine, best = (getattr(presets, name)(space) for name in ("quick", "fine", "best"))
    for name in ("lr_factors", "lr_first_ranks", "l1_rest", "weight_threshold", "early_stop"):
        assert getattr(best, name) == getattr(fine, name) == getattr(quick, name)
    assert best.schedule.policy == fine.schedule.policy == quick.schedule.policy
    assert best.steps > 2 * fine.steps and fine.steps > quick.steps
    assert best.grid_end >= fine.grid_end > quick.grid_end
    samples = [settings.step_ratio / settings.grid_end for settings in (best, fine)]
    assert samples[0] == pytest.approx(samples[1], rel=0.15)
    decoder = ("decoder_width", "feature_encoding", "direction_encoding")
    published = presets.paper(space).field
    for settings in (fine, best):
        assert [getattr(settings.field, n) for n in decoder] == [getattr(published, n) for n in decoder]
        for at in ("grow_steps", "occupancy_steps"):  # in a box in the same steps, elsewhere at the same shares
            share = 1 if space == "box" else settings.steps / quick.steps
            assert getattr(settings, at) == pytest.approx([share * step for step in getattr(quick, at)], abs=2)


def test_what_came_instead_of_a_preset_is_one_that_there_is():
    assert not set(presets.REMOVED) & set(presets.PRESETS)
    assert all(any(name in why for name in presets.PRESETS) for why in presets.REMOVED.values())


def test_settings_are_known_by_their_old_names_in_files_on_command_lines_and_in_python():
    from tslim.commands import parsing
    from tslim.rendering.pipeline import MarchConfig

    settings = dataclasses.replace(presets.quick(), early_stop=0.25)
    settings = dataclasses.replace(settings, schedule=dataclasses.replace(settings.schedule, prefix_ranks=(3, 5)))
    written = config.to_dict(settings)
    assert written["early_stop"] == 0.25 and "stop_transmittance" not in written
    written["stop_transmittance"], written["schedule"]["anchors"] = written.pop("early_stop"), [3, 5]
    del written["schedule"]["prefix_ranks"]
    assert config.from_dict(written) == settings
    assert config.march_of({"stop_transmittance": 0.5}) == {"early_stop": 0.5}
    words = ["train", "--stop-transmittance", "0.25", "--schedule.anchors", "3", "5"]
    assert parsing.parse(words).settings == settings
    assert parsing.parse(["train", "--stop-transmittance=0.25"]).settings.early_stop == 0.25
    march = MarchConfig(stop_transmittance=0.5)
    assert march == MarchConfig(early_stop=0.5) and march.stop_transmittance == 0.5
    old = dataclasses.replace(settings.schedule, anchors=(1, 2))
    assert old.prefix_ranks == (1, 2) == old.anchors


def test_scales_per_rank_are_known_by_their_old_name():
    from tslim.commands import parsing

    written = config.to_dict(presets.quick())
    written["lr_affine"] = written.pop("lr_scales")
    written["field"]["rank_affine"] = written["field"].pop("rank_scales")
    assert config.from_dict(written) == presets.quick()
    words = ["train", "--lr-affine", "0.5", "--field.no-rank-affine"]
    settings = parsing.parse(words).settings
    assert settings.lr_scales == settings.lr_affine == 0.5 and not settings.field.rank_scales
    assert parsing.parse([*words, "--field.rank-affine"]).settings.field.rank_affine
