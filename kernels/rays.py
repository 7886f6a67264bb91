"""Rays from pixels: the origin and direction of each, and in training the colour that is to be seen along it.

Notation: o origin, d unit direction (world), (x, y) pixel coordinates with pixel centres at +0.5, from the top left.
"""

import taichi as ti

from kernels.launch import kernel
from kernels.lenses import lens_direction
from kernels.pixels import find_pixel, pixel_centre, unpack_over
from kernels.tasks import indices_each
from kernels.types import f32_1d, i32_1d, record, store3, u32_1d, vec2, vec3

POSE, INTRINSICS, KIND, LENS, CAMERA = 0, 12, 16, 17, 29
"""Where in the ``CAMERA`` numbers of a camera its parts begin: the row-major (3, 4) camera-to-world matrix; fx, fy, cx,
cy; the kind of its lens; the numbers of that (``kernels.lenses``)."""


@ti.func
def write_ray(i: ti.i32, camera: ti.i32, at: vec2, cameras: ti.template(), ray_o: ti.template(), ray_d: ti.template()):
    """Stores origin and unit direction of the ray of a camera through pixel coordinates ``at`` as ray i."""
    pose = CAMERA * camera + POSE
    f = CAMERA * camera + INTRINSICS
    p = vec2((at[0] - cameras[f + 2]) / cameras[f], (at[1] - cameras[f + 3]) / cameras[f + 1])
    kind = ti.cast(cameras[CAMERA * camera + KIND], ti.i32)
    v = lens_direction(kind, p, cameras, CAMERA * camera + LENS)
    o = vec3(0.0)
    d = vec3(0.0)
    for a in ti.static(range(3)):
        row = pose + 4 * a
        o[a] = cameras[row + 3]
        d[a] = cameras[row] * v[0] + cameras[row + 1] * v[1] + cameras[row + 2] * v[2]
    store3(ray_o, i, o)
    store3(ray_d, i, d.normalized())


@record
class Backdrop:
    """What is behind transparent pixels; with opaque = 1 alpha is ignored, and a pixel's colour is its own."""

    background: vec3
    opaque: ti.i32


@kernel
def training_rays(
    n_rays: ti.i32, ray_pixel: i32_1d, n_images: ti.i32, images: i32_1d, pixels: u32_1d, cameras: f32_1d,
    backdrop: Backdrop, ray_o: f32_1d, ray_d: f32_1d, target: f32_1d, ray_image: i32_1d,
):  # fmt: skip
    """Rays of pixels, and the colours that they should have: ray_o, ray_d, target (n_rays, 3); ray_image (n_rays).

    n_images, images: see ``pixels.find_pixel``; pixels: RGBA8 of all images; cameras (n_images, CAMERA). Not
    differentiable.
    """
    spread = ti.static(indices_each(64))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        i = index // spread
        pixel = ray_pixel[i]
        image, at = find_pixel(pixel, n_images, images)
        ray_image[i] = image
        write_ray(i, image, at, cameras, ray_o, ray_d)
        packed = pixels[pixel]
        if backdrop.opaque == 1:
            packed |= ti.u32(0xFF000000)
        store3(target, i, unpack_over(packed, backdrop.background))


@kernel
def repeat(n: ti.i32, times: ti.i32, values: f32_1d):
    """Copies the first n values behind themselves until they are there ``times`` times."""
    for i in range(n * (times - 1)):
        values[n + i] = values[i % n]


@kernel
def image_rays(
    n_rays: ti.i32, camera: ti.i32, first: ti.i32, width: ti.i32, cameras: f32_1d, ray_o: f32_1d, ray_d: f32_1d
):
    """Rays of pixels ``first .. first + n_rays - 1`` (row-major) of one camera. Not differentiable."""
    for i in range(n_rays):
        write_ray(i, camera, pixel_centre(first + i, width), cameras, ray_o, ray_d)


@kernel
def pixel_rays(
    n_rays: ti.i32, first: ti.i32, n_images: ti.i32, images: i32_1d, cameras: f32_1d,
    ray_o: f32_1d, ray_d: f32_1d,
):  # fmt: skip
    """Rays of pixels ``first .. first + n_rays - 1`` of the sequence of all images. Not differentiable."""
    for i in range(n_rays):
        image, at = find_pixel(first + i, n_images, images)
        write_ray(i, image, at, cameras, ray_o, ray_d)
