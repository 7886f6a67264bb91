"""Ray marching: which points of a ray are worth a look at the field.

A ray is cut into steps of equal length; step k of ray i lies at distance t = ray_t0[i] + k step_size. It becomes a
*sample* if it lies in the box, before ``far``, and in an occupied cell. Two passes and a sum of counts give each ray
one contiguous range of samples in ray order, without atomics: ``march`` finds the samples and leaves one bit per step,
``expand`` writes their distances. Empty space is crossed a block of cells at a time (``cells.py``).

In a contracted space steps have equal length in field coordinates instead, where a ray is a row of straight pieces
with jumps between them, and a step's t depends on all before it. ``march_contracted`` therefore leaves the samples
themselves, and ``gather`` packs them. It crosses empty space a block at a time, too, but no farther than to the end of
the straight piece.

Nothing here is differentiable: where samples lie does not depend on the field.
"""

import taichi as ti

from kernels.bits import get_bit, lowest_bit
from kernels.cells import BLOCK, BLOCK_BITS, Cells
from kernels.launch import kernel
from kernels.random import uniform
from kernels.space import advance, contract, end_of_piece, motion
from kernels.sums import add_block, fill_block, n_blocks, sum_block
from kernels.tasks import indices_each, on_cpu
from kernels.types import f32_1d, i32_1d, ivec3, load3, record, u32_1d, vec3


@record
class March:
    """How rays are marched.

    near, far: limits of t in units of the rays. step_size: length of a step, in the same units, or in field coordinates
    in a contracted space. n_steps: as many as a ray can have. samples: a ray is followed no farther than to so many.
    jitter_step >= 0 shifts each ray's steps by a random part of one step that depends on (seed, jitter_step, ray); -1
    does not.
    """

    near: ti.f32
    far: ti.f32
    step_size: ti.f32
    n_steps: ti.i32
    samples: ti.i32
    seed: ti.u32
    jitter_step: ti.i32

    @ti.func
    def words(self) -> ti.i32:
        """Words of 32 bits with one for each step."""
        return (self.n_steps + 31) // 32

    @ti.func
    def jitter(self, ray: ti.i32) -> ti.f32:
        """By what part of a step a ray's steps are shifted, from 0 to 1."""
        shift = 0.0
        if self.jitter_step >= 0:
            shift = uniform(self.seed, ti.cast(self.jitter_step, ti.u32), ti.cast(ray, ti.u32))
        return shift


@record
class Box:
    """Two corners: least and greatest coordinates."""

    low: vec3
    high: vec3

    @ti.func
    def interval(self, o: vec3, d: vec3):
        """Distances at which a ray enters and leaves; the first exceeds the second where it misses."""
        t_in = -1e30
        t_out = 1e30
        for a in ti.static(range(3)):
            v = d[a]
            if ti.abs(v) < 1e-12:
                v = 1e-12
            t0 = (self.low[a] - o[a]) / v
            t1 = (self.high[a] - o[a]) / v
            t_in = ti.max(t_in, ti.min(t0, t1))
            t_out = ti.min(t_out, ti.max(t0, t1))
        return t_in, t_out


@ti.func
def steps_to_leave(c: ivec3, q0: vec3, dq: vec3) -> ti.f32:
    """Steps dq from q0, in cells, to the border of the block that cell c is in."""
    leave = 1e30
    for a in ti.static(range(3)):
        edge = ti.cast(c[a] >> BLOCK_BITS << BLOCK_BITS, ti.f32)
        if dq[a] > 0.0:
            edge += ti.cast(BLOCK, ti.f32)
        if ti.abs(dq[a]) > 1e-9:
            leave = ti.min(leave, (edge - q0[a]) / dq[a])
    return leave


@kernel
def march(
    n_rays: ti.i32, ray_o: f32_1d, ray_d: f32_1d, how: March, box: Box, cells: Cells, occupied: u32_1d,
    coarse: u32_1d, ray_t0: f32_1d, ray_mask: u32_1d, ray_count: i32_1d,
):  # fmt: skip
    """Finds the samples of each ray; ray_o, ray_d: (n_rays, 3).

    Out: ray_t0 (n_rays), ray_mask (n_rays, words of n_steps) with a bit per step, ray_count (n_rays).
    """
    spread = ti.static(indices_each(32))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        i = index // spread
        n_words = how.words()
        o = load3(ray_o, i)
        d = load3(ray_d, i)
        t_in, t_out = box.interval(o, d)
        t0 = ti.min(ti.max(t_in, how.near), how.far)
        if how.jitter_step >= 0:
            t0 += how.step_size * how.jitter(i)
        ray_t0[i] = t0
        for w in range(n_words):
            ray_mask[i * n_words + w] = ti.u32(0)
        count = 0
        t_end = ti.min(t_out, how.far)
        if t_in <= t_out and t0 <= t_end:
            q0 = (o + d * t0 - cells.origin) * cells.per_unit
            dq = d * how.step_size * cells.per_unit
            word = 0
            bits = ti.u32(0)
            k = 0
            last = ti.min(ti.cast((t_end - t0) / how.step_size, ti.i32), how.n_steps - 1)
            while k <= last and count < how.samples:
                hit = 1
                following = k + 1
                if cells.count[0] > 0:
                    c = cells.clamp(ti.floor(q0 + dq * ti.cast(k, ti.f32), ti.i32))
                    block = cells.block(c)
                    if get_bit(coarse, block) == 0:
                        hit = 0
                        leave = steps_to_leave(c, q0, dq)
                        following = ti.max(following, ti.cast(ti.min(leave, 1e6), ti.i32))
                    else:
                        hit = cells.is_occupied(occupied, block, c)
                if hit == 1:
                    if k >> 5 != word:
                        ray_mask[i * n_words + word] = bits
                        word = k >> 5
                        bits = ti.u32(0)
                    bits |= ti.u32(1) << ti.cast(k & 31, ti.u32)
                    count += 1
                k = following
            ray_mask[i * n_words + word] = bits
        ray_count[i] = count


@kernel
def offsets_from_counts(n: ti.i32, period: ti.i32, counts: i32_1d, starts: i32_1d):
    """Running sum: starts[i] = counts[0] + .. + counts[i - 1], for i = 0 .. n (so starts[n] is the total).

    Of the counts there are ``period``, again and again. See ``sums.py``.
    """
    if ti.static(on_cpu()):
        ti.loop_config(serialize=True)
        for i in range(n):
            if i == 0:
                starts[0] = 0
            starts[i + 1] = starts[i] + counts[i % period]
    else:
        for block in range(n_blocks(n)):
            sum_block(block, n, period, counts, starts)
        ti.loop_config(serialize=True)
        for block in range(n_blocks(n)):
            add_block(block, n, starts)
        for block in range(n_blocks(n)):
            fill_block(block, n, period, counts, starts)


@kernel
def expand(
    n_rays: ti.i32, n_marched: ti.i32, how: March, ray_t0: f32_1d, ray_mask: u32_1d, ray_start: i32_1d,
    sample_t: f32_1d,
):  # fmt: skip
    """Writes the distance t of each sample: sample_t[ray_start[i]:ray_start[i + 1]], front to back.

    Ray i has the samples that ``march`` found for ray i % n_marched.
    """
    spread = ti.static(indices_each(64))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        i = index // spread
        n_words = how.words()
        marched = i % n_marched
        at = ray_start[i]
        for w in range(n_words):
            bits = ray_mask[marched * n_words + w]
            while bits != ti.u32(0):
                sample_t[at] = ray_t0[marched] + how.step_size * ti.cast(w * 32 + lowest_bit(bits), ti.f32)
                at += 1
                bits &= bits - ti.u32(1)


@ti.func
def steps_to_border(c: ivec3, q: vec3, x: vec3, a_step: vec3, cells: ti.template()) -> ti.f32:
    """Steps from x = contract(q) to the border of the block that cell c is in, or to the end of the straight piece."""
    leave = 1e6
    for a in ti.static(range(3)):
        forwards = ti.cast(a_step[a] > 0.0, ti.i32)
        edge_cell = ((c[a] >> BLOCK_BITS) + forwards) << BLOCK_BITS
        edge = cells.origin[a] + ti.cast(edge_cell, ti.f32) / cells.per_unit[a]
        end = end_of_piece(q, x, forwards, a)
        edge = ti.select(forwards == 1, ti.min(edge, end), ti.max(edge, end))
        if ti.abs(a_step[a]) > 1e-9:
            leave = ti.min(leave, (edge - x[a]) / a_step[a])
    return leave


@kernel
def march_contracted(
    n_rays: ti.i32, ray_o: f32_1d, ray_d: f32_1d, how: March, cells: Cells, occupied: u32_1d, coarse: u32_1d,
    ray_samples: f32_1d, ray_count: i32_1d,
):  # fmt: skip
    """Finds the samples of each ray in a contracted space: ``march`` for rays in the coordinates q of ``space``.

    Out: the first ray_count[i] pairs of row i of ray_samples (n_rays, n_steps, 2) are the t of its samples, front to
    back, and how far they lie along the ray in field coordinates.
    """
    spread = ti.static(indices_each(16))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        i = index // spread
        o = load3(ray_o, i)
        d = load3(ray_d, i)
        t = how.near
        if how.jitter_step >= 0:
            velocity, rate = motion(o + d * t, d)
            t += ti.min(advance(velocity, rate, how.step_size * how.jitter(i)), how.far)
        count = 0
        k = 0
        while k < how.n_steps and t < how.far and count < how.samples:
            q = o + d * t
            velocity, rate = motion(q, d)
            hit = 1
            ahead = 1
            if cells.count[0] > 0:
                x = contract(q)
                c = cells.at(x)
                block = cells.block(c)
                if get_bit(coarse, block) == 0:
                    hit = 0
                    a_step = velocity * (how.step_size / velocity.norm())
                    ahead = ti.max(ahead, ti.cast(steps_to_border(c, q, x, a_step, cells), ti.i32))
                else:
                    hit = cells.is_occupied(occupied, block, c)
            if hit == 1:
                ray_samples[2 * (i * how.n_steps + count)] = t
                ray_samples[2 * (i * how.n_steps + count) + 1] = how.step_size * ti.cast(k, ti.f32)
                count += 1
            t += advance(velocity, rate, how.step_size * ti.cast(ahead, ti.f32))
            k += ahead
        ray_count[i] = count


@kernel
def gather(
    n_rays: ti.i32, n_marched: ti.i32, how: March, ray_samples: f32_1d, ray_start: i32_1d,
    sample_t: f32_1d, sample_along: f32_1d,
):  # fmt: skip
    """Packs the samples that ``march_contracted`` left, those of ray i from ray_start[i], front to back.

    Ray i has the samples of ray i % n_marched.
    """
    spread = ti.static(indices_each(64))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        i = index // spread
        for s in range(ray_start[i], ray_start[i + 1]):
            at = 2 * (i % n_marched * how.n_steps + s - ray_start[i])
            sample_t[s] = ray_samples[at]
            sample_along[s] = ray_samples[at + 1]
