"""What a field holds at points of the world: colour towards a direction, and density."""

import numpy as np

from kernels import density
from kernels.appearance import Groups
from tslim.device import buffers
from tslim.errors import ConfigError
from tslim.field import features
from tslim.field.field import Field
from tslim.model.state import N_FEATURES

CHUNK_POINTS = 65536
"""Points that are looked up together."""


def query(
    field: Field, points: np.ndarray, directions: np.ndarray, rank: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """See ``Field.query``."""
    rank = field.rank_or_all(rank)
    points, directions = np.asarray(points, np.float32), np.asarray(directions, np.float32)
    if directions.shape == (3,) == points.shape[-1:]:
        directions = np.broadcast_to(directions, points.shape)
    if points.shape != directions.shape or points.shape[-1:] != (3,):
        raise ConfigError(f"points {points.shape} and directions {directions.shape}: expected (..., 3) both")
    shape = points.shape[:-1]
    points, directions = points.reshape(-1, 3), directions.reshape(-1, 3)
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    if not ((length > 0) & (length < np.inf)).all():
        raise ConfigError("a direction has no length, or none that is finite")
    directions = directions / length
    parts = [slice(i, i + CHUNK_POINTS) for i in range(0, len(points), CHUNK_POINTS)]
    found = [_query_part(field, points[part], directions[part], rank) for part in parts]
    rgb, density = (np.concatenate([np.zeros((0, *tail), np.float32), *each]) for tail, each in (
        ((3,), [c for c, _ in found]), ((), [s for _, s in found])
    ))  # fmt: skip
    return rgb.reshape(*shape, 3), density.reshape(shape)


def density_at(field: Field, points: np.ndarray, rank: int | np.ndarray | None) -> np.ndarray:
    """See ``Field.density_at``."""
    points = np.ascontiguousarray(points, np.float32)
    n = len(points)
    ranks = np.ascontiguousarray(np.broadcast_to(field.rank if rank is None else rank, n), np.int32)
    sigma = buffers.array(max(n, 1))
    density.density_at(
        n, buffers.upload(points.ravel()), buffers.upload(ranks), field.density.values, field.rank_scales,
        field.lattice(field.density), field.activation, sigma,
    )  # fmt: skip
    return buffers.read(sigma)[:n]


def _query_part(field: Field, points: np.ndarray, directions: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours (n, 3) and densities (n,)."""
    n, chunks = len(points), -(-3 * rank // buffers.CHUNK)
    at = np.nan_to_num(field.domain.to_field(points), nan=1e6)  # outside of every box
    scale = np.nan_to_num(field.domain.stretch(points, directions)) * field.config.distance_scale
    sigma = density_at(field, at, rank) * scale.astype(np.float32)
    last = np.asarray(field.grid, np.float32) - 1
    texels = np.clip((at - field.box[0]) * field.texels_per_unit, 0, last).astype(np.float32)
    every = np.arange(n + 1, dtype=np.int32)  # each point is a group by itself, on a ray of its own
    group_ray, ray_rank = buffers.upload(every[:n]), buffers.upload(np.full(n, rank, np.int32))
    raw, colours = buffers.array(N_FEATURES * n), buffers.array(3 * n)
    decoded = buffers.array(N_FEATURES * n) if field.config.rank_scales else raw
    products = buffers.take_arena(3 * chunks * n)
    arrays = (buffers.upload(every), buffers.upload(texels.ravel()), buffers.upload(np.ones(n, np.float32)))
    groups = Groups(n=n, visible=n, chunks=chunks, shared=0)
    features.compute(field, groups, arrays, group_ray, ray_rank, products, raw, decoded)
    field.decoder.forward(decoded, group_ray, buffers.upload(directions.ravel()), n, colours, keep=False)
    buffers.give_arena(products)
    return buffers.read(colours)[: 3 * n].reshape(n, 3), sigma.astype(np.float32)
