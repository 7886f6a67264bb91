"""Features and viewing direction to colour: the device side of ``tslim/decoder/``.

Notation: sample i of n; a 27 features; d unit viewing direction; o the three outputs before the sigmoid; x̄ = ∂loss/∂x.

MLP (SlimmeRF, arXiv 2312.10034, as TensoRF's ``MLP_Fea``), one row of ``inputs`` a sample:
    x = [a, d, sin(2^k a_c), cos(2^k a_c), sin(2^k d_c), cos(2^k d_c), 1],  column (c, k) = c·K + k inside each group
    h1 = relu(x·W1), h2 = relu([h1, 1]·W2), colour = sigmoid([h2, 1]·W3)
The column of ones makes a bias the last row of its weight matrix, so that biases and their gradients cost no pass of
their own.

All gradients here are hand-written, that of the viewing direction apart from the others: training needs none. On the
CPU arch the MLP runs in BLAS instead (``tslim/decoder/mlp_blas.py``); tests hold the two against each other. Work
arrays are 2-D, one sample a row, padded to multiples of 4 rows and 16 columns, so that 4×4 blocks may reach past what
counts.
"""

import taichi as ti

from kernels.launch import kernel
from kernels.maths import sincos
from kernels.types import f32_1d, f32_2d, i32_1d, load3, record, vec3
from kernels.vm import N_FEATURES


@record
class Tile:
    """Samples start .. start + n - 1; what is kept of them in work arrays lies in rows from ``row`` on."""

    start: ti.i32
    row: ti.i32
    n: ti.i32


@record
class Layer:
    """A matrix (n_in, n_out) at ``offset`` of the parameters, whose rows are ``stride`` numbers apart."""

    offset: ti.i32
    stride: ti.i32
    n_in: ti.i32
    n_out: ti.i32


@kernel
def encode(
    features: f32_1d, sample_ray: i32_1d, ray_dirs: f32_1d, tile: Tile,
    k_features: ti.template(), k_dirs: ti.template(), inputs: f32_2d,
):  # fmt: skip
    """The tile's rows of ``inputs`` (rows, ≥ 31 + 54·k_features + 6·k_dirs) from its samples.

    features (27 a sample); sample_ray (1 a sample) indexes ray_dirs (3 a ray). One sine and one cosine a number;
    higher frequencies by doubling: sin 2x = 2 sin x cos x, cos 2x = 1 − 2 sin² x.
    """
    for i in range(tile.n):
        for c in range(N_FEATURES):
            v = features[N_FEATURES * (tile.start + i) + c]
            inputs[tile.row + i, c] = v
            if ti.static(k_features > 0):
                s, co = sincos(v)
                for k in ti.static(range(k_features)):
                    inputs[tile.row + i, 30 + c * k_features + k] = s
                    inputs[tile.row + i, 30 + (27 + c) * k_features + k] = co
                    s, co = 2.0 * s * co, 1.0 - 2.0 * s * s
        ray = sample_ray[tile.start + i]
        first = 30 + 54 * k_features
        for c in ti.static(range(3)):
            v = ray_dirs[3 * ray + c]
            inputs[tile.row + i, N_FEATURES + c] = v
            if ti.static(k_dirs > 0):
                s, co = sincos(v)
                for k in ti.static(range(k_dirs)):
                    inputs[tile.row + i, first + c * k_dirs + k] = s
                    inputs[tile.row + i, first + (3 + c) * k_dirs + k] = co
                    s, co = 2.0 * s * co, 1.0 - 2.0 * s * s
        inputs[tile.row + i, first + 6 * k_dirs] = 1.0


@kernel
def encode_backward(inputs: f32_2d, grad_inputs: f32_2d, tile: Tile, k_features: ti.template(), grad_features: f32_1d):
    """grad_features of a tile from its rows of ``inputs`` and the first rows of ``grad_inputs``.

    ā_c = x̄_c + Σ_k 2^k (x̄[sin 2^k a_c]·cos 2^k a_c − x̄[cos 2^k a_c]·sin 2^k a_c), sines and cosines as stored.
    """
    for i in range(tile.n):
        for c in range(N_FEATURES):
            total = grad_inputs[i, c]
            for k in ti.static(range(k_features)):
                s = 30 + c * k_features + k
                co = 30 + (27 + c) * k_features + k
                total += float(1 << k) * (
                    grad_inputs[i, s] * inputs[tile.row + i, co] - grad_inputs[i, co] * inputs[tile.row + i, s]
                )
            grad_features[N_FEATURES * (tile.start + i) + c] = total


@kernel
def encode_directions_backward(
    inputs: f32_2d, grad_inputs: f32_2d, tile: Tile,
    k_features: ti.template(), k_dirs: ti.template(), grad_directions: f32_1d,
):  # fmt: skip
    """The rest of the adjoint of ``encode``: grad_directions (3 a sample), arguments as there.

    d̄_c = x̄_c + Σ_k 2^k (x̄[sin 2^k d_c]·cos 2^k d_c − x̄[cos 2^k d_c]·sin 2^k d_c).
    """
    for i in range(tile.n):
        first = 30 + 54 * k_features
        for c in ti.static(range(3)):
            total = grad_inputs[i, N_FEATURES + c]
            for k in ti.static(range(k_dirs)):
                s = first + c * k_dirs + k
                co = first + (3 + c) * k_dirs + k
                total += float(1 << k) * (
                    grad_inputs[i, s] * inputs[tile.row + i, co] - grad_inputs[i, co] * inputs[tile.row + i, s]
                )
            grad_directions[3 * (tile.start + i) + c] = total


@kernel
def sum_directions(n_rays: ti.i32, ray_sample_start: i32_1d, grad_directions: f32_1d, grad_d: f32_1d):
    """Adds what the decoder's samples say of the direction of their ray to grad_d (n_rays, 3).

    Ray i has the samples ray_sample_start[i] .. ray_sample_start[i + 1].
    """
    for i in range(n_rays):
        for s in range(ray_sample_start[i], ray_sample_start[i + 1]):
            for c in ti.static(range(3)):
                grad_d[3 * i + c] = grad_d[3 * i + c] + grad_directions[3 * s + c]


@ti.func
def load_row(a: ti.template(), at: ti.i32) -> vec3:
    """Three numbers of a flat array."""
    return vec3(a[at], a[at + 1], a[at + 2])


@ti.func
def block_product(
    inputs: ti.template(), row: ti.i32, n_in: ti.i32, weights: ti.template(), first: ti.i32, stride: ti.i32
):
    """Σ_{k < n_in} inputs[row + p, k]·weights[first + k·stride + q] for p, q < 4, in registers."""
    sums = ti.Matrix.zero(ti.f32, 4, 4)
    for k in range(n_in):
        w = first + k * stride
        b = ti.Vector([weights[w], weights[w + 1], weights[w + 2], weights[w + 3]])
        for p in ti.static(range(4)):
            a = inputs[row + p, k]
            for q in ti.static(range(4)):
                sums[p, q] += a * b[q]
    return sums


@kernel
def set_column(rows: f32_2d, column: ti.i32, value: ti.f32):
    """rows[:, column] = value."""
    for i in range(rows.shape[0]):
        rows[i, column] = value


@kernel
def dense(inputs: f32_2d, tile: Tile, layer: Layer, weights: f32_1d, relu: ti.template(), out: f32_2d):
    """The tile's rows of ``out``: those of ``inputs`` times the layer.

    ``relu`` clamps at 0. One thread computes a 4×4 block: it may read and write up to 3 rows and columns more.
    """
    for block in range(((tile.n + 3) // 4) * ((layer.n_out + 3) // 4)):
        across = (layer.n_out + 3) // 4
        i = tile.row + block // across * 4
        j = block % across * 4
        sums = block_product(inputs, i, layer.n_in, weights, layer.offset + j, layer.stride)
        for p, q in ti.static(ti.ndrange(4, 4)):
            value = sums[p, q]
            if ti.static(relu):
                value = ti.max(value, 0.0)
            out[i + p, j + q] = value


@kernel
def dense_backward(
    grad_out: f32_2d, tile: Tile, transposed: Layer, weights: f32_1d,
    hidden: f32_2d, relu: ti.template(), grad_in: f32_2d,
):  # fmt: skip
    """``dense`` backwards: the first rows of grad_in are those of grad_out times the layer's matrix transposed.

    With ``relu`` the input was a relu's output, the tile's rows of ``hidden``, and the gradient is 0 where that is.
    """
    for block in range(((tile.n + 3) // 4) * ((transposed.n_out + 3) // 4)):
        across = (transposed.n_out + 3) // 4
        i = block // across * 4
        k = block % across * 4
        sums = block_product(grad_out, i, transposed.n_in, weights, transposed.offset + k, transposed.stride)
        for p, q in ti.static(ti.ndrange(4, 4)):
            value = sums[p, q]
            if ti.static(relu):
                value = ti.select(hidden[tile.row + i + p, k + q] > 0.0, value, 0.0)
            grad_in[i + p, k + q] = value


@kernel
def output(hidden: f32_2d, tile: Tile, layer: Layer, params: f32_1d, colours: f32_1d):
    """The tile's colours = sigmoid of its rows of ``hidden`` times W3, the layer."""
    for i in range(tile.n):
        total = vec3(0.0)
        for k in range(layer.n_in):
            total += load_row(params, layer.offset + 3 * k) * hidden[tile.row + i, k]
        for c in ti.static(range(3)):
            colours[3 * (tile.start + i) + c] = 1.0 / (1.0 + ti.exp(-total[c]))


@kernel
def output_backward(
    colours: f32_1d, grad_colours: f32_1d, tile: Tile, hidden: f32_2d, layer: Layer, params: f32_1d,
    grad_output: f32_2d, grad_hidden: f32_2d,
):  # fmt: skip
    """Adjoint of sigmoid, of the last layer and of the relu before it, for a tile; the layer without its bias.

    grad_output[i] = ō = c̄·c·(1 − c), (≥ n, 4) with a zero in column 3; grad_hidden[i, j] = Σ_c ō_c·W3[j, c] where the
    tile's row of ``hidden`` is above 0, else 0.
    """
    for i in range(tile.n):
        colour = load3(colours, tile.start + i)
        o = load3(grad_colours, tile.start + i) * colour * (1.0 - colour)
        for c in ti.static(range(3)):
            grad_output[i, c] = o[c]
        grad_output[i, 3] = 0.0
        for j in range(layer.n_in):
            total = o.dot(load_row(params, layer.offset + 3 * j))
            grad_hidden[i, j] = ti.select(hidden[tile.row + i, j] > 0.0, total, 0.0)


@kernel
def transpose(params: f32_1d, layer: Layer, stride: ti.i32, out: f32_1d):
    """out[j·stride + k] = entry (k, j) of a layer whose rows are next to each other."""
    for t in range(layer.n_in * layer.n_out):
        out[(t % layer.n_out) * stride + t // layer.n_out] = params[layer.offset + t]


@kernel
def weight_gradient(
    inputs: f32_2d, tile: Tile, layer: Layer, grad_out: f32_2d, parts: ti.i32, size: ti.i32, partial: f32_1d
):
    """partial[s·size + offset + k·n_out + j] += Σ_i inputs[row + i, k]·grad_out[i, j] over part s of the samples.

    One thread owns a 4×4 block (k, j) of one part, so that there are no atomics and the sums repeat to the bit;
    ``sum_parts`` adds the parts.
    """
    for t in range(parts * ((layer.n_in + 3) // 4) * ((layer.n_out + 3) // 4)):
        across = (layer.n_out + 3) // 4
        blocks = ((layer.n_in + 3) // 4) * across
        length = (tile.n + parts - 1) // parts
        s = t // blocks
        k = (t % blocks) // across * 4
        j = t % across * 4
        sums = ti.Matrix.zero(ti.f32, 4, 4)
        for i in range(s * length, ti.min(tile.n, (s + 1) * length)):
            b = ti.Vector([grad_out[i, j], grad_out[i, j + 1], grad_out[i, j + 2], grad_out[i, j + 3]])
            for p in ti.static(range(4)):
                a = inputs[tile.row + i, k + p]
                for q in ti.static(range(4)):
                    sums[p, q] += a * b[q]
        for p, q in ti.static(ti.ndrange(4, 4)):
            if k + p < layer.n_in and j + q < layer.n_out:
                partial[s * size + layer.offset + (k + p) * layer.n_out + j + q] += sums[p, q]


@kernel
def sum_parts(partial: f32_1d, parts: ti.i32, size: ti.i32, grads: f32_1d):
    """grads[p] += Σ_s partial[s·size + p], p < size, s < parts."""
    for p in range(size):
        total = 0.0
        for s in range(parts):
            total += partial[s * size + p]
        grads[p] += total
