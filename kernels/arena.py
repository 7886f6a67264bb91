"""Moving planes and lines: between host and arena, and from one grid to another."""

import taichi as ti

from kernels.launch import vector_kernel
from kernels.types import f32_1d, record, vec3
from kernels.vectors import CHUNK, vec16, vec16_1d
from kernels.vm import Layout, along_axes


@record
class Tensor:
    """Components ``first`` .. ``first + n - 1`` of one plane or line, of ``texels`` each, which starts at ``base``."""

    base: ti.i32
    texels: ti.i32
    first: ti.i32
    n: ti.i32

    @ti.func
    def find(self, i: ti.i32):
        """Element and lane of the arena that hold value i, texel after texel, component after component."""
        k = self.first + i // self.texels
        return self.base + k // CHUNK * self.texels + i % self.texels, k % CHUNK


@vector_kernel
def put_components(factors: vec16_1d, tensor: Tensor, values: f32_1d):
    """Writes the tensor's components from values (n, texels)."""
    for i in range(tensor.n * tensor.texels):
        at, lane = tensor.find(i)
        factors[at][lane] = values[i]


@vector_kernel
def get_components(factors: vec16_1d, tensor: Tensor, values: f32_1d):
    """The inverse of ``put_components``."""
    for i in range(tensor.n * tensor.texels):
        at, lane = tensor.find(i)
        values[i] = factors[at][lane]


@vector_kernel
def fill_arena(factors: vec16_1d, n: ti.i32, value: ti.f32):
    """Sets the first n elements."""
    for i in range(n):
        factors[i] = vec16(value)


@vector_kernel
def copy_arena(source: vec16_1d, target: vec16_1d, n: ti.i32):
    """target[:n] = source[:n]."""
    for i in range(n):
        target[i] = source[i]


@record
class Resampling:
    """Texel i along an axis of the new grid lies at scale i + shift on the old one.

    Growing has scale = (old - 1) / (new - 1) and no shift; cropping at texels has scale 1 and the first texel as shift.
    """

    old: Layout
    new: Layout
    scale: vec3
    shift: vec3

    @ti.func
    def old_spot(self, texel: vec3):
        """The ``Spot`` on the old grid of a texel of the new one, clamped to the grid."""
        at = vec3(0.0)
        for a in ti.static(range(3)):
            last = ti.cast(self.old.grid[a] - 1, ti.f32)
            at[a] = ti.min(ti.max(texel[a] * self.scale[a] + self.shift[a], 0.0), last)
        return self.old.spot(at)


@vector_kernel
def resample(resampling: Resampling, source: vec16_1d, target: vec16_1d):
    """Bilinear and linear resampling of planes and lines from one layout to another, of as many chunks."""
    per_chunk = resampling.new.texels()
    for i in range(resampling.new.chunks * per_chunk):
        chunk = i // per_chunk
        m, is_line, rest = resampling.new.find_texel(i % per_chunk)
        mode = resampling.new.mode(m)
        if is_line == 1:
            texel = along_axes(m, vec3(0.0, 0.0, ti.cast(rest, ti.f32)))
            corner = resampling.old.corner(m, chunk, resampling.old_spot(texel))
            target[mode.line + chunk * mode.length + rest] = corner.line_value(source)
        else:
            u = ti.cast(rest % mode.width, ti.f32)
            v = ti.cast(rest // mode.width, ti.f32)
            corner = resampling.old.corner(m, chunk, resampling.old_spot(along_axes(m, vec3(u, v, 0.0))))
            target[mode.plane + chunk * mode.area + rest] = corner.plane_value(source)
