"""Features and viewing direction to colour: the device side of ``tslim/decoder/``.

Notation: sample i of n; a 27 features; d unit viewing direction; o the three outputs before the sigmoid; x̄ = ∂loss/∂x.

MLP (SlimmeRF, arXiv 2312.10034, as TensoRF's ``MLP_Fea``), one row of ``inputs`` a sample:
    x = [a, d, sin(2^k a_c), cos(2^k a_c), sin(2^k d_c), cos(2^k d_c), 1],  column (c, k) = c·K + k inside each group
    h1 = relu(x·W1), h2 = relu([h1, 1]·W2), colour = sigmoid([h2, 1]·W3)
The column of ones makes a bias the last row of its weight matrix, so that biases and their gradients cost no pass of
their own. SH: colour_j = sigmoid(Σ_b Y_b(d)·a[9j + b]), Y the nine real spherical harmonics of degree ≤ 2.

All gradients here are hand-written, that of the viewing direction apart from the others: training needs none. On the
CPU arch the MLP runs in BLAS instead (``tslim/decoder/mlp_blas.py``); tests hold the two against each other. Work
arrays are 2-D, one sample a row, padded to multiples of 4 rows and 16 columns, so that 4×4 blocks may reach past what
counts.
"""

import taichi as ti

from kernels.launch import kernel
from kernels.types import f32_1d, f32_2d, i32_1d

N_FEATURES = 27
"""Length of the appearance feature vector."""


@ti.func
def sincos(x):
    """Sine and cosine together, within 2e-7 + 1e-7·|x|, without calls or branches: a loop over it vectorises.

    Reduction to |r| ≤ π/4 in two steps (Cody and Waite), then the minimax polynomials of Cephes ``sinf``/``cosf``.
    """
    quarter_turns = ti.floor(x * 0.6366197723675814 + 0.5)
    r = (x - quarter_turns * 1.5703125) - quarter_turns * 4.83826794897e-4
    z = r * r
    s = r + r * z * (-1.6666654611e-1 + z * (8.3321608736e-3 + z * -1.9515295891e-4))
    c = 1.0 - 0.5 * z + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5))
    quadrant = ti.cast(quarter_turns, ti.i32)
    odd = (quadrant & 1) != 0
    sine = ti.select(odd, c, s)
    cosine = ti.select(odd, s, c)
    sine = ti.select((quadrant & 2) != 0, -sine, sine)
    cosine = ti.select(((quadrant + 1) & 2) != 0, -cosine, cosine)
    return sine, cosine


@kernel
def encode(
    features: f32_1d,
    sample_ray: i32_1d,
    ray_dirs: f32_1d,
    start: ti.i32,
    n: ti.i32,
    inputs: f32_2d,
    row: ti.i32,
    k_features: ti.template(),
    k_dirs: ti.template(),
):
    """Rows row..row+n of ``inputs`` (rows, ≥ 31 + 54·k_features + 6·k_dirs) from samples start..start+n.

    features (27 a sample); sample_ray (1 a sample) indexes ray_dirs (3 a ray). One sine and one cosine a number;
    higher frequencies by doubling: sin 2x = 2 sin x cos x, cos 2x = 1 − 2 sin² x.
    """
    for i in range(n):
        for c in range(N_FEATURES):
            v = features[N_FEATURES * (start + i) + c]
            inputs[row + i, c] = v
            if ti.static(k_features > 0):
                s, co = sincos(v)
                for k in ti.static(range(k_features)):
                    inputs[row + i, 30 + c * k_features + k] = s
                    inputs[row + i, 30 + (27 + c) * k_features + k] = co
                    s, co = 2.0 * s * co, 1.0 - 2.0 * s * s
        ray = sample_ray[start + i]
        first = 30 + 54 * k_features
        for c in ti.static(range(3)):
            v = ray_dirs[3 * ray + c]
            inputs[row + i, N_FEATURES + c] = v
            if ti.static(k_dirs > 0):
                s, co = sincos(v)
                for k in ti.static(range(k_dirs)):
                    inputs[row + i, first + c * k_dirs + k] = s
                    inputs[row + i, first + (3 + c) * k_dirs + k] = co
                    s, co = 2.0 * s * co, 1.0 - 2.0 * s * s
        inputs[row + i, first + 6 * k_dirs] = 1.0


@kernel
def encode_backward(
    inputs: f32_2d,
    row: ti.i32,
    grad_inputs: f32_2d,
    start: ti.i32,
    n: ti.i32,
    grad_features: f32_1d,
    k_features: ti.template(),
):
    """grad_features[start + i] from rows row + i of ``inputs`` and rows i of ``grad_inputs``, i < n.

    ā_c = x̄_c + Σ_k 2^k (x̄[sin 2^k a_c]·cos 2^k a_c − x̄[cos 2^k a_c]·sin 2^k a_c), sines and cosines as stored.
    """
    for i in range(n):
        for c in range(N_FEATURES):
            total = grad_inputs[i, c]
            for k in ti.static(range(k_features)):
                s = 30 + c * k_features + k
                co = 30 + (27 + c) * k_features + k
                total += float(1 << k) * (
                    grad_inputs[i, s] * inputs[row + i, co] - grad_inputs[i, co] * inputs[row + i, s]
                )
            grad_features[N_FEATURES * (start + i) + c] = total


@kernel
def encode_directions_backward(
    inputs: f32_2d,
    row: ti.i32,
    grad_inputs: f32_2d,
    start: ti.i32,
    n: ti.i32,
    grad_directions: f32_1d,
    k_features: ti.template(),
    k_dirs: ti.template(),
):
    """The rest of the adjoint of ``encode``: grad_directions[start + i] (3 a sample), arguments as there.

    d̄_c = x̄_c + Σ_k 2^k (x̄[sin 2^k d_c]·cos 2^k d_c − x̄[cos 2^k d_c]·sin 2^k d_c).
    """
    for i in range(n):
        first = 30 + 54 * k_features
        for c in ti.static(range(3)):
            total = grad_inputs[i, N_FEATURES + c]
            for k in ti.static(range(k_dirs)):
                s = first + c * k_dirs + k
                co = first + (3 + c) * k_dirs + k
                total += float(1 << k) * (
                    grad_inputs[i, s] * inputs[row + i, co] - grad_inputs[i, co] * inputs[row + i, s]
                )
            grad_directions[3 * (start + i) + c] = total


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
def dense(
    inputs: f32_2d,
    in_row: ti.i32,
    n: ti.i32,
    n_in: ti.i32,
    weights: f32_1d,
    offset: ti.i32,
    stride: ti.i32,
    n_out: ti.i32,
    relu: ti.template(),
    out: f32_2d,
    out_row: ti.i32,
):
    """out[out_row + i, j] = Σ_{k < n_in} inputs[in_row + i, k]·weights[offset + k·stride + j], i < n, j < n_out.

    ``relu`` clamps at 0. One thread computes a 4×4 block: it may read and write up to 3 rows and columns more.
    """
    across = (n_out + 3) // 4
    for block in range(((n + 3) // 4) * across):
        i = block // across * 4
        j = block % across * 4
        sums = block_product(inputs, in_row + i, n_in, weights, offset + j, stride)
        for p, q in ti.static(ti.ndrange(4, 4)):
            value = sums[p, q]
            if ti.static(relu):
                value = ti.max(value, 0.0)
            out[out_row + i + p, j + q] = value


@kernel
def dense_backward(
    grad_out: f32_2d,
    n: ti.i32,
    n_out: ti.i32,
    transposed: f32_1d,
    stride: ti.i32,
    n_in: ti.i32,
    hidden: f32_2d,
    row: ti.i32,
    relu: ti.template(),
    grad_in: f32_2d,
):
    """grad_in[i, k] = Σ_{j < n_out} grad_out[i, j]·transposed[j·stride + k], i < n, k < n_in: ``dense`` backwards.

    With ``relu`` the input was a relu's output, ``hidden[row + i, k]``, and the gradient is 0 where that is.
    """
    across = (n_in + 3) // 4
    for block in range(((n + 3) // 4) * across):
        i = block // across * 4
        k = block % across * 4
        sums = block_product(grad_out, i, n_out, transposed, k, stride)
        for p, q in ti.static(ti.ndrange(4, 4)):
            value = sums[p, q]
            if ti.static(relu):
                value = ti.select(hidden[row + i + p, k + q] > 0.0, value, 0.0)
            grad_in[i + p, k + q] = value


@kernel
def output(
    hidden: f32_2d, row: ti.i32, n: ti.i32, n_in: ti.i32, params: f32_1d, offset: ti.i32, colours: f32_1d, start: ti.i32
):
    """colours[start + i] = sigmoid(hidden[row + i, :n_in]·W3), i < n, with W3 (n_in, 3) at ``offset`` in ``params``."""
    for i in range(n):
        total = ti.Vector([0.0, 0.0, 0.0])
        for k in range(n_in):
            h = hidden[row + i, k]
            for c in ti.static(range(3)):
                total[c] += h * params[offset + 3 * k + c]
        for c in ti.static(range(3)):
            colours[3 * (start + i) + c] = 1.0 / (1.0 + ti.exp(-total[c]))


@kernel
def output_backward(
    colours: f32_1d,
    grad_colours: f32_1d,
    start: ti.i32,
    n: ti.i32,
    hidden: f32_2d,
    row: ti.i32,
    params: f32_1d,
    offset: ti.i32,
    width: ti.i32,
    grad_output: f32_2d,
    grad_hidden: f32_2d,
):
    """Adjoint of sigmoid, of the last layer and of the relu before it, for samples start + i, i < n.

    grad_output[i] = ō = c̄·c·(1 − c), (≥ n, 4) with a zero in column 3; grad_hidden[i, j] = Σ_c ō_c·W3[j, c] where
    hidden[row + i, j] > 0, else 0. W3 (width, 3) lies at ``offset`` in ``params``.
    """
    for i in range(n):
        o = ti.Vector([0.0, 0.0, 0.0])
        for c in ti.static(range(3)):
            colour = colours[3 * (start + i) + c]
            o[c] = grad_colours[3 * (start + i) + c] * colour * (1.0 - colour)
            grad_output[i, c] = o[c]
        grad_output[i, 3] = 0.0
        for j in range(width):
            w = offset + 3 * j
            total = o[0] * params[w] + o[1] * params[w + 1] + o[2] * params[w + 2]
            grad_hidden[i, j] = ti.select(hidden[row + i, j] > 0.0, total, 0.0)


@kernel
def transpose(params: f32_1d, offset: ti.i32, rows: ti.i32, columns: ti.i32, out: f32_1d, stride: ti.i32):
    """out[j·stride + k] = params[offset + k·columns + j] for k < rows, j < columns."""
    for t in range(rows * columns):
        out[(t % columns) * stride + t // columns] = params[offset + t]


@kernel
def weight_gradient(
    inputs: f32_2d,
    row: ti.i32,
    n: ti.i32,
    n_in: ti.i32,
    grad_out: f32_2d,
    n_out: ti.i32,
    partial: f32_1d,
    parts: ti.i32,
    size: ti.i32,
    offset: ti.i32,
):
    """partial[s·size + offset + k·n_out + j] += Σ_i inputs[row + i, k]·grad_out[i, j] over part s of the n samples.

    One thread owns a 4×4 block (k, j) of one part, so that there are no atomics and the sums repeat to the bit;
    ``sum_parts`` adds the parts.
    """
    across = (n_out + 3) // 4
    blocks = ((n_in + 3) // 4) * across
    length = (n + parts - 1) // parts
    for t in range(parts * blocks):
        s = t // blocks
        k = (t % blocks) // across * 4
        j = t % across * 4
        sums = ti.Matrix.zero(ti.f32, 4, 4)
        for i in range(s * length, ti.min(n, (s + 1) * length)):
            b = ti.Vector([grad_out[i, j], grad_out[i, j + 1], grad_out[i, j + 2], grad_out[i, j + 3]])
            for p in ti.static(range(4)):
                a = inputs[row + i, k + p]
                for q in ti.static(range(4)):
                    sums[p, q] += a * b[q]
        for p, q in ti.static(ti.ndrange(4, 4)):
            if k + p < n_in and j + q < n_out:
                partial[s * size + offset + (k + p) * n_out + j + q] += sums[p, q]


@kernel
def sum_parts(partial: f32_1d, parts: ti.i32, size: ti.i32, grads: f32_1d):
    """grads[p] = Σ_s partial[s·size + p], p < size, s < parts."""
    for p in range(size):
        total = 0.0
        for s in range(parts):
            total += partial[s * size + p]
        grads[p] = total


@ti.func
def sh_basis(d):
    """The nine real spherical harmonics of degree ≤ 2 at the unit vector d, in the order and signs of PlenOctrees."""
    x, y, z = d[0], d[1], d[2]
    return ti.Vector(
        [
            0.28209479177387814,
            -0.4886025119029199 * y,
            0.4886025119029199 * z,
            -0.4886025119029199 * x,
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2.0 * z * z - x * x - y * y),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ]
    )


@kernel
def sh_decode(features: f32_1d, sample_ray: i32_1d, ray_dirs: f32_1d, n: ti.i32, colours: f32_1d):
    """colours[3i + j] = sigmoid(Σ_b Y_b(d)·features[27i + 9j + b]), d the direction of sample i < n."""
    for i in range(n):
        ray = sample_ray[i]
        basis = sh_basis(ti.Vector([ray_dirs[3 * ray], ray_dirs[3 * ray + 1], ray_dirs[3 * ray + 2]]))
        for j in ti.static(range(3)):
            total = 0.0
            for b in ti.static(range(9)):
                total += basis[b] * features[N_FEATURES * i + 9 * j + b]
            colours[3 * i + j] = 1.0 / (1.0 + ti.exp(-total))


@kernel
def sh_backward(
    sample_ray: i32_1d, ray_dirs: f32_1d, n: ti.i32, colours: f32_1d, grad_colours: f32_1d, grad_features: f32_1d
):
    """grad_features[i, 9j + b] = c̄_j·c_j·(1 − c_j)·Y_b, i < n, with c the colours that ``sh_decode`` left."""
    for i in range(n):
        ray = sample_ray[i]
        basis = sh_basis(ti.Vector([ray_dirs[3 * ray], ray_dirs[3 * ray + 1], ray_dirs[3 * ray + 2]]))
        for j in ti.static(range(3)):
            colour = colours[3 * i + j]
            o = grad_colours[3 * i + j] * colour * (1.0 - colour)
            for b in ti.static(range(9)):
                grad_features[N_FEATURES * i + 9 * j + b] = o * basis[b]


@ti.func
def sh_slope(d, a):
    """Gradient by d of Σ_b Y_b(d)·a_b."""
    x, y, z = d[0], d[1], d[2]
    return ti.Vector(
        [
            -0.4886025119029199 * a[3]
            + 1.0925484305920792 * (y * a[4] - z * a[7])
            - 0.6307831305050401 * x * a[6]
            + 1.0925484305920792 * x * a[8],
            -0.4886025119029199 * a[1]
            + 1.0925484305920792 * (x * a[4] - z * a[5])
            - 0.6307831305050401 * y * a[6]
            - 1.0925484305920792 * y * a[8],
            0.4886025119029199 * a[2] - 1.0925484305920792 * (y * a[5] + x * a[7]) + 1.2615662610100802 * z * a[6],
        ]
    )


@kernel
def sh_directions_backward(
    features: f32_1d,
    sample_ray: i32_1d,
    ray_dirs: f32_1d,
    n: ti.i32,
    colours: f32_1d,
    grad_colours: f32_1d,
    grad_directions: f32_1d,
):
    """The rest of the adjoint of ``sh_decode``: grad_directions[i] = Σ_j c̄_j·c_j·(1 − c_j)·Σ_b a[9j + b]·∇Y_b(d)."""
    for i in range(n):
        ray = sample_ray[i]
        by_basis = ti.Vector([0.0] * 9)
        for j in ti.static(range(3)):
            colour = colours[3 * i + j]
            o = grad_colours[3 * i + j] * colour * (1.0 - colour)
            for b in ti.static(range(9)):
                by_basis[b] += o * features[N_FEATURES * i + 9 * j + b]
        slope = sh_slope(ti.Vector([ray_dirs[3 * ray], ray_dirs[3 * ray + 1], ray_dirs[3 * ray + 2]]), by_basis)
        for c in ti.static(range(3)):
            grad_directions[3 * i + c] = slope[c]
