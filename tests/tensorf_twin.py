"""Checkpoints of TensoRF made of random numbers, and how the public code renders them, written anew in plain torch.

Independent of what reads them in tslim: everything is taken from the file itself, planes by ``grid_sample``.
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

PLANES = ((0, 1), (0, 2), (1, 2))
LINES = (2, 1, 0)
BOX = ((-1.0, -1.2, -0.8), (1.0, 1.1, 0.9))


def write(path: Path, *, cp: bool = False, masked: tuple[int, int] | None = None, numpy_bits: bool = True, **changes):
    """A checkpoint of ``TensorVMSplit`` or ``TensorCP``; ``masked``: components of density and appearance that
    SlimmeRF's masks let through; ``changes``: of kwargs. Returns its path."""
    random = torch.Generator().manual_seed(7)
    kwargs = {
        "aabb": torch.tensor(BOX), "gridSize": [20, 24, 16], "density_n_comp": [4, 4, 4],
        "appearance_n_comp": [12, 12, 12], "app_dim": 27, "density_shift": -1.0, "alphaMask_thres": 1e-4,
        "distance_scale": 5.0, "rayMarch_weight_thres": 1e-4, "fea2denseAct": "softplus", "near_far": [2.0, 6.0],
        "step_ratio": 0.5, "shadingMode": "MLP_Fea", "pos_pe": 6, "view_pe": 2, "fea_pe": 2, "featureC": 128,
    } | changes  # fmt: skip
    if kwargs["shadingMode"] == "MLP":
        kwargs["fea_pe"] = 0
    grid, parameters = kwargs["gridSize"], {}

    def numbers(*shape: int, scale: float = 0.5) -> torch.Tensor:
        return scale * torch.randn(*shape, generator=random)

    for kind, counts, n in (("density", kwargs["density_n_comp"], 0), ("app", kwargs["appearance_n_comp"], 1)):
        for mode, ((u, v), w) in enumerate(zip(PLANES, LINES, strict=True)):
            count = counts[0] if cp else counts[mode]
            shapes = {f"{kind}_line": (grid[w], 1)} | ({} if cp else {f"{kind}_plane": (grid[v], grid[u])})
            for name, sides in shapes.items():
                parameters[f"{name}.{mode}"] = numbers(1, count, *sides, scale=0.7 if cp else 0.5)
                if masked:
                    mask = torch.full((1, count, *sides), 1e-6)
                    mask[:, : masked[n]] = 1
                    parameters[f"{name}_mask.{mode}"] = mask
    components = kwargs["appearance_n_comp"][0] if cp else sum(kwargs["appearance_n_comp"])
    parameters["basis_mat.weight"] = numbers(kwargs["app_dim"], components, scale=0.3)
    inputs = kwargs["app_dim"] * (1 + 2 * kwargs["fea_pe"]) + 3 + 6 * kwargs["view_pe"]
    units = kwargs["featureC"]
    for i, n_in, n_out in ((0, inputs, units), (2, units, units), (4, units, 3)):
        parameters[f"renderModule.mlp.{i}.weight"] = numbers(n_out, n_in, scale=1.5 * n_in**-0.5)
        parameters[f"renderModule.mlp.{i}.bias"] = numbers(n_out, scale=0.1)
    vertices = torch.zeros(1, 1, 11, 13, 12, dtype=torch.bool)
    vertices[..., 2:8, 3:10, 4:9] = True
    vertices |= torch.rand(vertices.shape, generator=random) < 0.02
    bits = np.packbits(vertices.numpy().reshape(-1))
    torch.save(
        {
            "kwargs": kwargs, "state_dict": parameters, "alphaMask.shape": tuple(vertices.shape),
            "alphaMask.mask": bits if numpy_bits else torch.from_numpy(bits),
            "alphaMask.aabb": torch.tensor([[-1.5, -1.4, -1.3], [1.5, 1.4, 1.3]]),
        },
        path,
    )  # fmt: skip
    return path


def rays(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Origins and unit directions (n, 3) of rays from all around to somewhere in the box."""
    random = np.random.default_rng(3)
    origins = random.normal(size=(n, 3))
    origins *= 4 / np.linalg.norm(origins, axis=1, keepdims=True)
    directions = random.uniform(*BOX, (n, 3)) - origins
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return origins.astype(np.float32), directions.astype(np.float32)


def render(path: Path, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Colours (n, 3) over white, as the public code renders the file."""
    file = torch.load(path, weights_only=False)
    kwargs, p = file["kwargs"], file["state_dict"]
    o, d = torch.from_numpy(origins), torch.from_numpy(directions)
    low, high = kwargs["aabb"]
    step = ((high - low) / (torch.tensor(kwargs["gridSize"]) - 1)).mean() * kwargs["step_ratio"]
    n_steps = int((high - low).norm() / step) + 1
    enter = torch.minimum((high - o) / d, (low - o) / d).amax(1).clamp(*kwargs["near_far"])
    t = enter[:, None] + step * torch.arange(n_steps)
    points = o[:, None] + d[:, None] * t[..., None]
    hair = 1e-5  # rays begin on a face of the box: rounding must not decide whether that is inside
    counts = ((points >= low - hair) & (points <= high + hair)).all(2)
    first, last = file["alphaMask.aabb"]
    vertices = torch.from_numpy(np.unpackbits(np.asarray(file["alphaMask.mask"]))[: np.prod(file["alphaMask.shape"])])
    volume = vertices.reshape(file["alphaMask.shape"]).float()
    at = (points - first) / (last - first) * 2 - 1
    marked = functional.grid_sample(volume, at[None, :, :, None], align_corners=True)[0, 0, :, :, 0]
    counts &= marked > 0
    x = (points - low) / (high - low) * 2 - 1
    sigma = torch.zeros(counts.shape)
    feature = _products(p, "density", x[counts]).sum(0)
    softplus = kwargs["fea2denseAct"] == "softplus"
    sigma[counts] = functional.softplus(feature + kwargs["density_shift"]) if softplus else functional.relu(feature)
    delta = torch.cat([t[:, 1:] - t[:, :-1], torch.zeros(len(t), 1)], 1) * kwargs["distance_scale"]
    alpha = 1 - torch.exp(-sigma * delta)
    reach = torch.cumprod(torch.cat([torch.ones(len(t), 1), 1 - alpha + 1e-10], 1), 1)[:, :-1]
    weight = alpha * reach
    shown = weight > kwargs["rayMarch_weight_thres"]
    features = (p["basis_mat.weight"] @ _products(p, "app", x[shown])).T
    views = d[:, None].expand(points.shape)[shown]
    inputs = [features, views]
    for values, n in ((features, kwargs["fea_pe"]), (views, kwargs["view_pe"])):
        scaled = (values[..., None] * 2.0 ** torch.arange(n)).reshape(len(values), -1)
        inputs += [scaled.sin(), scaled.cos()]
    layer = torch.cat(inputs, 1)
    for i in (0, 2, 4):
        layer = functional.linear(layer, p[f"renderModule.mlp.{i}.weight"], p[f"renderModule.mlp.{i}.bias"])
        layer = layer.sigmoid() if i == 4 else layer.relu()
    colour = torch.zeros(points.shape)
    colour[shown] = layer
    return ((weight[..., None] * colour).sum(1) + 1 - weight.sum(1, keepdim=True)).clamp(0, 1).numpy()


def _products(p: dict[str, torch.Tensor], kind: str, x: torch.Tensor) -> torch.Tensor:
    """(components, n) plane times line, or line times line times line, at normalised points (n, 3)."""

    def masked(name: str) -> torch.Tensor:
        base, mode = name.split(".")
        return p[name] * p.get(f"{base}_mask.{mode}", torch.ones(()))

    def sampled(array: torch.Tensor, *axes: torch.Tensor) -> torch.Tensor:
        return functional.grid_sample(array, torch.stack(axes, 1)[None, :, None], align_corners=True)[0, :, :, 0]

    lines = [sampled(masked(f"{kind}_line.{m}"), torch.zeros(len(x)), x[:, w]) for m, w in enumerate(LINES)]
    if f"{kind}_plane.0" not in p:
        return lines[0] * lines[1] * lines[2]
    planes = [sampled(masked(f"{kind}_plane.{m}"), x[:, u], x[:, v]) for m, (u, v) in enumerate(PLANES)]
    return torch.cat([plane * line for plane, line in zip(planes, lines, strict=True)])
