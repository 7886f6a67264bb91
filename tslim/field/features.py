"""Appearance features of groups of samples: products with the factors, then with the basis, then scale and shift."""

from typing import Any

import numpy as np

from kernels import appearance
from tslim.decoder import blas
from tslim.device import backend, buffers
from tslim.field.field import Field
from tslim.model.state import N_FEATURES

PRODUCT_BLOCK = 64
"""Samples that a CPU task of ``appearance.appearance_products`` takes."""


def compute(
    field: Field,
    groups: Any,
    arrays: tuple,
    group_ray: Any,
    ray_rank: Any,
    products: Any,
    raw: Any,
    features: Any,
) -> None:
    """Fills products, and features (n, 27) of n groups; raw is what they are before scale and shift per rank.

    Args:
        groups: ``kernels.groups.Groups``.
        arrays: group_start, visible_at, visible_part, as ``appearance_products`` takes them.
        features: may be raw itself where the field has no scale and shift per rank.
    """
    on_cpu, n = backend.current().is_cpu, int(groups.n)
    appearance.appearance_products(
        groups, PRODUCT_BLOCK if on_cpu else 1, group_ray, *arrays, ray_rank, field.appearance.values,
        field.appearance.layout, products,
    )  # fmt: skip
    if on_cpu:
        blas.product(*matrices(field, groups, products), raw[: n * N_FEATURES].reshape(n, N_FEATURES))
    else:
        appearance.basis_features(n, 3 * int(groups.chunks), products, field.basis, raw)
    if field.config.rank_scales:
        appearance.scale_features(n, group_ray, ray_rank, field.rank_scales, raw, features)


def matrices(field: Field, groups: Any, products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Products (n, width) and the basis rows in use (width, 27), as numpy views; on the CPU alone."""
    n, columns = int(groups.n), 3 * int(groups.chunks)
    width = columns * buffers.CHUNK
    basis = field.basis[: width * N_FEATURES].reshape(width, N_FEATURES)
    return products[: n * columns].reshape(n, width), basis
