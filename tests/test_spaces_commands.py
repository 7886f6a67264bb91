"""Forward-facing scenes and captures from end to end: the space is chosen, said, overridden, trained in and shown."""

import dataclasses
import json

import numpy as np
import pytest

from tests import captures
from tests.command_line import refused, tslim
from tslim import config, load_scene, presets
from tslim.data.spaces import in_space
from tslim.errors import SceneError
from tslim.model import model_file

FORMAT = {"ndc": "llff", "contracted": "colmap"}


@pytest.fixture(scope="module", params=["ndc", "contracted"])
def space(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def capture(space, tmp_path_factory):
    """A folder of photographs that belongs in the space."""
    folder = tmp_path_factory.mktemp(space) / "capture"
    captures.WRITERS[FORMAT[space]](folder)
    return folder


@pytest.fixture(scope="module")
def trained(cpu, space, capture, tmp_path_factory):
    """A finished run, and what its training said."""
    run = tmp_path_factory.mktemp("runs") / "run"
    code, out, err = tslim("train", capture, "--arch", "cpu", "--preset", "tiny", "--out", run)
    assert (code, err) == (0, "")
    return run, out


def test_training_says_the_space_and_info_says_it_of_scene_and_model(space, capture, trained):
    assert f"{space}: " in trained[1]
    assert f"{space}: " in tslim("info", capture)[1].replace("\n", " ")
    assert f"{space}: " in tslim("info", trained[0] / "model.slim")[1].replace("\n", " ")


def test_a_model_is_rendered_without_its_photographs_and_measured_on_them(space, capture, trained, tmp_path):
    alone = tmp_path / "alone.slim"
    alone.write_bytes((trained[0] / "model.slim").read_bytes())
    for what in ("rgb", "depth"):
        picture = tmp_path / f"{what}.png"
        code, _, err = tslim("render", alone, "-o", picture, "--what", what, "--arch", "cpu")
        assert (code, err) == (0, "") and picture.stat().st_size > 100
    path = "spiral" if space == "ndc" else "orbit"
    assert (trained[0] / "images" / f"{path}.mp4").exists()
    code, out, err = tslim("eval", trained[0], "--arch", "cpu", "--ranks", "4")
    assert (code, err) == (0, "")


def test_the_space_can_be_overridden_and_the_run_remembers_it(space, capture, cpu, tmp_path):
    other = "contracted" if space == "ndc" else "box"
    run = tmp_path / "run"
    code, out, err = tslim(
        "train", capture, "--arch", "cpu", "--preset", "tiny", "--steps", "5", "--space", other, "--out", run
    )
    assert (code, err) == (0, "") and f"{other}: " in out
    assert model_file.read_header(run / "model.slim").space == other
    assert json.loads((run / "config.json").read_text())["scene"]["space"] == other


def test_a_preset_suits_the_space_and_what_is_typed_goes_before_it(space, capture, cpu, tmp_path):
    words = ["--steps", "2", "--grid-start", "8", "--grid-end", "9", "--field.max-rank", "2", "--batch-rays", "64"]
    run = tmp_path / "run"
    code, _, err = tslim("train", capture, "--arch", "cpu", "--preset", "demo", *words, "--out", run)
    assert (code, err) == (0, "")
    found = config.from_dict(json.loads((run / "config.json").read_text())["train"])
    wanted = presets.demo(space)
    field = dataclasses.replace(wanted.field, max_rank=2)
    assert found == dataclasses.replace(wanted, steps=2, grid_start=8, grid_end=9, batch_rays=64, field=field)
    assert wanted.field != presets.demo("box").field


def test_a_run_that_was_interrupted_goes_on_with_the_same_bits_in_every_space(space, capture, cpu, tmp_path):
    from tslim.training.trainer import Trainer

    scene, settings = load_scene(capture), dataclasses.replace(presets.tiny(space), steps=44, checkpoint_every=22)
    whole = Trainer(Trainer.new_field(scene, settings), scene, settings)
    for _ in whole.run():
        pass
    from tslim.training.run_folder import RunFolder

    folder = RunFolder(tmp_path / "run")
    folder.create({"scene": {}, "train": config.to_dict(settings)})
    first = Trainer(Trainer.new_field(scene, settings), scene, settings, run_dir=folder.path)
    for event in first.run():
        if type(event).__name__ == "CheckpointSaved":
            break
    second = Trainer.resume(folder.path, scene)
    assert second.step == 22
    for _ in second.run():
        pass
    pairs = zip(whole.field.state().density_planes, second.field.state().density_planes, strict=True)
    assert all(a.tobytes() == b.tobytes() for a, b in pairs)
    if space == "contracted":
        assert second.field.box.tolist() == [[-2.0] * 3, [2.0] * 3], "a contracted field is not cropped"


def test_what_ndc_needs_and_does_not_find_is_said_in_one_line(tmp_path):
    captures.write_colmap(tmp_path / "ring")
    assert "look one way" in refused("info", tmp_path / "ring", "--space", "ndc")
    captures.write_transforms(tmp_path / "forward", captures.forward_facing())
    assert "sparse points" in refused("info", tmp_path / "forward", "--space", "ndc")
    with pytest.raises(SceneError, match="expected box, ndc, contracted"):
        load_scene(tmp_path / "ring", space="sphere")


def test_a_colmap_capture_of_one_side_can_be_put_in_ndc(tmp_path):
    captures.write_colmap_of_one_side(tmp_path, farthest=6)
    scene = load_scene(tmp_path, space="ndc")
    every = np.concatenate([scene.train.cameras.origins, scene.test.cameras.origins])
    assert scene.space == "ndc" and np.abs(every.mean(0)).max() < 1e-5
    assert 0.8 < scene.near < 2 and scene.far > 4
    # Photographs still show what their cameras see: the world was moved together with them.
    assert scene.train.cameras.forward[:, 2].max() < -0.8
    again = in_space(scene, "contracted")
    assert again.space == "contracted" and again.near == scene.near


@pytest.mark.slow
def test_open_scenes_are_learned(space, capture, cpu):
    from tslim.measuring.evaluate import rank_sweep
    from tslim.training.trainer import Trainer

    scene = load_scene(capture)
    settings = dataclasses.replace(
        config.with_steps(presets.quick(space), 500), grid_start=32, grid_end=64, batch_rays=1024,
        field=dataclasses.replace(presets.quick(space).field, max_rank=4),
    )  # fmt: skip
    trainer = Trainer(Trainer.new_field(scene, settings), scene, settings)
    for _ in trainer.run():
        pass
    assert next(rank_sweep(trainer.field, scene.train, (4,))).psnr > 24
    assert next(rank_sweep(trainer.field, scene.test, (4,))).psnr > 18
