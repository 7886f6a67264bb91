"""Finds camera poses again by gradient: ``python apps/refine_poses.py [MODEL.slim [FOLDER OF PHOTOGRAPHS]]``.

Held-out photographs get poses that are off by a few degrees and per cent. With the field as it is, Adam moves each
camera until what it would see is what the photograph shows: gradients of rays, through ``tslim.torch``. It begins at
two ranks, where a field is smoother and shows the way from farther off, and ends at all of them. A camera turns about
the middle of the scene, not about itself: that changes a picture in another way than a shift does.
"""

import dataclasses
import sys
import time

import _checkout  # noqa: F401
import numpy as np

import tslim
from tslim import cli

VIEWS, STEPS, RAYS, LEARNING_RATE = 8, 400, 2048, 3e-3
DEGREES, SHARE = 3.0, 0.03
"""How far poses are off: turned by so many degrees, shifted by this share of the distance to the scene's middle."""


def trained(scene: tslim.Scene) -> tslim.Field:
    """A field of the scene in about a minute."""
    settings = tslim.presets.demo(scene.space)
    trainer = tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings)
    for event in trainer.run():
        if isinstance(event, tslim.Progress) and event.step % 400 == 0:
            print(event, flush=True)
    return trainer.field


def moved(poses: np.ndarray, middle: np.ndarray, turns, shifts) -> np.ndarray:
    """Poses (n, 3, 4) turned about ``middle`` by rotation vectors (n, 3), in radians, then shifted by (n, 3)."""
    turn = rotations(turns).numpy()
    eyes = np.einsum("nij,nj->ni", turn, poses[:, :, 3] - middle) + middle + shifts.numpy()
    return np.concatenate([turn @ poses[:, :, :3], eyes[:, :, None]], 2).astype(np.float32)


def rotations(turns):
    """(n, 3, 3) of rotation vectors (n, 3) in radians, differentiable."""
    import torch

    x, y, z = turns.unbind(1)
    o = torch.zeros_like(x)
    return torch.linalg.matrix_exp(torch.stack([o, -z, y, z, o, -x, -y, x, o], 1).reshape(-1, 3, 3))


def report(when: str, field: tslim.Field, views, cameras: tslim.Cameras, middle: np.ndarray) -> None:
    """Prints how far cameras are from where the photographs were taken, and how well these are seen from there."""
    right, found = views.cameras.poses, cameras.poses
    cosine = (np.einsum("nij,nij->n", right[:, :, :3], found[:, :, :3], dtype=np.float64) - 1) / 2
    degrees = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    shift = np.linalg.norm(found[:, :, 3] - right[:, :, 3], axis=1) / np.linalg.norm(right[:, :, 3] - middle, axis=1)
    renderer = tslim.Renderer(field)
    quality = [tslim.psnr(renderer.render(cameras, i).rgb, views.image(i, field.background)) for i in range(len(views))]
    print(
        f"{when:<16} turned by {degrees.mean():.2f}° (at most {degrees.max():.2f}), shifted by "
        f"{100 * shift.mean():.2f} % (at most {100 * shift.max():.2f}); {np.mean(quality):.2f} dB",
        flush=True,
    )


def main(model: str | None = None, folder: str | None = None) -> None:
    """Prints errors before and after, beside the quality at the right poses."""
    print(tslim.init())
    import torch

    scene = tslim.load_scene(folder) if folder else tslim.builtin_scene(size=100, train=60, test=VIEWS)
    field = tslim.load(model) if model else trained(scene)
    views, middle = scene.test.spread(VIEWS), field.world_box.mean(0)
    n, generator = len(views), torch.manual_seed(0)
    distance = torch.tensor(np.linalg.norm(views.cameras.origins - middle, axis=1, keepdims=True), dtype=torch.float32)
    turns, shifts = torch.nn.functional.normalize(torch.randn(2, n, 3, generator=generator), dim=2)
    own = views.cameras.poses.copy()  # off by a turn about the camera itself, as estimated poses are
    own[:, :, :3] = rotations(np.radians(DEGREES) * turns).numpy() @ own[:, :, :3]
    guess = moved(own, middle, 0 * turns, SHARE * distance * shifts)
    cameras = dataclasses.replace(views.cameras, poses=guess)
    report("right", field, views, views.cameras, middle)
    report("off", field, views, cameras, middle)

    # All pixels in a row, each with the ray that its camera would have if the guess were right.
    origins, directions = torch.tensor(guess[:, :, 3]), [torch.tensor(cameras.rays(i)[1]) for i in range(n)]
    view = torch.repeat_interleave(torch.arange(n), torch.tensor([len(d) for d in directions]))
    directions = torch.cat(directions).float()
    colours = torch.cat([torch.tensor(views.image(i, field.background)).reshape(-1, 3) for i in range(n)])
    pose = torch.zeros(n, 6, requires_grad=True)  # a turn in radians, a shift in distances
    adam = torch.optim.Adam([pose], lr=LEARNING_RATE)
    fall = torch.optim.lr_scheduler.ExponentialLR(adam, 0.02 ** (1 / STEPS))
    centre, seconds = torch.tensor(middle), 0.0
    for step in range(STEPS):
        began = time.perf_counter()
        pixel = torch.randint(len(view), (RAYS,), generator=generator)
        by, turn = view[pixel], rotations(pose[:, :3])
        eyes = torch.einsum("nij,nj->ni", turn, origins - centre) + centre + distance * pose[:, 3:]
        ways = torch.einsum("rij,rj->ri", turn[by], directions[pixel])
        rank = min(2 + field.rank * step // (STEPS // 2), field.rank)
        rgb, _, _ = tslim.torch.render(field, eyes[by], ways, rank=rank)
        adam.zero_grad()
        (rgb - colours[pixel]).square().mean().backward()
        adam.step()
        fall.step()
        seconds += time.perf_counter() - began
        if (step + 1) % (STEPS // 4) == 0:
            now = pose.detach()
            poses = moved(guess, middle, now[:, :3], distance * now[:, 3:])
            report(f"after {step + 1} steps", field, views, dataclasses.replace(cameras, poses=poses), middle)
    print(f"{1000 * seconds / STEPS:.0f} ms a step of {RAYS} rays")


if __name__ == "__main__":
    sys.exit(cli.app(main))
