"""Scenes with next to nothing in them train or are refused in one line; numbers that are none are refused."""

import dataclasses

import numpy as np
import pytest

from tslim import config, presets
from tslim.data.builtin import builtin_scene
from tslim.errors import SceneError, TslimError
from tslim.measuring import evaluate
from tslim.scene.scene import Scene, Views, checked
from tslim.training.trainer import Trainer

BLACK, GREY, CLEAR = 0xFF000000, 0xFF808080, 0x00000000


@pytest.fixture(scope="module")
def scene(cpu) -> Scene:
    return builtin_scene(size=16, train=4, test=1)


def painted(scene: Scene, pixel: int, images: int = 4) -> Scene:
    views = scene.train.subset(range(images))
    pixels = np.full_like(views.pixels, pixel)
    return dataclasses.replace(scene, train=dataclasses.replace(views, pixels=pixels))


def trained(scene: Scene, **field) -> Trainer:
    settings = dataclasses.replace(config.with_steps(presets.tiny(), 6), batch_rays=64, report_every=2)
    settings = dataclasses.replace(settings, field=dataclasses.replace(settings.field, **field))
    trainer = Trainer(Trainer.new_field(scene, settings), scene, settings)
    for _ in trainer.run():
        pass
    return trainer


@pytest.mark.parametrize("pixel", [BLACK, GREY, CLEAR], ids=["black", "grey", "transparent"])
@pytest.mark.parametrize("images", [1, 4])
def test_photographs_of_one_colour_train_to_finite_numbers(scene, pixel, images):
    trainer = trained(painted(scene, pixel, images))
    arrays, _ = trainer.state()
    assert all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f")
    row = next(evaluate.rank_sweep(trainer.field, scene.test))
    assert np.isfinite([row.psnr, row.ssim]).all()


def test_a_scene_that_is_transparent_everywhere_on_no_background_is_refused(scene):
    with pytest.raises(SceneError, match="transparent, everywhere"):
        trained(painted(scene, CLEAR).placed(background=None))


def test_one_pixel_of_one_image_trains(scene):
    views = scene.train.subset([0])
    camera = dataclasses.replace(views.cameras, sizes=np.array([[1, 1]]), intrinsics=np.float32([[1, 1, 0.5, 0.5]]))
    one = Views(camera, views.pixels[:1], np.array([0, 1]), views.names)
    arrays, _ = trained(dataclasses.replace(scene, train=one)).state()
    assert all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f")


def test_a_field_of_one_rank_trains_slims_and_saves(scene, tmp_path):
    trainer = trained(scene, max_rank=1)
    assert trainer.field.rank == 1
    assert trainer.field.slim(1).save(tmp_path / "one.slim").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["poses", "intrinsics", "box"])
def test_numbers_that_are_none_are_refused_before_anything_is_trained(scene, where, bad):
    if where == "box":
        box = scene.box.copy()
        box[0, 0] = bad
        odd = scene.placed(box=box)
    else:
        values = getattr(scene.train.cameras, where).copy()
        values[0, 0] = bad
        cameras = dataclasses.replace(scene.train.cameras, **{where: values})
        odd = dataclasses.replace(scene, train=dataclasses.replace(scene.train, cameras=cameras))
    with pytest.raises(TslimError):
        checked(odd)
