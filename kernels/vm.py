"""The vector-matrix (VM) decomposition: components on a grid, how a point reads them and how gradients get back.

With P^m_k, L^m_k the plane and line of component k in mode m, interpolated bilinearly and linearly at x, everything a
field knows at x is made of the products p^m_k(x) = P^m_k(u, v) L^m_k(w). Gradients, with q that of one product:
dP texel += q L w_texel, dL texel += q P w_texel. What is summed from the products is in ``density.py`` and
``appearance.py``; components come in chunks of 16.

``Layout`` says where in an arena (see the package) the texels of planes and lines are, ``Lattice`` also where in space
they lie. A position becomes a ``Spot`` on the grid, and that for each chunk and mode a ``Corner`` of the arena.
"""

import taichi as ti

from kernels.space import place, pull_back
from kernels.tasks import Portion
from kernels.types import ivec3, record, vec3
from kernels.vectors import CHUNK, vec16

N_FEATURES = 27
SCALES_WIDTH = 2 + 2 * N_FEATURES
"""Numbers per rank: density scale, density shift, 27 feature scales, 27 feature shifts."""


@record
class Mode:
    """One mode of a layout: where its first plane and its first line begin, and texels of one of each."""

    plane: ti.i32
    area: ti.i32
    width: ti.i32
    line: ti.i32
    length: ti.i32


@record
class Spot:
    """A position on a grid: its lower texel, and what part of the way to the next it is, along x, y, z."""

    low: ivec3
    frac: vec3


@record
class Corner:
    """What a spot reads of one chunk of one mode: four texels of a plane from ``plane`` on, two of a line.

    ``low`` and ``frac`` are those of the spot along u, v, w; ``width`` texels of the plane are a row, ``area`` the
    whole; ``length`` texels are the line.
    """

    plane: ti.i32
    line: ti.i32
    width: ti.i32
    area: ti.i32
    length: ti.i32
    low: ivec3
    frac: vec3

    @ti.func
    def plane_value(self, factors: ti.template()) -> vec16:
        """P: bilinear interpolation."""
        at, fu, fv = self.plane, self.frac[0], self.frac[1]
        return (factors[at] * (1.0 - fu) + factors[at + 1] * fu) * (1.0 - fv) + (
            factors[at + self.width] * (1.0 - fu) + factors[at + self.width + 1] * fu
        ) * fv

    @ti.func
    def line_value(self, factors: ti.template()) -> vec16:
        """L: linear interpolation."""
        return factors[self.line] * (1.0 - self.frac[2]) + factors[self.line + 1] * self.frac[2]


@record
class Layout:
    """How an arena holds components: texels along x, y, z, and how many chunks there is room for."""

    grid: ivec3
    chunks: ti.i32

    @ti.func
    def plane_texels(self) -> ti.i32:
        """Texels of one component's three planes."""
        return self.grid[0] * self.grid[1] + self.grid[0] * self.grid[2] + self.grid[1] * self.grid[2]

    @ti.func
    def texels(self) -> ti.i32:
        """Texels of one component."""
        return self.plane_texels() + self.grid[0] + self.grid[1] + self.grid[2]

    @ti.func
    def mode(self, m: ti.i32):
        """``Mode`` m."""
        x, y, z = self.grid[0], self.grid[1], self.grid[2]
        plane = 0
        area = x * y
        width = x
        line = self.plane_texels()
        length = z
        if m == 1:
            plane = x * y
            area = x * z
            line += z
            length = y
        elif m == 2:
            plane = x * y + x * z
            area = y * z
            width = y
            line += z + y
            length = x
        return Mode(self.chunks * plane, area, width, self.chunks * line, length)

    @ti.func
    def find_texel(self, i: ti.i32):
        """Mode, whether it is a line's (1) or a plane's (0), and place within its tensor, of texel i of one chunk.

        All planes' texels come first, mode after mode, then all lines'.
        """
        rest = i
        is_line = ti.cast(rest >= self.plane_texels(), ti.i32)
        if is_line == 1:
            rest -= self.plane_texels()
        m = 0
        mode = self.mode(0)
        size = ti.select(is_line == 1, mode.length, mode.area)
        while rest >= size:
            rest -= size
            m += 1
            mode = self.mode(m)
            size = ti.select(is_line == 1, mode.length, mode.area)
        return m, is_line, rest

    @ti.func
    def spot(self, at: vec3):
        """The ``Spot`` of a position in texels, clamped to the grid."""
        low = ivec3(0)
        frac = vec3(0.0)
        for a in ti.static(range(3)):
            low[a] = ti.min(ti.cast(at[a], ti.i32), self.grid[a] - 2)
            frac[a] = at[a] - ti.cast(low[a], ti.f32)
        return Spot(low, frac)

    @ti.func
    def corner(self, m: ti.i32, chunk: ti.i32, spot: Spot):
        """The ``Corner`` of a spot in one chunk of mode m."""
        mode = self.mode(m)
        low = spot.low
        frac = spot.frac
        if m == 1:
            low = ivec3(spot.low[0], spot.low[2], spot.low[1])
            frac = vec3(spot.frac[0], spot.frac[2], spot.frac[1])
        elif m == 2:
            low = ivec3(spot.low[1], spot.low[2], spot.low[0])
            frac = vec3(spot.frac[1], spot.frac[2], spot.frac[0])
        plane = mode.plane + chunk * mode.area + low[1] * mode.width + low[0]
        line = mode.line + chunk * mode.length + low[2]
        return Corner(plane, line, mode.width, mode.area, mode.length, low, frac)


@record
class Lattice:
    """A layout's texels in the box that starts at ``box_min``, in field coordinates. They sit on its corners.

    ``contracted`` = 1: rays are in coordinates that are yet to be contracted (``kernels.space``).
    """

    box_min: vec3
    texels_per_unit: vec3
    layout: Layout
    contracted: ti.i32

    @ti.func
    def on_grid(self, x: vec3) -> vec3:
        """A position in texels of the grid, clamped to the box."""
        at = vec3(0.0)
        for a in ti.static(range(3)):
            last = ti.cast(self.layout.grid[a] - 1, ti.f32)
            at[a] = ti.min(ti.max((x[a] - self.box_min[a]) * self.texels_per_unit[a], 0.0), last)
        return at

    @ti.func
    def holds(self, x: vec3) -> ti.i32:
        """1 where x lies in the box, borders included."""
        inside = 1
        for a in ti.static(range(3)):
            g = (x[a] - self.box_min[a]) * self.texels_per_unit[a]
            if g < 0.0 or g > ti.cast(self.layout.grid[a] - 1, ti.f32):
                inside = 0
        return inside

    @ti.func
    def along_ray(self, o: vec3, d: vec3, t: ti.f32) -> vec3:
        """Where a ray is at t, in texels of the grid."""
        return self.on_grid(place(o, d, t, self.contracted))

    @ti.func
    def ray_slope(self, q: vec3, by_texels: vec3) -> vec3:
        """Gradient with respect to q = o + d t of what has the given gradient with respect to ``along_ray``."""
        slope = by_texels * self.texels_per_unit
        if self.contracted == 1:
            slope = pull_back(q, slope)
        return slope


@ti.func
def along_axes(m: ti.i32, uvw: vec3) -> vec3:
    """Numbers along u, v, w of mode m, in the order x, y, z."""
    xyz = uvw
    if m == 1:
        xyz = vec3(uvw[0], uvw[2], uvw[1])
    elif m == 2:
        xyz = vec3(uvw[2], uvw[0], uvw[1])
    return xyz


@ti.func
def product(factors: ti.template(), corner: Corner) -> vec16:
    """P L of one chunk of one mode."""
    return corner.plane_value(factors) * corner.line_value(factors)


@ti.func
def product_slope(factors: ti.template(), q: vec16, m: ti.i32, corner: Corner) -> vec3:
    """Gradient in texels along x, y, z of sum_lane q (P L) for one chunk of mode m."""
    at, row, fu, fv = corner.plane, corner.width, corner.frac[0], corner.frac[1]
    along_u = (factors[at + 1] - factors[at]) * (1.0 - fv) + (factors[at + row + 1] - factors[at + row]) * fv
    along_v = (factors[at + row] - factors[at]) * (1.0 - fu) + (factors[at + row + 1] - factors[at + 1]) * fu
    along_w = factors[corner.line + 1] - factors[corner.line]
    ql = q * corner.line_value(factors)
    qp = q * corner.plane_value(factors)
    return along_axes(m, vec3((ql * along_u).sum(), (ql * along_v).sum(), (qp * along_w).sum()))


@ti.func
def add_texel(arena: ti.template(), at: ti.i32, value: vec16, atomic: ti.template()):
    """arena[at] += value, atomically or as the texel's owner."""
    if ti.static(atomic):
        for lane in ti.static(range(CHUNK)):
            ti.atomic_add(arena[at][lane], value[lane])
    else:
        arena[at] = arena[at] + value


@ti.func
def scatter_plane(
    q: vec16, corner: Corner, portion: Portion, factors: ti.template(), grad: ti.template(), atomic: ti.template()
):
    """Adds the gradient of P at a corner, where q is that of P L; it writes the portion's rows of the plane."""
    row0 = 1
    row1 = 1
    if ti.static(not atomic):
        if portion.bands > 1:
            height = corner.area // corner.width
            row0 = portion.holds(corner.low[1], height)
            row1 = portion.holds(corner.low[1] + 1, height)
    if row0 + row1 > 0:
        at, fu, fv = corner.plane, corner.frac[0], corner.frac[1]
        ql = q * corner.line_value(factors)
        if row0 == 1:
            g = ql * (1.0 - fv)
            add_texel(grad, at, g * (1.0 - fu), atomic)
            add_texel(grad, at + 1, g * fu, atomic)
        if row1 == 1:
            g = ql * fv
            add_texel(grad, at + corner.width, g * (1.0 - fu), atomic)
            add_texel(grad, at + corner.width + 1, g * fu, atomic)


@ti.func
def scatter_line(
    q: vec16, corner: Corner, portion: Portion, factors: ti.template(), grad: ti.template(),
    with_product: ti.i32, atomic: ti.template(),
):  # fmt: skip
    """The same for L and the line's texels.

    Returns whether the corner is the portion's own, which is true of one portion only, and if so and with_product = 1
    the sum of q P L over the lanes.
    """
    end0 = 1
    end1 = 1
    if ti.static(not atomic):
        if portion.bands > 1:
            end0 = portion.holds(corner.low[2], corner.length)
            end1 = portion.holds(corner.low[2] + 1, corner.length)
    along = 0.0
    if end0 + end1 > 0:
        fw = corner.frac[2]
        qp = q * corner.plane_value(factors)
        if end0 == 1:
            if with_product == 1:
                along = (qp * corner.line_value(factors)).sum()
            add_texel(grad, corner.line, qp * (1.0 - fw), atomic)
        if end1 == 1:
            add_texel(grad, corner.line + 1, qp * fw, atomic)
    return end0, along
