"""The decoder's MLP by the kernels of ``kernels/decode.py``: on GPUs, and on the CPU where tests ask for it."""

from typing import Any

from kernels import decode
from kernels.decode import N_FEATURES
from tslim.decoder.blas import padded
from tslim.device import buffers

TILE = 32768
"""Samples that are worked on together; bounds the memory for what is not kept from forward to backward."""
PARTS = 32
"""Slices of a tile whose weight gradients are summed side by side, each by threads of its own: no atomics."""


class TaichiMlp:
    """The MLP on device arrays, with the interface of ``BlasMlp``. ``params`` and ``grads`` are flat."""

    def __init__(self, params, grads, layout: dict[str, tuple], k_features: int, k_dirs: int) -> None:
        self.params, self.grads = params, grads
        self.k_features, self.k_dirs = k_features, k_dirs
        self.hidden = layout["w1"][1][1]
        self.rows = {i: layout[f"w{i}"][1][0] for i in (1, 2, 3)}
        self.offset = {i: layout[f"w{i}"][0] for i in (1, 2, 3)}
        self.n_feature_inputs = 30 + 2 * N_FEATURES * k_features
        self.size = params.shape[0]
        self.capacity = 0
        self.kept = -1
        """Samples whose activations the workspace holds; -1: it was used for something else since."""
        self.work_rows = 0
        self._columns = {1: padded(self.rows[1] + 1), 2: padded(self.hidden + 1), 3: padded(self.hidden + 1)}
        self.inputs: dict[int, Any] = {}
        self._work: dict[int, Any] = {}

    def reserve(self, n: int) -> None:
        """Room for n samples; grows by half at least."""
        if n <= self.capacity:
            return
        self.capacity = padded(max(n, self.capacity * 3 // 2))
        self.inputs = {i: buffers.array((self.capacity, columns)) for i, columns in self._columns.items()}
        decode.set_column(self.inputs[2], self.hidden, 1.0)
        decode.set_column(self.inputs[3], self.hidden, 1.0)
        self.kept = -1

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
            row = start if keep else 0
            decode.encode(
                features, sample_ray, ray_dirs, start, count, self.inputs[1], row, self.k_features, self.k_dirs
            )
            for i in (1, 2):
                decode.dense(
                    self.inputs[i], row, count, self.rows[i] + 1, self.params, self.offset[i], self.hidden, self.hidden,
                    True, self.inputs[i + 1], row,
                )  # fmt: skip
            decode.output(self.inputs[3], row, count, self.hidden + 1, self.params, self.offset[3], colours, start)
        self.kept = n if keep else -1

    def backward(
        self, features, sample_ray, ray_dirs, n: int, colours, grad_colours, grad_features, grad_directions
    ) -> None:
        """See ``Decoder.backward``. All activations were kept: the first three are not needed."""
        if n == 0:
            self.grads.fill(0)
            return
        self._reserve_backward()
        work = self._work
        output, hidden2, hidden1, inputs = work["output"], work["hidden2"], work["hidden1"], work["inputs"]
        stride = padded(self.rows[1])
        decode.transpose(self.params, self.offset[1], self.rows[1], self.hidden, work["transposed1"], stride)
        decode.transpose(self.params, self.offset[2], self.hidden, self.hidden, work["transposed2"], self.hidden)
        work["partial"].fill(0)
        for start in range(0, n, TILE):
            count = min(TILE, n - start)
            decode.output_backward(
                colours, grad_colours, start, count, self.inputs[3], start, self.params, self.offset[3], self.hidden,
                output, hidden2,
            )  # fmt: skip
            self._weight_gradient(3, start, count, output, 3)
            self._weight_gradient(2, start, count, hidden2, self.hidden)
            decode.dense_backward(
                hidden2,
                count,
                self.hidden,
                work["transposed2"],
                self.hidden,
                self.hidden,
                self.inputs[2],
                start,
                True,
                hidden1,
            )
            self._weight_gradient(1, start, count, hidden1, self.hidden)
            wanted = self.n_feature_inputs if grad_directions is None else self.rows[1]
            decode.dense_backward(
                hidden1, count, self.hidden, work["transposed1"], stride, wanted, self.inputs[1], start, False, inputs
            )
            decode.encode_backward(self.inputs[1], start, inputs, start, count, grad_features, self.k_features)
            if grad_directions is not None:
                decode.encode_directions_backward(
                    self.inputs[1], start, inputs, start, count, grad_directions, self.k_features, self.k_dirs
                )
        decode.sum_parts(work["partial"], PARTS, self.size, self.grads)

    def _weight_gradient(self, layer: int, start: int, count: int, grad_out, n_out: int) -> None:
        decode.weight_gradient(
            self.inputs[layer], start, count, self.rows[layer] + 1, grad_out, n_out,
            self._work["partial"], PARTS, self.size, self.offset[layer],
        )  # fmt: skip
