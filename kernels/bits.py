"""Bitsets: arrays of words of 32 bits, bit i in word i // 32."""

import taichi as ti


@ti.func
def popcount(x: ti.u32) -> ti.i32:
    """Number of set bits."""
    v = x - ((x >> ti.u32(1)) & ti.u32(0x55555555))
    v = (v & ti.u32(0x33333333)) + ((v >> ti.u32(2)) & ti.u32(0x33333333))
    v = (v + (v >> ti.u32(4))) & ti.u32(0x0F0F0F0F)
    return ti.cast((v * ti.u32(0x01010101)) >> ti.u32(24), ti.i32)


@ti.func
def lowest_bit(x: ti.u32) -> ti.i32:
    """Place of the lowest set bit of x > 0."""
    return popcount((x & (~x + ti.u32(1))) - ti.u32(1))


@ti.func
def get_bit(words: ti.template(), i: ti.i32) -> ti.i32:
    """Bit i of a bitset."""
    return ti.cast((words[i >> 5] >> ti.cast(i & 31, ti.u32)) & ti.u32(1), ti.i32)
