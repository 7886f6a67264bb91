"""The decoder's MLP in training, with its matrix products in bfloat16: torch's, on tiles of samples.

Processors with instructions for bfloat16 multiply it more than twice as fast as f32, and activations take half the
memory. Weights and their gradients, encodings and colours stay f32; products are summed in f32 and rounded once. What
it costs in quality is measured in docs/labbook/2026-11-performance.md.
"""

import contextlib

import numpy as np

from tslim import optional
from tslim.decoder.blas import LEAST, padded
from tslim.decoder.mlp_tiles import Scratch, TiledMlp
from tslim.device import backend, hardware
from tslim.errors import ConfigError


def import_torch():
    """Torch. Raises ``MissingPackageError`` where there is none, ``ConfigError`` on a device not made for bfloat16."""
    if not backend.current().is_cpu:
        raise ConfigError("decoder_precision bfloat16 is for --arch cpu; on a GPU the decoder computes in float32")
    torch = optional.need("torch", "decoder_precision bfloat16")
    if not hardware.has_bfloat16():
        raise ConfigError("decoder_precision bfloat16: this processor has no instructions for it; take float32")
    return torch


class Bfloat16Mlp(TiledMlp):
    """``TiledMlp`` with torch's matrix products in bfloat16. Raises ``ConfigError`` where they cannot be had."""

    tile = 4096
    """Samples per tile, at most: a call to torch costs more than one to numpy."""
    itemsize = 2

    def __init__(self, *args) -> None:
        self.torch = import_torch()
        super().__init__(*args)
        self._weights = {i: self._zeros(*self._shape(i)) for i in (1, 2, 3)}
        self._transposed = {
            1: self._zeros(self.hidden, padded(self.n_feature_inputs)),
            2: self._zeros(self.hidden, self.hidden),
            3: self._zeros(padded(3), self.hidden),
        }

    def _zeros(self, *shape: int):
        return self.torch.zeros(shape, dtype=self.torch.bfloat16)

    def _shape(self, layer: int) -> tuple[int, int]:
        """Inputs and outputs of a layer, both filled up with zeros."""
        return self.columns[layer], padded(3) if layer == 3 else self.hidden

    def _scratch(self) -> Scratch:
        scratch = super()._scratch()
        scratch.inputs = np.zeros((self.tile, self.columns[1]), np.float32)
        scratch.grad_inputs = np.zeros((self.tile, padded(self.n_feature_inputs)), np.float32)
        scratch.output = self._zeros(self.tile, padded(3))
        widths = {1: padded(self.n_feature_inputs), 2: self.hidden, 3: self.hidden}
        scratch.grad_of_inputs = {i: self._zeros(self.tile, width) for i, width in widths.items()}
        scratch.grad_of_weights = {i: self._zeros(*reversed(self._shape(i))) for i in (1, 2, 3)}  # transposed
        return scratch

    def _make_room(self, rows: int) -> None:
        self.inputs = {i: self._zeros(rows, columns) for i, columns in self.columns.items()}
        self.inputs[2][:, self.hidden] = 1
        self.inputs[3][:, self.hidden] = 1

    @property
    def nbytes(self) -> int:
        rows = 0 if self.capacity == 0 else sum(a.nbytes for a in self.inputs.values()) + self.partial.nbytes
        held = [*self._weights.values(), *self._transposed.values()]
        for scratch in self.scratch:
            for value in vars(scratch).values():
                held += value.values() if isinstance(value, dict) else [value]
        return rows + sum(a.nbytes for a in held)

    def forward(self, *args) -> None:
        """See ``Decoder.forward``."""
        with self._own_threads():
            super().forward(*args)

    def backward(self, *args) -> None:
        """See ``Decoder.backward``."""
        with self._own_threads():
            super().backward(*args)

    @contextlib.contextmanager
    def _own_threads(self):
        """Torch multiplies on the thread that asks (see ``_one_thread``), and has its own threads again afterwards."""
        before = self.torch.get_num_threads()
        try:
            yield
        finally:
            self.torch.set_num_threads(before)

    def _one_thread(self) -> None:
        """No threads of torch's for the products of this thread."""
        if self.torch.get_num_threads() != 1:
            self.torch.set_num_threads(1)

    def _before_forward(self) -> None:
        for i, weight in self.weight.items():
            inputs, outputs = weight.shape
            self._weights[i][:inputs, :outputs] = self.torch.from_numpy(weight)

    def _before_backward(self) -> None:
        for i, weight in self.weight.items():
            inputs = self.n_feature_inputs if i == 1 else self.hidden
            self._transposed[i][: weight.shape[1], :inputs] = self.torch.from_numpy(weight[:inputs]).t()

    def _filled_up(self, rows: slice) -> slice:
        """The rows of a tile and as many more as make them a multiple of ``blas.LEAST``.

        For each number of rows torch compiles its products anew, which takes longer than a tile: let there be few.
        """
        return slice(rows.start, rows.start + -(-(rows.stop - rows.start) // LEAST) * LEAST)

    def _activate(self, features, sample_ray, table, rows: slice, scratch: Scratch) -> None:
        self._one_thread()
        encoded, filled = scratch.inputs[: len(features)], self._filled_up(rows)
        self._encode(features, sample_ray, table, encoded, scratch)
        self.inputs[1][rows] = self.torch.from_numpy(encoded)
        self.inputs[1][rows.stop : filled.stop] = 0
        for layer in (1, 2):
            hidden = self.inputs[layer + 1][filled]
            self.torch.mm(self.inputs[layer][filled], self._weights[layer], out=hidden[:, : self.hidden])
            hidden.relu_()

    def _output(self, rows: slice, out: np.ndarray, scratch: Scratch) -> None:
        inputs = self.inputs[3][self._filled_up(rows)]
        wide = scratch.output[: len(inputs)]
        self.torch.mm(inputs, self._weights[3], out=wide)
        self.torch.from_numpy(out).copy_(wide[: len(out), :3])

    def _layers_backward(
        self, rows: slice, grad_output: np.ndarray, grad: np.ndarray, scratch: Scratch
    ) -> tuple[np.ndarray, np.ndarray]:
        self._one_thread()
        torch, n, rows = self.torch, len(grad_output), self._filled_up(rows)
        out = scratch.output[: rows.stop - rows.start]
        out[:n, :3] = torch.from_numpy(grad_output)
        out[n:] = 0
        for layer in (3, 2, 1):
            inputs, weight_grad = self.inputs[layer][rows], scratch.grad_of_weights[layer]
            torch.mm(out.t(), inputs, out=weight_grad)  # inputs come from memory: in this order they are read in a row
            into = torch.from_numpy(self._with_bias(grad, layer))
            into.copy_(weight_grad[: into.shape[1], : len(into)].t())
            grad_inputs = scratch.grad_of_inputs[layer][: len(out)]
            torch.mm(out, self._transposed[layer], out=grad_inputs)
            if layer > 1:
                torch.ops.aten.threshold_backward.grad_input(
                    grad_inputs, inputs[:, : self.hidden], 0, grad_input=grad_inputs
                )
            out = grad_inputs
        wide, wide_grad = scratch.inputs[:n], scratch.grad_inputs[:n]
        torch.from_numpy(wide).copy_(inputs[:n])
        torch.from_numpy(wide_grad).copy_(out[:n])
        return wide, wide_grad

    def _grad_of_first_layer(self, n: int, scratch: Scratch) -> np.ndarray:
        return scratch.grad_of_inputs[2][:n].float().numpy()
