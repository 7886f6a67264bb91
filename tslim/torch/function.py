"""``render``: rays to colours, depths and opacities, differentiable once with respect to all that goes in."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from tslim.device import backend, buffers
from tslim.errors import ConfigError
from tslim.field.field import Field
from tslim.field.parameters import Gradients
from tslim.rendering.batch import Rays
from tslim.rendering.pipeline import MarchConfig, Pipeline
from tslim.torch import pieces
from tslim.torch.field_module import FieldModule

WHITE = (1.0, 1.0, 1.0)
Colour = tuple[float, float, float]


def render(
    field: Field | FieldModule,
    origins: torch.Tensor,
    directions: torch.Tensor,
    *,
    rank: int | torch.Tensor | np.ndarray | None = None,
    background: Colour | None = None,
    jitter: tuple[int, int] | None = None,
    config: MarchConfig | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Renders rays.

    Differentiated with respect to ``origins``, ``directions`` and, of a ``FieldModule``, its parameters. Not
    differentiated: ranks, the background, where along a ray samples lie (each stays at its distance from the origin, in
    ndc from the near plane), which of them are bright enough to be given a colour, and the end of a ray where little
    light is left.

    Args:
        field: what to render; of a plain ``Field`` only rays get gradients.
        origins: (..., 3) in world units.
        directions: (..., 3), of any length: they are normalised here.
        rank: one rank for all rays or (...) one for each; the field's if None.
        background: colour behind the field; the field's own, else white, if None.
        jitter: (seed, step) of the random part of a step by which each ray's samples are shifted, as in training; None
            for none.
        config: sampling; the module's, else as the field was trained, if None.

    Returns:
        ``rgb`` (..., 3) sRGB, not clamped; ``depth`` (...) the sum of weight times distance in world units, of
        which ``depth / opacity`` is the mean; ``opacity`` (...) in [0, 1].

    Raises:
        ConfigError: shapes that do not fit, or ranks that the field does not have.
        BackendError: the device computes wrong gradients.
    """
    backend.current().require_gradients()
    module = field if isinstance(field, FieldModule) else None
    plain: Field = field if module is None else module.field
    if directions.shape != origins.shape or directions.shape[-1:] != (3,):
        raise ConfigError(f"origins {tuple(origins.shape)}, directions {tuple(directions.shape)}: expected (..., 3)")
    shape = directions.shape[:-1]
    ranks = _ranks(plain, rank, shape)
    parameters: list[torch.Tensor] = []
    if module is not None:
        config = config or module.config
        module.hand_over()
        parameters = [*module.in_order()]
    unit = torch.nn.functional.normalize(directions.float().reshape(-1, 3), dim=1)
    engine = _engine(plain, config)
    how = _How(ranks, background or plain.background or WHITE, jitter)
    rgb, depth, opacity = _Render.apply(engine, how, origins.float().reshape(-1, 3), unit, *parameters)
    return rgb.reshape(*shape, 3), depth.reshape(shape), opacity.reshape(shape)


def _ranks(field: Field, rank: Any, shape: torch.Size) -> np.ndarray:
    if isinstance(rank, torch.Tensor):
        rank = rank.detach().cpu().numpy()
    ranks_asked = np.asarray(field.rank if rank is None else rank)
    if ranks_asked.ndim and ranks_asked.shape != tuple(shape):
        raise ConfigError(f"ranks {ranks_asked.shape}: expected one, or as many as rays, {tuple(shape)}")
    ranks = np.broadcast_to(ranks_asked.astype(np.int32), tuple(shape)).reshape(-1)
    if ranks.size and not (1 <= ranks.min() and ranks.max() <= field.rank):
        raise ConfigError(f"ranks {ranks.min()} to {ranks.max()}: this field has ranks 1 to {field.rank}")
    return np.ascontiguousarray(ranks)


@dataclass(frozen=True, eq=False)
class _How:
    """What a forward pass was told besides its rays."""

    ranks: np.ndarray
    background: Colour
    jitter: tuple[int, int] | None


class _Engine:
    """The pipeline of one field, and what it computed last."""

    def __init__(self, field: Field, config: MarchConfig | None) -> None:
        trained = field.metadata.get("march")
        self.field = field
        self.config = config or (MarchConfig(**trained) if trained else MarchConfig())
        self._reserve(1)
        self.gradients: Gradients | None = None
        self.grid = field.grid
        self.calls = 0

    def _reserve(self, max_rays: int) -> None:
        self.pipeline = Pipeline(self.field, Rays(max_rays), self.config)

    def forward(self, how: _How, origins: torch.Tensor, directions: torch.Tensor) -> tuple:
        """Renders; returns what tells this pass from others that may come before its backward pass."""
        n = len(how.ranks)
        if self.pipeline.rays.max_rays < n:
            self._reserve(n)
        p = self.pipeline
        pieces.of_array(p.rays.origins, n, 3).load(origins)
        pieces.of_array(p.rays.directions, n, 3).load(directions)
        pieces.ranks_on_device(p.rays.ranks, how.ranks)
        p.forward(n, max_rank=int(how.ranks.max()), background=how.background, jitter=how.jitter)
        p.space.to_world_depth(n, p.rays.opacity, p.rays.depth)
        self.calls += 1
        return self.state()

    def state(self) -> tuple:
        """Changes with every forward pass, here or of the decoder's elsewhere."""
        return self.calls, self.field.decoder.passes

    def results(self, device: torch.device) -> tuple[torch.Tensor, ...]:
        """rgb, depth, opacity of the last forward pass."""
        rays, n = self.pipeline.rays, self.pipeline.n_rays
        found = (pieces.of_array(rays.pixel, n, 3), pieces.of_array(rays.depth, n), pieces.of_array(rays.opacity, n))
        return tuple(piece.fetch(device) for piece in found)

    def by_parameters(self) -> dict[str, pieces.Piece]:
        """Gradients of what the field is made of, after ``backward``."""
        if self.gradients is None:
            raise ValueError("there was no backward pass")
        return pieces.of_gradients(self.field, self.gradients)

    def backward(self, by_rgb: torch.Tensor, by_depth: torch.Tensor, by_opacity: torch.Tensor, of_rays: bool) -> tuple:
        """Gradients of origins and directions (None without ``of_rays``); those of parameters are in ``gradients``."""
        p, n = self.pipeline, self.pipeline.n_rays
        if self.gradients is None or self.grid != self.field.grid:
            self.gradients, self.grid = Gradients(self.field), self.field.grid
        self.gradients.clear()
        pieces.of_array(p.rays.grad_pixel, n, 3).load(by_rgb)
        pieces.of_array(p.rays.grad_depth, n).load(by_depth)
        pieces.of_array(p.rays.grad_opacity, n).load(by_opacity)
        through_depth = [buffers.array(3 * n), buffers.array(3 * n)]
        p.space.depth_backward(n, p.rays.opacity, p.rays.depth, p.rays.grad_opacity, p.rays.grad_depth, *through_depth)
        p.backward(self.gradients, of_rays=of_rays)
        if not of_rays:
            return None, None
        by_rays = [buffers.array(3 * n), buffers.array(3 * n)]
        p.ray_gradients(*by_rays)
        parts = ([pieces.of_array(a, n, 3).fetch(by_rgb.device) for a in arrays] for arrays in (by_rays, through_depth))
        return tuple(a + b for a, b in zip(*parts, strict=True))


def _engine(field: Field, config: MarchConfig | None) -> _Engine:
    """The engine of this field, which is kept with it; slimmed views, which share what it has, have engines of their
    own.
    """
    engines, key = vars(field).setdefault("_torch_engines", {}), (id(field), config)
    if key not in engines:
        engines[key] = _Engine(field, config)
    return engines[key]


class _Render(torch.autograd.Function):
    """A forward pass of the pipeline and its adjoint, which does the forward pass anew if another came in between."""

    @staticmethod
    def forward(ctx, engine: _Engine, how: _How, origins, directions, *parameters):
        ctx.engine, ctx.how = engine, how
        ctx.save_for_backward(origins, directions, *parameters)
        if not len(how.ranks):
            ctx.state = None
            return origins.new_empty(0, 3), origins.new_empty(0), origins.new_empty(0)
        ctx.state = engine.forward(how, origins, directions)
        return engine.results(origins.device)

    @staticmethod
    @once_differentiable
    def backward(ctx, by_rgb, by_depth, by_opacity):
        origins, directions, *parameters = ctx.saved_tensors  # torch refuses what was changed in place since
        if ctx.state is None:
            return (None, None, *(torch.zeros_like(t) for t in (origins, directions, *parameters)))
        engine: _Engine = ctx.engine
        if engine.state() != ctx.state:
            engine.forward(ctx.how, origins, directions)
        by_rays = engine.backward(by_rgb, by_depth, by_opacity, any(ctx.needs_input_grad[2:4]))
        by_parameters: list[torch.Tensor | None] = []
        wanted = ctx.needs_input_grad[4:]
        if any(wanted):
            found = engine.by_parameters().values()
            by_parameters = [
                piece.fetch(parameter.device) if asked else None
                for piece, parameter, asked in zip(found, parameters, wanted, strict=True)
            ]
        else:
            by_parameters = [None] * len(parameters)
        return (None, None, *by_rays, *by_parameters)
