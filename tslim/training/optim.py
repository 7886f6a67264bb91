"""Adam over everything a field learns, in one pass over the active ranks."""

import math
import weakref
from typing import Any

import numpy as np

from kernels import adam
from tslim.device import buffers
from tslim.field.field import Factors, Field
from tslim.rendering.pipeline import Gradients

BETAS = (0.9, 0.99)
"""As in TensoRF."""
EPS = 1e-8


class Optimizer:
    """Gradients and moments of one field, and the update.

    Args:
        field: what to train.
        ratio: how much faster the factors of ranks 1 and 2 learn than those of the last rank. In between the learning
            rate is a power of the rank.
        of_images: flat parameters of photographs, with their gradients, by name.
    """

    def __init__(self, field: Field, ratio: float = 1.0, of_images: dict[str, tuple[Any, Any]] | None = None) -> None:
        self.field = field
        self.of_images = of_images or {}
        self.pace = np.ones(field.max_rank, np.float32)
        """How much faster than the last rank each rank learns."""
        if field.max_rank > 2:
            ranks = np.maximum(np.arange(1, field.max_rank + 1), 2)
            self.pace[:] = (field.max_rank / ranks) ** (math.log(ratio) / math.log(field.max_rank / 2))
        self.component_pace = {name: buffers.array(buffers.CHUNK * self._factors(name).chunks) for name in _FACTORS}
        """The same of each component, as the kernel takes it: 0 for those of ranks that do not learn."""
        self.learning = (0, 0)
        """Ranks first + 1 .. last for which ``component_pace`` is made."""
        self.gradients = Gradients(field)
        self.moments = {name: (self._factors(name).twin(), self._factors(name).twin()) for name in _FACTORS}
        self.flat_moments = {
            name: (buffers.array(array.shape[0]), buffers.array(array.shape[0]))
            for name, (array, _) in self._flat().items()
        }
        self.count = 0
        """Steps since the moments were zeroed."""
        self.release = weakref.finalize(self, _release, self.gradients, self.moments)
        """Gives the arenas back; an optimizer that nobody refers to any more does it by itself."""

    def _factors(self, name: str) -> Factors:
        return getattr(self.field, name)

    def _flat(self) -> dict[str, tuple[Any, Any]]:
        """Flat parameter arrays with their gradients."""
        field = self.field
        arrays = {"basis": (field.basis, self.gradients.basis), "decoder": (field.decoder.params, field.decoder.grads)}
        if field.config.rank_scales:
            arrays["rank_scales"] = (field.rank_scales, self.gradients.rank_scales)
        return arrays | self.of_images

    @property
    def nbytes(self) -> int:
        """Bytes of gradients and moments."""
        factors = 3 * (self.field.density.nbytes + self.field.appearance.nbytes)
        return factors + 8 * sum(array.shape[0] for array, _ in self._flat().values())

    def scratch(self) -> tuple[Factors, Factors]:
        """Factors that may be overwritten when the moments are about to be reset: the second moments."""
        return self.moments["density"][1], self.moments["appearance"][1]

    def reset(self) -> None:
        """Zeroes gradients and moments, on the field's present grid."""
        grid = self.field.grid
        everything = [self.gradients.density, self.gradients.appearance]
        for pair in self.moments.values():
            everything += pair
        for factors in everything:
            factors.fit(grid)
            factors.clear()
        for pair in self.flat_moments.values():
            for array in pair:
                buffers.write(array, np.zeros(array.shape[0], np.float32))
        self.count = 0

    def _let_learn(self, first: int, last: int) -> None:
        """Makes ``component_pace`` that of ranks first + 1 .. last."""
        if self.learning == (first, last):
            return
        self.learning = (first, last)
        for name, per_rank in _FACTORS.items():
            pace = np.zeros(self.component_pace[name].shape[0], np.float32)
            pace[per_rank * first : per_rank * last] = np.repeat(self.pace[first:last], per_rank)
            buffers.write(self.component_pace[name], pace)

    def step(
        self,
        rank: int,
        *,
        lr_factors: float,
        lr_network: float,
        lr_scales: float,
        l1_density: float = 0.0,
        lazy: bool = False,
        first_rank: int = 0,
        of_images: dict[str, float] | None = None,
    ) -> None:
        """One Adam step over ranks ``first_rank + 1 .. rank``; the others stay as they are.

        Basis, decoder and scales are shared and always take part. Gradients are zeroed, those of left-out active ranks
        as well. ``l1_density`` weighs the L1 norm of the density factors: the sum over modes of the mean of |plane| and
        of |line|, over all components that there is room for. ``lazy`` leaves texels without a gradient as they are.
        """
        self.count += 1
        self._let_learn(first_rank, rank)
        constants = adam.AdamStep(
            lr=lr_factors, beta1=BETAS[0], beta2=BETAS[1], correction1=1 / (1 - BETAS[0] ** self.count),
            correction2=1 / (1 - BETAS[1] ** self.count), eps=EPS,
        )  # fmt: skip
        for name, per_rank in _FACTORS.items():
            factors, gradient = self._factors(name), getattr(self.gradients, name)
            m, v = self.moments[name]
            l1_planes: tuple[float, ...] = (0.0, 0.0, 0.0)
            l1_lines = l1_planes
            if name == "density" and l1_density:
                texels = factors.texels()
                l1_planes = tuple(l1_density / (self.field.max_rank * plane) for plane, _ in texels)
                l1_lines = tuple(l1_density / (self.field.max_rank * line) for _, line in texels)
            step = adam.ArenaStep(
                adam=constants, first_chunk=per_rank * first_rank // buffers.CHUNK,
                end_chunk=-(-per_rank * rank // buffers.CHUNK), l1_planes=l1_planes, l1_lines=l1_lines,
                lazy=int(lazy and not any(l1_planes)),
            )  # fmt: skip
            adam.adam_arena(
                factors.values, gradient.values, m.values, v.values, factors.layout, step, self.component_pace[name]
            )
        for name, (array, gradient) in self._flat().items():
            m, v = self.flat_moments[name]
            lr = lr_scales if name == "rank_scales" else lr_network
            lr = (of_images or {}).get(name, lr)
            adam.adam_flat(array, gradient, m, v, 0, array.shape[0], constants.replace(lr=lr))
        if first_rank > 0 or rank < self.field.rank:
            self.gradients.density.clear()
            self.gradients.appearance.clear()

    # -- to continue exactly -----------------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """Host copies of all parameters and moments by name."""
        out = {}
        for name in _FACTORS:
            for part, factors in zip("pmv", (self._factors(name), *self.moments[name]), strict=True):
                planes, lines = factors.get(factors.components)
                for mode in range(3):
                    out[f"{name}.{part}.plane{mode}"] = planes[mode]
                    out[f"{name}.{part}.line{mode}"] = lines[mode]
        for name, (array, _) in self._flat().items():
            for part, values in zip("pmv", (array, *self.flat_moments[name]), strict=True):
                out[f"{name}.{part}"] = buffers.read(values)
        return out

    def load_state(self, arrays: dict[str, np.ndarray]) -> None:
        """The inverse of ``state``; the field must have the grid that the arrays were saved on."""
        for name in _FACTORS:
            for part, factors in zip("pmv", (self._factors(name), *self.moments[name]), strict=True):
                factors.put(
                    [arrays[f"{name}.{part}.plane{mode}"] for mode in range(3)],
                    [arrays[f"{name}.{part}.line{mode}"] for mode in range(3)],
                )
        for name, (array, _) in self._flat().items():
            for part, into in zip("pmv", (array, *self.flat_moments[name]), strict=True):
                buffers.write(into, arrays[f"{name}.{part}"])


def _release(gradients: Gradients, moments: dict[str, tuple[Factors, Factors]]) -> None:
    gradients.release()
    for pair in moments.values():
        for factors in pair:
            factors.release()


_FACTORS = {"density": 1, "appearance": 3}
"""Kinds of factors, with their components per rank."""
