"""The decoder's MLP on the CPU in f32: numpy's BLAS on tiles of samples (see ``mlp_tiles.py``)."""

import numpy as np

from tslim.decoder.blas import TILE, padded
from tslim.decoder.mlp_tiles import Scratch, TiledMlp


class BlasMlp(TiledMlp):
    """``TiledMlp`` with numpy's matrix products. Weights are read where they are."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self._transposed = {
            1: np.zeros((self.hidden, padded(self.n_feature_inputs)), np.float32),
            2: np.zeros((self.hidden, self.hidden), np.float32),
            3: np.zeros((3, self.hidden), np.float32),
        }
        self._zeros = np.zeros((TILE, padded(self.hidden + 1)), np.float32)

    def _scratch(self) -> Scratch:
        scratch = super()._scratch()
        scratch.active = np.empty((TILE, self.hidden), bool)
        scratch.grad_hidden1 = np.empty((TILE, self.hidden), np.float32)
        scratch.grad_hidden2 = np.empty((TILE, self.hidden), np.float32)
        scratch.grad_inputs = np.empty((TILE, padded(self.n_feature_inputs)), np.float32)
        return scratch

    def _make_room(self, rows: int) -> None:
        self.inputs = {i: np.zeros((rows, columns), np.float32) for i, columns in self.columns.items()}
        self.inputs[2][:, self.hidden] = 1
        self.inputs[3][:, self.hidden] = 1

    def _before_backward(self) -> None:
        self._transposed[1][:, : self.n_feature_inputs] = self.weight[1][: self.n_feature_inputs].T
        self._transposed[2][:] = self.weight[2][: self.hidden].T
        self._transposed[3][:] = self.weight[3][: self.hidden].T

    @property
    def nbytes(self) -> int:
        rows = 0 if self.capacity == 0 else sum(a.nbytes for a in self.inputs.values()) + self.partial.nbytes
        return rows + self._zeros.nbytes + sum(a.nbytes for s in self.scratch for a in vars(s).values())

    def _activate(self, features, sample_ray, table, rows: slice, scratch: Scratch) -> None:
        self._encode(features, sample_ray, table, self.inputs[1][rows], scratch)
        for layer in (1, 2):
            hidden = self.inputs[layer + 1][rows]
            weight = self.weight[layer]
            np.matmul(self.inputs[layer][rows, : len(weight)], weight, out=hidden[:, : self.hidden])
            # Whole rows, the column of ones too, are quicker than parts of them; and zeros, five times, than one zero.
            np.maximum(hidden, self._zeros[: len(hidden)], out=hidden)

    def _output(self, rows: slice, out: np.ndarray, scratch: Scratch) -> None:
        np.matmul(self.inputs[3][rows, : self.hidden + 1], self.weight[3], out=out)

    def _layers_backward(
        self, rows: slice, grad_output: np.ndarray, grad: np.ndarray, scratch: Scratch
    ) -> tuple[np.ndarray, np.ndarray]:
        used, out = slice(0, rows.stop - rows.start), grad_output
        active, into = scratch.active[used], (scratch.grad_inputs, scratch.grad_hidden1, scratch.grad_hidden2)
        for layer in (3, 2, 1):
            weight_grad, grad_inputs = self._with_bias(grad, layer), into[layer - 1][used]
            inputs = self.inputs[layer][rows, : len(weight_grad)]
            np.matmul(inputs.T, out, out=weight_grad)
            np.matmul(out, self._transposed[layer], out=grad_inputs)
            if layer > 1:
                np.greater(inputs[:, : self.hidden], 0, out=active)
                grad_inputs *= active
            out = grad_inputs
        return self.inputs[1][rows], out

    def _grad_of_first_layer(self, n: int, scratch: Scratch) -> np.ndarray:
        return scratch.grad_hidden1[:n]
