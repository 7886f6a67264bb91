"""The renderer as one differentiable operation of Taichi's autodiff: its adjoint is the hand-written one.

::

    renderer = tslim.DifferentiableRenderer(field, origins, directions)
    with ti.ad.Tape(loss):
        renderer.render()       # fills renderer.rgb, .opacity, .depth
        my_loss_kernel()        # any kernel of yours that reads them and adds to loss[None]
    renderer.gradients()        # dL/d(everything that the field is made of)
    renderer.ray_gradients()    # dL/d(origins), dL/d(directions)

Your kernels are differentiated by Taichi, with respect to fields of your own as well; the renderer in between by its
adjoint, registered with ``ti.ad.grad_replaced``.
"""

import math

import numpy as np
import taichi as ti

from kernels import tape
from tslim.device import backend, buffers
from tslim.errors import ConfigError
from tslim.field.basis import device_rows
from tslim.field.field import Field
from tslim.field.parameters import Gradients, parameters_of
from tslim.model.state import N_FEATURES
from tslim.rendering.arguments import background_of, ranks_of_rays, sampling_of
from tslim.rendering.batch import Rays
from tslim.rendering.pipeline import MarchConfig, Pipeline
from tslim.rendering.ray_space import unit_rays


class DifferentiableRenderer:
    """Renders a fixed set of rays, and carries gradients back to the field.

    Not differentiated: ranks, where along a ray samples lie, which of them are bright enough to be given a colour, and
    the end of a ray where little light is left.

    Args:
        field: what to render.
        origins: (n, 3) in world units.
        directions: (n, 3), normalised here.
        rank: one rank for all rays or (n,) one for each; the field's if None.
        background: colour behind the field; the field's own, else white, if None.
        config: sampling; by default as the field was trained.

    Raises:
        ConfigError: shapes that do not fit, or ranks that the field does not have.
        BackendError: the device computes wrong gradients.
    """

    def __init__(
        self,
        field: Field,
        origins: np.ndarray,
        directions: np.ndarray,
        *,
        rank: int | np.ndarray | None = None,
        background: tuple[float, float, float] | None = None,
        config: MarchConfig | None = None,
    ) -> None:
        backend.current().require_gradients()
        self._lengths = np.linalg.norm(np.asarray(directions, np.float32), axis=-1, keepdims=True)
        origins, directions = unit_rays(origins, directions)
        n = len(directions)
        if n == 0:
            raise ConfigError("no rays: expected one at least")
        ranks = ranks_of_rays(field, rank, (n,))
        self.field = field
        self.n_rays = n
        self.background = background_of(field, background)
        self.rgb = ti.Vector.field(3, ti.f32, n, needs_grad=True)
        """sRGB of each ray, not clamped"""
        self.opacity = ti.field(ti.f32, n, needs_grad=True)
        self.depth = ti.field(ti.f32, n, needs_grad=True)
        """sum of weight times distance along the ray: in world units, but in ndc in the units of that space"""
        self._max_rank = int(ranks.max())
        self._pipeline = Pipeline(field, Rays(n), sampling_of(field, config))
        self._gradients = Gradients(field)
        buffers.write(self._pipeline.rays.origins, origins.ravel())
        buffers.write(self._pipeline.rays.directions, directions.ravel())
        buffers.write(self._pipeline.rays.ranks, ranks)

    @ti.ad.grad_replaced
    def render(self) -> None:
        """Fills ``rgb``, ``opacity`` and ``depth`` from the field as it is now. At most once within a tape."""
        p = self._pipeline
        p.forward(self.n_rays, max_rank=self._max_rank, background=self.background)
        tape.publish(self.n_rays, p.rays.pixel, p.rays.opacity, p.rays.depth, self.rgb, self.opacity, self.depth)

    @ti.ad.grad_for(render)
    def _render_adjoint(self) -> None:
        p = self._pipeline
        tape.collect_gradients(
            self.n_rays, self.rgb, self.opacity, self.depth, p.rays.grad_pixel, p.rays.grad_opacity, p.rays.grad_depth
        )
        self._gradients.clear()
        p.backward(self._gradients, of_rays=True)

    def gradients(self) -> dict[str, np.ndarray]:
        """Host copies of the gradients of the last tape, named and shaped as in ``FieldState``.

        ``density_planes[0]`` (R, G_v, G_u) and so on for planes and lines of both kinds and the three modes; ``basis``
        (3, 3R, 27); ``rank_scales`` (R, 56) if the field learns them; ``decoder.w1`` and so on.
        """
        rank, named = self.field.rank, dict[str, np.ndarray]()
        for parameter in parameters_of(self.field, self._gradients):
            if parameter.kind == "factors":
                parts = parameter.gradient.get(parameter.per_rank * rank)
                for part, arrays in zip(("planes", "lines"), parts, strict=True):
                    named |= {f"{parameter.name}_{part}[{mode}]": values for mode, values in enumerate(arrays)}
                continue
            flat = buffers.read(parameter.gradient)
            for name, (first, shape) in parameter.tensors.items():
                named[name] = flat[first : first + math.prod(shape)].reshape(shape)
        named["basis"] = named["basis"].reshape(-1, N_FEATURES)[device_rows(3 * rank)]
        if "rank_scales" in named:
            named["rank_scales"] = named["rank_scales"][:rank]
        return named

    def ray_gradients(self) -> tuple[np.ndarray, np.ndarray]:
        """(n, 3) each: gradients of the rays' origins, and of their directions as they were given, after the last tape.

        Samples stay at their distances along the rays (in ndc: from the near plane in that space). The sum of those of
        the origins is the gradient of a shift of the camera.
        """
        grad_o, grad_d = (buffers.array(3 * self.n_rays) for _ in range(2))
        self._pipeline.ray_gradients(grad_o, grad_d)
        by_o, by_unit = (buffers.read(a).reshape(-1, 3) for a in (grad_o, grad_d))
        unit = buffers.read(self._pipeline.rays.directions).reshape(-1, 3)
        along = (by_unit * unit).sum(1, keepdims=True)
        return by_o, (by_unit - along * unit) / self._lengths
