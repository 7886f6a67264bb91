"""The arrays that a field is made of, cut into named pieces, and their way to tensors of torch and back."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kernels import exchange
from kernels.vectors import CHUNK
from tslim.device import backend, buffers
from tslim.field.field import Field
from tslim.field.parameters import Gradients, Parameter, parameters_of


@dataclass(frozen=True)
class Piece:
    """A contiguous part of an arena or of a flat device array."""

    array: Any
    first: int
    """where it begins, in elements of the array"""
    shape: tuple[int, ...]
    """of its numbers: those of an arena's elements, 16 each, along the last axis"""
    of_vectors: bool

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def place(self) -> tuple:
        """Where it is: equal for the same memory in the same shape."""
        return id(self.array), self.first, self.shape

    def view(self) -> torch.Tensor:
        """The piece itself as a tensor, on the CPU alone."""
        first = self.first * (CHUNK if self.of_vectors else 1)
        return torch.from_numpy(self.array.reshape(-1)[first : first + self.size].reshape(self.shape))

    def load(self, tensor: torch.Tensor) -> None:
        """Overwrites the piece with a tensor of as many numbers."""
        tensor = tensor.detach()
        if backend.current().is_cpu:
            self.view().copy_(tensor.reshape(self.shape))
        elif self.of_vectors:
            exchange.put_vectors(self.array, self.first, self.size // CHUNK, _flat(tensor))
        else:
            exchange.put_numbers(self.array, self.first, self.size, _flat(tensor))

    def fetch(self, device: torch.device) -> torch.Tensor:
        """A copy as a tensor."""
        if backend.current().is_cpu:
            return self.view().to(device, copy=True)
        values = torch.empty(self.size, dtype=torch.float32, device=device)
        into = values if _has_memory(values) else np.empty(self.size, np.float32)
        if self.of_vectors:
            exchange.get_vectors(self.array, self.first, self.size // CHUNK, into)
        else:
            exchange.get_numbers(self.array, self.first, self.size, into)
        if isinstance(into, np.ndarray):
            values = torch.from_numpy(into).to(device)
        return values.reshape(self.shape)


def of_array(array: Any, *shape: int) -> Piece:
    """The first numbers of a flat device array."""
    return Piece(array, 0, shape, False)


def of_field(field: Field) -> dict[str, Piece]:
    """What a field is made of, by the names of ``FieldModule``."""
    return _pieces_of([(parameter, parameter.value) for parameter in parameters_of(field)])


def of_gradients(field: Field, gradients: Gradients) -> dict[str, Piece]:
    """Their gradients after a backward pass, by the same names."""
    return _pieces_of([(parameter, parameter.gradient) for parameter in parameters_of(field, gradients)])


def _pieces_of(arrays: list[tuple[Parameter, Any]]) -> dict[str, Piece]:
    found = {}
    for parameter, array in arrays:
        of_vectors = parameter.kind == "factors"
        for name, (first, shape) in parameter.tensors.items():
            found[name] = Piece(array.values if of_vectors else array, first, shape, of_vectors)
    return found


def _flat(tensor: torch.Tensor) -> torch.Tensor | np.ndarray:
    """The numbers of a tensor where a kernel can read them."""
    flat = tensor.to(torch.float32).contiguous().reshape(-1)
    if _has_memory(flat):
        return flat
    host = np.empty(len(flat), np.float32)
    torch.from_numpy(host).copy_(flat)
    return host


def _has_memory(tensor: torch.Tensor) -> bool:
    """Whether a kernel can be handed a tensor: those that ``torch.func`` makes in a backward pass are wrapped."""
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return True


def ranks_on_device(into: Any, ranks: np.ndarray) -> None:
    """Writes the ranks of the first rays, and 1 for those behind them."""
    buffers.write(into, np.pad(ranks, (0, into.shape[0] - len(ranks)), constant_values=1))
