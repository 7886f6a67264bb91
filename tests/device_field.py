"""A small random field on the device, packed here by the layout that ``kernels/__init__.py`` states.

Tests of kernels use this instead of ``tslim.Field``, so that a fault in packing cannot hide a fault in a kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from tests.reference import LINE_AXIS, PLANE_AXES, ReferenceField
from tslim.config import FieldConfig
from tslim.model.state import FieldState
from tslim.scene.domain import Domain

CHUNK = 16
MAX_RANK = 13
"""Not a multiple of 16 for either kind: 13 density components leave lanes empty, 39 appearance components, too."""
GRID = (7, 6, 9)
BOX = np.array([[-1.0, -0.7, -1.3], [1.2, 0.9, 1.0]], np.float32)


def random_state(
    rng: np.random.Generator,
    *,
    max_rank: int = MAX_RANK,
    grid: tuple[int, int, int] = GRID,
    rank_scales: bool = True,
    config: FieldConfig | None = None,
    scale: float = 0.5,
) -> FieldState:
    """A field of random numbers in which every part matters: dense enough to stop light, with random scales."""

    def factors(n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        planes = [rng.normal(0, scale, (n, grid[v], grid[u])).astype(np.float32) for u, v in PLANE_AXES]
        return planes, [rng.normal(0, scale, (n, grid[w])).astype(np.float32) for w in LINE_AXIS]

    config = config or FieldConfig(density_shift=-0.5, distance_scale=2.0)
    config = replace(config, max_rank=max_rank, rank_scales=rank_scales)
    density, appearance = factors(max_rank), factors(3 * max_rank)
    rows = np.concatenate([np.ones((max_rank, 1)), np.zeros((max_rank, 1)), np.ones((max_rank, 27))], 1)
    rows = np.concatenate([rows, np.zeros((max_rank, 27))], 1) + rng.normal(0, 0.3, (max_rank, 56))
    inputs = 30 + 54 * config.feature_encoding + 6 * config.direction_encoding
    decoder = {}
    if config.decoder == "mlp":
        for i, (a, b) in enumerate(((inputs, 128), (128, 128), (128, 3)), 1):
            decoder[f"w{i}"] = rng.normal(0, a**-0.5, (a, b)).astype(np.float32)
            decoder[f"b{i}"] = rng.normal(0, 0.1, b).astype(np.float32)
    return FieldState(
        config=config,
        domain=Domain(BOX.copy(), near=0.1, far=8.0),
        grid=grid,
        density_planes=density[0],
        density_lines=density[1],
        appearance_planes=appearance[0],
        appearance_lines=appearance[1],
        basis=rng.normal(0, 0.2, (3, 3 * max_rank, 27)).astype(np.float32),
        rank_scales=rows.astype(np.float32) if rank_scales else None,
        decoder=decoder,
    )


def pack(arrays: Sequence[np.ndarray], max_chunks: int, capacity: int) -> np.ndarray:
    """Planes, then lines, (C, …) per mode → (capacity, 16): each with ``max_chunks`` chunks of its texels."""
    parts = []
    for values in arrays:
        chunks = np.zeros((max_chunks * CHUNK, values[0].size), np.float32)
        chunks[: len(values)] = values.reshape(len(values), -1)
        parts.append(chunks.reshape(max_chunks, CHUNK, -1).transpose(0, 2, 1).reshape(-1, CHUNK))
    packed = np.zeros((capacity, CHUNK), np.float32)
    packed[: sum(map(len, parts))] = np.concatenate(parts)
    return packed


def unpack(packed: np.ndarray, like: Sequence[np.ndarray], max_chunks: int) -> list[np.ndarray]:
    """The inverse of ``pack``; asserts that lanes of no component hold zeros."""
    out, at = [], 0
    for values in like:
        texels = values[0].size
        block = packed[at : at + max_chunks * texels].reshape(max_chunks, texels, CHUNK)
        flat = block.transpose(0, 2, 1).reshape(max_chunks * CHUNK, texels)
        assert not flat[len(values) :].any(), "a lane above the field's components was written"
        out.append(flat[: len(values)].reshape(values.shape))
        at += max_chunks * texels
    assert not packed[at:].any(), "an element behind the field's texels was written"
    return out


def by_atomics() -> bool:
    """Whether gradients are scattered by atomics on the device in use, by kernels of their own."""
    from tslim.device import backend

    return not backend.current().is_cpu


class _OnHost:
    def __init__(self, owner) -> None:
        self._owner = owner

    def __getattr__(self, name: str):
        from tslim.device import buffers

        value = getattr(self._owner, name)
        if name == "rays":
            return on_host(value)
        return buffers.read(value) if hasattr(value, "to_numpy") else value


def on_host(owner):
    """The same object, except that device arrays among its attributes are copied to the host whenever they are read."""
    return _OnHost(owner)


def arena(n: int):
    """An arena of just n elements; from the pool it could be a larger one."""
    import taichi as ti

    from tslim.device import backend, buffers

    return buffers.take_arena(n) if backend.current().is_cpu else ti.Vector.ndarray(CHUNK, ti.f32, n)


class Arenas:
    """The arenas of one field: factors and their gradients, of both kinds."""

    CAPACITY = 8192

    def __init__(self) -> None:
        for kind in ("density", "appearance"):
            for name in (kind, f"grad_{kind}"):
                setattr(self, name, arena(self.CAPACITY))


@dataclass
class DeviceField:
    """``state`` on the device, with the arguments that kernels take."""

    state: FieldState
    arenas: Arenas
    density_chunks: int = 2
    appearance_chunks: int = 4
    rank_scales: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rows = self.state.rank_scales
        if rows is None:
            rows = np.zeros((self.state.rank, 56), np.float32)
            rows[:, 0] = rows[:, 2:29] = 1
        self.rank_scales = np.ascontiguousarray(rows).ravel()
        self.upload()

    def upload(self) -> None:
        """Writes the factors and clears the gradients."""
        from tslim.device import buffers

        for kind in ("density", "appearance"):
            buffers.write(getattr(self.arenas, kind), pack(self.tensors(kind), self.chunks(kind), Arenas.CAPACITY))
            getattr(self.arenas, f"grad_{kind}").fill(0)

    def tensors(self, kind: str) -> list[np.ndarray]:
        """Planes, then lines, of one kind of factor."""
        return [*getattr(self.state, f"{kind}_planes"), *getattr(self.state, f"{kind}_lines")]

    def chunks(self, kind: str) -> int:
        """Chunk capacity of one kind of factor; more than it needs, so that a stride mistaken for a count shows."""
        return self.density_chunks if kind == "density" else self.appearance_chunks

    def read(self, prefix: str, kind: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """(planes, lines) of one kind, of the factors (prefix "") or of their gradients (prefix "grad_")."""
        from tslim.device import buffers

        packed = buffers.read(getattr(self.arenas, f"{prefix}{kind}"))
        found = unpack(packed, self.tensors(kind), self.chunks(kind))
        return found[:3], found[3:]

    def gradients(self) -> dict[str, np.ndarray]:
        """The gradients of all factors, named as ``ReferenceField.named_parameters`` names them."""
        named = {}
        for kind in ("density", "appearance"):
            for part, arrays in zip(("planes", "lines"), self.read("grad_", kind), strict=True):
                named |= {f"{kind}_{part}[{mode}]": values for mode, values in enumerate(arrays)}
        return named

    def layout(self, kind: str):
        """``kernels.vm.Layout`` of one kind of factor."""
        from kernels.vm import Layout

        return Layout(grid=self.state.grid, chunks=self.chunks(kind))

    def lattice(self, kind: str, contracted: int = 0):
        """``kernels.vm.Lattice`` of one kind of factor."""
        from kernels.vm import Lattice

        low, high = self.state.box
        per_unit = (np.array(self.state.grid) - 1) / (high - low)
        return Lattice(box_min=low, texels_per_unit=per_unit, layout=self.layout(kind), contracted=contracted)

    def on_grid(self, samples: "Samples") -> np.ndarray:
        """(3 n_samples) where samples lie in texels of the grid, clamped to the box."""
        low, high = self.state.box
        last = np.array(self.state.grid, np.float32) - 1
        at = (samples.points.numpy().astype(np.float32) - low) * (last / (high - low))
        return np.clip(at, 0, last).astype(np.float32).ravel()

    def reference(self, requires_grad: bool = True) -> ReferenceField:
        """The twin of this field, in float64."""
        return ReferenceField.from_state(self.state, requires_grad=requires_grad)


@dataclass
class Samples:
    """Rays with their samples, at chosen points: sorted by ray, as the march leaves them."""

    origins: np.ndarray  # (n_rays, 3) f32
    directions: np.ndarray  # (n_rays, 3) f32, unit
    ranks: np.ndarray  # (n_rays,) i32
    start: np.ndarray  # (n_rays + 1,) i32
    t: np.ndarray  # (n_samples,) f32
    ray: np.ndarray  # (n_samples,) i32

    @property
    def points(self) -> torch.Tensor:
        """(n_samples, 3) in float64, as the kernels compute them."""
        return torch.tensor(self.origins[self.ray] + self.directions[self.ray] * self.t[:, None]).double()

    def as_torch(self) -> tuple[torch.Tensor, ...]:
        """(origins, directions, ray, t, ranks) in float64 and int64."""
        origins, directions, t = (torch.tensor(a).double() for a in (self.origins, self.directions, self.t))
        return origins, directions, torch.tensor(self.ray).long(), t, torch.tensor(self.ranks).long()


def random_samples(
    rng: np.random.Generator, n_rays: int = 40, *, ranks: tuple[int, ...], step: float = 0.13
) -> Samples:
    """Rays through the box with all their samples there and some outside it.

    The first rays have no sample, or run along an axis through texels of the grid, so that their samples lie on borders
    between cells; the rest are random. Ranks are taken in turn from ``ranks``.
    """
    low, high = BOX.astype(float)
    origins = rng.normal(size=(n_rays, 3))
    origins *= 3 / np.linalg.norm(origins, axis=1, keepdims=True)
    directions = rng.uniform(0.7 * low, 0.7 * high, (n_rays, 3)) - origins
    texels = low + (high - low) * np.array([[2 / 6, 3 / 5, 4 / 8], [0, 1, 0.5], [1, 0.3, 0]])
    for i in range(3):
        origins[1 + i], directions[1 + i] = texels[i], np.eye(3)[i]
        origins[1 + i, i] = low[i] - 2
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    counts, distances = [], []
    for i in range(n_rays):
        t = np.arange(0.5, 6, step)
        if i in (1, 2, 3):
            axis = i - 1
            t = 2 + (high - low)[axis] * np.arange(GRID[axis]) / (GRID[axis] - 1)
        points = origins[i] + t[:, None] * directions[i]
        margin = 0.0 if i % 5 else 0.3
        inside = ((points > low - margin - 1e-6) & (points < high + margin + 1e-6)).all(1)
        t = t[inside] if i else t[:0]
        counts.append(len(t))
        distances.append(t)
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return Samples(
        origins.astype(np.float32),
        directions.astype(np.float32),
        np.resize(np.array(ranks, np.int32), n_rays),
        start,
        np.concatenate(distances).astype(np.float32),
        np.repeat(np.arange(n_rays, dtype=np.int32), counts),
    )


def assert_gradient(name: str, ours: np.ndarray, right: torch.Tensor | np.ndarray, tolerance: float = 2e-4) -> None:
    """Two gradients agree: in direction (cosine), in magnitude (ratio of norms) and entry by entry.

    ``tolerance`` is relative to the largest entry. A gradient that is zero, or scaled, or partly missing hides inside
    an absolute tolerance, but not in cosine and ratio.
    """
    a = np.asarray(ours, np.float64).ravel()
    b = (right.detach().numpy() if isinstance(right, torch.Tensor) else np.asarray(right)).astype(np.float64).ravel()
    size_a, size_b = np.linalg.norm(a), np.linalg.norm(b)
    assert size_b > 0, f"{name}: the reference gradient is zero, the test proves nothing"
    error = np.abs(a - b) / np.abs(b).max()
    cosine = a @ b / max(size_a * size_b, 1e-300)
    report = (
        f"{name}: cosine {cosine:.7f}, ratio of norms {size_a / size_b:.7f}, error relative to the largest entry: "
        f"mean {error.mean():.2e}, maximum {error.max():.2e}, "
        f"{100 * (error > tolerance).mean():.2f} % above {tolerance}"
    )
    assert abs(size_a / size_b - 1) < tolerance, report
    assert 1 - cosine < tolerance**2 + 1e-7, report
    assert error.max() < tolerance, report


def activation(shift: float, softplus: bool = True):
    """``kernels.density.Activation``."""
    from kernels.density import Activation

    return Activation(shift=shift, use_softplus=int(softplus))
