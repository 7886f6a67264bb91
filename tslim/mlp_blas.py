"""The decoder's MLP on the CPU: numpy's BLAS on tiles of samples, one thread a tile.

A tile's activations stay in the cache of the core that works on it from encoding to colour and, in the backward pass,
from the colour's gradient to the features'. Matrix products and element-wise passes are numpy's, which runs them
outside Python's lock with the widest vectors the processor has. Taichi kernels between products on all cores lose:
a launch and its barrier cost as much as the element-wise work of a tile.

Of a batch of more than KEPT samples, as fields that are still fog make them, the backward pass computes the activations
of the rest once more, tile by tile: a third more work there, for memory that has an end.

Notation and layout are those of ``kernels/decode.py``, whose kernels compute the same on GPUs.
"""

import functools

import numpy as np

from kernels.decode import N_FEATURES
from tslim import backend, blas
from tslim.blas import TILE, padded

KEPT = 128 * TILE
"""Samples whose activations are kept for the backward pass, at most: about 2 kB each. Whole tiles of more samples."""


class _Scratch:
    """What one thread needs for a tile besides the activations that are kept."""

    def __init__(self, n_inputs: int, k: int, table_width: int, hidden: int) -> None:
        self.sines = np.empty((TILE, N_FEATURES), np.float32)
        self.cosines = np.empty((TILE, N_FEATURES), np.float32)
        self.other = np.empty((TILE, N_FEATURES), np.float32)
        self.directions = np.empty((TILE, table_width), np.float32)
        self.grad_output = np.empty((TILE, 3), np.float32)
        self.active = np.empty((TILE, hidden), bool)
        self.grad_hidden1 = np.empty((TILE, hidden), np.float32)
        self.grad_hidden2 = np.empty((TILE, hidden), np.float32)
        self.grad_inputs = np.empty((TILE, n_inputs), np.float32)
        self.grad_sines = np.empty((TILE, N_FEATURES * k), np.float32)
        self.grad_cosines = np.empty((TILE, N_FEATURES * k), np.float32)


class BlasMlp:
    """The MLP on host arrays. ``params`` and ``grads`` are flat; ``layout`` is that of ``Decoder``."""

    def __init__(
        self, params: np.ndarray, grads: np.ndarray, layout: dict[str, tuple], k_features: int, k_dirs: int
    ) -> None:
        self.k_features, self.k_dirs = k_features, k_dirs
        self.n_inputs, self.hidden = layout["w1"][1]
        self.n_feature_inputs = 30 + 2 * N_FEATURES * k_features
        self.grads, self.layout = grads, layout
        self.weight = {i: self._with_bias(params, i) for i in (1, 2, 3)}
        self.threads = backend.current().threads
        self.capacity = 0
        """Samples whose activations there is room for."""
        self.kept = -1
        """Samples of the last forward pass, if ``backward`` may follow; -1: it was for colours only."""
        self._columns = {1: padded(self.n_inputs + 1), 2: padded(self.hidden + 1), 3: padded(self.hidden + 1)}
        self._transposed = {
            1: np.zeros((self.hidden, padded(self.n_feature_inputs)), np.float32),
            2: np.zeros((self.hidden, self.hidden), np.float32),
            3: np.zeros((3, self.hidden), np.float32),
        }
        self._zeros = np.zeros((TILE, padded(self.hidden + 1)), np.float32)
        self._scratch = [
            _Scratch(padded(self.n_feature_inputs), k_features, 4 + 6 * k_dirs, self.hidden)
            for _ in range(self.threads)
        ]

    def _with_bias(self, flat: np.ndarray, layer: int) -> np.ndarray:
        """Weights and bias of a layer as one (inputs + 1, outputs) view, the bias as the last row."""
        offset, (n_in, n_out) = self.layout[f"w{layer}"]
        return flat[offset : offset + (n_in + 1) * n_out].reshape(n_in + 1, n_out)

    def reserve(self, n: int) -> None:
        """Room to keep n samples, or KEPT of more, and a tile for each thread; grows by half at least."""
        if min(n, KEPT) <= self.capacity:
            return
        self.capacity = min(-(-max(n, self.capacity * 3 // 2) // TILE) * TILE, KEPT)
        rows = self.capacity + self.threads * TILE
        self.inputs = {i: np.zeros((rows, columns), np.float32) for i, columns in self._columns.items()}
        self.inputs[2][:, self.hidden] = 1
        self.inputs[3][:, self.hidden] = 1
        self.partial = np.empty((max(self.capacity // TILE, blas.FEW), self.grads.size), np.float32)
        self.kept = -1

    def _rows(self, start: int, stop: int, thread: int, keep: bool = True) -> slice:
        """Where the activations of a tile are: in a place of its own or, beyond all of those, in the thread's."""
        row = start if keep and start < self.capacity else self.capacity + thread * TILE
        return slice(row, row + stop - start)

    @property
    def nbytes(self) -> int:
        """Bytes of workspace."""
        rows = 0 if self.capacity == 0 else sum(a.nbytes for a in self.inputs.values()) + self.partial.nbytes
        return rows + self._zeros.nbytes + sum(a.nbytes for s in self._scratch for a in vars(s).values())

    def forward(self, features, sample_ray, ray_dirs, n: int, colours, keep: bool) -> None:
        """See ``Decoder.forward``."""
        features, colours = features.reshape(-1, N_FEATURES), colours.reshape(-1, 3)
        self.kept = -1
        self.reserve(n if keep else 1)
        table = self._direction_table(ray_dirs.reshape(-1, 3)) if n > 0 else None

        def tile(start: int, stop: int, thread: int) -> None:
            rows = self._rows(start, stop, thread, keep)
            self._activate(features[start:stop], sample_ray[start:stop], table, rows, self._scratch[thread])
            colour = colours[start:stop]
            np.matmul(self.inputs[3][rows, : self.hidden + 1], self.weight[3], out=colour)
            np.negative(colour, out=colour)
            with np.errstate(over="ignore"):  # exp may overflow to infinity: the colour is then 0
                np.exp(colour, out=colour)
            colour += 1
            np.reciprocal(colour, out=colour)

        blas.for_tiles(n, tile)
        self.kept = n if keep else -1

    def _activate(self, features, sample_ray, table, rows: slice, scratch: _Scratch) -> None:
        """Inputs and both hidden layers of a tile, into ``rows`` of the workspace."""
        self._encode(features, sample_ray, table, self.inputs[1][rows], scratch)
        for layer in (1, 2):
            hidden = self.inputs[layer + 1][rows]
            weight = self.weight[layer]
            np.matmul(self.inputs[layer][rows, : len(weight)], weight, out=hidden[:, : self.hidden])
            # Whole rows, the column of ones too, are quicker than parts of them; and zeros, five times, than one zero.
            np.maximum(hidden, self._zeros[: len(hidden)], out=hidden)

    def backward(self, features, sample_ray, ray_dirs, n: int, colours, grad_colours, grad_features) -> None:
        """See ``Decoder.backward``; the weight gradients of the tiles are added in a fixed order."""
        features = features.reshape(-1, N_FEATURES)
        colours, grad_colours = colours.reshape(-1, 3), grad_colours.reshape(-1, 3)
        grad_features = grad_features.reshape(-1, N_FEATURES)
        self._transposed[1][:, : self.n_feature_inputs] = self.weight[1][: self.n_feature_inputs].T
        self._transposed[2][:] = self.weight[2][: self.hidden].T
        self._transposed[3][:] = self.weight[3][: self.hidden].T

        table = self._direction_table(ray_dirs.reshape(-1, 3)) if n > self.capacity else None

        def tile(start: int, stop: int, thread: int, first: int, size: int) -> None:
            start, stop = first + start, first + stop
            of_tile, used, s = slice(start, stop), slice(0, stop - start), self._scratch[thread]
            rows = self._rows(start, stop, thread)
            if start >= self.capacity:
                self._activate(features[of_tile], sample_ray[of_tile], table, rows, s)
            grad = self.partial[(start - first) // size]
            out, active = s.grad_output[used], s.active[used]
            np.subtract(1, colours[of_tile], out=out)
            out *= colours[of_tile]
            out *= grad_colours[of_tile]
            for layer, into in ((3, s.grad_hidden2[used]), (2, s.grad_hidden1[used]), (1, s.grad_inputs[used])):
                weight_grad = self._with_bias(grad, layer)
                inputs = self.inputs[layer][rows, : len(weight_grad)]
                np.matmul(inputs.T, out, out=weight_grad)
                np.matmul(out, self._transposed[layer], out=into)
                if layer > 1:
                    np.greater(inputs[:, : self.hidden], 0, out=active)
                    into *= active
                out = into
            self._encode_backward(self.inputs[1][rows], out, grad_features[of_tile], s)

        self.grads.fill(0)
        for first in range(0, n, max(self.capacity, 1)):
            part = min(self.capacity, n - first)
            blas.for_tiles(part, functools.partial(tile, first=first, size=blas.tile_size(part)))
            self.grads += np.add.reduce(self.partial[: blas.n_tiles(part)], axis=0)

    def _direction_table(self, dirs: np.ndarray) -> np.ndarray:
        """(n_rays, 4 + 6 k): direction, its encoding, and the one that multiplies the bias."""
        k = self.k_dirs
        table = np.ones((len(dirs), 4 + 6 * k), np.float32)
        table[:, :3] = dirs
        if k > 0:
            angles = (dirs[:, :, None] * 2.0 ** np.arange(k, dtype=np.float32)).reshape(len(dirs), 3 * k)
            np.sin(angles, out=table[:, 3 : 3 + 3 * k])
            np.cos(angles, out=table[:, 3 + 3 * k : 3 + 6 * k])
        return table

    def _encode(self, features, sample_ray, table, inputs, scratch: _Scratch) -> None:
        """One row of inputs a sample; sin 2x = 2 sin x cos x, cos 2x = 1 − 2 sin² x for the higher frequencies."""
        n, k_features = len(features), self.k_features
        directions = scratch.directions[:n]
        np.take(table, sample_ray, axis=0, out=directions, mode="clip")
        inputs[:, :N_FEATURES] = features
        inputs[:, N_FEATURES:30] = directions[:, :3]
        inputs[:, self.n_feature_inputs : self.n_inputs + 1] = directions[:, 3:]
        if k_features == 0:
            return
        sines, cosines, other = scratch.sines[:n], scratch.cosines[:n], scratch.other[:n]
        into_sines, into_cosines = self._encoded(inputs)
        np.sin(features, out=sines)
        np.cos(features, out=cosines)
        for k in range(k_features):
            into_sines[:, k::k_features] = sines
            into_cosines[:, k::k_features] = cosines
            if k + 1 < k_features:
                np.multiply(sines, sines, out=other)
                sines *= cosines
                sines += sines
                np.multiply(other, -2, out=cosines)
                cosines += 1

    def _encoded(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The columns of the features' sines and cosines."""
        middle = 30 + N_FEATURES * self.k_features
        return rows[:, 30:middle], rows[:, middle : self.n_feature_inputs]

    def _encode_backward(self, inputs, grad_inputs, grad_features, scratch: _Scratch) -> None:
        """ā_c = x̄_c + Σ_k 2^k (x̄[sin 2^k a_c]·cos 2^k a_c − x̄[cos 2^k a_c]·sin 2^k a_c)."""
        n, k_features = len(inputs), self.k_features
        grad_features[:] = grad_inputs[:, :N_FEATURES]
        if k_features == 0:
            return
        sines, cosines = self._encoded(inputs)
        grad_sines, grad_cosines = self._encoded(grad_inputs)
        total, second = scratch.grad_sines[:n], scratch.grad_cosines[:n]
        np.multiply(grad_sines, cosines, out=total)
        np.multiply(grad_cosines, sines, out=second)
        total -= second
        for k in range(k_features):
            term = scratch.other[:n]
            np.multiply(total[:, k::k_features], float(2**k), out=term)
            grad_features += term
