"""What slimming is for: a prefix of a trained model is a good model."""

import dataclasses

import pytest

from apps import _experiments as experiments
from apps import _recipes as recipes
from tslim import presets

WITH_ROWS = [name for name, preset in presets.PRESETS.items() if preset().field.rank_scales]
"""Presets whose ranks have scales and shifts of their own"""


def falls(settings, *, size: int) -> tuple[dict[int, float], float]:
    """PSNR by rank of a field trained so, and the most that one more rank costs."""
    import tslim

    scene = tslim.builtin_scene(size=size, train=60, test=6)
    trainer = tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings)
    for _ in trainer.run():
        pass
    every = range(1, trainer.field.rank + 1)
    psnr = {row.rank: row.psnr for row in tslim.rank_sweep(trainer.field, scene.test, every)}
    return psnr, max(psnr[rank] - psnr[rank + 1] for rank in every[:-1])


def test_one_more_rank_costs_nothing_in_a_run_of_seconds(cpu):
    """Rows learn so fast here that those which do not, if left behind, cost 0.2 dB within these steps."""
    settings = dataclasses.replace(
        experiments.scaled_down(presets.demo(), 150),
        grid_start=24,
        grid_end=32,
        batch_rays=512,
        batch_decoded=0,
        lr_scales=0.03,
    )
    psnr, cost = falls(settings, size=40)
    assert psnr[16] > 19 and cost <= 0.05, psnr


@pytest.mark.slow
@pytest.mark.parametrize("preset", WITH_ROWS)
def test_one_more_rank_costs_nothing_under_any_preset(cpu, preset):
    """Within 0.05 dB: rows of ranks between the prefixes used to stay behind, and cost up to 3 dB."""
    settings = experiments.scaled_down(presets.PRESETS[preset]())
    settings = dataclasses.replace(settings, batch_rays=1024, batch_decoded=0)
    psnr, cost = falls(settings, size=64)
    assert psnr[16] > 22 and cost <= 0.05, psnr


@pytest.mark.slow
def test_half_the_ranks_of_the_default_beat_half_of_tensorf_and_all_of_them_match_it(cpu):
    """Equal steps and rays, as the experiments' --quick takes them. With every ray at six ranks rank 2 gains, too."""
    import tslim

    scene = tslim.builtin_scene(size=64, train=60, test=6)
    base = experiments.base_settings(experiments.Options(quick=True, rays=1024))
    psnr = {}
    for name, settings in (
        ("staged", recipes.ours(base)),
        ("six ranks a ray", recipes.six_ranks_a_ray(recipes.ours(base))),
        ("fixed", recipes.plain(base, "fixed")),
    ):
        trainer = tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings)
        for _ in trainer.run():
            pass
        psnr |= {(name, row.rank): row.psnr for row in tslim.rank_sweep(trainer.field, scene.test, (2, 8, 16))}
        del trainer
    assert psnr["staged", 16] > 22, "neither learned anything"
    assert psnr["staged", 8] >= psnr["fixed", 8] + 8, psnr
    assert psnr["staged", 16] >= psnr["fixed", 16] - 0.5, psnr
    assert psnr["six ranks a ray", 2] >= psnr["staged", 2] + 0.5, psnr
    assert min(psnr["six ranks a ray", rank] - psnr["staged", rank] for rank in (8, 16)) > -0.5, psnr
