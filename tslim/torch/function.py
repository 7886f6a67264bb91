"""``render``: rays to colours, depths and opacities, differentiable once with respect to all that goes in."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tslim.device import backend, buffers
from tslim.errors import ConfigError, short
from tslim.field.field import Field
from tslim.field.parameters import Gradients
from tslim.rendering.arguments import Background, background_of, ranks_of_rays, sampling_of
from tslim.rendering.batch import Rays
from tslim.rendering.pipeline import MarchConfig, Pipeline
from tslim.torch import pieces
from tslim.torch.field_module import FieldModule

SHORTEST = 1e-12
"""Length that a direction has at least: single precision knows no shorter one's length."""


def render(
    field: Field | FieldModule,
    origins: torch.Tensor,
    directions: torch.Tensor,
    *,
    rank: int | torch.Tensor | np.ndarray | None = None,
    background: Background | None = None,
    jitter: tuple[int, int] | None = None,
    config: MarchConfig | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Renders rays.

    Differentiated once with respect to ``origins``, ``directions`` and, of a ``FieldModule``, its parameters. Not
    differentiated: ranks, the background, where along a ray samples lie (each stays at its distance from the origin, in
    ndc from the near plane), which of them are bright enough to be given a colour, and the end of a ray where little
    light is left.

    Args:
        field: what to render; of a plain ``Field`` only rays get gradients.
        origins: (..., 3) in world units, or one (3,) for all rays.
        directions: (..., 3), of any length: they are normalised here.
        rank: one rank for all rays or (...) one for each; the field's if None.
        background: colour behind the field; the field's own, else white, if None. One that is to be learned, or
            another for each ray: render on black, ``(0, 0, 0)``, and add ``(1 - opacity)`` times the colour.
        jitter: (seed, step) of the random part of a step by which each ray's samples are shifted, as in training; None
            for none.
        config: sampling; the module's, else as the field was trained, if None.

    Returns:
        Tensors in single precision: ``rgb`` (..., 3) sRGB, not clamped; ``depth`` (...) the sum of weight times
        distance in world units, of which ``depth / opacity`` is the mean; ``opacity`` (...) in [0, 1].

    Raises:
        ConfigError: shapes or devices that do not fit, what is no ray, or ranks that the field does not have; and, when
            a gradient is differentiated again, that this cannot be.
        BackendError: the device computes wrong gradients.
    """
    backend.current().require_gradients()
    module = field if isinstance(field, FieldModule) else None
    if module is None and not isinstance(field, Field):
        raise ConfigError(f"cannot render {short(field)}: expected a Field or a FieldModule")
    plain: Field = field if module is None else module.field
    origins, unit, shape = _unit_rays(origins, directions)
    if isinstance(rank, torch.Tensor):
        rank = rank.detach().cpu().numpy()
    how = _How(ranks_of_rays(plain, rank, shape), background_of(plain, background), _jitter(jitter))
    parameters: list[torch.Tensor] = []
    if module is not None:
        config = config or module.config
        module.hand_over()
        parameters = [*module.in_order()]
    rgb, depth, opacity = _Render.apply(_engine(plain, config), how, origins, unit, *parameters)
    return rgb.reshape(*shape, 3), depth.reshape(shape), opacity.reshape(shape)


def _unit_rays(origins: Any, directions: Any) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]:
    """Origins and unit directions (n, 3) in single precision, and the shape that the rays come in."""
    for name, given in (("origins", origins), ("directions", directions)):
        if not isinstance(given, torch.Tensor):
            raise ConfigError(f"{name} are {type(given).__name__}: expected a tensor of torch")
    if origins.shape == (3,):
        origins = origins.expand_as(directions)
    if directions.shape != origins.shape or directions.shape[-1:] != (3,):
        raise ConfigError(f"origins {tuple(origins.shape)}, directions {tuple(directions.shape)}: expected (..., 3)")
    if origins.device != directions.device:
        raise ConfigError(f"origins on {origins.device}, directions on {directions.device}: expected one device")
    shape = tuple(directions.shape[:-1])
    origins, directions = origins.reshape(-1, 3), directions.reshape(-1, 3)
    if not directions.dtype.is_floating_point or directions.dtype.itemsize < 4:
        directions = directions.float()
    length = torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    with torch.no_grad():
        right = origins.isfinite().all(1) & length[:, 0].isfinite() & (length[:, 0] > SHORTEST)
        if not right.all():
            i = int(right.long().argmin())
            raise ConfigError(f"ray {i} from {origins[i].tolist()} along {directions[i].tolist()}: no ray")
    return origins.float(), (directions / length).float(), shape


def _jitter(jitter: Any) -> tuple[int, int] | None:
    """The seed and the step of a jitter, as the kernel takes them."""
    if jitter is None:
        return None
    numbers = np.asarray(jitter)
    if numbers.shape != (2,) or numbers.dtype.kind not in "iu" or not ((0 <= numbers) & (numbers < 2**32)).all():
        raise ConfigError(f"jitter {short(jitter)}: expected a seed and a step, whole numbers from 0 on")
    return int(numbers[0]), int(numbers[1])


@dataclass(frozen=True, eq=False)
class _How:
    """What a forward pass was told besides its rays."""

    ranks: np.ndarray
    background: Background
    jitter: tuple[int, int] | None


class _Engine:
    """The pipeline of one field, and what it computed last."""

    def __init__(self, field: Field, config: MarchConfig | None) -> None:
        self.field = field
        self.config = sampling_of(field, config)
        self._reserve(1)
        self.gradients: Gradients | None = None
        self.grid = field.grid
        self.calls = 0

    def _reserve(self, max_rays: int) -> None:
        self.pipeline = Pipeline(self.field, Rays(max_rays), self.config)

    def forward(self, how: _How, origins: torch.Tensor, directions: torch.Tensor) -> None:
        """Renders."""
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

    def state(self) -> tuple:
        """What tells the last forward pass from all others, here or of the decoder's elsewhere."""
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
    """The engine of this field, which is kept with it. Slimmed views, which begin with what it has, get their own."""
    owner, engines = vars(field).get("_torch_engines", (None, {}))
    if owner is not field:
        engines = {}
        vars(field)["_torch_engines"] = (field, engines)
    if config not in engines:
        engines[config] = _Engine(field, config)
    return engines[config]


class _Render(torch.autograd.Function):
    """A forward pass of the pipeline and its adjoint, which does the forward pass anew if another came in between."""

    @staticmethod
    def forward(engine: _Engine, how: _How, origins, directions, *parameters):
        if not len(how.ranks):
            return origins.new_empty(0, 3), origins.new_empty(0), origins.new_empty(0)
        engine.forward(how, origins, directions)
        return engine.results(origins.device)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.engine, ctx.how, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.state = ctx.engine.state() if len(ctx.how.ranks) else None

    @staticmethod
    def backward(ctx, by_rgb, by_depth, by_opacity):
        with torch.no_grad():
            found = _Render._gradients(ctx, by_rgb, by_depth, by_opacity)
        if torch.is_grad_enabled():  # what follows may be differentiated again
            found = _DifferentiableOnce.apply(len(found), *found, *ctx.saved_tensors, by_rgb, by_depth, by_opacity)
        return (None, None, *found)

    @staticmethod
    def _gradients(ctx, by_rgb, by_depth, by_opacity) -> tuple:
        """Of origins, directions and parameters; None for those that need none."""
        origins, directions, *parameters = ctx.saved_tensors  # torch refuses what was changed in place since
        if ctx.state is None:
            return tuple(torch.zeros_like(t) for t in (origins, directions, *parameters))
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
        return (*by_rays, *by_parameters)


class _DifferentiableOnce(torch.autograd.Function):
    """The first few of its arguments; a gradient of them is asked for in vain, and not taken for zero."""

    @staticmethod
    def forward(n: int, *tensors):
        return tuple(None if tensor is None else tensor.clone() for tensor in tensors[:n])

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Keeps nothing."""

    @staticmethod
    def backward(ctx, *by_results):
        raise ConfigError("tslim.torch.render is differentiable once: gradients of its gradients are not known")
