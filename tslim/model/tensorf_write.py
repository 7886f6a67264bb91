"""Checkpoints (``.th``) of fields, which the public code of TensoRF renders: the other way round in ``tensorf.py``.

Scales and shifts per rank are unknown there. Those of the last rank go into lines, basis, the shift of the activation,
and the MLP's first layer, which sees sin(2^k (a + s)) as sin(2^k a) cos(2^k s) + cos(2^k a) sin(2^k s): the same field.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tslim.errors import ConfigError, ModelFileError
from tslim.model import th_file
from tslim.model.ordering import folded
from tslim.model.state import N_FEATURES, FieldState
from tslim.model.tensorf import LAYERS, cells_around
from tslim.model.th_file import Checkpoint

FAR = 1e6
"""Where ``near_far`` ends if a field has no far: that only limits where rays enter the box."""
ALPHA_THRESHOLD = 1e-4


def write(state: FieldState, path: str | Path) -> Path:
    """Writes the field as a checkpoint of ``TensorVMSplit``, in single precision.

    Raises:
        ConfigError: a field that the public code has no words for: in another space than a box, decoded by spherical
            harmonics (which end in relu there, and in a sigmoid here), or of densities with relu after a shift.
        ModelFileError: values that are not finite.
        MissingPackageError: PyTorch is not installed.
    """
    return th_file.write(checkpoint_of(state), path)


def checkpoint_of(state: FieldState) -> Checkpoint:
    """What ``write`` writes. Raises as it does, but for the package."""
    if state.space != "box":
        raise ConfigError(f"a .th checkpoint holds an object in a box, and the model's space is {state.space}")
    if state.config.decoder != "mlp":
        raise ConfigError(f"a .th checkpoint holds an MLP, and the model's decoder is {state.config.decoder}")
    state, ranks = folded(state), state.separate_ranks or (state.rank, state.rank)
    shifts = np.zeros(1 + N_FEATURES, np.float32)
    if state.rank_scales is not None:
        shifts[0], shifts[1:] = state.rank_scales[-1, 1], state.rank_scales[-1, 2 + N_FEATURES :]
    shift = float(state.config.density_shift + shifts[0])
    if state.config.density_activation == "relu" and shift != 0:
        raise ConfigError(f"in a .th checkpoint relu knows no shift, and this model has one of {shift:g}")
    arrays: dict[str, np.ndarray] = {}
    for mode in range(3):
        for kind, n, planes, lines in (
            ("density", ranks[0], state.density_planes, state.density_lines),
            ("app", 3 * ranks[1], state.appearance_planes, state.appearance_lines),
        ):
            arrays[f"{kind}_plane.{mode}"] = planes[mode][None, :n]
            arrays[f"{kind}_line.{mode}"] = lines[mode][None, :n, :, None]
    arrays["basis_mat.weight"] = np.concatenate([rows[: 3 * ranks[1]] for rows in state.basis]).T
    for i, (weight, bias) in zip(LAYERS, _mlp(state, shifts[1:]), strict=True):
        arrays[f"renderModule.mlp.{i}.weight"], arrays[f"renderModule.mlp.{i}.bias"] = weight.T, bias
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ModelFileError("the model holds values that are not finite; the training has diverged")
    return Checkpoint(_kwargs(state, ranks, shift), arrays, None if state.occupancy is None else _mask(state))


def _kwargs(state: FieldState, ranks: tuple[int, int], shift: float) -> dict[str, Any]:
    march = state.metadata.get("march", {})
    return {
        "aabb": np.asarray(state.box, np.float32),
        "gridSize": [int(side) for side in state.grid],
        "density_n_comp": [ranks[0]] * 3,
        "appearance_n_comp": [3 * ranks[1]] * 3,
        "app_dim": N_FEATURES,
        "density_shift": shift,
        "alphaMask_thres": ALPHA_THRESHOLD,
        "distance_scale": float(state.config.distance_scale),
        "rayMarch_weight_thres": float(march.get("weight_threshold", 1e-4)),
        "fea2denseAct": state.config.density_activation,
        "near_far": [float(state.near), float(min(state.far, FAR))],
        "step_ratio": float(march.get("step_ratio", 0.5)),
        "shadingMode": "MLP_Fea",
        "pos_pe": 0,
        "view_pe": state.config.direction_encoding,
        "fea_pe": state.config.feature_encoding,
        "featureC": state.config.decoder_width,
    }


def _mlp(state: FieldState, shifts: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights (inputs, units) and biases of the three layers, for features without their shifts (27,)."""
    layers = [(state.decoder[f"w{i}"], state.decoder[f"b{i}"]) for i in (1, 2, 3)]
    weight, bias = (array.astype(np.float64) for array in layers[0])
    bias = bias + shifts @ weight[:N_FEATURES]
    n = state.config.feature_encoding
    sines = slice(N_FEATURES + 3, N_FEATURES + 3 + N_FEATURES * n)
    cosines = slice(sines.stop, sines.stop + N_FEATURES * n)
    angles = (shifts[:, None].astype(np.float64) * 2.0 ** np.arange(n)).ravel()[:, None]
    of_sine, of_cosine = weight[sines].copy(), weight[cosines].copy()
    weight[sines] = of_sine * np.cos(angles) - of_cosine * np.sin(angles)
    weight[cosines] = of_sine * np.sin(angles) + of_cosine * np.cos(angles)
    return [(weight.astype(np.float32), bias.astype(np.float32)), *layers[1:]]


def _mask(state: FieldState) -> tuple[np.ndarray, tuple[int, ...], np.ndarray]:
    """An alpha mask whose marked vertices have the occupied cells around them: bits, shape, box."""
    cells = np.asarray(state.occupancy, bool)
    # Vertices that only occupied cells touch; where these do not say all, every corner of an occupied cell.
    vertices = ~cells_around(np.pad(~cells, 1))
    if (cells & ~cells_around(vertices)).any():
        vertices = cells_around(np.pad(cells, 1))
    box = state.box if state.occupancy_box is None else state.occupancy_box
    return np.packbits(vertices.ravel()), (1, 1, *vertices.shape), np.asarray(box, np.float32)
