"""Everything that a field learns, as one list: optimizers, checkpoints, the function for torch and tests walk it.

A parameter is an array with room for its gradient beside it. One rule holds for every gradient: *backward adds*.
Whoever begins a sum calls ``Gradients.clear``; an optimizer zeroes what it has used, so that there is nothing to clear.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from kernels.vectors import CHUNK
from tslim.device import buffers
from tslim.field.factors import Factors
from tslim.field.field import Field
from tslim.model.state import N_FEATURES, SCALES_WIDTH

Kind = Literal["factors", "network", "scales", "gains", "poses"]
"""Which learning rate a parameter has: planes and lines (factors); basis and decoder, which all ranks share (network);
scale and shift per rank (scales); and, of the images that a field is trained on, their gains and their poses."""


class Tensor(NamedTuple):
    """Where a named part of a parameter lies: ``first``, in elements of its array, and the shape of its numbers."""

    first: int
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Parameter:
    """One array that a field learns, and its gradient."""

    name: str
    kind: Kind
    value: Any
    """``Factors`` where the kind is factors, else a flat device array"""
    gradient: Any
    """as ``value``, what ``backward`` adds to; None in a list that was made without gradients"""
    flat_tensors: dict[str, Tensor] = field(default_factory=dict)
    """the parts of a flat array"""
    per_rank: int = 0
    """components per rank, of factors"""

    @property
    def n_values(self) -> int:
        """Numbers that there is room for."""
        if self.kind == "factors":
            return int(self.value.nbytes) // 4
        return int(self.value.shape[0])

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What it is made of, by the names of ``tslim.torch.FieldModule``; of factors on the grid that they have now.

        Those are (chunks, texels ..., 16): the components of a chunk lie side by side, in an arena of vectors of 16.
        """
        if self.kind != "factors":
            return self.flat_tensors
        found = {}
        for mode, pair in enumerate(self.value.tensors()):
            for part, (first, shape) in zip(("planes", "lines"), pair, strict=True):
                found[f"{self.name}_{part}.{mode}"] = Tensor(first, (self.value.chunks, *shape, CHUNK))
        return found


class Gradients:
    """Room for the gradients of all that a field learns, zeroed. ``Pipeline.backward`` adds to it."""

    def __init__(self, field: Field) -> None:
        self.density: Factors = field.density.zeros_like()
        self.appearance: Factors = field.appearance.zeros_like()
        self.basis = buffers.array(field.basis.shape[0])
        self.rank_scales = buffers.array(field.rank_scales.shape[0])
        self.decoder = buffers.array(field.decoder.params.shape[0])

    def clear(self) -> None:
        """Zeroes everything."""
        self.density.clear()
        self.appearance.clear()
        for flat in (self.basis, self.rank_scales, self.decoder):
            flat.fill(0)

    def release(self) -> None:
        """Gives the arenas back to the pool; the gradients must not be used afterwards."""
        self.density.release()
        self.appearance.release()


def parameters_of(field: Field, gradients: Gradients | None = None) -> tuple[Parameter, ...]:
    """What ``field`` learns, with the gradients of ``gradients``. The list outlives changes of the grid."""

    def flat(name: str, kind: Kind, value: Any, tensors: dict[str, Tensor]) -> Parameter:
        return Parameter(name, kind, value, getattr(gradients, name, None), tensors)

    def factors(name: str, per_rank: int) -> Parameter:
        return Parameter(name, "factors", getattr(field, name), getattr(gradients, name, None), per_rank=per_rank)

    basis = {"basis": Tensor(0, (field.appearance.chunks, 3, CHUNK, N_FEATURES))}
    rows = {"rank_scales": Tensor(0, (field.max_rank, SCALES_WIDTH))}
    decoder = {f"decoder.{name}": Tensor(first, tuple(shape)) for name, (first, shape) in field.decoder.layout.items()}
    return (
        factors("density", 1),
        factors("appearance", 3),
        flat("basis", "network", field.basis, basis),
        *([flat("rank_scales", "scales", field.rank_scales, rows)] if field.config.rank_scales else []),
        flat("decoder", "network", field.decoder.params, decoder),
    )
