"""What is due between steps: more ranks, a finer grid, empty space measured anew, ranks put in order."""

from typing import TYPE_CHECKING

from tslim.config import TrainConfig
from tslim.training.events import Event, GridGrew, OccupancyRefreshed, RankGrew, RanksOrdered, Warned

if TYPE_CHECKING:
    from tslim.training.trainer import Trainer


def maintain(trainer: "Trainer", cause: str | None) -> list[Event]:
    """What is due between steps: rank, occupancy, box, rays, grid."""
    settings = trainer.config
    events: list[Event] = []
    if cause:
        grown = RankGrew(trainer.step, trainer.rank, cause)
        events.append(grown)
        trainer.grew.append(grown)
        trainer.set_rank()
    if trainer.step in settings.occupancy_steps:
        events += _refresh_occupancy(trainer)
    if trainer.step in settings.grow_steps and settings.grid_end > settings.grid_start:
        trainer.field.grow(_side_after(trainer.config, trainer.step), trainer.optimizer.scratch())
        _restart_optimizer(trainer)
        events.append(GridGrew(trainer.step, trainer.field.grid))
    if trainer.schedule.orders(trainer.step):
        trainer.field.reorder()
        trainer.set_rank()
        trainer.optimizer.reset()
        events.append(RanksOrdered(trainer.step))
    return events


def _side_after(settings: TrainConfig, step: int) -> int:
    """Grid side once the growth at ``step`` is done: log-spaced in voxels from the first to the last."""
    done = (sorted(settings.grow_steps).index(step) + 1) / len(settings.grow_steps)
    return round(settings.grid_start ** (1 - done) * settings.grid_end**done)


def _restart_optimizer(trainer: "Trainer") -> None:
    trainer.optimizer.reset()
    if trainer.config.lr_reset_on_grow:
        trainer.lr_steps = 0


def _refresh_occupancy(trainer: "Trainer") -> list[Event]:
    settings, field = trainer.config, trainer.field
    turn = sorted(settings.occupancy_steps).index(trainer.step)
    ranks = trainer.schedule.emptied(trainer.step)
    before = field.occupancy
    threshold = settings.occupancy_threshold
    if settings.occupancy_first:
        threshold = min(threshold, settings.occupancy_first * 10 ** (turn / 2))
    share = field.refresh_occupancy(ranks, settings.step_ratio * field.voxel, threshold)
    tight = field.occupancy.tight_box() if field.occupancy else None
    if tight is None:
        field.occupancy = before
        return [Warned(trainer.step, "nothing is occupied yet: the field is still empty, its grid stays as it was")]
    events: list[Event] = []
    box = None
    if turn == 0:
        trainer.l1 = settings.l1_rest
        if field.space != "contracted":  # there all of the box is somewhere
            field.shrink(tight, trainer.optimizer.scratch())
            _restart_optimizer(trainer)
            box = (tuple(field.box[0].tolist()), tuple(field.box[1].tolist()))
    events.append(OccupancyRefreshed(trainer.step, share, box))
    if turn == 1 and trainer.scene.background is not None:  # without one, a ray that meets nothing is a mistake
        trainer.sampler.keep_hits(trainer.pipeline)
    return events
