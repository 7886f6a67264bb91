"""Launches on CUDA every kernel that tslim has, as training, rendering, preview, torch and import do, in every space.

Run with the stand-in for the driver (``fake_libcuda.c``): nothing is computed, so no number in here means anything;
what counts is which kernels are compiled, with which template arguments. Prints nothing.
"""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch

import tslim
from tslim.device import backend
from tslim.scene.scene import Scene

SIZE = 16


def scenes() -> dict[str, Scene]:
    """The built-in scene, and its photographs taken for ones of other spaces."""
    box = tslim.builtin_scene(size=SIZE, train=4, test=1)
    ahead = tslim.Cameras.look_at(
        np.float32([[0.1 * i, 0, 0] for i in range(4)]), (0, 0, -3), (0, 1, 0), 40, (SIZE,) * 2
    )
    forward = dataclasses.replace(box.train, cameras=ahead)
    cube = np.array([[-1.0] * 3, [1.0] * 3])
    points = np.float32([[0.1 * i, 0, 0] for i in range(4)])
    seen = dataclasses.replace(box.train, sees=(np.arange(4),) * 4)
    around = dataclasses.replace(box, train=seen, points=points)
    return {
        "box": box,
        "ndc": dataclasses.replace(box, train=forward).placed(space="ndc", near=1.0, far=9.0, box=cube),
        "contracted": around.placed(space="contracted", box=cube, near=0.1, far=50.0, background=None),
    }


def settings(name: str, space: str) -> tslim.TrainConfig:
    """A preset cut down to four steps, with everything in them that happens between steps."""
    whole = tslim.presets.PRESETS[name](space)
    return dataclasses.replace(
        whole, steps=4, batch_rays=64, batch_decoded=0, grid_start=12, grid_end=16, grow_steps=(3,),
        occupancy_steps=(1, 2), report_every=2, checkpoint_every=2, unseen_depth=0.1, unseen_rays=64,
    )  # fmt: skip


def train(scene: Scene, how: tslim.TrainConfig) -> tslim.Field:
    """Trains, and takes over parameters and moments as a resumed run does."""
    trainer = tslim.Trainer(tslim.Trainer.new_field(scene, how), scene, how)
    trainer.started = True  # what it would be once something is to be seen: unseen cameras wait for that
    for _ in trainer.run():
        pass
    trainer.state()
    trainer.optimizer.load_state(trainer.optimizer.state())
    return trainer.field


def use(field: tslim.Field, scene: Scene, folder: Path) -> None:
    """What is done with a trained field."""
    again = tslim.load(field.slim(1).save(folder / "model.slim"))
    renderer = tslim.Renderer(again)
    renderer.render(scene.train.cameras, 0, rank=1)
    again.density_at(np.zeros((3, 3)))
    origins, directions = (a.astype(np.float32) for a in scene.train.cameras.rays(0))
    renderer.render_rays(origins, directions)
    module = tslim.torch.FieldModule(field)
    rays = [torch.tensor(a, requires_grad=True) for a in (origins, directions)]
    sum(t.sum() for t in module(*rays)).backward()
    torch.optim.SGD(module.parameters(), lr=0.0).step()
    module(*rays)


def tape(field: tslim.Field, scene: Scene) -> None:
    """The renderer inside Taichi's autodiff."""
    import taichi as ti

    renderer = tslim.DifferentiableRenderer(field, *scene.train.cameras.rays(0))
    loss = ti.field(ti.f32, (), needs_grad=True)

    @ti.kernel
    def compare():
        for i in range(renderer.n_rays):
            loss[None] += renderer.rgb[i].sum()

    with ti.ad.Tape(loss):
        renderer.render()
        compare()
    renderer.gradients()
    renderer.ray_gradients()


def main() -> None:
    """Every preset that differs in kernels, in every space, and both decoders."""
    tslim.init("cuda")
    # The stand-in's gradients are wrong, of course, and what it should have written to the host has to be a number.
    backend._current = dataclasses.replace(backend.current(), gradient_error=None)
    np.empty = np.zeros
    with tempfile.TemporaryDirectory() as folder:
        for space, scene in scenes().items():
            quick, paper = settings("quick", space), settings("paper", space)
            several = dataclasses.replace(quick.schedule, policy="staged", prefixes_per_ray=5)
            learned = dataclasses.replace(quick, schedule=several, image_gains=True, refine_poses=True, poses_from=0.0)
            for how in (quick, paper, learned):
                field = train(scene, how)
                use(field, scene, Path(folder))
            how = paper
            how = dataclasses.replace(how, field=dataclasses.replace(how.field, decoder="sh", rank_scales=True))
            use(train(scene, how), scene, Path(folder))
            tape(field, scene)


if __name__ == "__main__":
    main()
