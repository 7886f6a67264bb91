"""Finds a photograph's exposure and its light by gradient: ``python apps/fit_exposure.py [MODEL.slim]``.

A view of the model is brightened or darkened channel by channel, background and all (exposure), after the object alone
was lit in another colour (a bias in its decoder). Both are found again from the picture. The exposure's gradient is
Taichi's own, of the loss below; that of the light goes through the renderer, whose adjoint the tape calls.
"""

import sys
from dataclasses import replace

import _checkout  # noqa: F401
import numpy as np

import tslim
from tslim import cli

EXPOSURE, LIGHT = np.array([0.7, 0.9, 1.2]), np.array([0.8, -0.3, -0.6])


def some_field() -> tslim.Field:
    """A model that takes half a minute: good enough to be recognised."""
    scene = tslim.builtin_scene(size=64, train=30, test=0)
    settings = replace(
        tslim.presets.quick(), steps=200, batch_rays=512, grid_end=64, grow_steps=(), occupancy_steps=(100,)
    )
    trainer = tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings)
    for event in trainer.run():
        if isinstance(event, tslim.Progress) and event.step % 100 == 0:
            print(event)
    return trainer.field


def main(model: str | None = None) -> None:
    """Prints what is found step by step, beside what was hidden."""
    print(tslim.init("cpu"))
    import taichi as ti

    from tslim.scene import paths

    field = tslim.load(model) if model else some_field()
    camera = replace(paths.path_from_dict(field.metadata["path"]), size=(48, 48)).cameras(1)
    renderer = tslim.DifferentiableRenderer(field, *camera.rays())
    offset = field.decoder.layout["b3"][0]
    bias = field.decoder.params[offset : offset + 3]
    exposure, image = (ti.Vector.field(3, ti.f32, n, needs_grad=True) for n in ((), renderer.n_rays))
    loss = ti.field(ti.f32, (), needs_grad=True)

    @ti.kernel
    def compare():
        for i in range(renderer.n_rays):
            e = exposure[None] * renderer.rgb[i] - image[i]
            loss[None] += e.dot(e) / renderer.n_rays

    before = bias.copy()
    bias += LIGHT
    renderer.render()
    image.from_numpy((EXPOSURE * renderer.rgb.to_numpy()).astype(np.float32))
    bias[:], exposure[None] = before, (1, 1, 1)
    for step in range(81):
        with ti.ad.Tape(loss):
            renderer.render()
            compare()
        if step % 20 == 0:
            print(f"step {step}: loss {loss[None]:.6f}, exposure {exposure[None]}, light {bias - before}")
        exposure[None] = exposure[None] - 0.4 * exposure.grad[None]
        bias -= 15.0 * renderer.gradients()["decoder.b3"]
    print(f"hidden: exposure {EXPOSURE}, light {LIGHT}")


if __name__ == "__main__":
    sys.exit(cli.app(main))
