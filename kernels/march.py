"""Ray marching: which points of a ray are worth a look at the field.

A ray is cut into steps of equal length; step k of ray i lies at distance t = ray_t0[i] + k step. It becomes a *sample*
if it lies in the box, before ``far``, and in an occupied cell. Two passes and a sum of counts give each ray one
contiguous range of samples in ray order, without atomics: ``march`` finds the samples and leaves one bit per step,
``expand`` writes their distances.

The occupancy grid is a bitset over cells, block by block of 8³ cells, in each of them x fastest: along a ray that goes
through it a block is one cache line. ``coarse`` has one bit for each block, so that empty space is crossed a block at a
time.

In a contracted space steps have equal length in field coordinates instead, where a ray is a row of straight pieces
with jumps between them, and a step's t depends on all before it. ``march_contracted`` therefore leaves the samples
themselves, and ``gather`` packs them. It crosses empty space a block at a time, too, but no farther than to the end of
the straight piece.
"""

import taichi as ti

from kernels.launch import kernel
from kernels.rays import popcount, uniform
from kernels.space import advance, contract, end_of_piece, motion
from kernels.tasks import indices_each
from kernels.types import f32_1d, i32_1d, ivec3, load3, u32_1d, vec3

BLOCK_BITS = 3
BLOCK = 1 << BLOCK_BITS
"""Cells along one side of a coarse block."""


@ti.func
def get_bit(words: ti.template(), i: ti.i32) -> ti.i32:
    """Bit i of a bitset."""
    return ti.cast((words[i >> 5] >> ti.cast(i & 31, ti.u32)) & ti.u32(1), ti.i32)


@ti.func
def block_of(c: ivec3, blocks: ivec3) -> ti.i32:
    """The block that cell c is in, of a grid with as many blocks along x, y, z."""
    return ((c[2] >> BLOCK_BITS) * blocks[1] + (c[1] >> BLOCK_BITS)) * blocks[0] + (c[0] >> BLOCK_BITS)


@ti.func
def is_occupied(occupied: ti.template(), block: ti.i32, c: ivec3) -> ti.i32:
    """The bit of cell c, which is in the block."""
    within = BLOCK - 1
    return get_bit(
        occupied, (block * BLOCK + (c[2] & within)) * BLOCK * BLOCK + (c[1] & within) * BLOCK + (c[0] & within)
    )


@ti.func
def box_interval(o: vec3, d: vec3, low: vec3, high: vec3):
    """Distances at which a ray enters and leaves a box; the first exceeds the second where it misses."""
    t_in = -1e30
    t_out = 1e30
    for a in ti.static(range(3)):
        v = d[a]
        if ti.abs(v) < 1e-12:
            v = 1e-12
        t0 = (low[a] - o[a]) / v
        t1 = (high[a] - o[a]) / v
        t_in = ti.max(t_in, ti.min(t0, t1))
        t_out = ti.min(t_out, ti.max(t0, t1))
    return t_in, t_out


@kernel
def march(
    n_rays: ti.i32,
    ray_o: f32_1d,
    ray_d: f32_1d,
    seed: ti.u32,
    jitter_step: ti.i32,
    near: ti.f32,
    far: ti.f32,
    step: ti.f32,
    n_steps: ti.i32,
    enough: ti.i32,
    box_min: vec3,
    box_max: vec3,
    cells: ivec3,
    cell_origin: vec3,
    cells_per_unit: vec3,
    blocks: ivec3,
    occupied: u32_1d,
    coarse: u32_1d,
    n_words: ti.i32,
    ray_t0: f32_1d,
    ray_mask: u32_1d,
    ray_count: i32_1d,
):
    """Finds the samples of each ray.

    ray_o, ray_d: (n_rays, 3). step, near, far: world units. jitter_step >= 0 shifts each ray's steps by a random part
    of one step that depends on (seed, jitter_step, ray); -1 does not. A ray is followed no farther than to as many
    samples as are ``enough``. cells = (0, 0, 0): everything is occupied.
    Out: ray_t0 (n_rays), ray_mask (n_rays, n_words) with a bit per step, ray_count (n_rays). Not differentiable: the
    positions of samples do not depend on the field.
    """
    spread = ti.static(indices_each(32))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        i = index // spread
        o = load3(ray_o, i)
        d = load3(ray_d, i)
        t_in, t_out = box_interval(o, d, box_min, box_max)
        t0 = ti.min(ti.max(t_in, near), far)
        if jitter_step >= 0:
            t0 += step * uniform(seed, ti.cast(jitter_step, ti.u32), ti.cast(i, ti.u32))
        ray_t0[i] = t0
        for w in range(n_words):
            ray_mask[i * n_words + w] = ti.u32(0)
        count = 0
        t_end = ti.min(t_out, far)
        if t_in <= t_out and t0 <= t_end:
            q0 = (o + d * t0 - cell_origin) * cells_per_unit
            dq = d * step * cells_per_unit
            word = 0
            bits = ti.u32(0)
            k = 0
            last = ti.min(ti.cast((t_end - t0) / step, ti.i32), n_steps - 1)
            while k <= last and count < enough:
                hit = 1
                following = k + 1
                if cells[0] > 0:
                    q = q0 + dq * ti.cast(k, ti.f32)
                    c = ti.floor(q, ti.i32)
                    for a in ti.static(range(3)):
                        c[a] = ti.min(ti.max(c[a], 0), cells[a] - 1)
                    block = block_of(c, blocks)
                    if get_bit(coarse, block) == 0:
                        hit = 0
                        leave = 1e30
                        for a in ti.static(range(3)):
                            edge = ti.cast(c[a] >> BLOCK_BITS << BLOCK_BITS, ti.f32)
                            if dq[a] > 0.0:
                                edge += ti.cast(BLOCK, ti.f32)
                            if ti.abs(dq[a]) > 1e-9:
                                leave = ti.min(leave, (edge - q0[a]) / dq[a])
                        following = ti.max(following, ti.cast(ti.min(leave, 1e6), ti.i32))
                    else:
                        hit = is_occupied(occupied, block, c)
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

    Of the counts there are ``period``, again and again.
    """
    ti.loop_config(serialize=True)
    for i in range(n):
        if i == 0:
            starts[0] = 0
        starts[i + 1] = starts[i] + counts[i % period]


@kernel
def expand(
    n_rays: ti.i32,
    n_paths: ti.i32,
    step: ti.f32,
    n_words: ti.i32,
    ray_t0: f32_1d,
    ray_mask: u32_1d,
    ray_start: i32_1d,
    sample_t: f32_1d,
):
    """Writes the distance t of each sample: sample_t[ray_start[i]:ray_start[i + 1]], front to back.

    Ray i has the samples that ``march`` found for ray i % n_paths.
    """
    spread = ti.static(indices_each(64))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        i = index // spread
        path = i % n_paths
        at = ray_start[i]
        for w in range(n_words):
            bits = ray_mask[path * n_words + w]
            while bits != ti.u32(0):
                lowest = bits & (~bits + ti.u32(1))
                k = w * 32 + popcount(lowest - ti.u32(1))
                sample_t[at] = ray_t0[path] + step * ti.cast(k, ti.f32)
                at += 1
                bits ^= lowest


@kernel
def march_contracted(
    n_rays: ti.i32,
    ray_o: f32_1d,
    ray_d: f32_1d,
    seed: ti.u32,
    jitter_step: ti.i32,
    near: ti.f32,
    far: ti.f32,
    step: ti.f32,
    n_steps: ti.i32,
    enough: ti.i32,
    cells: ivec3,
    cell_origin: vec3,
    cells_per_unit: vec3,
    blocks: ivec3,
    occupied: u32_1d,
    coarse: u32_1d,
    ray_samples: f32_1d,
    ray_count: i32_1d,
):
    """Finds the samples of each ray in a contracted space: ``march`` for rays in the coordinates q of ``space``.

    near, far: limits of t; step: length in field coordinates; a ray has at most n_steps steps. Out: the first
    ray_count[i] pairs of row i of ray_samples (n_rays, n_steps, 2) are the t of its samples, front to back, and how far
    they lie along the ray in field coordinates. Otherwise as ``march``. Not differentiable.
    """
    spread = ti.static(indices_each(16))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        i = index // spread
        o = load3(ray_o, i)
        d = load3(ray_d, i)
        t = near
        if jitter_step >= 0:
            share = uniform(seed, ti.cast(jitter_step, ti.u32), ti.cast(i, ti.u32))
            velocity, rate = motion(o + d * t, d)
            t += ti.min(advance(velocity, rate, step * share), far)
        count = 0
        k = 0
        while k < n_steps and t < far and count < enough:
            q = o + d * t
            velocity, rate = motion(q, d)
            hit = 1
            ahead = 1
            if cells[0] > 0:
                x = contract(q)
                c = ti.floor((x - cell_origin) * cells_per_unit, ti.i32)
                for a in ti.static(range(3)):
                    c[a] = ti.min(ti.max(c[a], 0), cells[a] - 1)
                block = block_of(c, blocks)
                if get_bit(coarse, block) == 0:
                    hit = 0
                    a_step = velocity * (step / velocity.norm())
                    leave = 1e6
                    for a in ti.static(range(3)):
                        forwards = ti.cast(a_step[a] > 0.0, ti.i32)
                        edge_cell = ((c[a] >> BLOCK_BITS) + forwards) << BLOCK_BITS
                        edge = cell_origin[a] + ti.cast(edge_cell, ti.f32) / cells_per_unit[a]
                        end = end_of_piece(q, x, forwards, a)
                        edge = ti.select(forwards == 1, ti.min(edge, end), ti.max(edge, end))
                        if ti.abs(a_step[a]) > 1e-9:
                            leave = ti.min(leave, (edge - x[a]) / a_step[a])
                    ahead = ti.max(ahead, ti.cast(leave, ti.i32))
                else:
                    hit = is_occupied(occupied, block, c)
            if hit == 1:
                ray_samples[2 * (i * n_steps + count)] = t
                ray_samples[2 * (i * n_steps + count) + 1] = step * ti.cast(k, ti.f32)
                count += 1
            t += advance(velocity, rate, step * ti.cast(ahead, ti.f32))
            k += ahead
        ray_count[i] = count


@kernel
def gather(
    n_rays: ti.i32,
    n_paths: ti.i32,
    n_steps: ti.i32,
    ray_samples: f32_1d,
    ray_start: i32_1d,
    sample_t: f32_1d,
    sample_along: f32_1d,
):
    """Packs the samples that ``march_contracted`` left, those of ray i from ray_start[i], front to back.

    Ray i has the samples of ray i % n_paths.
    """
    spread = ti.static(indices_each(64))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        i = index // spread
        for s in range(ray_start[i], ray_start[i + 1]):
            at = 2 * (i % n_paths * n_steps + s - ray_start[i])
            sample_t[s] = ray_samples[at]
            sample_along[s] = ray_samples[at + 1]
