"""Sums of products in an order in which every prefix is worth most: of pairs exactly, of triples by a nested fit.

Notation: one mode's density is the matrix Σ_k p_k ⊗ l_k (texels of the plane × those of the line), its appearance the
tensor Σ_k p_k ⊗ l_k ⊗ b_k with a row b_k of the basis. P, L, B hold the factors as columns. A squared error counts with
a weight for its texel of the plane times one for its texel of the line. Both factors are compressed first, P = Q R by
QR, so that what is left to do is small: a core R_p R_lᵀ (K × K) for pairs, one of K × K × 27 for triples.

Pairs: the singular value decomposition of the core gives the same sum with the best prefixes (Eckart and Young 1936).
Triples: such a sum has in general no other terms (Kruskal 1977), so that order has a price. Alternating least squares
fit all prefixes at once: with T_r the sum of the first r ranks, Σ_r w_r ‖T - T_r‖² is quadratic in each of the three
factors, and its matrix is that of the usual fit times, entry by entry, W_jk = Σ w_r over the prefixes that hold both j
and k. No step makes the sum larger.
"""

from typing import cast

import numpy as np

_CLOSE = 1e-7
"""Singular values of a factor below this share of the largest are rounding."""
_HOLD = 1e-9
"""How strongly a step of the fit is held to where it was, as a share of its matrix: against terms that are equal."""
_NONE = 1e-300
_TRIES = 8
"""How often a fit goes on with other weights."""
_ROUNDS_FOR_ONE = 30
"""Rounds of the fit of one rank alone, which only gives the fit of all a start."""


def order_pairs(
    planes: np.ndarray, lines: np.ndarray, plane_weights: np.ndarray, line_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same sum of pairs, the first of which say most.

    Args:
        planes: (K, n_plane) one row a term.
        lines: (K, n_line).
        plane_weights, line_weights: (n_plane,) and (n_line,), 0 or more: an error counts for their product.

    Returns:
        Planes and lines of the same shapes, in float32. The sum is the same to rounding wherever something weighs (and
        elsewhere, unless some terms are the same as a mix of others where something weighs). Each prefix is the best of
        its length; plane and line of a term are equally large.
    """
    plane, line = _Side(planes, plane_weights), _Side(lines, line_weights)
    u, s, vt = np.linalg.svd(plane.core @ line.core.T, full_matrices=False)
    k = len(planes)
    left, right = (np.zeros((len(side.core), k)) for side in (plane, line))
    left[:, : len(s)] = u[:, :k] * np.sqrt(s[:k])
    right[:, : len(s)] = vt[:k].T * np.sqrt(s[:k])
    balance = np.sqrt(plane.rms(left) / np.maximum(line.rms(right), _NONE))
    return plane.back(left / np.maximum(balance, _NONE)), line.back(right * balance)


def order_triples(
    planes: np.ndarray,
    lines: np.ndarray,
    basis: np.ndarray,
    plane_weights: np.ndarray,
    line_weights: np.ndarray,
    prefix_weights: np.ndarray,
    rounds: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearly the same sum of triples, the first of which say most.

    Args:
        planes: (K, n_plane) one row a term.
        lines: (K, n_line).
        basis: (K, n_features).
        plane_weights, line_weights: as for ``order_pairs``.
        prefix_weights: (R,) above 0: what the error of the first r ranks counts for; a rank is K / R terms.
        rounds: of alternating least squares.

    Returns:
        Planes, lines and basis of the same shapes, in float32. No prefix but the whole has a larger error than that of
        the terms in the order given; where the fit cannot keep that, they are returned as they are.
    """
    plane, line = _Side(planes, plane_weights), _Side(lines, line_weights)
    _, _, vt = np.linalg.svd(basis.astype(np.float64), full_matrices=False)
    operands = (plane.core, line.core, vt @ basis.T)
    core = np.einsum("ik,jk,ck->ijc", *operands, optimize=True)
    found = _best_fit(core, operands, prefix_weights, rounds)
    sizes = [np.linalg.norm(factor, axis=0) for factor in operands]
    if found is None:
        return planes, lines, basis
    # What a row of the basis says stays of the usual size; plane and line share the rest.
    usual = np.median(sizes[2][sizes[2] > 0]) if sizes[2].any() else 1.0
    left, right, rows = found
    rescale = usual / np.maximum(np.linalg.norm(rows, axis=0), _NONE)
    balance = np.sqrt(plane.rms(left) / np.maximum(line.rms(right), _NONE))
    left, right = left / np.maximum(balance, _NONE) / np.sqrt(rescale), right * balance / np.sqrt(rescale)
    return plane.back(left), line.back(right), ((rows * rescale).T @ vt).astype(np.float32)


def held_by_pairs(
    planes: np.ndarray, lines: np.ndarray, plane_weights: np.ndarray, line_weights: np.ndarray
) -> np.ndarray:
    """(2, K): the squared error of the first terms of a sum of pairs, by their number, and the squares of the whole."""
    core = (_Side(planes, plane_weights).core, _Side(lines, line_weights).core, np.ones((1, len(planes))))
    return _errors_and_whole(core, len(planes))


def held_by_triples(
    planes: np.ndarray,
    lines: np.ndarray,
    basis: np.ndarray,
    plane_weights: np.ndarray,
    line_weights: np.ndarray,
    ranks: int,
) -> np.ndarray:
    """(2, R): the same for triples, by ranks."""
    terms = (_Side(planes, plane_weights).core, _Side(lines, line_weights).core, basis.T.astype(np.float64))
    return _errors_and_whole(terms, ranks)


def _errors_and_whole(terms: tuple[np.ndarray, ...], ranks: int) -> np.ndarray:
    core = np.einsum("ik,jk,ck->ijc", *terms, optimize=True)
    whole = np.sum(core**2)
    return np.stack([prefix_errors(core, terms, ranks) * whole, np.full(ranks, whole)])


def _best_fit(
    core: np.ndarray, operands: tuple[np.ndarray, ...], prefix_weights: np.ndarray, rounds: int
) -> tuple[np.ndarray, ...] | None:
    """The best of three fits: from ranks found one by one, from the given terms by size, and from these as they are.

    None if it has prefixes that are worse than those given, though their weights were raised several times.
    """
    ranks = len(prefix_weights)
    before = prefix_errors(core, operands, ranks)
    size = np.prod([np.linalg.norm(factor, axis=0) for factor in operands], axis=0)
    by_size = tuple(factor[:, np.argsort(-size, kind="stable")] for factor in operands)
    starts = (_one_by_one(core, operands, ranks), by_size, operands)
    fits = [_fit(core, start, prefix_weights, rounds) for start in starts]
    found = min(fits, key=lambda terms: prefix_weights @ prefix_errors(core, terms, ranks))
    weights = prefix_weights
    for _ in range(_TRIES):
        worse = prefix_errors(core, found, ranks)[:-1] > before[:-1] + _CLOSE
        if not worse.any():
            return found
        weights = np.where(np.append(worse, False), 4 * weights, weights)
        found = _fit(core, found, weights, rounds)
    return None


def _one_by_one(core: np.ndarray, operands: tuple[np.ndarray, ...], ranks: int) -> tuple[np.ndarray, ...]:
    """Terms of which each rank's fit what those before it leave over."""
    per_rank = operands[0].shape[1] // ranks
    n_i, n_j, n_c = core.shape
    rest, found = core.copy(), []
    for _ in range(ranks):
        u, s, vt = np.linalg.svd(rest.reshape(n_i, -1), full_matrices=False)
        a, b, c = np.zeros((n_i, per_rank)), np.zeros((n_j, per_rank)), np.zeros((n_c, per_rank))
        for k in range(min(per_rank, len(s))):
            left, size, right = np.linalg.svd(vt[k].reshape(n_j, n_c), full_matrices=False)
            a[:, k], b[:, k], c[:, k] = u[:, k], left[:, 0] * size[0] * s[k], right[0]
        terms = _fit(core=rest, terms=(a, b, c), prefix_weights=np.ones(1), rounds=_ROUNDS_FOR_ONE)
        rest -= np.einsum("ik,jk,ck->ijc", *terms, optimize=True)
        found.append(terms)
    return tuple(np.concatenate(factors, axis=1) for factors in zip(*found, strict=True))


def prefix_errors(core: np.ndarray, terms: tuple[np.ndarray, ...], ranks: int) -> np.ndarray:
    """(R,) squared error of the first r ranks, as a share of the squares of the core (I, J, C)."""
    per_rank = terms[0].shape[1] // ranks
    rest, errors = core.copy(), np.zeros(ranks)
    whole = max(float(np.sum(core**2)), _NONE)
    for rank in range(ranks):
        one = slice(per_rank * rank, per_rank * (rank + 1))
        rest -= np.einsum("ik,jk,ck->ijc", *(factor[:, one] for factor in terms), optimize=True)
        errors[rank] = np.sum(rest**2) / whole
    return errors


class _Side:
    """One factor X (n, K): its rows times the root of their weights are Q R, and what is done is done in terms of Q.

    Args:
        terms: (K, n) its columns.
        weights: (n,) 0 or more.
    """

    def __init__(self, terms: np.ndarray, weights: np.ndarray) -> None:
        self.terms = terms
        self.core = cast(np.ndarray, np.linalg.qr(terms.T.astype(np.float64) * np.sqrt(weights)[:, None], mode="r"))
        """(I, K) R, with I the lesser of n and K."""
        self.total = max(float(np.sum(weights, dtype=np.float64)), _NONE)

    def rms(self, columns: np.ndarray) -> np.ndarray:
        """(J,) weighted root mean square of the factors with coordinates (I, J)."""
        return np.linalg.norm(columns, axis=0) / np.sqrt(self.total)

    def back(self, columns: np.ndarray) -> np.ndarray:
        """(J, n) the factors with coordinates (I, J): mixes of the given terms, where nothing weighs as well."""
        mix = np.linalg.pinv(self.core, rcond=_CLOSE) @ columns
        return (mix.T @ self.terms.astype(np.float64)).astype(np.float32)


def _fit(
    core: np.ndarray, terms: tuple[np.ndarray, ...], prefix_weights: np.ndarray, rounds: int
) -> tuple[np.ndarray, ...]:
    """Rounds of alternating least squares from ``terms``; see above."""
    n_i, n_j, n_c = core.shape
    a, b, c = terms
    k = a.shape[1]
    rank_of = np.arange(k) // (k // len(prefix_weights))
    held = np.cumsum(prefix_weights[::-1])[::-1]
    single, pairs = held[rank_of], held[np.maximum(rank_of[:, None], rank_of)]
    by_c = core.reshape(n_i * n_j, n_c)
    by_i = np.ascontiguousarray(core.transpose(1, 2, 0)).reshape(n_j * n_c, n_i)

    def solve(old: np.ndarray, target: np.ndarray, gram: np.ndarray) -> np.ndarray:
        matrix = gram * pairs
        hold = _HOLD * np.trace(matrix) / k + _NONE
        matrix[np.diag_indices(k)] += hold
        return np.linalg.solve(matrix, (target * single + hold * old).T).T

    for _ in range(rounds):
        along_c = (by_c @ c).reshape(n_i, n_j, k)
        a = solve(a, np.einsum("ijk,jk->ik", along_c, b), (b.T @ b) * (c.T @ c))
        b = solve(b, np.einsum("ijk,ik->jk", along_c, a), (a.T @ a) * (c.T @ c))
        c = solve(c, np.einsum("jck,jk->ck", (by_i @ a).reshape(n_j, n_c, k), b), (a.T @ a) * (b.T @ b))
        sizes = [np.maximum(np.linalg.norm(x, axis=0), _NONE) for x in (a, b, c)]
        size = (sizes[0] * sizes[1] * sizes[2]) ** (1 / 3)
        a, b, c = (x * (size / s) for x, s in zip((a, b, c), sizes, strict=True))
    return a, b, c
