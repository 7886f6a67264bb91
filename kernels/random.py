"""Random numbers that are functions: of a seed, a step and an index, in any order and on any device the same."""

import taichi as ti


@ti.func
def hash_u32(x: ti.u32) -> ti.u32:
    """Well-mixed 32-bit integer hash (xorshift-multiply with constants found by exhaustive search, C. Wellons)."""
    h = x
    h ^= h >> ti.u32(16)
    h *= ti.u32(0x21F0AAAD)
    h ^= h >> ti.u32(15)
    h *= ti.u32(0x735A2D97)
    h ^= h >> ti.u32(15)
    return h


@ti.func
def uniform(seed: ti.u32, step: ti.u32, index: ti.u32) -> ti.f32:
    """A number in [0, 1) that depends on its three arguments only."""
    h = hash_u32(index ^ hash_u32(step ^ hash_u32(seed)))
    return ti.cast(h >> ti.u32(8), ti.f32) * (1.0 / 16777216.0)


@ti.func
def permute(i: ti.u32, n: ti.u32, half_bits: ti.i32, key: ti.u32) -> ti.u32:
    """Entry i of a pseudo-random permutation of 0..n-1, where n <= 4^half_bits.

    Four Feistel rounds permute the 2 half_bits-bit numbers; walking the cycle until the result is below n restricts
    that permutation to 0..n-1.
    """
    mask = (ti.u32(1) << ti.cast(half_bits, ti.u32)) - ti.u32(1)
    shift = ti.cast(half_bits, ti.u32)
    round_keys = ti.Vector([ti.u32(0)] * 4)
    for r in ti.static(range(4)):
        round_keys[r] = hash_u32(key + ti.u32(r))
    x = i
    walking = 1
    while walking == 1:
        left = x >> shift
        right = x & mask
        for r in ti.static(range(4)):
            mixed = hash_u32(right ^ round_keys[r]) & mask
            new_right = left ^ mixed
            left = right
            right = new_right
        x = (left << shift) | right
        if x < n:
            walking = 0
    return x
