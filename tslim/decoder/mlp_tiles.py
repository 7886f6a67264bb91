"""The decoder's MLP on the CPU, one tile of samples after another: what does not depend on how matrices are multiplied.

A tile's activations stay in the cache of the core that works on it from encoding to colour and, in the backward pass,
from the colour's gradient to the features'. Element-wise passes are numpy's, which runs them outside Python's lock with
the widest vectors the processor has. Taichi kernels between products on all cores are slower: a launch and its barrier
cost as much as the element-wise work of a tile.

Where the activations of a batch take more than ROOM, as those of a field that is still fog do, the backward pass
computes the others once more, tile by tile: a third more work for these, but memory stays bounded.

Notation and layout are those of ``kernels/decode.py``, whose kernels compute the same on GPUs.
"""

import abc
import functools
from typing import Any

import numpy as np

from kernels.vm import N_FEATURES
from tslim.decoder import blas
from tslim.decoder.blas import padded
from tslim.device import backend

ROOM = 1 << 28
"""Bytes of activations that are kept for the backward pass, at most: f32 takes about 2 kB a sample, bfloat16 half."""


class Scratch:
    """What one thread needs for a tile besides the activations that are kept.

    The names without a value are filled in by the class whose matrix products need them.
    """

    active: np.ndarray
    inputs: np.ndarray
    output: Any
    grad_hidden1: np.ndarray
    grad_hidden2: np.ndarray
    grad_inputs: np.ndarray
    grad_of_inputs: dict[int, Any]
    grad_of_weights: dict[int, Any]

    def __init__(self, tile: int, k: int, table_width: int) -> None:
        self.sines = np.empty((tile, N_FEATURES), np.float32)
        self.cosines = np.empty((tile, N_FEATURES), np.float32)
        self.other = np.empty((tile, N_FEATURES), np.float32)
        self.directions = np.empty((tile, table_width), np.float32)
        self.grad_output = np.empty((tile, 3), np.float32)
        self.grad_sines = np.empty((tile, N_FEATURES * k), np.float32)
        self.grad_cosines = np.empty((tile, N_FEATURES * k), np.float32)


class TiledMlp(abc.ABC):
    """The MLP on host arrays. ``params`` is flat; ``layout`` is that of ``Decoder``."""

    tile = blas.TILE
    """Samples per tile, at most."""
    itemsize = 4
    """Bytes of a number among the activations."""

    def __init__(self, params: np.ndarray, layout: dict[str, tuple], k_features: int, k_dirs: int) -> None:
        self.k_features, self.k_dirs = k_features, k_dirs
        self.n_inputs, self.hidden = layout["w1"][1]
        self.n_feature_inputs = 30 + 2 * N_FEATURES * k_features
        self.n_params, self.layout = params.size, layout
        self.weight = {i: self._with_bias(params, i) for i in (1, 2, 3)}
        self.threads = backend.current().threads
        self.capacity = 0
        """Samples whose activations there is room for."""
        self.n_stored = -1
        """Samples of the last forward pass, if ``backward`` may follow; -1: it was for colours only."""
        self.columns = {1: padded(self.n_inputs + 1), 2: padded(self.hidden + 1), 3: padded(self.hidden + 1)}
        self.most = max(ROOM // (sum(self.columns.values()) * self.itemsize) // self.tile, 1) * self.tile
        """Samples whose activations are kept, at most."""
        self.scratch = [self._scratch() for _ in range(self.threads)]

    # -- how matrices are multiplied -----------------------------------------------------------------------------------

    def _scratch(self) -> Scratch:
        """Scratch memory of a thread."""
        return Scratch(self.tile, self.k_features, 4 + 6 * self.k_dirs)

    @abc.abstractmethod
    def _make_room(self, rows: int) -> None:
        """Makes ``inputs``: for each layer ``rows`` rows of its inputs, zeros but for the ones that multiply the bias.

        The first layer's ones are written with its inputs.
        """

    def _before_forward(self) -> None:  # noqa: B027 (not every way has something to do)
        """Takes what the forward pass needs of the weights as they are now."""

    @abc.abstractmethod
    def _before_backward(self) -> None:
        """Takes what the backward pass needs of them besides."""

    @abc.abstractmethod
    def _activate(self, features, sample_ray, table, rows: slice, scratch: Scratch) -> None:
        """Inputs and both hidden layers of a tile, into ``rows`` of the workspace."""

    @abc.abstractmethod
    def _output(self, rows: slice, out: np.ndarray, scratch: Scratch) -> None:
        """out (n, 3): the last layer of a tile, before its sigmoid."""

    @abc.abstractmethod
    def _layers_backward(
        self, rows: slice, grad_output: np.ndarray, grad: np.ndarray, scratch: Scratch
    ) -> tuple[np.ndarray, np.ndarray]:
        """Adjoint of ``_activate`` and ``_output``: overwrites ``grad``, flat; returns inputs and their gradients."""

    @abc.abstractmethod
    def _grad_of_first_layer(self, n: int, scratch: Scratch) -> np.ndarray:
        """(n, hidden) f32: what ``_layers_backward`` left of the gradient before the first relu."""

    @property
    @abc.abstractmethod
    def nbytes(self) -> int:
        """Bytes of workspace."""

    # -- the two passes ------------------------------------------------------------------------------------------------

    def _with_bias(self, flat: np.ndarray, layer: int) -> np.ndarray:
        """Weights and bias of a layer as one (inputs + 1, outputs) view, the bias as the last row."""
        offset, (n_in, n_out) = self.layout[f"w{layer}"]
        return flat[offset : offset + (n_in + 1) * n_out].reshape(n_in + 1, n_out)

    def reserve(self, n: int) -> None:
        """Room to keep n samples, or ``most`` of more, and a tile for each thread; grows by half at least."""
        if min(n, self.most) <= self.capacity:
            return
        self.capacity = min(-(-max(n, self.capacity * 3 // 2) // self.tile) * self.tile, self.most)
        self._make_room(self.capacity + self.threads * self.tile)
        self.partial = np.empty((max(self.capacity // self.tile, blas.FEW), self.n_params), np.float32)
        self.n_stored = -1

    def _rows(self, start: int, stop: int, thread: int, keep: bool = True) -> slice:
        """Where the activations of a tile are: in a place of its own or, beyond all of those, in the thread's."""
        row = start if keep and start < self.capacity else self.capacity + thread * self.tile
        return slice(row, row + stop - start)

    def forward(self, features, sample_ray, ray_dirs, n: int, colours, keep: bool) -> None:
        """See ``Decoder.forward``."""
        features, colours = features.reshape(-1, N_FEATURES), colours.reshape(-1, 3)
        self.n_stored = -1
        self.reserve(n if keep else 1)
        self._before_forward()
        table = self._direction_table(ray_dirs.reshape(-1, 3)) if n > 0 else None

        def tile(start: int, stop: int, thread: int) -> None:
            rows = self._rows(start, stop, thread, keep)
            self._activate(features[start:stop], sample_ray[start:stop], table, rows, self.scratch[thread])
            colour = colours[start:stop]
            self._output(rows, colour, self.scratch[thread])
            np.negative(colour, out=colour)
            with np.errstate(over="ignore"):  # exp may overflow to infinity: the colour is then 0
                np.exp(colour, out=colour)
            colour += 1
            np.reciprocal(colour, out=colour)

        blas.for_tiles(n, tile, self.tile)
        self.n_stored = n if keep else -1

    def backward(
        self, features, sample_ray, ray_dirs, n: int, colours, grad_colours, grad_features, grad_params, grad_directions
    ) -> None:
        """See ``Decoder.backward``; the weight gradients of the tiles are added in a fixed order."""
        features = features.reshape(-1, N_FEATURES)
        colours, grad_colours = colours.reshape(-1, 3), grad_colours.reshape(-1, 3)
        grad_features = grad_features.reshape(-1, N_FEATURES)
        self._before_backward()
        table = self._direction_table(ray_dirs.reshape(-1, 3)) if n > self.capacity else None
        if grad_directions is not None:
            grad_directions = grad_directions.reshape(-1, 3)

        def tile(start: int, stop: int, thread: int, first: int, size: int) -> None:
            start, stop = first + start, first + stop
            of_tile, scratch = slice(start, stop), self.scratch[thread]
            rows = self._rows(start, stop, thread)
            if start >= self.capacity:
                self._activate(features[of_tile], sample_ray[of_tile], table, rows, scratch)
            out = scratch.grad_output[: stop - start]
            np.subtract(1, colours[of_tile], out=out)
            out *= colours[of_tile]
            out *= grad_colours[of_tile]
            inputs, grad_inputs = self._layers_backward(rows, out, self.partial[(start - first) // size], scratch)
            self._encode_backward(inputs, grad_inputs, grad_features[of_tile], scratch)
            if grad_directions is not None:
                self._directions_backward(inputs, grad_inputs, grad_directions[of_tile], scratch)

        for first in range(0, n, max(self.capacity, 1)):
            part = min(self.capacity, n - first)
            size = blas.tile_size(part, self.tile)
            blas.for_tiles(part, functools.partial(tile, first=first, size=size), self.tile)
            grad_params += np.add.reduce(self.partial[: blas.n_tiles(part, self.tile)], axis=0)

    # -- encoding ------------------------------------------------------------------------------------------------------

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

    def _encode(self, features, sample_ray, table, inputs, scratch: Scratch) -> None:
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

    def _encode_backward(self, inputs, grad_inputs, grad_features, scratch: Scratch) -> None:
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

    def _directions_backward(self, inputs, grad_inputs, grad_directions, scratch: Scratch) -> None:
        """d̄_c = x̄_c + Σ_k 2^k (x̄[sin 2^k d_c]·cos 2^k d_c − x̄[cos 2^k d_c]·sin 2^k d_c); few ask for it."""
        n, k = len(inputs), self.k_dirs
        grad_directions[:] = grad_inputs[:, N_FEATURES:30]
        if k == 0:
            return
        encoded = slice(self.n_feature_inputs, self.n_inputs)
        grad = self._grad_of_first_layer(n, scratch) @ self.weight[1][encoded].T
        grad_sines, grad_cosines = grad.reshape(n, 2, 3, k).transpose(1, 0, 2, 3)
        sines, cosines = inputs[:, encoded].reshape(n, 2, 3, k).transpose(1, 0, 2, 3)
        slopes = grad_sines * cosines - grad_cosines * sines
        grad_directions += slopes @ (2.0 ** np.arange(k, dtype=np.float32))
