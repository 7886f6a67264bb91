"""An entropy coder for whole numbers whose contexts are known before they are: adaptive tables, interleaved rANS.

A number, at most ``MOST`` to either side of 0, is coded as a symbol, and as plain bits where a symbol stands for
several numbers: up to 7 each has a symbol of its own, above that two symbols share an octave. How likely each symbol
is in each context is learned from those before (``Tables``): coder and decoder, which have seen the same, agree.

Numbers are coded in pieces of ``PIECE``; counts take effect after each piece. Number i of a piece belongs to lane i
modulo the number of lanes, each of which is a state of its own (J. Duda, arXiv:1311.2540): 32 bits, of which 16 at a
time move to or from the common stream of u16 words, lanes in order. What the lanes hold in the end is not lost, but
carries other bytes of the block. All is exact arithmetic of integers: any language decodes the same.
"""

import numpy as np

PIECE = 4096
"""numbers after which counts take effect"""
MOST = 511
"""largest number that can be coded"""
N_SYMBOLS = 39
LANES = 256
"""at most"""
_SCALE_BITS = 14
_SCALE = 1 << _SCALE_BITS
_LOW = 1 << 16
"""states are in [_LOW, 2^32) between numbers"""
_WEIGHT = 16
"""what a number adds to its count"""
_FULL = 1 << 15
"""sum of a context's counts above which they are halved, so that what was long ago fades"""


def split(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Symbols of whole numbers, how many plain bits follow each, and what those bits say."""
    size = np.abs(numbers).astype(np.int64)
    octave = np.frexp(np.maximum(size, 1).astype(np.float32))[1].astype(np.int64) - 1
    n_bits = np.where(size < 8, 0, octave - 1)
    bucket = np.where(size < 8, size, 2 + 2 * octave + ((size >> n_bits) & 1))
    return np.maximum(2 * bucket - (numbers > 0), 0), n_bits, size & ((1 << n_bits) - 1)


def _starts() -> tuple[np.ndarray, np.ndarray]:
    """Of each symbol, the number nearest to 0 that it stands for, and how many plain bits follow it."""
    numbers = np.arange(-MOST, MOST + 1)
    symbols, n_bits, rest = split(numbers)
    start, bits = np.zeros(N_SYMBOLS, np.int64), np.zeros(N_SYMBOLS, np.int64)
    start[symbols[rest == 0]], bits[symbols] = numbers[rest == 0], n_bits
    return start, bits


STARTS, EXTRA_BITS = _starts()


def lanes_for(carried: int) -> int:
    """How many lanes a block has whose lanes are to carry so many bytes: as many as can, within bounds."""
    return int(min(max(carried // 2, 16), LANES))


class Tables:
    """How often each symbol came in each context, and what shares of ``_SCALE`` that gives them.

    Args:
        counts: (contexts, symbols), above 0, to begin with.
    """

    def __init__(self, counts: np.ndarray) -> None:
        self._counts = np.array(counts, np.int64)
        n, self.width = self._counts.shape
        self.parts = np.zeros(n * self.width, np.int64)
        """flat, of _SCALE in each context"""
        self.at = np.zeros(n * self.width, np.int64)
        """where they begin, rising through all contexts"""
        self._share(np.arange(n))

    def learn(self, contexts: np.ndarray, symbols: np.ndarray) -> None:
        """Counts what came."""
        if len(contexts) < 1:
            return
        came = np.bincount(contexts * self.width + symbols, minlength=self._counts.size).reshape(self._counts.shape)
        touched = np.flatnonzero(came.any(axis=1))
        counts = self._counts[touched] + _WEIGHT * came[touched]
        full = counts.sum(1) > _FULL
        counts[full] = (counts[full] + 1) >> 1
        self._counts[touched] = counts
        self._share(touched)

    def _share(self, contexts: np.ndarray) -> None:
        """Every symbol gets one part and, by its count, its share of the others; the likeliest gets what is left."""
        counts = self._counts[contexts]
        parts = 1 + counts * (_SCALE - self.width) // counts.sum(1, keepdims=True)
        parts[np.arange(len(parts)), counts.argmax(1)] += _SCALE - parts.sum(1)
        self.parts.reshape(-1, self.width)[contexts] = parts
        self.at.reshape(-1, self.width)[contexts] = parts.cumsum(1) - parts + _SCALE * contexts[:, None]


class Encoder:
    """Takes numbers with their contexts and, at last, gives the bytes."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._at: list[np.ndarray] = []
        self._bits: list[np.ndarray] = []
        self._values: list[np.ndarray] = []

    def add(self, tables: Tables, contexts: np.ndarray, numbers: np.ndarray) -> None:
        """Codes numbers (n,), each in its context (n,)."""
        symbols, n_bits, rest = split(numbers)
        self._bits.append(n_bits[n_bits > 0].astype(np.uint8))
        self._values.append(rest[n_bits > 0].astype(np.uint8))
        for first in range(0, len(symbols), PIECE):
            c, s = contexts[first : first + PIECE].astype(np.int64), symbols[first : first + PIECE]
            which = c * tables.width + s
            self._parts.append(tables.parts[which].astype(np.uint16))
            self._at.append((tables.at[which] % _SCALE).astype(np.uint16))
            tables.learn(c, s)

    def finish(self, carried: bytes, lanes: int) -> bytes:
        """The number of words (u32), the words (u16), plain bits. ``carried``: up to 2 ``lanes`` bytes that
        ``Decoder.carried`` gives back."""
        states = np.full(lanes, _LOW, np.uint64)
        held = np.frombuffer(carried + bytes(len(carried) % 2), "<u2")
        states[: len(held)] += held
        words: list[np.ndarray] = []
        for parts, at in zip(reversed(self._parts), reversed(self._at), strict=True):
            for first in range((len(parts) - 1) // lanes * lanes, -1, -lanes):
                part = parts[first : first + lanes].astype(np.uint64)
                x = states[: len(part)]
                full = x >= part << np.uint64(32 - _SCALE_BITS)
                words.append((x[full] & np.uint64(0xFFFF)).astype("<u2"))
                x[full] >>= np.uint64(16)
                whole, rest = np.divmod(x, part)
                x[:] = (whole << np.uint64(_SCALE_BITS)) + rest + at[first : first + lanes]
        stream = np.concatenate([states.astype("<u4").view("<u2"), *reversed(words)])
        return len(stream).to_bytes(4, "little") + stream.tobytes() + self._plain_bits()

    def _plain_bits(self) -> bytes:
        if not self._bits:
            return b""
        n_bits, values = (np.concatenate(some).astype(np.int64) for some in (self._bits, self._values))
        owner, place = _places(n_bits)
        return np.packbits((values[owner] >> place) & 1).tobytes()


class Decoder:
    """Gives back what an ``Encoder`` of so many lanes was given, asked in the same order with the same contexts.

    Methods raise ``ValueError`` for bytes that end too early.
    """

    def __init__(self, data: bytes, lanes: int) -> None:
        n_words = int.from_bytes(data[:4], "little")
        if not 2 * lanes <= n_words <= (len(data) - 4) // 2:
            raise ValueError(f"{n_words} words in {len(data)} bytes")
        self._words = np.frombuffer(data, "<u2", n_words, 4).astype(np.int64)
        self._states = self._words[: 2 * lanes : 2] + (self._words[1 : 2 * lanes : 2] << 16)
        self._word, self._lanes = 2 * lanes, lanes
        self._bits = np.unpackbits(np.frombuffer(data, np.uint8, -1, 4 + 2 * n_words))
        self._bit = 0

    def take(self, tables: Tables, contexts: np.ndarray) -> np.ndarray:
        """The next numbers (n,), each in its context (n,)."""
        symbols = np.empty(len(contexts), np.uint8)
        for first in range(0, len(contexts), PIECE):
            piece = slice(first, first + PIECE)
            some = contexts[piece].astype(np.int64)
            symbols[piece] = self._piece(tables, some)
            tables.learn(some, symbols[piece])
        numbers, n_bits = STARTS[symbols], EXTRA_BITS[symbols]
        some = np.flatnonzero(n_bits)
        if len(some):
            owner, place = _places(n_bits[some])
            bits = self._bits[self._bit : self._bit + len(owner)]
            if len(bits) < len(owner):
                raise ValueError("the coded numbers end too early")
            self._bit += len(bits)
            rest = np.bincount(owner, bits.astype(np.int64) << place).astype(np.int64)
            numbers[some] += np.sign(numbers[some]) * rest
        return numbers

    def _piece(self, tables: Tables, contexts: np.ndarray) -> np.ndarray:
        found = np.empty(len(contexts), np.int64)
        begin = contexts * _SCALE
        for first in range(0, len(contexts), self._lanes):
            x = self._states[: len(contexts) - first]
            key = x & (_SCALE - 1)
            key += begin[first : first + self._lanes]
            which = tables.at.searchsorted(key, "right")
            which -= 1
            found[first : first + self._lanes] = which
            x >>= _SCALE_BITS
            x *= tables.parts.take(which)
            x += key
            x -= tables.at.take(which)
            low = (x < _LOW).nonzero()[0]
            x[low] = x[low] << 16 | self._words[self._word : self._word + len(low)]
            self._word += len(low)
        return found - contexts * tables.width

    def carried(self) -> bytes:
        """What the lanes carried, once all numbers are taken."""
        return ((self._states - _LOW) & 0xFFFF).astype("<u2").tobytes()


def _places(n_bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of numbers with so many plain bits each: whose every bit is, in order, and which power of 2 it stands for."""
    ends = np.cumsum(n_bits)
    owner = np.repeat(np.arange(len(n_bits)), n_bits)
    return owner, ends[owner] - 1 - np.arange(len(owner))
