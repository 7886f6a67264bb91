"""Fields from checkpoints of TensoRF and SlimmeRF (``.th``), and the other way round in ``tensorf_write.py``.

What the public code calls ``TensorVMSplit`` is what a field is here, in the same axes: planes (x, y), (x, z), (y, z) as
[v, u], lines z, y, x, texels on the corners of the box. One rank is 1 density and 3 appearance components a mode, so
that 16 and 48 are 16 ranks; where modes have different numbers of components, those that lack some are filled with
zeros. ``TensorCP`` has only lines: each component becomes the plane of two of them and the third line, a third of the
components in each mode, which is the same field.

Rays stop nowhere before they leave the box there, whatever ``far`` says, so there is no far here. The alpha mask says
at vertices where something is, and a sample counts if one of the eight around it does: these are the occupied cells.

SlimmeRF saves masks as large as the factors: components that they switch off are left out, and so are the masks.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from tslim import config
from tslim.config import FieldConfig
from tslim.device import memory
from tslim.errors import ConfigError, ModelFileError, short
from tslim.model import th_file
from tslim.model.shared import MOST_CELLS
from tslim.model.state import LINE_AXES, N_FEATURES, PLANE_AXES
from tslim.model.stored import StoredState
from tslim.model.th_file import Checkpoint
from tslim.scene.domain import Domain
from tslim.scene.paths import Orbit

TRAINED_BY = "trained_by"
"""Name in the metadata of a field that comes from a checkpoint: of TensoRF, whose ranks are in no order, or of
SlimmeRF."""
UNORDERED, ORDERED = "TensoRF", "SlimmeRF"
MOST_SIDE = 4096
MOST_BYTES = 4e9
"""Most bytes of a field in memory, four times as many as any that was published had; a few lines of TensorCP can ask
for far more."""
LAYERS = (0, 2, 4)
"""Layers of ``renderModule.mlp`` that have weights."""
_NO_DECODER = {
    "MLP_PE": "its MLP sees where a sample is, and the decoders here see features and directions only",
    "SH": "its harmonics are shifted by a half and cut at 0, where those of a field here end in a sigmoid",
    "RGB": "its features are the colours, unbounded, and every decoder here ends in a sigmoid",
}
"""Shading modes of the public code that no field here can have, and why."""


def read(path: str | Path) -> StoredState:
    """The field of a checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
        ModelFileError: no checkpoint, a damaged one, or one of a kind that no field here can be.
        OutOfMemoryError: it does not fit into memory.
        MissingPackageError: PyTorch is not installed.
    """
    found = th_file.read(path)
    try:
        return state_of(found)
    except ModelFileError as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from error
    except (ConfigError, TypeError, ValueError, KeyError, OverflowError) as error:
        raise ModelFileError(f"{path} is a checkpoint that makes no sense: {error}") from error


def state_of(found: Checkpoint) -> StoredState:
    """The field of what a ``.th`` file holds. Raises as ``read``, and ``ValueError`` and its like for nonsense."""
    kwargs, arrays = found.kwargs, found.arrays
    domain = _domain(kwargs)
    x, y, z = (_whole(side, "gridSize", 2, MOST_SIDE) for side in kwargs["gridSize"])
    grid = (x, y, z)
    density = _Factors(arrays, "density", grid)
    appearance = _Factors(arrays, "app", grid)
    ranks = max(density.counts), -(-max(appearance.counts) // 3)
    rank = max(ranks)
    texels = sum(grid[u] * grid[v] for u, v in PLANE_AXES) + sum(grid)
    n_bytes = 16 * rank * texels
    if n_bytes > MOST_BYTES:
        raise ModelFileError(
            f"as planes and lines it would take {n_bytes / 1e9:.1f} GB; {MOST_BYTES / 1e9:g} GB can be"
        )
    memory.require({"field": n_bytes}, "a smaller checkpoint")
    decoder, settings = _decoder(kwargs, arrays)
    field = FieldConfig(max_rank=rank, decoder="mlp", **{**settings, **_activation(kwargs)})
    config.require_valid_field(field)
    density_planes, density_lines = density.as_modes(rank)
    appearance_planes, appearance_lines = appearance.as_modes(3 * rank)
    occupancy, lattice = (None, None) if found.mask is None else _cells(*found.mask, domain.box)
    slimmed = any(name.startswith("density_plane_mask") for name in arrays)
    return StoredState(
        config=field,
        domain=domain,
        grid=grid,
        density_planes=density_planes,
        density_lines=density_lines,
        appearance_planes=appearance_planes,
        appearance_lines=appearance_lines,
        basis=appearance.basis(arrays, 3 * rank),
        rank_scales=None,
        decoder=decoder,
        occupancy=occupancy,
        occupancy_box=lattice,
        metadata={
            TRAINED_BY: ORDERED if slimmed else UNORDERED,
            "march": config.march_of(
                {
                    "step_ratio": float(kwargs["step_ratio"]),
                    "weight_threshold": float(kwargs.get("rayMarch_weight_thres", 1e-4)),
                }
            ),
            "path": _orbit_around(domain).to_dict(),
        },
        separate_ranks=None if ranks[0] == ranks[1] else ranks,
    )


class _Factors:
    """Planes and lines of one kind: of a VM field as they are, of a CP field as the modes that it is put into."""

    def __init__(self, arrays: dict[str, np.ndarray], kind: str, grid: tuple[int, int, int]) -> None:
        if f"{kind}_line.0" not in arrays:
            raise ModelFileError(f"it has no {kind}_line.0: neither TensorVMSplit nor TensorCP")
        self.grid, self.is_cp = grid, f"{kind}_plane.0" not in arrays
        self.lines = [_factor(arrays, f"{kind}_line.{m}", (grid[w], 1))[:, :, 0] for m, w in enumerate(LINE_AXES)]
        self.planes: list[np.ndarray] = []
        """none of a CP field"""
        if self.is_cp:
            counts = {len(line) for line in self.lines}
            if len(counts) > 1:
                raise ModelFileError(
                    f"its {kind} lines have {sorted(counts)} components; of TensorCP they have as many"
                )
            self.parts = np.array_split(np.arange(len(self.lines[0])), 3)
            self.stored = self.counts = [len(part) for part in self.parts]
            return
        self.planes = [_factor(arrays, f"{kind}_plane.{m}", (grid[v], grid[u])) for m, (u, v) in enumerate(PLANE_AXES)]
        self.stored = [len(plane) for plane in self.planes]
        """components a mode"""
        self.counts = [_switched_on(arrays, f"{kind}_line_mask.{m}", n) for m, n in enumerate(self.stored)]
        """of which so many are in use"""
        if self.stored != [len(line) for line in self.lines]:
            raise ModelFileError(f"its {kind} planes and lines have different numbers of components")

    def as_modes(self, n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Planes (n, G_v, G_u) and lines (n, G_w) of each mode, zero where there are fewer."""
        planes, lines = [], []
        for mode, ((u, v), w) in enumerate(zip(PLANE_AXES, LINE_AXES, strict=True)):
            plane = np.zeros((n, self.grid[v], self.grid[u]), np.float32)
            line = np.zeros((n, self.grid[w]), np.float32)
            count = self.counts[mode]
            if self.is_cp:
                along = {axis: self.lines[m][self.parts[mode]] for m, axis in enumerate(LINE_AXES)}
                plane[:count] = along[v][:, :, None] * along[u][:, None, :]
                line[:count] = along[w]
            else:
                plane[:count], line[:count] = self.planes[mode][:count], self.lines[mode][:count]
            planes.append(plane)
            lines.append(line)
        return planes, lines

    def basis(self, arrays: dict[str, np.ndarray], n: int) -> np.ndarray:
        """(3, n, 27) the rows of these components."""
        weight = _array(arrays, "basis_mat.weight", 2)
        features, components = weight.shape
        if components != sum(self.stored):
            raise ModelFileError(f"basis_mat.weight is for {components} components: there are {sum(self.stored)}")
        if features > N_FEATURES:
            raise ModelFileError(f"it has {features} colour features (app_dim): at most {N_FEATURES} can be read")
        basis = np.zeros((3, n, N_FEATURES), np.float32)
        for mode, end in enumerate(np.cumsum(self.stored)):
            first, count = end - self.stored[mode], self.counts[mode]
            basis[mode, :count, :features] = weight[:, first : first + count].T
        return basis


def _factor(arrays: dict[str, np.ndarray], name: str, sides: tuple[int, int]) -> np.ndarray:
    """(components, height, width) of a parameter (1, components, height, width)."""
    array = _array(arrays, name, 4)
    if array.shape[0] != 1 or array.shape[2:] != sides or not 1 <= array.shape[1] <= 768:
        raise ModelFileError(f"{name} has the shape {array.shape}, where gridSize means (1, components, {sides})")
    return array[0]


def _switched_on(arrays: dict[str, np.ndarray], name: str, n: int) -> int:
    """How many of n components, from the first, a mask of SlimmeRF lets through; all if there is none."""
    if name not in arrays:
        return n
    mask = arrays[name]
    if mask.ndim != 4 or mask.shape[1] != n or 0 in mask.shape:
        raise ModelFileError(f"{name} has the shape {mask.shape} for {n} components")
    return max(int(np.cumprod(mask[0, :, 0, 0] > 0.5).sum()), 1)


def _array(arrays: dict[str, np.ndarray], name: str, dimensions: int) -> np.ndarray:
    if name not in arrays:
        raise ModelFileError(f"it has no {name}")
    array = arrays[name]
    if array.ndim != dimensions:
        raise ModelFileError(f"{name} has the shape {array.shape}")
    if not np.isfinite(array).all():
        raise ModelFileError(f"{name} holds values that are not finite")
    return array


def _domain(kwargs: dict[str, Any]) -> Domain:
    near, far = (float(value) for value in kwargs["near_far"])
    if (near, far) == (0.0, 1.0):
        raise ModelFileError(
            "it was trained in NDC (near_far 0 to 1) on forward-facing photographs: where a ray runs in NDC depends on "
            "their focal length and size, which it does not hold; objects in a box can be read"
        )
    if not 0 <= near < math.inf:
        raise ModelFileError(f"near_far starts at {near}")
    return Domain.of(np.asarray(kwargs["aabb"], np.float32), near=near)


def _orbit_around(domain: Domain) -> Orbit:
    """A camera path, as a checkpoint has none: around the box, so far away that it begins beyond ``near``."""
    low, high = (np.asarray(corner, np.float64) for corner in domain.box)
    across = float(np.linalg.norm(high - low))
    x, y, z = (float(value) for value in (low + high) / 2)
    return Orbit(center=(x, y, z), radius=max(1.2 * across, domain.near + 0.5 * across), size=(800, 800))


def _activation(kwargs: dict[str, Any]) -> dict[str, Any]:
    kind = kwargs["fea2denseAct"]
    if kind not in ("softplus", "relu"):
        raise ModelFileError(f"fea2denseAct is {short(kind)}: softplus and relu can be read")
    return {
        "density_activation": kind,
        "density_shift": float(kwargs["density_shift"]) if kind == "softplus" else 0.0,
        "distance_scale": float(kwargs["distance_scale"]),
    }


def _decoder(kwargs: dict[str, Any], arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The MLP by the names that it has here, and what a ``FieldConfig`` says of it.

    Features that a small ``app_dim`` lacks and units up to a multiple of 16 are filled with weights of zero.
    """
    mode = kwargs["shadingMode"]
    if mode not in ("MLP_Fea", "MLP"):
        why = f" ({_NO_DECODER[str(mode)]})" if str(mode) in _NO_DECODER else ""
        raise ModelFileError(f"its shadingMode is {short(mode)}{why}: MLP_Fea and MLP can be read")
    in_features = _whole(kwargs["fea_pe"], "fea_pe", 0, 10) if mode == "MLP_Fea" else 0
    in_directions = _whole(kwargs["view_pe"], "view_pe", 0, 10)
    features = _whole(kwargs["app_dim"], "app_dim", 1, N_FEATURES)
    weights = [_array(arrays, f"renderModule.mlp.{i}.weight", 2) for i in LAYERS]
    biases = [_array(arrays, f"renderModule.mlp.{i}.bias", 1) for i in LAYERS]
    inputs = features + 3 + 2 * features * in_features + 6 * in_directions
    units = len(weights[0])
    wanted = [(units, inputs), (units, units), (3, units)]
    if [w.shape for w in weights] != wanted or [len(b) for b in biases] != [units, units, 3] or not 1 <= units <= 4096:
        raise ModelFileError(
            f"renderModule.mlp has the shapes {', '.join(str(w.shape) for w in weights)}, "
            f"where app_dim, view_pe and fea_pe mean {', '.join(map(str, wanted))}"
        )
    width = -(-units // 16) * 16
    places = _places(features, in_features, in_directions)
    rows = [places, np.arange(units), np.arange(units)]
    sizes = [(N_FEATURES + 3 + 2 * N_FEATURES * in_features + 6 * in_directions, width), (width, width), (width, 3)]
    decoder: dict[str, np.ndarray] = {}
    for i, (weight, bias, row, (n_in, n_out)) in enumerate(zip(weights, biases, rows, sizes, strict=True), 1):
        decoder[f"w{i}"], decoder[f"b{i}"] = np.zeros((n_in, n_out), np.float32), np.zeros(n_out, np.float32)
        decoder[f"w{i}"][row, : len(bias)] = weight.T
        decoder[f"b{i}"][: len(bias)] = bias
    return decoder, {"decoder_width": width, "feature_encoding": in_features, "direction_encoding": in_directions}


def _places(features: int, in_features: int, in_directions: int) -> np.ndarray:
    """Which of the decoder's inputs here each input of an MLP for so few features is: the order is the same."""
    parts = [np.arange(features), N_FEATURES + np.arange(3)]
    at = N_FEATURES + 3
    for _ in ("sines", "cosines"):
        parts.append(at + np.arange(features * in_features))
        at += N_FEATURES * in_features
    parts.append(at + np.arange(6 * in_directions))
    return np.concatenate(parts)


def _cells(
    bits: np.ndarray, shape: tuple[int, ...], lattice: np.ndarray, box: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Occupied cells (oz, oy, ox) of an alpha mask, and their box. Where that does not reach around the field's box,
    everything beyond it is empty, as it is there."""
    sides = [_whole(side, "alphaMask.shape", 1, MOST_SIDE) for side in shape]
    if len(sides) < 3 or math.prod(sides[:-3]) != 1 or min(sides[-3:]) < 2 or math.prod(sides) > MOST_CELLS:
        raise ModelFileError(f"alphaMask.shape is {shape}")
    n = math.prod(sides)
    if bits.dtype != np.uint8 or bits.shape != (-(-n // 8),):
        raise ModelFileError(f"alphaMask.mask has {bits.size} bytes for {n} vertices")
    vertices = np.unpackbits(bits, count=n).astype(bool).reshape(sides[-3:])
    lattice = Domain.of(lattice).box
    spacing = (lattice[1] - lattice[0]) / (np.array(vertices.shape[::-1], np.float32) - 1)
    if (box[0] < lattice[0] - 1e-3 * spacing).any() or (box[1] > lattice[1] + 1e-3 * spacing).any():
        vertices, lattice = np.pad(vertices, 2), lattice + 2 * np.stack([-spacing, spacing])
    return cells_around(vertices), lattice


def cells_around(vertices: np.ndarray) -> np.ndarray:
    """(z-1, y-1, x-1) cells of a lattice (z, y, x) that have a marked vertex among their eight."""
    for axis in range(3):
        first, second = (np.take(vertices, np.arange(vertices.shape[axis] - 1) + i, axis) for i in (0, 1))
        vertices = first | second
    return vertices


def _whole(value: Any, name: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not float(value).is_integer() or not low <= value <= high:
        raise ModelFileError(f"{name} is {short(value)}: expected a whole number from {low} to {high}")
    return int(value)
