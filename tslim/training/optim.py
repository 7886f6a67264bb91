"""Adam over everything a field learns, in one pass over the active ranks."""

import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kernels import adam
from tslim.device import buffers
from tslim.field.factors import Factors
from tslim.field.field import Field
from tslim.field.parameters import Gradients, Kind, Parameter, parameters_of

BETAS = (0.9, 0.99)
"""As in TensoRF."""
EPS = 1e-8


class Optimizer:
    """Gradients and moments of one field, and the update.

    Args:
        field: what to train.
        ratio: how much faster the factors of ranks 1 and 2 learn than those of the last rank. In between the learning
            rate is a power of the rank.
        of_images: flat parameters that are learned of each image, beside those of the field.
    """

    def __init__(self, field: Field, ratio: float = 1.0, of_images: Sequence[Parameter] = ()) -> None:
        self.field = field
        self.pace = np.ones(field.max_rank, np.float32)
        """How much faster than the last rank each rank learns."""
        if field.max_rank > 2:
            ranks = np.maximum(np.arange(1, field.max_rank + 1), 2)
            self.pace[:] = (field.max_rank / ranks) ** (math.log(ratio) / math.log(field.max_rank / 2))
        self.gradients = Gradients(field)
        self.parameters = (*parameters_of(field, self.gradients), *of_images)
        self.factors = [parameter for parameter in self.parameters if parameter.kind == "factors"]
        self.flat = [parameter for parameter in self.parameters if parameter.kind != "factors"]
        self.component_pace = {p.name: buffers.array(buffers.CHUNK * p.value.chunks) for p in self.factors}
        """The same of each component, as the kernel takes it: 0 for those of ranks that do not learn."""
        self.learning = (0, 0)
        """Ranks first + 1 .. last for which ``component_pace`` is made."""
        self.moments: dict[str, tuple[Any, Any]] = {
            p.name: (p.value.zeros_like(), p.value.zeros_like()) for p in self.factors
        }
        """Adam's two of each parameter, of the kind that its value is."""
        self.moments |= {p.name: (buffers.array(p.n_values), buffers.array(p.n_values)) for p in self.flat}
        self.count = 0
        """Steps since the moments were zeroed."""
        self.release = weakref.finalize(self, _release, self.gradients, [self.moments[p.name] for p in self.factors])
        """Gives the arenas back; an optimizer that nobody refers to any more does it by itself."""

    @property
    def nbytes(self) -> int:
        """Bytes of gradients and moments."""
        return 12 * sum(parameter.n_values for parameter in self.parameters)

    def scratch(self) -> tuple[Factors, Factors]:
        """Factors that may be overwritten when the moments are about to be reset: the second moments."""
        return self.moments["density"][1], self.moments["appearance"][1]

    def reset(self) -> None:
        """Zeroes gradients and moments, on the field's present grid."""
        for p in self.factors:
            for factors in (p.gradient, *self.moments[p.name]):
                factors.fit(self.field.grid)
            for moment in self.moments[p.name]:
                moment.clear()
        for p in self.flat:
            for moment in self.moments[p.name]:
                moment.fill(0)
        self.gradients.clear()
        self.count = 0

    def _set_component_pace(self, first: int, last: int) -> None:
        """Makes ``component_pace`` that of ranks first + 1 .. last."""
        if self.learning == (first, last):
            return
        self.learning = (first, last)
        for p in self.factors:
            pace = np.zeros(self.component_pace[p.name].shape[0], np.float32)
            pace[p.per_rank * first : p.per_rank * last] = np.repeat(self.pace[first:last], p.per_rank)
            buffers.write(self.component_pace[p.name], pace)

    def step(
        self,
        rank: int,
        lr: Mapping[Kind, float],
        *,
        l1_density: float = 0.0,
        lazy: bool = False,
        first_rank: int = 0,
    ) -> None:
        """One Adam step over ranks ``first_rank + 1 .. rank``; the others stay as they are.

        ``lr`` is the learning rate of each kind of parameter. Basis, decoder and scales are shared and always take
        part. Gradients are zeroed, those of left-out active ranks as well. ``l1_density`` weighs the L1 norm of the
        density factors: the sum over modes of the mean of |plane| and of |line|, over all components that there is room
        for. ``lazy`` leaves texels without a gradient as they are.
        """
        self.count += 1
        self._set_component_pace(first_rank, rank)
        constants = adam.AdamStep(
            lr=lr["factors"], beta1=BETAS[0], beta2=BETAS[1], correction1=1 / (1 - BETAS[0] ** self.count),
            correction2=1 / (1 - BETAS[1] ** self.count), eps=EPS,
        )  # fmt: skip
        for p in self.factors:
            m, v = self.moments[p.name]
            l1_planes: tuple[float, ...] = (0.0, 0.0, 0.0)
            l1_lines = l1_planes
            if p.name == "density" and l1_density:
                texels = p.value.texels()
                l1_planes = tuple(l1_density / (self.field.max_rank * plane) for plane, _ in texels)
                l1_lines = tuple(l1_density / (self.field.max_rank * line) for _, line in texels)
            step = adam.ArenaStep(
                adam=constants, first_chunk=p.per_rank * first_rank // buffers.CHUNK,
                end_chunk=-(-p.per_rank * rank // buffers.CHUNK), l1_planes=l1_planes, l1_lines=l1_lines,
                lazy=int(lazy and not any(l1_planes)),
            )  # fmt: skip
            adam.adam_arena(
                p.value.values, p.gradient.values, m.values, v.values, p.value.layout, step,
                self.component_pace[p.name],
            )  # fmt: skip
        for p in self.flat:
            m, v = self.moments[p.name]
            adam.adam_flat(p.value, p.gradient, m, v, 0, p.n_values, constants.replace(lr=lr[p.kind]))
        if first_rank > 0 or rank < self.field.rank:
            self.gradients.clear()

    # -- to continue exactly -----------------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """Host copies of all parameters and moments by name."""
        out = {}
        for p in self.parameters:
            for part, array in zip("pmv", (p.value, *self.moments[p.name]), strict=True):
                if p.kind != "factors":
                    out[f"{p.name}.{part}"] = buffers.read(array)
                    continue
                planes, lines = array.get(array.components)
                for mode in range(3):
                    out[f"{p.name}.{part}.plane{mode}"] = planes[mode]
                    out[f"{p.name}.{part}.line{mode}"] = lines[mode]
        return out

    def load_state(self, arrays: dict[str, np.ndarray]) -> None:
        """The inverse of ``state``; the field must have the grid that the arrays were saved on."""
        for p in self.parameters:
            for part, into in zip("pmv", (p.value, *self.moments[p.name]), strict=True):
                if p.kind != "factors":
                    buffers.write(into, arrays[f"{p.name}.{part}"])
                    continue
                into.put(
                    [arrays[f"{p.name}.{part}.plane{mode}"] for mode in range(3)],
                    [arrays[f"{p.name}.{part}.line{mode}"] for mode in range(3)],
                )


def _release(gradients: Gradients, moments: list[tuple[Factors, Factors]]) -> None:
    gradients.release()
    for pair in moments:
        for factors in pair:
            factors.release()
