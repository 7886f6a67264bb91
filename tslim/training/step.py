"""One optimiser step of a trainer: a batch rendered and compared, gradients, and what moves against them."""

from typing import TYPE_CHECKING

import numpy as np

from kernels import regularize
from tslim.device import backend, buffers
from tslim.field.parameters import Kind
from tslim.rendering.penalties import backward as penalties_backward
from tslim.training.divergence import SLOWER, require_sense

if TYPE_CHECKING:
    from tslim.training.trainer import Trainer

MIN_RAYS = 256
"""Rays that a step takes at least."""
ANNEALED_FROM = 0.5
"""Share of their length in which rays are sampled at first, where sampling is annealed (RegNeRF's p_s)."""
STARTED_OPACITY = 0.01
"""Mean opacity of a batch's rays from which on a field counts as no longer empty."""


def train_step(trainer: "Trainer") -> str | None:
    """One optimiser step; returns why the rank grew after it, if it did."""
    step, background = trainer.step, trainer.background
    ranks = _render(trainer, background)
    _backward(trainer)
    _update(trainer)
    _fit_batch(trainer)
    trainer.lr_steps += 1
    trainer.step += 1
    loss = _add_to_report(trainer, ranks, background)
    return trainer.schedule.update(step, loss)


def _render(trainer: "Trainer", background: tuple[float, float, float]) -> np.ndarray:
    """Renders the step's batch and compares it; returns the ranks of its rays."""
    schedule, batch, step = trainer.schedule, trainer.batch, trainer.step
    ranks = schedule.ray_ranks(step, trainer.n_pixels, np.random.default_rng([trainer.config.seed, 2, step]))
    trainer.sampler.fill(batch, trainer.n_pixels)
    batch.render_at(ranks, schedule.weights(ranks.reshape(-1)))
    trainer.pipeline.forward(
        batch.n_rays, max_rank=trainer.rank, background=background, jitter=(trainer.config.seed, step),
        copies=batch.copies, within=sampled_share(trainer),
    )  # fmt: skip
    if not trainer.started:
        trainer.started = float(buffers.read(batch.opacity)[: batch.n_rays].mean()) >= STARTED_OPACITY
    if trainer.gains:
        trainer.gains.apply(batch)
    batch.compare()
    return ranks.reshape(-1)


def _backward(trainer: "Trainer") -> None:
    """Adds up the step's gradients."""
    settings, pipeline, batch, gradients = trainer.config, trainer.pipeline, trainer.batch, trainer.optimizer.gradients
    if trainer.gains:
        trainer.gains.backward(batch)
    penalties = trainer.penalties
    if penalties is not None:  # they count for as much as the errors of a ray's renders do together
        penalties = penalties.times(batch.pixel_weight)
    refinement = trainer.refinement if trainer.step >= settings.poses_from * settings.steps else None
    if refinement:  # cameras follow what images show, and not what penalties want
        pipeline.backward(gradients, None, settings.near_fade, of_rays=True)
        refinement.backward(pipeline, batch)
        if penalties is not None:
            penalties_backward(pipeline, gradients, penalties, settings.near_fade)
    else:
        pipeline.backward(gradients, penalties, settings.near_fade)
    if trainer.unseen and trainer.started:
        trainer.unseen.backward(batch, trainer.step, gradients)
    if trainer.points and trainer.started:
        trainer.points.backward(batch, trainer.step, gradients)
    if _regularised(trainer):
        _total_variation(trainer, gradients, trainer.rank, _regularised(trainer))


def _regularised(trainer: "Trainer") -> int:
    """What regularisers count for in this step: 0, or the number of steps that they stand for."""
    every = trainer.config.regularize_every
    return 0 if trainer.step % every else every


def _update(trainer: "Trainer") -> None:
    """Moves all that is learned against its gradient."""
    settings, schedule, step = trainer.config, trainer.schedule, trainer.step
    fall = schedule.pace(step, settings.lr_decay)
    if fall is None:
        fall = settings.lr_decay ** (trainer.lr_steps / settings.steps)
    fall *= SLOWER**trainer.setbacks
    rates: dict[Kind, float] = {
        "factors": fall * settings.lr_factors,
        "network": fall * settings.lr_network,
        "scales": fall * settings.lr_scales,
        "gains": fall * settings.lr_gains,
        "poses": fall * settings.lr_poses,
    }
    first, last = schedule.learning(step)
    l1 = _regularised(trainer) * trainer.l1 if trainer.started else 0.0
    trainer.optimizer.step(last, rates, first_rank=first, l1_density=l1, lazy=settings.lazy_adam)
    for learned in trainer.of_images():
        learned.after_step()
    trainer.field.interpolate_rows(schedule.rendered(step))


def _fit_batch(trainer: "Trainer") -> None:
    """Sets ``n_pixels`` so that the next step decodes about as many samples as ``batch_decoded`` says."""
    settings, n = trainer.config, trainer.n_pixels
    if settings.batch_decoded:
        fitting = settings.batch_decoded * n // max(trainer.pipeline.n_visible, 1)
        trainer.n_pixels = min(max(fitting, n // 2, MIN_RAYS), 2 * n, settings.batch_rays)


def _add_to_report(trainer: "Trainer", ranks: np.ndarray, background: tuple[float, float, float]) -> float | None:
    """Adds the step to a report; returns the mean loss at the active rank, if it was looked at."""
    settings, batch, window, loss = trainer.config, trainer.batch, trainer.window, None
    n, on_cpu = batch.n_rays, backend.current().is_cpu
    due = trainer.step % settings.report_every == 0 or trainer.step == settings.steps
    if trainer.schedule.needs_loss or on_cpu or due:
        losses = buffers.read(batch.loss)[:n]
        require_sense(trainer, losses, parameters=due)
        loss = window.add_losses(trainer.rank, ranks, losses)
        if on_cpu or due:
            target = buffers.read(batch.target)[: 3 * n].reshape(n, 3)
            window.add_colours(target, background, buffers.read(batch.opacity)[:n])
    window.add(trainer.pipeline)
    return loss


def _total_variation(trainer: "Trainer", gradients, rank: int, times: float) -> None:
    """Adds the gradients of the total variation, at so many times its weight."""
    field, settings = trainer.field, trainer.config
    for weight, factors, into, k in (
        (settings.tv_density, field.density, gradients.density, rank),
        (settings.tv_appearance, field.appearance, gradients.appearance, 3 * rank),
    ):
        if weight:
            regularize.tv_backward(factors.values, into.values, factors.layout, k, times * weight)


def sampled_share(trainer: "Trainer") -> float:
    """Share of their length in which the rays of the next step are sampled (``anneal_share``)."""
    if not trainer.config.anneal_share:
        return 1.0
    return min(max(trainer.step / (trainer.config.anneal_share * trainer.config.steps), ANNEALED_FROM), 1.0)
