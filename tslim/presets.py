"""Presets: named settings of training. Each is a function of the space of the scene that it is for."""

import dataclasses
from collections.abc import Callable

from tslim.config import FieldConfig, ScheduleConfig, Space, TrainConfig, with_steps


def paper(space: Space = "box") -> TrainConfig:
    """SlimmeRF's published setting for NeRF-synthetic: 30 000 steps, 128³ to 300³, TRaIn with υ = 0.4.

    In other spaces the setting of the data set that it was published for: ``llff`` or ``tanks``.
    """
    of_space: dict[Space, Callable[[], TrainConfig]] = {"box": TrainConfig, "ndc": llff, "contracted": tanks}
    return of_space[space]()


def llff(space: Space = "ndc") -> TrainConfig:
    """SlimmeRF's setting for forward-facing scenes: 24 ranks, 640³ voxels, relu, total variation, υ = 0.1, η = 100.

    The decoder has no positional encodings, as in TensoRF's setting for these scenes, and the field no L1 penalty. The
    same whatever the space.
    """
    return TrainConfig(
        field=FieldConfig(
            max_rank=24, density_activation="relu", density_shift=0.0, feature_encoding=0, direction_encoding=0
        ),
        schedule=ScheduleConfig(upsilon=0.1, eta=100),
        steps=25_000,
        grid_end=640,
        grow_steps=(2000, 3000, 4000, 5500),
        occupancy_steps=(2500,),
        l1_start=0.0,
        l1_rest=0.0,
        tv_density=1.0,
        tv_appearance=1.0,
    )


def tanks(space: Space = "contracted") -> TrainConfig:
    """SlimmeRF's setting for Tanks & Temples: as ``paper``, with υ = 0.2 and TensoRF's total variation instead of L1.

    The same whatever the space: the published scenes are objects in a box, captures are contracted.
    """
    return TrainConfig(
        schedule=ScheduleConfig(upsilon=0.2), l1_start=0.0, l1_rest=0.0, tv_density=0.1, tv_appearance=0.01
    )


def quick(space: Space = "box") -> TrainConfig:
    """The default: a good model in minutes on two CPU cores, whatever the space.

    An object in a box is trained whole for six tenths of the run, as TensoRF is; then ranks are put in order, and half
    of the rays are rendered at prefixes. That keeps more of every rank than ranks that arrive one after another.
    """
    coarse = _coarse(space)
    if space != "box":
        return coarse
    whole = with_steps(coarse, 3400)
    return dataclasses.replace(
        whole,
        schedule=dataclasses.replace(whole.schedule, policy="ordered", prefix_share=0.5),
        batch_decoded=2 * whole.batch_decoded,
        grid_end=256,
        step_ratio=0.5,
        weight_threshold=1e-3,
        early_stop=1e-3,
        colour_span=3.0,
    )


def fine(space: Space = "box") -> TrainConfig:
    """Sharper than quick, for three to four times the time: as quick, with a finer grid and the paper's decoder.

    A box is grown and emptied in the steps in which quick does it: what is learned on a coarse grid is soon learned. In
    other spaces than a box rays are sampled as in quick: there they pass through fog for long, in which every sample
    would have to be decoded.
    """
    start = quick(space)
    longer = dataclasses.replace(start, steps=9000) if space == "box" else with_steps(start, start.steps * 4 // 3)
    return dataclasses.replace(
        longer,
        field=dataclasses.replace(longer.field, decoder_width=128, feature_encoding=0 if space == "ndc" else 2),
        lr_network=3e-3,
        grid_end=300,
        colour_span=3.0,
    )


def best(space: Space = "box") -> TrainConfig:
    """The best that an hour or so can do: as fine, in some three times the steps.

    An object in a box has a finer grid still, which so many steps can fill; its rays take samples as far apart as
    those of fine do. In a run so long all ranks become about as good as they can, so that prefixes get more of the
    rays, and sooner.
    """
    start = fine(space)
    if space != "box":
        return with_steps(start, 3 * start.steps)
    ranks = (1, 2, 2, 2, 3, 4, 4, 4, 4, 6, 6, 8, 8, 10, 12, 14)
    return dataclasses.replace(
        start,
        schedule=dataclasses.replace(start.schedule, prefix_share=0.55, order_at=(0.55,), prefix_ranks=ranks),
        steps=25_000,
        grid_end=400,
        step_ratio=0.6,
        colour_span=4.0,
        lr_decay=0.05,
    )


def _coarse(space: Space) -> TrainConfig:
    """What ``quick`` in open spaces is, and starts from in a box: every saving, ranks in stages."""
    if space == "box":
        return _fast(4800, 160, grow=(150, 300, 500, 800, 1200), occupancy=(150, 400, 800, 1500, 2500), lr=(0.05, 0.05))
    if space == "contracted":
        return _open(space, _fast(4800, 256, grow=(600, 900, 1200, 1600, 2000), occupancy=(1000, 1600, 2200, 3000)))
    # Photographs that all look one way show the same things in more detail: it takes longer to learn, and voxels as
    # wide as a pixel or two, which may be deeper. So few directions are seen that encoded ones are learned by heart.
    grow, occupancy = (150, 300, 600, 1000, 1500), (800, 1400, 2000, 3000)
    longer = _open(space, with_steps(_fast(4800, 256, grow=grow, occupancy=occupancy, lr=(0.03, 0.03)), 9000))
    field = dataclasses.replace(longer.field, voxel_depth=3.4, direction_encoding=0)
    return dataclasses.replace(longer, field=field, colour_span=3.0)


def demo(space: Space = "box") -> TrainConfig:
    """A third of quick: shows an object in about two minutes."""
    if space == "box":
        return _fast(1600, 128, grow=(80, 140, 200, 320, 480), occupancy=(80, 160, 320, 600, 1000), lr=(0.12, 0.08))
    return _open(space, _fast(1600, 192, grow=(80, 140, 200, 320, 480), occupancy=(300, 500, 900)))


def _fast(
    steps: int,
    grid_end: int,
    grow: tuple[int, ...],
    occupancy: tuple[int, ...],
    lr: tuple[float, float] = (0.08, 0.03),
) -> TrainConfig:
    """Growth in stages with prefix rays; a narrow decoder, whole-voxel steps and fast learning for a short run.

    ``lr``: of the factors of the first two ranks and of the last. A low rank sees few of the rays, and is the better
    the further each of them takes it, unless there are many.
    """
    return TrainConfig(
        field=FieldConfig(rank_scales=True, decoder_width=64, feature_encoding=0),
        schedule=ScheduleConfig(policy="staged"),
        steps=steps,
        batch_rays=8192,
        batch_decoded=32768,
        lr_factors=lr[1],
        lr_first_ranks=lr[0],
        lr_network=5e-3,
        lr_decay=0.1,
        lazy_adam=True,
        lr_reset_on_grow=False,
        grid_start=64,
        grid_end=grid_end,
        grow_steps=grow,
        occupancy_steps=occupancy,
        occupancy_threshold=1e-2,
        occupancy_first=1e-4,
        step_ratio=1.0,
        weight_threshold=1e-2,
        early_stop=1e-2,
        colour_span=1e4,
        l1_start=4e-5,
        l1_rest=2e-5,
        checkpoint_every=1000,
    )


def _open(space: Space, fast: TrainConfig) -> TrainConfig:
    """For scenes that fill the picture, of which every part is seen by a few views only.

    The field starts as thin fog rather than empty, since every ray has to be stopped by something, and neighbouring
    texels are held together. Empty space is measured late, since what is far takes longest to appear, and against a
    higher threshold, for the fog. What one camera alone sees, right in front of it, would take the blame for whatever
    the field does not know yet, so density there learns more slowly. The distortion loss makes surfaces of fog, which
    also makes a step quick. Where cameras stand all around, density in front of them costs a penalty as well, without
    which no surface is found where photographs show little texture or differ in exposure; and in front of cameras that
    nobody held, where fog and splinters stay that no photograph looks through. Where it is known which photograph shows
    which sparse points, rays to them are held free up to there, and stop.
    """
    tv_density, tv_appearance = {"ndc": (0.2, 0.2), "contracted": (0.1, 0.01)}[space]
    return dataclasses.replace(
        fast,
        field=dataclasses.replace(fast.field, density_shift=-5.0),
        occupancy_threshold=2e-3,
        occupancy_first=0.0,
        distortion=0.01 if space == "ndc" else 0.003,
        occlusion=0.01 if space == "contracted" else 0.0,
        occlusion_range=0.15,
        unseen_occlusion=0.003 if space == "contracted" else 0.0,
        point_depth=0.01 if space == "contracted" else 0.0,
        near_fade=1.0,
        tv_density=tv_density,
        tv_appearance=tv_appearance,
    )


def tiny(space: Space = "box") -> TrainConfig:
    """For tests: seconds. The same whatever the space."""
    return TrainConfig(
        field=FieldConfig(max_rank=4),
        steps=60,
        batch_rays=256,
        grid_start=16,
        grid_end=24,
        grow_steps=(30, 40),
        occupancy_steps=(20, 40),
        report_every=10,
        checkpoint_every=30,
    )


PRESETS = {"quick": quick, "fine": fine, "best": best, "demo": demo, "paper": paper, "tiny": tiny}
"""Presets by name. Each takes the space of the scene that it is for."""
REMOVED = {
    "even": "quick has more at every size",
    "llff": "it is paper, in a forward-facing scene",
    "tanks": "it is paper, in a scene of unbounded space",
}
"""Presets that there were, and what to take instead."""


def __dir__() -> list[str]:
    """What completion shows: the presets alone."""
    return sorted(PRESETS)
