"""A wavelet-masked VM field after Rho et al. (CVPR 2023): planes as the few wavelet coefficients that matter.

Theirs learns a mask of the coefficients with the field. Here a trained field goes on training in short stretches, after
each of which only the largest coefficients are kept (iterative hard thresholding), in 8 bits, as theirs are. What it
weighs is what bzip2 makes of them and of the lines, in 8 bits too, and the rest of a model file as it is.
"""

import bz2
import dataclasses
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from tslim.config import ScheduleConfig, TrainConfig
from tslim.field.field import Field
from tslim.model import model_file
from tslim.model.rounding import convert, visible_texels
from tslim.model.state import FieldState
from tslim.optional import need
from tslim.scene.scene import Scene
from tslim.training.trainer import Trainer

WAVELET, LEVELS = "bior4.4", 4
"""as in the paper"""
SHARES = (0.02, 0.05, 0.1, 0.2)
"""of the coefficients that are kept"""
STRETCHES = 5
_MOST = 127


def pywavelets() -> ModuleType:
    """PyWavelets; raises ``MissingPackageError`` without it."""
    return need("pywt", "a wavelet-masked field", "pip install PyWavelets")


def sparse(state: FieldState, share: float) -> tuple[FieldState, int]:
    """The field with so large a share of its planes' coefficients, and what it weighs in bytes; texels that only empty
    space would read are zero.

    A coefficient matters as its component's line and basis row are large. Density and appearance keep their share each.
    Raises ``MissingPackageError`` without PyWavelets.
    """
    result = dataclasses.replace(state)
    seen, levels, n_components, n_numbers = visible_texels(state), bytearray(), 0, 0
    for kind in ("density", "appearance"):
        planes, lines = getattr(state, f"{kind}_planes"), getattr(state, f"{kind}_lines")
        rows = np.ones((3, len(planes[0]))) if kind == "density" else np.linalg.norm(state.basis, axis=2)
        found = [_coefficients(np.where(seen[mode][0], planes[mode], 0)) for mode in range(3)]
        matters = [np.abs(found[m][0]) * (np.linalg.norm(lines[m], axis=1) * rows[m])[:, None, None] for m in range(3)]
        least = np.quantile(np.concatenate([some.ravel() for some in matters]), 1 - share)
        kept_planes, kept_lines = [], []
        for mode in range(3):
            coefficients, places = found[mode]
            steps, of_planes = _in_steps(np.where(matters[mode] > least, coefficients, 0))
            kept_planes.append(_plane(of_planes, places, planes[mode].shape))
            steps_of_lines, of_lines = _in_steps(np.where(seen[mode][1], lines[mode], 0))
            kept_lines.append(of_lines)
            levels += steps.tobytes() + steps_of_lines.tobytes()
            n_components += 2 * len(of_lines)
            n_numbers += planes[mode].size + lines[mode].size
        setattr(result, f"{kind}_planes", kept_planes)
        setattr(result, f"{kind}_lines", kept_lines)
    rest = model_file.size_of(convert(state, "float16")) - 2 * n_numbers
    return result, rest + len(bz2.compress(bytes(levels))) + 4 * n_components


def trained(state: FieldState, scene: Scene, base: TrainConfig, share: float, steps: int) -> tuple[FieldState, int]:
    """A trained field after so many more steps, of which the coefficients' largest share is left; and its bytes."""
    state, weighs = sparse(state, share)
    for settings in _stretches(base, state, steps):
        trainer = Trainer(Field.from_state(state), scene, settings)
        for _ in trainer.run():
            pass
        state, weighs = sparse(trainer.field.state(), share)
    return state, weighs


def _stretches(base: TrainConfig, state: FieldState, steps: int) -> Iterator[TrainConfig]:
    """Settings of each stretch: all that is there goes on learning, slower from stretch to stretch."""
    side = max(4, round(float(np.prod(state.grid)) ** (1 / 3)))
    for turn in range(STRETCHES):
        fall = 0.1 ** ((turn + 1) / STRETCHES)
        yield dataclasses.replace(
            base, field=state.config, schedule=ScheduleConfig(policy="fixed"), steps=max(1, steps // STRETCHES),
            grid_start=side, grid_end=side, grow_steps=(), occupancy_steps=(), occupancy_first=0.0,
            l1_start=base.l1_rest, lr_factors=fall * base.lr_factors, lr_network=fall * base.lr_network,
            lr_first_ranks=0.0, lr_decay=1.0, seed=base.seed + turn,
        )  # fmt: skip


def _coefficients(planes: np.ndarray) -> tuple[np.ndarray, Any]:
    """(k, h, w) coefficients of planes, and where each band of them lies."""
    pywt = pywavelets()
    most = pywt.dwtn_max_level(planes.shape[1:], WAVELET)
    bands = pywt.wavedec2(planes, WAVELET, "periodization", min(LEVELS, most), (1, 2))
    array, places = pywt.coeffs_to_array(bands, axes=(1, 2))
    return array, places


def _plane(coefficients: np.ndarray, places: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of ``_coefficients``."""
    pywt = pywavelets()
    bands = pywt.array_to_coeffs(coefficients, places, "wavedec2")
    whole = pywt.waverec2(bands, WAVELET, "periodization", (1, 2))
    return np.ascontiguousarray(whole[tuple(slice(n) for n in shape)], np.float32)


def _in_steps(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels (i8) of each component's values, of which the largest has ``_MOST``; and what they stand for (f32)."""
    flat = np.abs(values).reshape(len(values), -1)
    step = np.maximum(flat.max(1), 1e-30).reshape(-1, *[1] * (values.ndim - 1)) / _MOST
    levels = np.rint(values / step).astype(np.int8)
    return levels, (levels * step).astype(np.float32)
