"""What slimming is for: a prefix of a trained model is a good model."""

import pytest

from apps import _experiments as experiments
from tslim import presets


@pytest.mark.slow
def test_half_the_ranks_of_the_default_beat_half_of_tensorf_and_all_of_them_match_it(cpu):
    """Equal steps and rays, as the experiments' --quick takes them. With every ray at six ranks rank 2 gains, too."""
    import tslim

    scene = tslim.builtin_scene(size=64, train=60, test=6)
    base = experiments.base_settings(experiments.Options(quick=True, rays=1024))
    psnr = {}
    for name, settings in (
        ("staged", experiments.ours(base)),
        ("even", presets.every_prefix(experiments.ours(base))),
        ("fixed", experiments.plain(base, "fixed")),
    ):
        trainer = tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings)
        for _ in trainer.run():
            pass
        psnr |= {(name, row.rank): row.psnr for row in tslim.rank_sweep(trainer.field, scene.test, (2, 8, 16))}
        del trainer
    assert psnr["staged", 16] > 22, "neither learned anything"
    assert psnr["staged", 8] >= psnr["fixed", 8] + 8, psnr
    assert psnr["staged", 16] >= psnr["fixed", 16] - 0.5, psnr
    assert psnr["even", 2] >= psnr["staged", 2] + 0.5, psnr
    assert min(psnr["even", rank] - psnr["staged", rank] for rank in (8, 16)) > -0.5, psnr
