"""Pixels of all images, numbered in one sequence: which are in use, and which of them a step trains on.

A step takes the next ``n`` entries of a pseudo-random permutation of the pixels in use. The permutation is a function
(a Feistel network with cycle walking), not a table, and pixels not in use are left out by a bitset with block sums: no
array as long as the data set is ever shuffled or stored.
"""

import taichi as ti

from kernels.bits import lowest_bit, popcount
from kernels.launch import kernel
from kernels.random import permute
from kernels.tasks import indices_each
from kernels.types import i32_1d, record, u32_1d, vec2, vec3

BLOCK_WORDS = 8
"""Words of 32 pixels per block of the pixel bitset; one running sum is kept per block."""
HINT = 256
"""For one in so many used pixels the block that holds it is stored, where searches for the others begin."""


@ti.func
def select_pixel(ordinal: ti.i32, words: ti.template(), sums: ti.template(), hints: ti.template()) -> ti.i32:
    """The ``ordinal``-th set bit of the pixel bitset.

    ``sums[b]`` counts the set bits before block b; ``hints[h]`` is the block of set bit h HINT, or the last one's.
    """
    low = hints[ordinal // HINT]
    high = hints[ordinal // HINT + 1] + 1
    while high - low > 1:
        middle = (low + high) // 2
        if sums[middle] <= ordinal:
            low = middle
        else:
            high = middle
    left = ordinal - sums[low]
    word = low * BLOCK_WORDS
    bits = popcount(words[word])
    while left >= bits:
        left -= bits
        word += 1
        bits = popcount(words[word])
    value = words[word]
    for _ in range(left):
        value &= value - ti.u32(1)
    return word * 32 + lowest_bit(value)


@record
class Epoch:
    """Where training is: entries ``first`` .. of the permutation with the given key of ``n_used`` pixels in use."""

    first: ti.i32
    n_used: ti.i32
    half_bits: ti.i32
    key: ti.u32

    @ti.func
    def pixel(self, i: ti.i32, words: ti.template(), sums: ti.template(), hints: ti.template()) -> ti.i32:
        """The i-th pixel from there on; the end of the epoch wraps to its beginning. See ``select_pixel``."""
        entry = ti.cast((self.first + i) % self.n_used, ti.u32)
        ordinal = permute(entry, ti.cast(self.n_used, ti.u32), self.half_bits, self.key)
        return select_pixel(ti.cast(ordinal, ti.i32), words, sums, hints)


@kernel
def next_pixels(n: ti.i32, epoch: Epoch, used_words: u32_1d, used_sums: i32_1d, used_hints: i32_1d, ray_pixel: i32_1d):
    """ray_pixel (n): the next pixels of an epoch. used_words, used_sums, used_hints: see ``select_pixel``."""
    spread = ti.static(indices_each(128))
    for index in range(n * spread):
        if index % spread > 0:
            continue
        i = index // spread
        ray_pixel[i] = epoch.pixel(i, used_words, used_sums, used_hints)


@ti.func
def pixel_centre(within: ti.i32, width: ti.i32) -> vec2:
    """Coordinates x, y of the centre of pixel ``within`` of an image, row by row from the top left."""
    return vec2(ti.cast(within % width, ti.f32) + 0.5, ti.cast(within // width, ti.f32) + 0.5)


@ti.func
def find_pixel(pixel: ti.i32, n_images: ti.i32, images: ti.template()):
    """Image that holds a pixel of the sequence, and the pixel's coordinates x, y in it, at its centre.

    images (n_images + 1, 2): first pixel and width of each; the last row ends the sequence.
    """
    low = 0
    high = n_images
    guess = ti.min(pixel // ti.max(images[2], 1), n_images - 1)  # images are mostly of one size
    if images[2 * guess] <= pixel and pixel < images[2 * guess + 2]:
        low = guess
        high = guess + 1
    while high - low > 1:
        middle = (low + high) // 2
        if images[2 * middle] <= pixel:
            low = middle
        else:
            high = middle
    return low, pixel_centre(pixel - images[2 * low], images[2 * low + 1])


@ti.func
def unpack_over(packed: ti.u32, background: vec3) -> vec3:
    """RGBA8 (red in the lowest byte, straight alpha) composited over a background, in sRGB as the data sets mean it."""
    scale = 1.0 / 255.0
    rgb = (
        vec3(
            ti.cast(packed & ti.u32(255), ti.f32),
            ti.cast((packed >> ti.u32(8)) & ti.u32(255), ti.f32),
            ti.cast((packed >> ti.u32(16)) & ti.u32(255), ti.f32),
        )
        * scale
    )
    alpha = ti.cast(packed >> ti.u32(24), ti.f32) * scale
    return rgb * alpha + background * (1.0 - alpha)


@kernel
def flag_pixels(first: ti.i32, n_rays: ti.i32, ray_count: i32_1d, used_words: u32_1d):
    """Marks pixels ``first ..`` as used where their ray met something. ``first`` must be a multiple of 32."""
    for w in range((n_rays + 31) // 32):
        bits = ti.u32(0)
        for b in range(32):
            i = w * 32 + b
            if i < n_rays and ray_count[ti.min(i, n_rays - 1)] > 0:
                bits |= ti.u32(1) << ti.cast(b, ti.u32)
        used_words[first // 32 + w] = bits


@kernel
def drop_transparent(n_pixels: ti.i32, pixels: u32_1d, least_alpha: ti.u32, used_words: u32_1d):
    """Marks pixels whose alpha (0 to 255) is below ``least_alpha`` as not used."""
    for w in range((n_pixels + 31) // 32):
        bits = used_words[w]
        for b in range(32):
            i = ti.min(w * 32 + b, n_pixels - 1)
            if pixels[i] >> ti.u32(24) < least_alpha:
                bits &= ~(ti.u32(1) << ti.cast(b, ti.u32))
        used_words[w] = bits


@kernel
def block_counts(n_blocks: ti.i32, used_words: u32_1d, counts: i32_1d):
    """Set bits in each block of the pixel bitset."""
    for block in range(n_blocks):
        total = 0
        for w in range(BLOCK_WORDS):
            total += popcount(used_words[block * BLOCK_WORDS + w])
        counts[block] = total
