"""Appearance features and viewing direction to colour: the paper's MLP, or spherical harmonics of degree 2.

The MLP is the dearest stage of a training step on a CPU: there it runs in BLAS (``mlp_blas.py``), elsewhere in Taichi
(``mlp_taichi.py``), so that nothing crosses to the host. Both give the same numbers up to rounding. Training on a CPU
may round more, in bfloat16 (``mlp_bfloat16.py``).

Arrays passed in and out are flat device arrays (``tslim.device.buffers``): features 27 a sample, colours 3 a sample,
directions 3 a ray; they may be longer than the n samples in use.
"""

import numpy as np

from kernels import harmonics
from kernels.vm import N_FEATURES
from tslim.config import FieldConfig
from tslim.decoder.mlp_bfloat16 import Bfloat16Mlp
from tslim.decoder.mlp_blas import BlasMlp
from tslim.decoder.mlp_taichi import TaichiMlp
from tslim.device import backend, buffers
from tslim.errors import ConfigError, ModelFileError


class Decoder:
    """Turns features into colours, and the gradient of colours into those of features and parameters.

    Args:
        config: ``decoder`` chooses the kind, ``feature_encoding`` and ``direction_encoding`` the MLP's inputs.
        rng: initial weights are drawn from it, uniform within ±1/√inputs as torch's ``nn.Linear`` does; the bias of the
            last layer starts at 0.
        blas: matrix products in BLAS on host arrays (CPU arch only) or in Taichi; by default BLAS where it can be.

    Raises:
        ConfigError: an unknown kind, frequencies outside 0..10, or a width that is no multiple of 16.
    """

    def __init__(self, config: FieldConfig, rng: np.random.Generator, *, blas: bool | None = None) -> None:
        if config.decoder not in ("mlp", "sh"):
            raise ConfigError(f"unknown decoder {config.decoder!r}; accepted: mlp, sh")
        for name in ("feature_encoding", "direction_encoding"):
            if not 0 <= getattr(config, name) <= 10:
                raise ConfigError(f"{name} must be 0 to 10 frequencies, not {getattr(config, name)}")
        if config.decoder_width < 16 or config.decoder_width % 16:
            raise ConfigError(f"decoder_width {config.decoder_width}: a multiple of 16 is needed")
        self.kind = config.decoder
        self.k_features, self.k_dirs = config.feature_encoding, config.direction_encoding
        self.n_inputs = N_FEATURES + 3 + 2 * N_FEATURES * self.k_features + 6 * self.k_dirs
        """Inputs of the MLP, without the column of ones."""
        self.layout: dict[str, tuple[int, tuple[int, ...]]] = {}
        """name → (offset, shape) in ``params``; weights are (inputs, outputs), each before its bias"""
        self.size = 0
        """Number of parameters; 0 for spherical harmonics, whose ``params`` is one unused number."""
        self.passes = 0
        """Forward passes so far: whoever wants to go backwards can see whether another came in between."""
        if self.kind == "mlp":
            self._lay_out(config.decoder_width)
        self.params = buffers.array(max(self.size, 1))
        if self.kind == "mlp":
            self.load_state(self._initial(rng))
            kind = BlasMlp if (backend.current().is_cpu if blas is None else blas) else TaichiMlp
            self._mlp = self._training_mlp = self._make_mlp(kind)

    def _make_mlp(self, kind: type):
        return kind(self.params, self.layout, self.k_features, self.k_dirs)

    def _lay_out(self, width: int) -> None:
        widths = (self.n_inputs, width, width, 3)
        for i, (n_in, n_out) in enumerate(zip(widths, widths[1:], strict=False), 1):
            for name, shape in ((f"w{i}", (n_in, n_out)), (f"b{i}", (n_out,))):
                self.layout[name] = (self.size, shape)
                self.size += int(np.prod(shape))

    def _initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        values = {}
        for i in (1, 2, 3):
            bound = self.layout[f"w{i}"][1][0] ** -0.5
            for name in (f"w{i}", f"b{i}"):
                values[name] = rng.uniform(-bound, bound, self.layout[name][1])
        values["b3"][:] = 0
        return values

    def train_in(self, precision: str) -> None:
        """How passes that keep what ``backward`` needs compute from now on: "float32" or "bfloat16".

        Raises:
            ConfigError: bfloat16 on a GPU, without torch, on a processor that is not made for it, or without an MLP.
        """
        if precision not in ("float32", "bfloat16"):
            raise ConfigError(f"unknown decoder_precision {precision!r}; accepted: float32, bfloat16")
        if precision == "float32":
            if self.kind == "mlp":
                self._training_mlp = self._mlp
        elif self.kind != "mlp":
            raise ConfigError(f"decoder_precision bfloat16 is for the decoder mlp, not {self.kind}")
        elif self._training_mlp is self._mlp:
            self._training_mlp = self._make_mlp(Bfloat16Mlp)

    def reserve(self, n: int) -> None:
        """Makes room to train on ``n`` samples at a time. Grows only, by half at least; ``forward`` calls it."""
        if self.kind == "mlp":
            self._training_mlp.reserve(n)

    @property
    def nbytes(self) -> int:
        """Bytes of parameters and workspace."""
        workspaces = {self._mlp, self._training_mlp} if self.kind == "mlp" else ()
        return 4 * self.params.shape[0] + sum(mlp.nbytes for mlp in workspaces)

    def forward(self, features, sample_ray, ray_dirs, n: int, colours, *, keep: bool = True) -> None:
        """colours[:3n] = sRGB in [0, 1] of the first n samples.

        Args:
            features: f32, 27 a sample.
            sample_ray: i32, the ray of each sample.
            ray_dirs: f32, unit direction of each ray.
            n: samples, 0 or more.
            colours: f32, 3 a sample, overwritten.
            keep: keep what ``backward`` needs, about 2 kB a sample (no more than ``mlp_tiles.ROOM`` on the CPU).
                Without, the workspace is a few tiles for any n.
        """
        features, ray_dirs, colours = map(_flat, (features, ray_dirs, colours))
        self.passes += 1
        if n > 0 and self.kind == "sh":
            harmonics.sh_decode(features, sample_ray, ray_dirs, n, colours)
        elif self.kind == "mlp":
            self._training_mlp.n_stored = -1
            mlp = self._training_mlp if keep else self._mlp
            mlp.forward(features, sample_ray, ray_dirs, n, colours, keep)

    def backward(
        self, features, sample_ray, ray_dirs, n: int, colours, grad_colours, grad_features, grad_params,
        grad_directions=None,
    ) -> None:  # fmt: skip
        """Overwrites grad_features[:27n] and adds to grad_params, given the gradient of a loss by colours.

        Takes the arguments of the last ``forward``, unchanged since. grad_params is as long as ``params``.
        grad_directions, f32, 3 a sample, is overwritten with what each sample says of its ray's direction, taken for
        three free numbers; None to spare that.

        Raises:
            ValueError: the last forward pass was not of n samples, or did not keep what is needed.
        """
        args = features, ray_dirs, colours, grad_colours, grad_features
        features, ray_dirs, colours, grad_colours, grad_features = map(_flat, args)
        if n > 0 and self.kind == "sh":
            if grad_directions is not None:
                harmonics.sh_directions_backward(
                    features, sample_ray, ray_dirs, n, colours, grad_colours, _flat(grad_directions)
                )
            harmonics.sh_backward(sample_ray, ray_dirs, n, colours, grad_colours, grad_features)
        elif self.kind == "mlp":
            mlp = self._training_mlp
            if n != mlp.n_stored:
                raise ValueError(f"backward of {n} samples, but the last forward pass kept {max(mlp.n_stored, 0)}")
            grad_directions = None if grad_directions is None else _flat(grad_directions)
            mlp.backward(
                features, sample_ray, ray_dirs, n, colours, grad_colours, grad_features, grad_params, grad_directions
            )

    def state(self) -> dict[str, np.ndarray]:
        """Host copies of the parameters by name, f32: w1 (inputs, width), b1, w2, b2, w3 (width, 3), b3."""
        values = buffers.read(self.params)
        return {
            name: values[offset : offset + int(np.prod(shape))].reshape(shape).copy()
            for name, (offset, shape) in self.layout.items()
        }

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Overwrites the parameters with those of ``state()``. Raises ``ModelFileError`` if names or shapes differ."""
        found = {name: np.shape(values) for name, values in state.items()}
        wanted = {name: shape for name, (_, shape) in self.layout.items()}
        if found != wanted:
            raise ModelFileError(f"the decoder's arrays are {found}, but its configuration asks for {wanted}")
        if self.size:
            flat = np.concatenate([np.asarray(state[name], np.float32).ravel() for name in self.layout])
            buffers.write(self.params, flat)


def _flat(array):
    """A numpy array of any shape as the flat view that the kernels take; ``ti.ndarray`` are flat already."""
    return array.reshape(-1) if isinstance(array, np.ndarray) else array
