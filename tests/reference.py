"""The slow, obvious twin of every kernel, in torch, written from the equations and independent of the kernels.

Notation: R ranks, C = R density or 3R appearance components, G_x × G_y × G_z texels on the corners, n points.
Everything works in the dtype of its inputs, so that tests can ask for float64, and autograd differentiates it: that is
the independent gradient. Loops over samples are plain Python: keep the inputs small.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional

PLANE_AXES = ((0, 1), (0, 2), (1, 2))
"""The two axes (u, v) that the plane of each mode spans."""
LINE_AXIS = (2, 1, 0)
"""The axis that the line of each mode runs along."""
N_FEATURES = 27

Tensors = list[torch.Tensor]


@dataclass
class ReferenceField:
    """A radiance field as plain tensors, laid out as in ``tslim.model.model_file.FieldState``."""

    box: torch.Tensor  # (2, 3) min, max
    density_planes: Tensors  # 3 × (R, G_v, G_u)
    density_lines: Tensors  # 3 × (R, G_w)
    appearance_planes: Tensors  # 3 × (3R, G_v, G_u)
    appearance_lines: Tensors  # 3 × (3R, G_w)
    basis: torch.Tensor  # (3 modes, 3R, 27)
    decoder: dict[str, torch.Tensor]
    rank_scales: torch.Tensor | None = None  # (R, 56): row r − 1 is for active rank r
    kind: str = "mlp"
    activation: str = "softplus"
    shift: float = -10.0
    distance_scale: float = 25.0
    feature_frequencies: int = 2
    direction_frequencies: int = 2
    leaves: Tensors = field(default_factory=list)

    @classmethod
    def from_state(cls, state, dtype: torch.dtype = torch.float64, requires_grad: bool = False) -> "ReferenceField":
        """Copies a ``FieldState``; with ``requires_grad`` every factor and weight becomes a leaf."""

        def leaf(values) -> torch.Tensor:
            return torch.tensor(np.asarray(values), dtype=dtype).requires_grad_(requires_grad)

        config = state.config
        return cls(
            box=torch.tensor(np.asarray(state.box), dtype=dtype),
            density_planes=[leaf(p) for p in state.density_planes],
            density_lines=[leaf(p) for p in state.density_lines],
            appearance_planes=[leaf(p) for p in state.appearance_planes],
            appearance_lines=[leaf(p) for p in state.appearance_lines],
            basis=leaf(state.basis),
            decoder={name: leaf(values) for name, values in state.decoder.items()},
            rank_scales=None if state.rank_scales is None else leaf(state.rank_scales),
            kind=config.decoder,
            activation=config.density_activation,
            shift=config.density_shift,
            distance_scale=config.distance_scale,
            feature_frequencies=config.feature_encoding,
            direction_frequencies=config.direction_encoding,
        )

    @property
    def max_rank(self) -> int:
        return self.density_planes[0].shape[0]

    @property
    def grid(self) -> tuple[int, int, int]:
        return tuple(self.density_lines[LINE_AXIS.index(axis)].shape[1] for axis in range(3))

    def named_parameters(self) -> dict[str, torch.Tensor]:
        """Every trainable tensor, by a name that a failing test can print."""
        named = {}
        for kind in ("density_planes", "density_lines", "appearance_planes", "appearance_lines"):
            named |= {f"{kind}[{mode}]": tensor for mode, tensor in enumerate(getattr(self, kind))}
        named["basis"] = self.basis
        if self.rank_scales is not None:
            named["rank_scales"] = self.rank_scales
        return named | {f"decoder.{name}": tensor for name, tensor in self.decoder.items()}


# --- tensor field


def texel_coordinates(box: torch.Tensor, grid: tuple[int, int, int], points: torch.Tensor) -> torch.Tensor:
    """Points (n, 3) in world units → positions in texels, 0 at one face of the box and G − 1 at the other."""
    sizes = torch.tensor(grid, dtype=points.dtype)
    inside = (points - box[0]) / (box[1] - box[0])
    return torch.minimum(torch.clamp(inside, min=0.0), torch.ones_like(inside)) * (sizes - 1)


def interpolate_line(line: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Line (C, G) at texel positions w (n,) → (C, n): (1 − f)·line[i] + f·line[i + 1]."""
    i = torch.clamp(w.floor().long(), 0, max(line.shape[1] - 2, 0))
    f = w - i
    following = torch.clamp(i + 1, max=line.shape[1] - 1)
    return (1 - f) * line[:, i] + f * line[:, following]


def interpolate_plane(plane: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Plane (C, G_v, G_u) at texel positions (u, v) → (C, n), bilinear."""
    _, g_v, g_u = plane.shape
    i, j = torch.clamp(u.floor().long(), 0, max(g_u - 2, 0)), torch.clamp(v.floor().long(), 0, max(g_v - 2, 0))
    a, b = u - i, v - j
    i1, j1 = torch.clamp(i + 1, max=g_u - 1), torch.clamp(j + 1, max=g_v - 1)
    near_row = (1 - a) * plane[:, j, i] + a * plane[:, j, i1]
    far_row = (1 - a) * plane[:, j1, i] + a * plane[:, j1, i1]
    return (1 - b) * near_row + b * far_row


def mode_products(planes: Tensors, lines: Tensors, x: torch.Tensor) -> torch.Tensor:
    """P^m_k(u, v)·L^m_k(w) at texel positions x (n, 3), for every mode and component → (3, C, n)."""
    products = []
    for (u, v), w, plane, line in zip(PLANE_AXES, LINE_AXIS, planes, lines, strict=True):
        products.append(interpolate_plane(plane, x[:, u], x[:, v]) * interpolate_line(line, x[:, w]))
    return torch.stack(products)


def rank_mask(n_components: int, ranks: torch.Tensor, per_rank: int, dtype: torch.dtype) -> torch.Tensor:
    """(C, n): 1 where component k belongs to the first ``ranks[i]`` ranks of point i, else 0."""
    return (torch.arange(n_components)[:, None] < per_rank * ranks[None, :].long()).to(dtype)


def density_features(f: ReferenceField, points: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """The density feature (before shift and activation) of points (n, 3), each at its own rank (n,) → (n,)."""
    x = texel_coordinates(f.box, f.grid, points)
    products = mode_products(f.density_planes, f.density_lines, x)
    feature = (products * rank_mask(f.max_rank, ranks, 1, products.dtype)).sum((0, 1))
    if f.rank_scales is not None:
        row = f.rank_scales[ranks.long() - 1]
        feature = row[:, 0] * feature + row[:, 1]
    return feature


def activate(feature: torch.Tensor, activation: str = "softplus", shift: float = -10.0) -> torch.Tensor:
    """σ = softplus(feature + shift) or relu(feature + shift), softplus as log(1 + e^x) kept from overflowing."""
    x = feature + shift
    return torch.relu(x) if activation == "relu" else torch.clamp(x, min=0) + torch.log1p(torch.exp(-x.abs()))


def density(f: ReferenceField, points: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """σ of points (n, 3) at ranks (n,) → (n,), in inverse world units before ``distance_scale``."""
    return activate(density_features(f, points, ranks), f.activation, f.shift)


def appearance(f: ReferenceField, points: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """The 27 colour features B·(P·L) of points (n, 3) at ranks (n,) → (n, 27)."""
    x = texel_coordinates(f.box, f.grid, points)
    products = mode_products(f.appearance_planes, f.appearance_lines, x)
    products = products * rank_mask(3 * f.max_rank, ranks, 3, products.dtype)
    features = torch.einsum("mkn,mkf->nf", products, f.basis)
    if f.rank_scales is not None:
        row = f.rank_scales[ranks.long() - 1]
        features = row[:, 2 : 2 + N_FEATURES] * features + row[:, 2 + N_FEATURES :]
    return features


# --- decoders


def positional_encoding(x: torch.Tensor, frequencies: int) -> torch.Tensor:
    """x (n, d) → (n, 2·d·frequencies): sin(2^k x_i) for every i and, fastest, k; then the cosines in the same order."""
    scaled = (x[:, :, None] * 2.0 ** torch.arange(frequencies, dtype=x.dtype)).reshape(x.shape[0], -1)
    return torch.cat([scaled.sin(), scaled.cos()], 1)


def sh_basis(d: torch.Tensor) -> torch.Tensor:
    """The nine real spherical harmonics up to degree 2 of unit directions (n, 3) → (n, 9)."""
    x, y, z = d.unbind(1)
    one = torch.ones_like(x)
    c1, c2 = (3 / (4 * np.pi)) ** 0.5, (15 / (4 * np.pi)) ** 0.5
    return torch.stack(
        [
            one * (1 / (4 * np.pi)) ** 0.5,
            -c1 * y,
            c1 * z,
            -c1 * x,
            c2 * x * y,
            -c2 * y * z,
            (5 / (16 * np.pi)) ** 0.5 * (2 * z * z - x * x - y * y),
            -c2 * x * z,
            c2 / 2 * (x * x - y * y),
        ],
        1,
    )


def decode(f: ReferenceField, features: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Features (n, 27) and unit viewing directions (n, 3) → colours (n, 3)."""
    if f.kind == "sh":
        return torch.sigmoid((features.reshape(-1, 3, 9) * sh_basis(directions)[:, None]).sum(2))
    inputs = [features, directions]
    inputs += [positional_encoding(features, f.feature_frequencies)] if f.feature_frequencies else []
    inputs += [positional_encoding(directions, f.direction_frequencies)] if f.direction_frequencies else []
    x = torch.cat(inputs, 1)
    layers = len(f.decoder) // 2
    for i in range(layers):
        x = x @ f.decoder[f"w{i + 1}"] + f.decoder[f"b{i + 1}"]
        x = torch.relu(x) if i < layers - 1 else torch.sigmoid(x)
    return x


# --- rays


def ray_box(origin: np.ndarray, direction: np.ndarray, box: np.ndarray) -> tuple[float, float]:
    """Where a ray enters and leaves the box, in multiples of its direction; entry > exit where it misses."""
    t_in, t_out = -np.inf, np.inf
    for axis in range(3):
        if direction[axis] == 0:
            if not box[0, axis] <= origin[axis] <= box[1, axis]:
                return np.inf, -np.inf
            continue
        a, b = ((box[side, axis] - origin[axis]) / direction[axis] for side in (0, 1))
        t_in, t_out = max(t_in, min(a, b)), min(t_out, max(a, b))
    return t_in, t_out


def contract(q: torch.Tensor) -> torch.Tensor:
    """MERF's piecewise-projective contraction of points q (n, 3) → (n, 3) in [−2, 2]³."""
    out = []
    for point in q:
        size, axis = point.abs().max(0)
        if size > 1:
            outer = torch.sign(point[axis]) * (2 - 1 / point[axis].abs())
            point = torch.stack([outer if i == int(axis) else point[i] / point[axis].abs() for i in range(3)])
        out.append(point)
    return torch.stack(out) if out else q


def ndc(p: torch.Tensor, near: float) -> torch.Tensor:
    """Points (n, 3) with z < 0 in the projective coordinates that map z = −near to −1 and infinity to 1."""
    x, y, z = p.unbind(1)
    return torch.stack([-2 * x / z, -2 * y / z, 1 + 2 * near / z], 1)


def ndc_path(origins: torch.Tensor, directions: torch.Tensor, near: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Start and unit direction in NDC of rays that look along −z, from the near plane or beyond it."""
    skipped = torch.clamp((-near - origins[:, 2]) / directions[:, 2], min=0.0)
    start = ndc(origins + skipped[:, None] * directions, near)
    end = torch.stack([-2 * directions[:, 0] / directions[:, 2], -2 * directions[:, 1] / directions[:, 2]], 1)
    along = torch.cat([end, torch.ones_like(end[:, :1])], 1) - start
    return start, along / along.norm(dim=1, keepdim=True)


def ndc_depth(
    origins: torch.Tensor, directions: torch.Tensor, near: float, opacity: torch.Tensor, depth: torch.Tensor
) -> torch.Tensor:
    """Σ weight·t in NDC (n,) of rays that look along −z → opacity times the world distance of the mean t.

    The point at t lies in the world where z = 2 near / (ndc_z − 1) says.
    """
    start, along = ndc_path(origins, directions, near)
    z = 2 * near / (start[:, 2] + depth / opacity * along[:, 2] - 1)
    return opacity * (z - origins[:, 2]) / directions[:, 2]


@dataclass
class Composited:
    """What compositing gives: per sample ``weight``, per ray the rest."""

    weight: torch.Tensor  # (n_samples,)
    rgb: torch.Tensor | None  # (n_rays, 3)
    depth: torch.Tensor  # (n_rays,) Σ weight·t
    opacity: torch.Tensor  # (n_rays,)


def weights(tau: torch.Tensor, ray: torch.Tensor, stop: float = 0.0) -> torch.Tensor:
    """Optical thickness τ = σ·δ·distance_scale of samples sorted along their rays → weight T·(1 − e^(−τ)).

    ``ray`` (n,) is the ray of each sample. Samples reached by less light than ``stop`` get weight 0.
    """
    result, left, last = [], torch.ones((), dtype=tau.dtype), -1
    for i in range(len(tau)):
        if int(ray[i]) != last:
            left, last = torch.ones((), dtype=tau.dtype), int(ray[i])
        if left < stop:
            result.append(torch.zeros((), dtype=tau.dtype))
            continue
        alpha = 1 - torch.exp(-tau[i])
        result.append(left * alpha)
        left = left * (1 - alpha)
    return torch.stack(result) if result else tau.clone()


def composite(
    weight: torch.Tensor,
    colour: torch.Tensor | None,
    t: torch.Tensor,
    ray: torch.Tensor,
    n_rays: int,
    background: torch.Tensor | None,
    threshold: float = 0.0,
) -> Composited:
    """Sums along rays: Σ w·c over samples with w > threshold, plus (1 − Σ w)·background, Σ w·t and Σ w."""
    index = ray.long()
    opacity = torch.zeros(n_rays, dtype=weight.dtype).index_add(0, index, weight)
    depth = torch.zeros(n_rays, dtype=weight.dtype).index_add(0, index, weight * t)
    rgb = None
    if colour is not None:
        shown = (weight > threshold).to(weight.dtype) * weight
        rgb = torch.zeros(n_rays, 3, dtype=weight.dtype).index_add(0, index, shown[:, None] * colour)
        if background is not None:
            rgb = rgb + (1 - opacity)[:, None] * background
    return Composited(weight, rgb, depth, opacity)


def groups(ray: torch.Tensor, t: torch.Tensor, visible: torch.Tensor, span: float) -> torch.Tensor:
    """The group of each sample, -1 where its ray has none: a group ends ``span`` behind the first of its kept samples,
    and samples that are not kept go to the group before them, or else to the first of their ray."""
    result, n_groups, first = [-1] * len(t), 0, None
    for i in range(len(t)):
        if first is not None and int(ray[i]) != int(ray[first]):
            first = None
        if visible[i] and (first is None or float(t[i] - t[first]) > span):
            if first is None:
                for back in range(i - 1, -1, -1):
                    if int(ray[back]) != int(ray[i]):
                        break
                    result[back] = n_groups
            first, n_groups = i, n_groups + 1
        if first is not None:
            result[i] = n_groups - 1
    return torch.tensor(result, dtype=torch.long)


def render_samples(
    f: ReferenceField,
    origins: torch.Tensor,  # (n_rays, 3)
    directions: torch.Tensor,  # (n_rays, 3)
    ray: torch.Tensor,  # (n_samples,) sorted
    t: torch.Tensor,  # (n_samples,)
    delta: torch.Tensor,  # (n_samples,)
    ranks: torch.Tensor,  # (n_rays,)
    background: torch.Tensor | None,
    stop: float = 0.0,
    threshold: float = 1e-4,
    span: float = 0.0,
    points: torch.Tensor | None = None,  # (n_samples, 3) in field coordinates
    along: torch.Tensor | None = None,  # (n_samples,) what span is measured in
) -> Composited:
    """The whole forward pass from given samples; those of a group (see ``groups``) share the colour of their mean.

    Samples lie on the rays, and ``span`` is measured in t, where ``points`` and ``along`` do not say otherwise.
    """
    index = ray.long()
    points = origins[index] + t[:, None] * directions[index] if points is None else points
    sigma = density(f, points, ranks[index])
    weight = weights(sigma * delta * f.distance_scale, ray, stop)
    visible = weight > threshold
    colour = torch.zeros(len(t), 3, dtype=t.dtype)
    if visible.any():
        features = appearance(f, points[visible], ranks[index][visible])
        group = groups(index, t if along is None else along, visible, span)
        sums = torch.zeros(int(group.max()) + 1, 1 + features.shape[1], dtype=t.dtype)
        weighted = weight[visible, None] * torch.cat([torch.ones_like(features[:, :1]), features], 1)
        sums = sums.index_add(0, group[visible], weighted)
        first = torch.tensor([int((group == g).nonzero()[0]) for g in range(len(sums))])
        of_group = decode(f, sums[:, 1:] / sums[:, :1], directions[index[first]])
        coloured = (group >= 0) & (visible | (span > 0))
        colour = colour.index_put((coloured.nonzero()[:, 0],), of_group[group[coloured]])
    return composite(weight, colour, t, ray, len(origins), background, 0.0 if span > 0 else threshold)


# --- losses and updates


def mse(rgb: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error over rays and channels."""
    return ((rgb - target) ** 2).mean()


def l1(planes: Tensors, lines: Tensors) -> torch.Tensor:
    """Σ over modes of mean |plane| + mean |line|."""
    return sum(p.abs().mean() + v.abs().mean() for p, v in zip(planes, lines, strict=True))


def total_variation(planes: Tensors) -> torch.Tensor:
    """Σ over modes of 2·(mean squared step along v + the same along u) · 1e-2, as TensoRF scales it."""
    total = torch.zeros((), dtype=planes[0].dtype)
    for plane in planes:
        along_v, along_u = plane[:, 1:] - plane[:, :-1], plane[:, :, 1:] - plane[:, :, :-1]
        total = total + 2e-2 * ((along_v**2).mean() + (along_u**2).mean())
    return total


@dataclass
class Adam:
    """One tensor's Adam (Kingma & Ba 2015, algorithm 1), with torch.optim.Adam's place for ε."""

    value: torch.Tensor
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-8
    steps: int = 0

    def __post_init__(self) -> None:
        self.mean, self.square = torch.zeros_like(self.value), torch.zeros_like(self.value)

    def step(self, gradient: torch.Tensor, lr: float) -> torch.Tensor:
        self.steps += 1
        self.mean = self.beta1 * self.mean + (1 - self.beta1) * gradient
        self.square = self.beta2 * self.square + (1 - self.beta2) * gradient**2
        mean = self.mean / (1 - self.beta1**self.steps)
        square = self.square / (1 - self.beta2**self.steps)
        self.value = self.value - lr * mean / (square.sqrt() + self.epsilon)
        return self.value


# --- resampling and occupancy


def upsample_line(line: torch.Tensor, size: int) -> torch.Tensor:
    """(C, G) → (C, size), linear, corners on corners."""
    return interpolate_line(line, torch.linspace(0, line.shape[1] - 1, size, dtype=line.dtype))


def upsample_plane(plane: torch.Tensor, size_v: int, size_u: int) -> torch.Tensor:
    """(C, G_v, G_u) → (C, size_v, size_u), bilinear, corners on corners."""
    v = torch.linspace(0, plane.shape[1] - 1, size_v, dtype=plane.dtype)
    u = torch.linspace(0, plane.shape[2] - 1, size_u, dtype=plane.dtype)
    vv, uu = torch.meshgrid(v, u, indexing="ij")
    return interpolate_plane(plane, uu.reshape(-1), vv.reshape(-1)).reshape(-1, size_v, size_u)


def dilate(cells: np.ndarray) -> np.ndarray:
    """Every cell that has an occupied cell among its 3³ neighbours (itself included)."""
    padded = np.pad(cells, 1)
    result = np.zeros_like(cells)
    for dz in range(3):
        for dy in range(3):
            for dx in range(3):
                z, y, x = cells.shape
                result |= padded[dz : dz + z, dy : dy + y, dx : dx + x]
    return result


def cross_check_interpolation(line: torch.Tensor, plane: torch.Tensor, x: torch.Tensor) -> tuple[Tensors, Tensors]:
    """([line, plane] by hand, the same by ``F.grid_sample``) at texel positions x (n, 3) = (u, v, w)."""
    sizes = torch.tensor([plane.shape[2], plane.shape[1], line.shape[1]], dtype=x.dtype)
    unit = 2 * x / (sizes - 1) - 1
    by_hand = [interpolate_line(line, x[:, 2]), interpolate_plane(plane, x[:, 0], x[:, 1])]
    on_line = torch.stack([torch.zeros_like(unit[:, 2]), unit[:, 2]], 1)[None, :, None]
    sampled = [
        functional.grid_sample(line[None, :, :, None], on_line, align_corners=True)[0, :, :, 0],
        functional.grid_sample(plane[None], unit[None, :, None, :2], align_corners=True)[0, :, :, 0],
    ]
    return by_hand, sampled
