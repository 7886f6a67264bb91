"""Rays from pixels: which pixels a step trains on, and the origin, direction and target colour of each.

Pixels of all photographs are numbered in one sequence. A step takes the next ``n`` entries of a pseudo-random
permutation of the pixels in use. The permutation is a function (a Feistel network with cycle walking), not a table, and
pixels not in use are left out by a bitset with block sums: no array as long as the data set is ever shuffled or stored.

Notation: o origin, d unit direction (world), (x, y) pixel coordinates with pixel centres at +0.5, from the top left.
"""

import taichi as ti

from kernels.launch import kernel
from kernels.lenses import TABLE, lens_direction
from kernels.tasks import indices_each
from kernels.types import f32_1d, i32_1d, u32_1d, vec2, vec3

BLOCK_WORDS = 8
"""Words of 32 pixels per block of the pixel bitset; one running sum is kept per block."""
HINT = 256
"""Of so many pixels in use one's block is kept, to begin the search for the others with."""


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


@ti.func
def popcount(x: ti.u32) -> ti.i32:
    """Number of set bits."""
    v = x - ((x >> ti.u32(1)) & ti.u32(0x55555555))
    v = (v & ti.u32(0x33333333)) + ((v >> ti.u32(2)) & ti.u32(0x33333333))
    v = (v + (v >> ti.u32(4))) & ti.u32(0x0F0F0F0F)
    return ti.cast((v * ti.u32(0x01010101)) >> ti.u32(24), ti.i32)


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
    lowest = value & (~value + ti.u32(1))
    return word * 32 + popcount(lowest - ti.u32(1))


@ti.func
def camera_direction(
    camera: ti.i32, x: ti.f32, y: ti.f32, intrinsics: ti.template(), lens: ti.template(), distortion: ti.template()
) -> vec3:
    """Direction through pixel coordinates (x, y), in camera axes (not normalised)."""
    p = vec2(
        (x - intrinsics[4 * camera + 2]) / intrinsics[4 * camera],
        (y - intrinsics[4 * camera + 3]) / intrinsics[4 * camera + 1],
    )
    return lens_direction(lens[camera], p, distortion, TABLE * camera)


@ti.func
def rotate(camera: ti.i32, v: vec3, poses: ti.template()) -> vec3:
    """Camera axes to world axes; poses are row-major (3, 4) camera-to-world matrices."""
    b = 12 * camera
    return vec3(
        poses[b] * v[0] + poses[b + 1] * v[1] + poses[b + 2] * v[2],
        poses[b + 4] * v[0] + poses[b + 5] * v[1] + poses[b + 6] * v[2],
        poses[b + 8] * v[0] + poses[b + 9] * v[1] + poses[b + 10] * v[2],
    )


@ti.func
def write_ray(
    i: ti.i32,
    camera: ti.i32,
    x: ti.f32,
    y: ti.f32,
    poses: ti.template(),
    intrinsics: ti.template(),
    lens: ti.template(),
    distortion: ti.template(),
    ray_o: ti.template(),
    ray_d: ti.template(),
):
    """Stores origin and unit direction of the ray of ``camera`` through pixel coordinates (x, y) as ray i."""
    direction = rotate(camera, camera_direction(camera, x, y, intrinsics, lens, distortion), poses).normalized()
    for a in ti.static(range(3)):
        ray_o[3 * i + a] = poses[12 * camera + 4 * a + 3]
        ray_d[3 * i + a] = direction[a]


@ti.func
def find_image(pixel: ti.i32, n_images: ti.i32, offsets: ti.template()) -> ti.i32:
    """The image that holds ``pixel``: the last one whose offset is not above it."""
    low = 0
    high = n_images
    guess = ti.min(pixel // ti.max(offsets[1], 1), n_images - 1)  # photographs are mostly of one size
    if offsets[guess] <= pixel and pixel < offsets[guess + 1]:
        low = guess
        high = guess + 1
    while high - low > 1:
        middle = (low + high) // 2
        if offsets[middle] <= pixel:
            low = middle
        else:
            high = middle
    return low


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
def training_rays(
    n_rays: ti.i32,
    first: ti.i32,
    n_used: ti.i32,
    half_bits: ti.i32,
    key: ti.u32,
    used_words: u32_1d,
    used_sums: i32_1d,
    used_hints: i32_1d,
    n_images: ti.i32,
    offsets: i32_1d,
    pixels: u32_1d,
    sizes: i32_1d,
    poses: f32_1d,
    intrinsics: f32_1d,
    lens: i32_1d,
    distortion: f32_1d,
    background: vec3,
    opaque: ti.i32,
    ray_o: f32_1d,
    ray_d: f32_1d,
    target: f32_1d,
):
    """Rays ``first .. first + n_rays - 1`` of the epoch whose permutation has the given key.

    ray_o, ray_d, target: (n_rays, 3). With opaque = 1 alpha is ignored: the colour is the pixel's own. Entries past the
    end of the epoch wrap to its beginning. Not differentiable.
    """
    spread = ti.static(indices_each(64))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        i = index // spread
        entry = ti.cast((first + i) % n_used, ti.u32)
        ordinal = ti.cast(permute(entry, ti.cast(n_used, ti.u32), half_bits, key), ti.i32)
        pixel = select_pixel(ordinal, used_words, used_sums, used_hints)
        image = find_image(pixel, n_images, offsets)
        within = pixel - offsets[image]
        width = sizes[2 * image]
        x = ti.cast(within % width, ti.f32) + 0.5
        y = ti.cast(within // width, ti.f32) + 0.5
        write_ray(i, image, x, y, poses, intrinsics, lens, distortion, ray_o, ray_d)
        packed = pixels[pixel]
        if opaque == 1:
            packed |= ti.u32(0xFF000000)
        rgb = unpack_over(packed, background)
        for a in ti.static(range(3)):
            target[3 * i + a] = rgb[a]


@kernel
def repeat(n: ti.i32, times: ti.i32, values: f32_1d):
    """Copies the first n values behind themselves until they are there ``times`` times."""
    for i in range(n * (times - 1)):
        values[n + i] = values[i % n]


@kernel
def image_rays(
    n_rays: ti.i32,
    camera: ti.i32,
    first: ti.i32,
    width: ti.i32,
    poses: f32_1d,
    intrinsics: f32_1d,
    lens: i32_1d,
    distortion: f32_1d,
    ray_o: f32_1d,
    ray_d: f32_1d,
):
    """Rays of pixels ``first .. first + n_rays - 1`` (row-major) of one camera. Not differentiable."""
    for i in range(n_rays):
        pixel = first + i
        x = ti.cast(pixel % width, ti.f32) + 0.5
        y = ti.cast(pixel // width, ti.f32) + 0.5
        write_ray(i, camera, x, y, poses, intrinsics, lens, distortion, ray_o, ray_d)


@kernel
def pixel_rays(
    n_rays: ti.i32,
    first: ti.i32,
    n_images: ti.i32,
    offsets: i32_1d,
    sizes: i32_1d,
    poses: f32_1d,
    intrinsics: f32_1d,
    lens: i32_1d,
    distortion: f32_1d,
    ray_o: f32_1d,
    ray_d: f32_1d,
):
    """Rays of pixels ``first .. first + n_rays - 1`` of the sequence of all photographs. Not differentiable."""
    for i in range(n_rays):
        image = find_image(first + i, n_images, offsets)
        within = first + i - offsets[image]
        width = sizes[2 * image]
        x = ti.cast(within % width, ti.f32) + 0.5
        y = ti.cast(within // width, ti.f32) + 0.5
        write_ray(i, image, x, y, poses, intrinsics, lens, distortion, ray_o, ray_d)


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
