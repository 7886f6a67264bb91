"""What the texels around a texel say about it: which value is expected there, and how far it may be from that.

Values are whole numbers of parts of a step, ``PARTS`` to the step. In each pass (``passes.py``) a texel is expected at
what a weighted mean of its four nearest known neighbours and of eight farther ones says, to the part; it lies a whole
number of steps from there, and that number is what is coded. So a texel whose neighbours foretell it to within half a
step takes next to no bits, and is still as smooth as they are: a step that would be rounded to the nearest of its
multiples would be a staircase. How far its neighbours are from what is expected is the context.

The two weights, the *pulls*, are those that suit the rank best: one pair for each kind (density, appearance) and pass.
The encoder predicts from what it has rounded, as the decoder will (``rounded``).
"""

from collections.abc import Iterator

import numpy as np

from tslim.model.entropy import N_SYMBOLS, Decoder, Encoder, Tables, split
from tslim.model.passes import N_PASSES, Group, Pass, in_order

PARTS = 16
"""of a step, that a value is a whole number of"""
LEVELS = 127
"""most steps to either side of 0 that a value is rounded to"""
PULL_ONE = 64
PULLS = (2, N_PASSES, 2)
"""shape of the pulls of a rank (i8): density and appearance; passes in order; near and far"""
LIMITS = (
    16, 22, 32, 45, 64, 90, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048, 2896, 4096, 5792, 8192, 11585, 16384, 23170,
)  # fmt: skip
"""Spreads between which contexts differ: half an octave apart. A spread is 24 ``PARTS`` times a mean distance in
steps."""
N_CONTEXTS = len(LIMITS) + 1
_MOST = LEVELS * PARTS
_CONTEXTS = np.searchsorted(LIMITS, np.arange(2**17), side="right").astype(np.uint8)
"""by spread; the largest that there can be is 24 times 4079"""


def new_tables() -> Tables:
    """Tables that know nothing but that numbers lie closer to 0 the less their neighbours are spread."""
    return tables_for(LIMITS, PARTS, 1)


def tables_for(limits: tuple[int, ...], parts: int, per_spread: int) -> Tables:
    """Tables of so many contexts between two limits, which are spreads of parts of a step.

    A number n has a count of some 128 in all in proportion to theta^|n|, where theta / (1 - theta) is the mean that a
    spread between the limits suggests.
    """
    counts = np.ones((len(limits) + 1, N_SYMBOLS), np.int64)
    symbols = split(np.arange(-LEVELS, LEVELS + 1))[0]
    for spread in range(len(limits) + 1):
        # Parts of 256: integers, so that any language comes to the same.
        mean = 2 if spread == 0 else max(limits[spread - 1] * 208 // (15 * parts), 2)
        theta = 256 * mean // (256 + mean)
        weights, weight = np.zeros(LEVELS + 1, np.int64), 1 << 20
        for n in range(LEVELS + 1):
            weights[n], weight = weight, weight * theta >> 8
        in_all = np.bincount(symbols, np.concatenate([weights[:0:-1], weights]), minlength=N_SYMBOLS).astype(np.int64)
        counts[spread] += 128 * in_all // in_all.sum()
    return Tables(counts.repeat(per_spread, axis=0))


def n_side(groups: list[Group]) -> int:
    """Bytes that ``encode`` returns beside what it gives to the coder."""
    k = len(groups[0].values)
    return len(groups) * k + len(_kinds(k)) * 2 * N_PASSES


def rounded(groups: list[Group], exact: list[Group]) -> np.ndarray:
    """Fills groups with what can be coded and is within half a step of ``exact`` (f32, in parts); returns the pulls."""
    pulls, k = np.zeros(PULLS, np.int8), len(groups[0].values)
    for group, wanted in zip(groups, exact, strict=True):
        group.put(group.texels.first, _whole_steps(wanted.take(group.texels.first)))
    for index, (stride, one) in enumerate(in_order()):
        known = [
            (group, places, _Around(group, stride, one), wanted.take(places))
            for group, wanted in zip(groups, exact, strict=True)
            if (places := group.texels.of(stride, one)) is not None
        ]
        for kind, held in _kinds(k).items():
            pulls[kind, index] = _best_pulls([(around, values, held) for _, _, around, values in known])
        for group, places, around, values in known:
            expected = around.expected(_of_components(pulls, index, k))
            group.put(places, expected + _whole_steps(values - expected))
    return pulls


def encode(groups: list[Group], pulls: np.ndarray, tables: Tables, coder: Encoder) -> bytes:
    """Codes the values of groups; returns what ``decode`` needs besides: spreads (u8) of all components, then the pulls
    of the kinds that are there. Raises ``ValueError`` for values that are not whole steps from what is expected."""
    k = len(groups[0].values)
    spreads = [_spreads(group) for group in groups]

    def steps(group: Group, places: np.ndarray, expected: np.ndarray) -> np.ndarray:
        parts = group.take(places) - expected
        if (parts % PARTS).any():
            raise ValueError("values that are not whole steps from what is expected")
        return parts.ravel() // PARTS

    for group, own in zip(groups, spreads, strict=True):
        coder.add(tables, own.repeat(len(group.texels.first)), steps(group, group.texels.first, np.zeros(1, np.int16)))
    for group, places, expected, contexts in _in_turn(groups, pulls):
        coder.add(tables, contexts.ravel(), steps(group, places, expected))
    return b"".join(own.tobytes() for own in spreads) + pulls[list(_kinds(k))].tobytes()


def decode(groups: list[Group], tables: Tables, coder: Decoder, side: bytes) -> np.ndarray:
    """Fills groups with what ``encode`` coded; returns the pulls. Raises ``ValueError`` for what it never makes."""
    k = len(groups[0].values)
    spreads = np.frombuffer(side, np.uint8, len(groups) * k).reshape(-1, k)
    if spreads.max() > len(LIMITS):
        raise ValueError("a spread that is out of range")
    kinds, pulls = list(_kinds(k)), np.zeros(PULLS, np.int8)
    pulls[kinds] = np.frombuffer(side, np.int8, -1, spreads.size).reshape(len(kinds), *PULLS[1:])
    for group, own in zip(groups, spreads, strict=True):
        group.put(group.texels.first, PARTS * coder.take(tables, own.repeat(len(group.texels.first))))
    for group, places, expected, contexts in _in_turn(groups, pulls):
        steps = coder.take(tables, contexts.ravel())
        group.put(places, expected + PARTS * steps.reshape(expected.shape))
    return pulls


def _in_turn(groups: list[Group], pulls: np.ndarray) -> Iterator[tuple[Group, np.ndarray, np.ndarray, np.ndarray]]:
    """After every first texel: groups pass by pass, with the places of the texels that come next, and, (k, n), what is
    expected there and the contexts. Those of a pass must be put in before the next is asked for."""
    for index, (stride, one) in enumerate(in_order()):
        for group in groups:
            places = group.texels.of(stride, one)
            if places is not None:
                around = _Around(group, stride, one)
                expected = around.expected(_of_components(pulls, index, len(group.values)))
                yield group, places, expected, around.contexts(expected)


class _Around:
    """What is known around the texels of a pass."""

    def __init__(self, group: Group, stride: int, one: Pass) -> None:
        self._near, self._far = group.around(stride, one)
        self._far_weight = one.far_weight
        # At most 8 times 2047: in 16 bits.
        self.near = sum(self._near[1:], self._near[0])
        """(k, n) sum of four"""
        self.far = one.far_weight * sum(self._far[1:], self._far[0])
        """(k, n) sum of eight"""

    def expected(self, pulls: np.ndarray) -> np.ndarray:
        """(k, n) i16, given the pulls (k, 2) i32."""
        wide = 2 * pulls[:, :1] * self.near
        wide += pulls[:, 1:] * self.far
        wide += 4 * PULL_ONE
        wide >>= 9
        return np.clip(wide, -_MOST, _MOST, out=wide).astype(np.int16)

    def contexts(self, expected: np.ndarray) -> np.ndarray:
        """(k, n) u8."""
        # No value is farther than 4079 from what is expected, so that the sum of eight is below 2^15.
        near, far = (sum(np.abs(values - expected) for values in some) for some in (self._near, self._far))
        return _CONTEXTS.take(4 * near.astype(np.int32) + self._far_weight * far)


def _kinds(k: int) -> dict[int, slice]:
    """Rows of the pulls for each kind that k components are of, and which of them: density has one, appearance 3."""
    return {kind: held for kind, held in ((0, slice(0, k % 3)), (1, slice(k % 3, k))) if held.start < held.stop}


def _of_components(pulls: np.ndarray, index: int, k: int) -> np.ndarray:
    """(k, 2) i32 pulls of a pass."""
    wide = np.empty((k, 2), np.int32)
    for kind, held in _kinds(k).items():
        wide[held] = pulls[kind, index]
    return wide


def _whole_steps(parts: np.ndarray) -> np.ndarray:
    """i16 nearest to so many parts."""
    return (PARTS * np.rint(parts / PARTS)).astype(np.int16)


def _spreads(group: Group) -> np.ndarray:
    """(k,) u8 contexts of the texels without neighbours: how far the component's are from 0 in the mean."""
    mean = np.abs(group.values).sum((1, 2), dtype=np.int64) / max(group.texels.n_seen, 1)
    return np.searchsorted(LIMITS, 24 * mean, side="right").astype(np.uint8)


def _best_pulls(of_groups: list[tuple[_Around, np.ndarray, slice]]) -> np.ndarray:
    """(2,) i8: those under which values (k, n) are closest to what is expected, each of the components that are held
    counting the same (least squares)."""
    matrix, right = np.diag([1e-9, 1e-9]), np.zeros(2)
    for around, values, held in of_groups:
        if values.size:
            size = np.abs(values[held]).mean(1, keepdims=True) + np.float32(PARTS / 20)
            near, far, wanted = (
                (some[held] / (of * size)).ravel() for some, of in ((around.near, 4), (around.far, 8), (values, 1))
            )
            matrix += [[near @ near, near @ far], [near @ far, far @ far]]
            right += [near @ wanted, far @ wanted]
    # Where the two go together, as where all is flat, they share what there is to say.
    matrix += np.eye(2) * 1e-6 * matrix[0, 0]
    return np.clip(np.rint(PULL_ONE * np.linalg.solve(matrix, right)), -127, 127).astype(np.int8)
