"""Every setting, as frozen dataclasses with one documented field a line."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from tslim.config.old_names import with_old_names
from tslim.errors import ConfigError

Precision = Literal["float16", "float32", "compact"]
"""How a file holds a model: its numbers in half or single precision, or compact (see ``tslim.model.compact``)."""


@with_old_names
@dataclass(frozen=True)
class FieldConfig:
    """What the radiance field is made of (fixed for the life of a model)."""

    max_rank: int = 16
    """ranks that the field has room for; one rank is 1 density and 3 appearance components in each of 3 modes"""
    decoder: Literal["mlp", "sh"] = "mlp"
    """how features become colour: the paper's MLP, or spherical harmonics of degree 2 (much cheaper)"""
    decoder_width: int = 128
    """units in each of the MLP's two hidden layers, a multiple of 16"""
    density_activation: Literal["softplus", "relu"] = "softplus"
    """softplus for objects in a box, relu for forward-facing scenes"""
    density_shift: float = -10.0
    """added to the density feature before the activation"""
    distance_scale: float = 25.0
    """density is multiplied by this along the ray"""
    feature_encoding: int = 2
    """frequencies of the positional encoding of features (MLP decoder)"""
    direction_encoding: int = 2
    """frequencies of the positional encoding of viewing directions (MLP decoder)"""
    voxel_depth: float = 1.0
    """how many times as long as along x and y voxels are along z: in a forward-facing scene, where z is depth,
    photographs tell the former apart more finely"""
    init_scale: float = 0.1
    """standard deviation of the initial factors"""
    rank_scales: bool = False
    """learn a scale and shift per rank for the density feature and the 27 colour features: of the ranks that rays are
    rendered at; those of others lie between them"""


@with_old_names
@dataclass(frozen=True)
class ScheduleConfig:
    """The policy that sets the active rank while training."""

    policy: Literal["train", "fixed", "ordered", "staged", "bounded", "linear", "all_prefixes", "bcd"] = "train"
    """train: the paper's TRaIn; fixed: all ranks from the start (TensoRF); ordered: the same, then
    ranks in order and prefix rays; staged: growth in stages with prefix rays;
    bounded: the same, triggered by TRaIn's criterion near the planned start; linear: ranks evenly over a share of the
    run; all_prefixes: all ranks from the start, rays spread over every prefix (CCNeRF); bcd: blocks of ranks in turn"""
    upsilon: float = 0.4
    """train, bounded: relative change of a batch's loss that raises the rank (the paper's υ)"""
    eta: int = 0
    """train: steps that must pass between two increases (the paper's η)"""
    stage_ranks: tuple[int, ...] = (2, 3, 4, 6, 8, 12, 16)
    """staged, bounded: active rank of each stage; the last goes to the field's full rank"""
    stage_starts: tuple[float, ...] = (0.0, 0.05, 0.09, 0.13, 0.17, 0.21, 0.25)
    """staged, bounded: share of the run at which each stage begins"""
    prefix_share: float = 0.3
    """ordered, staged, bounded: share of rays rendered at a prefix, unless prefixes_per_ray says that all are"""
    prefix_ranks: tuple[int, ...] = (1, 2, 2, 2, 2, 3, 4, 4, 4, 6, 6, 8, 8, 10, 12, 14)
    """staged, bounded: ranks that prefix rays are drawn from, where below the active one: what is named twice is drawn
    twice as often; all ranks if none is named"""
    prefixes_per_ray: int = 0
    """staged, bounded: if above 0, every ray is rendered at the active rank and at so many prefixes drawn from the
    prefix_ranks, none twice, instead of at one rank: each prefix learns from more rays, and a step takes longer"""
    prefix_weight: float = 1.0
    """staged, bounded, with prefixes_per_ray: what the error at a prefix counts for, where that at the active rank
    counts for 1; they are added up"""
    lowest_weight: float = 1.0
    """staged, bounded, with prefixes_per_ray: how much more than another prefix's the lowest one's counts"""
    bounds: tuple[float, float] = (0.5, 1.5)
    """bounded: a stage begins no sooner and no later than these multiples of its planned start"""
    order_at: tuple[float, ...] = (0.6,)
    """ordered: shares of the run at which ranks are put in order; prefixes are rendered from the first on"""
    order_rate: float = 1.0
    """ordered: share of the learning rates with which the rest of the run starts, to fall by lr_decay once more"""
    linear_share: float = 0.5
    """linear: share of the run over which the rank rises from 1 to the field's"""
    bcd_block: int = 4
    """bcd: ranks in a block"""
    bcd_steps: int = 50
    """bcd: steps for which a block learns before it is the next one's turn"""


@with_old_names
@dataclass(frozen=True)
class TrainConfig:
    """How a field is trained."""

    field: FieldConfig = dataclasses.field(default_factory=FieldConfig)
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    steps: int = 30_000
    """optimiser steps"""
    batch_rays: int = 4096
    """rays per step, at most"""
    batch_decoded: int = 0
    """if above 0, a step takes only as many rays as come to about this many decoded samples: while the field is still
    diffuse, a ray costs several times what it does later"""
    lr_factors: float = 0.02
    """learning rate of planes and lines"""
    lr_first_ranks: float = 0.0
    """learning rate of planes and lines of ranks 1 and 2, since few rays show what the first ranks are alone; from
    there it goes as a power of the rank to lr_factors for the last. 0: lr_factors for all"""
    lr_network: float = 1e-3
    """learning rate of the basis and the decoder"""
    lr_decay: float = 0.1
    """learning rates fall by this factor over the run"""
    lr_scales: float = 5e-3
    """learning rate of the scales and shifts per rank"""
    decoder_precision: Literal["float32", "bfloat16"] = "float32"
    """precision of the decoder's matrix products in training (MLP, on a CPU; bfloat16 needs torch and a processor made
    for it)"""
    lazy_adam: bool = False
    """leave texels that a batch gave no gradient as they are; Adam would move them on by their momentum"""
    lr_reset_on_grow: bool = True
    """learning rates start again when the grid grows"""
    grid_start: int = 128
    """grid side at the start: the cube root of the number of voxels"""
    grid_end: int = 300
    """grid side at the end"""
    grow_steps: tuple[int, ...] = (2000, 3000, 4000, 5500, 7000)
    """steps at which the grid grows, log-spaced from grid_start to grid_end"""
    occupancy_steps: tuple[int, ...] = (2000, 4000)
    """steps at which empty space is measured; the box shrinks at the first, rays that miss are dropped at the second"""
    occupancy_threshold: float = 1e-4
    """alpha of one step above which a cell counts as occupied"""
    occupancy_first: float = 0.0
    """if above 0, the threshold at the first refresh, ten times more at every second one after it, up to
    occupancy_threshold: what is found empty once stays empty, and a young field is fog where later there are
    surfaces"""
    step_ratio: float = 0.5
    """distance between samples, in voxels"""
    weight_threshold: float = 1e-4
    """samples of smaller weight are not given a colour"""
    colour_span: float = 0.0
    """samples of a ray that lie within so many voxels of one another share one colour, decoded from their mean; 0 gives
    each its own"""
    early_stop: float = 1e-4
    """a ray ends where less light than this is left; 0 follows every ray to its end"""
    l1_start: float = 8e-5
    """weight of the L1 norm of the density factors until the first occupancy refresh"""
    l1_rest: float = 4e-5
    """weight of the L1 norm of the density factors afterwards"""
    tv_density: float = 0.0
    """weight of the total variation of the density planes"""
    tv_appearance: float = 0.0
    """weight of the total variation of the appearance planes"""
    regularize_every: int = 1
    """L1 norm and total variation concern all texels: they take part once in so many steps, and count for so many times
    as much there. With lazy_adam, steps between touch only the texels that their rays met"""
    distortion: float = 0.0
    """weight of the distortion loss, which draws what a ray meets together into a surface; against floaters"""
    occlusion: float = 0.0
    """weight of what a ray meets right in front of its camera"""
    occlusion_range: float = 0.1
    """how far in front of the camera occlusion counts, as a share of the length of rays"""
    unseen_occlusion: float = 0.0
    """weight of occlusion for rays of cameras that nobody held, near those of the photographs: against what stands
    where no photograph looks through it"""
    unseen_depth: float = 0.0
    """weight of how much depths differ between neighbouring rays of cameras that nobody held, 8 × 8 of each: RegNeRF's
    smooth unseen depth, for few photographs"""
    unseen_rays: int = 512
    """rays of cameras that nobody held in each step"""
    unseen_spread: float = 0.15
    """how far cameras that nobody held are from the photographs': turned about what these look at by up to so many
    radians about each axis, and shifted by up to this share of the distance to there"""
    point_depth: float = 0.0
    """weight of what stands before the sparse points of structure from motion, on rays from the photographs that show
    them, and of light that does not stop at them; for captures that say which photograph shows which (COLMAP), in a box
    or contracted, as long as poses are not refined"""
    point_rays: int = 192
    """rays to sparse points in each step"""
    anneal_share: float = 0.0
    """share of the run over which rays come to be sampled along all of their length, from its middle half on: RegNeRF's
    annealed sampling, for few photographs; not in a contracted space"""
    near_fade: float = 0.0
    """density nearer to a camera than this learns the more slowly, against floaters that only one camera sees; 1 is the
    side of the cube that a contracted space leaves as it is, the length of rays in ndc, the diagonal of a box"""
    image_gains: bool = False
    """learn a gain of each photograph, three numbers, for what exposure and white balance make of its colours"""
    lr_gains: float = 3e-3
    """learning rate of the photographs' log gains"""
    gain_weight: float = 1e-3
    """weight of the mean square of the log gains, which holds them near 0"""
    refine_poses: bool = False
    """learn the photographs' poses with the field: for those that were estimated, not measured"""
    lr_poses: float = 3e-4
    """learning rate of poses: of turns, in radians, and of shifts, in distances of the cameras from what they see"""
    poses_from: float = 0.1
    """share of the run after which poses begin to move: before that there is nothing to compare with"""
    seed: int = 0
    """the one seed that everything random comes from"""
    report_every: int = 25
    """steps between progress reports"""
    checkpoint_every: int = 2500
    """steps between checkpoints"""
    precision: Precision = "compact"
    """how the model that a run ends with is stored: compact, in a tenth of half precision's bytes for a few hundredths
    of a dB, float16 or float32. Single precision is taken where values are too large for half. Models of checkpoints
    are in half precision"""


Space = Literal["box", "ndc", "contracted"]
"""What kind of scene a preset is for: ``Scene.space``."""


PATCH = 8
"""Side of the patches of rays whose depths unseen_depth holds together, as in RegNeRF."""
MARCH = ("step_ratio", "weight_threshold", "early_stop", "colour_span")
"""Settings of training that a model is rendered with as well."""


def with_steps(settings: TrainConfig, steps: int) -> TrainConfig:
    """The same run in another number of steps: the grid grows and empty space is measured at the same shares of it.

    Raises ``ConfigError`` for fewer than 1 step. Steps that would fall together are done once.
    """
    if steps < 1:
        raise ConfigError(f"steps is {steps}: it must be above 0 and below 2^31")

    def moved(at: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted({max(1, round(step * steps / settings.steps)) for step in at}))

    return dataclasses.replace(
        settings,
        steps=steps,
        grow_steps=moved(settings.grow_steps),
        occupancy_steps=moved(settings.occupancy_steps),
    )
