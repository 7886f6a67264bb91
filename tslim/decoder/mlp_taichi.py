"""The decoder's MLP by the kernels of ``kernels/decode.py``: on GPUs, and on the CPU where tests ask for it."""

from typing import Any

from kernels import decode
from kernels.types import Values
from kernels.vm import N_FEATURES
from tslim.decoder.blas import padded
from tslim.device import buffers

TILE = 32768
"""Samples that are worked on together; bounds the memory for what is not kept from forward to backward."""
PARTS = 32
"""Slices of a tile whose weight gradients are summed side by side, each by threads of its own: no atomics."""


class TaichiMlp:
    """The MLP on device arrays, with the interface of ``BlasMlp``. ``params`` is flat."""

    def __init__(self, params, layout: dict[str, tuple], k_features: int, k_dirs: int) -> None:
        self.params = params
        self.k_features, self.k_dirs = k_features, k_dirs
        self.hidden = layout["w1"][1][1]
        self.rows = {i: layout[f"w{i}"][1][0] for i in (1, 2, 3)}
        self.offset = {i: layout[f"w{i}"][0] for i in (1, 2, 3)}
        self.n_feature_inputs = 30 + 2 * N_FEATURES * k_features
        self.size = params.shape[0]
        self.capacity = 0
        self.n_stored = -1
        """Samples whose activations the workspace holds; -1: it was used for something else since."""
        self.work_rows = 0
        self._columns = {1: padded(self.rows[1] + 1), 2: padded(self.hidden + 1), 3: padded(self.hidden + 1)}
        self.inputs: dict[int, Any] = {}
        self._work: dict[str, Any] = {}

    def reserve(self, n: int) -> None:
        """Room for n samples; grows by half at least."""
        if n <= self.capacity:
            return
        self.capacity = padded(max(n, self.capacity * 3 // 2))
        self.inputs = {i: buffers.array((self.capacity, columns)) for i, columns in self._columns.items()}
        decode.set_column(self.inputs[2], self.hidden, 1.0)
        decode.set_column(self.inputs[3], self.hidden, 1.0)
        self.n_stored = -1

    def _reserve_backward(self) -> None:
        """Scratch of the backward pass: one tile at most."""
        rows = min(self.capacity, TILE)
        if rows <= self.work_rows:
            return
        self.work_rows = rows
        self._work = {
            "output": buffers.array((rows, 4)),
            "hidden2": buffers.array((rows, self.hidden)),
            "hidden1": buffers.array((rows, self.hidden)),
            "inputs": buffers.array((rows, padded(self.rows[1]))),
            "transposed1": buffers.array(self.hidden * padded(self.rows[1])),
            "transposed2": buffers.array(self.hidden * self.hidden),
            "partial": buffers.array(PARTS * self.size),
        }

    @property
    def nbytes(self) -> int:
        """Bytes of workspace."""
        sizes = [a.shape for a in (*self.inputs.values(), *self._work.values())]
        return sum(4 * shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in sizes)

    def forward(self, features, sample_ray, ray_dirs, n: int, colours, keep: bool) -> None:
        """See ``Decoder.forward``."""
        self.reserve(n if keep else min(n, TILE))
        for start in range(0, n, TILE):
            count = min(TILE, n - start)
            tile = decode.Tile(start=start, row=start if keep else 0, n=count)
            encodings = self.k_features, self.k_dirs
            decode.encode(features, sample_ray, ray_dirs, tile, *encodings, self.inputs[1])
            for i in (1, 2):
                decode.dense(self.inputs[i], tile, self._layer(i), self.params, True, self.inputs[i + 1])
            decode.output(self.inputs[3], tile, self._layer(3), self.params, colours)
        self.n_stored = n if keep else -1

    def backward(
        self, features, sample_ray, ray_dirs, n: int, colours, grad_colours, grad_features, grad_params, grad_directions
    ) -> None:
        """See ``Decoder.backward``. All activations were kept: the first three are not needed."""
        if n == 0:
            return
        self._reserve_backward()
        work = self._work
        output, hidden2, hidden1, inputs = work["output"], work["hidden2"], work["hidden1"], work["inputs"]
        stride = padded(self.rows[1])
        layers = {i: self._layer(i).replace(n_in=self.rows[i]) for i in (1, 2, 3)}
        decode.transpose(self.params, layers[1], stride, work["transposed1"])
        decode.transpose(self.params, layers[2], self.hidden, work["transposed2"])
        wanted = self.n_feature_inputs if grad_directions is None else self.rows[1]
        back2 = decode.Layer(offset=0, stride=self.hidden, n_in=self.hidden, n_out=self.hidden)
        back1 = decode.Layer(offset=0, stride=stride, n_in=self.hidden, n_out=wanted)
        work["partial"].fill(0)
        for start in range(0, n, TILE):
            tile = decode.Tile(start=start, row=start, n=min(TILE, n - start))
            decode.output_backward(colours, grad_colours, tile, self.inputs[3], layers[3], self.params, output, hidden2)
            self._weight_gradient(3, tile, output)
            self._weight_gradient(2, tile, hidden2)
            decode.dense_backward(hidden2, tile, back2, work["transposed2"], self.inputs[2], True, hidden1)
            self._weight_gradient(1, tile, hidden1)
            decode.dense_backward(hidden1, tile, back1, work["transposed1"], self.inputs[1], False, inputs)
            decode.encode_backward(self.inputs[1], inputs, tile, self.k_features, grad_features)
            if grad_directions is not None:
                encodings = self.k_features, self.k_dirs
                decode.encode_directions_backward(self.inputs[1], inputs, tile, *encodings, grad_directions)
        decode.sum_parts(work["partial"], PARTS, self.size, grad_params)

    def _layer(self, i: int) -> Values:
        """Layer i with its bias, as kernels take it."""
        n_out = 3 if i == 3 else self.hidden
        return decode.Layer(offset=self.offset[i], stride=n_out, n_in=self.rows[i] + 1, n_out=n_out)

    def _weight_gradient(self, i: int, tile: Values, grad_out) -> None:
        partial = self._work["partial"]
        decode.weight_gradient(self.inputs[i], tile, self._layer(i), grad_out, PARTS, self.size, partial)
