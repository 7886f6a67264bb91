"""A torch radiance field that works as the public SlimmeRF and TensoRF implementations do, to be timed beside ours.

Written from the published algorithm. What it shares with the public code is the shape of the computation:

- every ray is sampled densely and uniformly through the whole box; samples are then masked, first by the box, then by
  one ``grid_sample`` in the alpha volume;
- factors are component-first, ``(1, C, G, G)``, and multiplied by the rank's mask (1, or ε = 1e-6 above the rank);
- density and appearance are one ``grid_sample`` per plane and per line and mode over all surviving samples;
- weights come from ``cumprod``; colours are decoded where the weight exceeds 1e-4, by the paper's MLP;
- gradients are autograd's, the update is ``torch.optim.Adam`` over all parameters, masked ones included.

Where the public code does avoidable work, the twin does not: its masks are ``(1, C, 1, 1)`` and no parameters, rays are
already on the device, nothing is logged, and the alpha volume is read with ``nearest`` (one read instead of eight).
"""

from typing import Any

import numpy as np
import torch
from torch.nn import functional

MASKED = 1e-6
"""What the public code multiplies components above the active rank by."""
PLANE_AXES = ((0, 1), (0, 2), (1, 2))
LINE_AXIS = (2, 1, 0)


def positional_encoding(x: torch.Tensor, frequencies: int) -> torch.Tensor:
    """(…, d) → (…, 2·d·frequencies), sines then cosines."""
    bands = 2.0 ** torch.arange(frequencies, dtype=x.dtype, device=x.device)
    scaled = (x[..., None] * bands).reshape(*x.shape[:-1], frequencies * x.shape[-1])
    return torch.cat([torch.sin(scaled), torch.cos(scaled)], dim=-1)


def _interpolate(factor: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
    """Factor (1, C, H, W) at coordinates (1, n, 1, 2) → (C, n)."""
    sampled = functional.grid_sample(factor, coordinates, align_corners=True)
    return sampled.view(-1, coordinates.shape[1])


class TorchTwin(torch.nn.Module):
    """The public way of rendering and training, on the weights of one of our fields.

    Args:
        state: a ``tslim.model.model_file.FieldState`` (MLP decoder, no scales per rank).
        step: distance between samples in world units.
        lr_factors, lr_network: Adam's learning rates.

    Raises:
        ValueError: the field has a decoder or scales per rank that the public code knows nothing of.
    """

    def __init__(self, state: Any, step: float, *, lr_factors: float = 0.02, lr_network: float = 1e-3) -> None:
        super().__init__()
        config = state.config
        if config.decoder != "mlp" or state.rank_scales is not None:
            raise ValueError("the twin does what the public code does: MLP decoder, no scales per rank")
        self.config, self.step = config, float(step)
        self.near, self.far = float(state.near), float(state.far)
        self.box = torch.tensor(np.asarray(state.box), dtype=torch.float32)
        self.max_rank = state.density_planes[0].shape[0]
        self.rank = self.max_rank

        def planes(values: list[np.ndarray]) -> torch.nn.ParameterList:
            return torch.nn.ParameterList(torch.tensor(v, dtype=torch.float32)[None] for v in values)

        def lines(values: list[np.ndarray]) -> torch.nn.ParameterList:
            return torch.nn.ParameterList(torch.tensor(v, dtype=torch.float32)[None, :, :, None] for v in values)

        self.density_planes, self.density_lines = planes(state.density_planes), lines(state.density_lines)
        self.appearance_planes, self.appearance_lines = planes(state.appearance_planes), lines(state.appearance_lines)
        self.basis = torch.nn.Linear(9 * self.max_rank, 27, bias=False)
        layers: list[torch.nn.Module] = []
        for i in range(len(state.decoder) // 2):
            weight = np.asarray(state.decoder[f"w{i + 1}"])
            layers += [torch.nn.Linear(*weight.shape), torch.nn.ReLU(inplace=True)]
        self.mlp = torch.nn.Sequential(*layers[:-1])
        with torch.no_grad():
            self.basis.weight.copy_(torch.tensor(np.asarray(state.basis)).reshape(-1, 27).T)
            for i, layer in enumerate(m for m in self.mlp if isinstance(m, torch.nn.Linear)):
                layer.weight.copy_(torch.tensor(np.asarray(state.decoder[f"w{i + 1}"])).T)
                layer.bias.copy_(torch.tensor(np.asarray(state.decoder[f"b{i + 1}"])))
        self.alpha_volume: torch.Tensor | None = None
        if state.occupancy is not None:
            self.alpha_volume = torch.tensor(np.asarray(state.occupancy), dtype=torch.float32)[None, None]
            self.alpha_box = torch.tensor(np.asarray(state.occupancy_box), dtype=torch.float32)
        factors = [self.density_planes, self.density_lines, self.appearance_planes, self.appearance_lines]
        self.optimiser = torch.optim.Adam(
            [{"params": list(p), "lr": lr_factors} for p in factors]
            + [{"params": list(p.parameters()), "lr": lr_network} for p in (self.basis, self.mlp)],
            betas=(0.9, 0.99),
        )

    def _mask(self, components_per_rank: int) -> torch.Tensor:
        component = torch.arange(components_per_rank * self.max_rank)
        return torch.where(component < components_per_rank * self.rank, 1.0, MASKED)[None, :, None, None]

    def _sample_rays(
        self, origins: torch.Tensor, directions: torch.Tensor, jitter: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Points (n, s, 3), their t (n, s) and whether each lies in the box."""
        n_samples = int(float((self.box[1] - self.box[0]).norm()) / self.step) + 1
        safe = torch.where(directions == 0, torch.full_like(directions, 1e-6), directions)
        t_near = torch.minimum((self.box[1] - origins) / safe, (self.box[0] - origins) / safe).amax(-1)
        t_near = t_near.clamp(min=self.near, max=self.far)
        index = torch.arange(n_samples, dtype=torch.float32)[None]
        if jitter is not None:
            index = index + jitter[:, None]
        t = t_near[:, None] + self.step * index
        points = origins[:, None] + directions[:, None] * t[..., None]
        outside = ((self.box[0] > points) | (points > self.box[1])).any(-1)
        return points, t, ~outside

    def _occupied(self, points: torch.Tensor) -> torch.Tensor:
        unit = (points - self.alpha_box[0]) * (2 / (self.alpha_box[1] - self.alpha_box[0])) - 1
        values = functional.grid_sample(self.alpha_volume, unit[None, None, None], mode="nearest", align_corners=False)
        return values.view(-1) > 0

    @staticmethod
    def _coordinates(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised points (n, 3) → plane coordinates (3, n, 1, 2) and line coordinates (3, n, 1, 2)."""
        on_planes = torch.stack([x[:, list(axes)] for axes in PLANE_AXES])[:, :, None]
        along = torch.stack([x[:, axis] for axis in LINE_AXIS])
        on_lines = torch.stack([torch.zeros_like(along), along], dim=-1)[:, :, None]
        return on_planes.detach(), on_lines.detach()

    def density_feature(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised points (n, 3) in [−1, 1] → density features (n,)."""
        on_planes, on_lines = self._coordinates(x)
        mask = self._mask(1)
        feature = torch.zeros(x.shape[0])
        for m in range(3):
            plane = _interpolate(self.density_planes[m] * mask, on_planes[[m]])
            line = _interpolate(self.density_lines[m] * mask, on_lines[[m]])
            feature = feature + torch.sum(plane * line, dim=0)
        return feature

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised points (n, 3) → σ (n,)."""
        feature = self.density_feature(x) + self.config.density_shift
        return functional.relu(feature) if self.config.density_activation == "relu" else functional.softplus(feature)

    def appearance(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised points (n, 3) → colour features (n, 27)."""
        on_planes, on_lines = self._coordinates(x)
        mask = self._mask(3)
        planes, lines = [], []
        for m in range(3):
            planes.append(_interpolate(self.appearance_planes[m] * mask, on_planes[[m]]))
            lines.append(_interpolate(self.appearance_lines[m] * mask, on_lines[[m]]))
        return self.basis((torch.cat(planes) * torch.cat(lines)).T)

    def colour(self, features: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        """Features (n, 27) and viewing directions (n, 3) → colours (n, 3)."""
        parts = [features, directions]
        if self.config.feature_encoding:
            parts.append(positional_encoding(features, self.config.feature_encoding))
        if self.config.direction_encoding:
            parts.append(positional_encoding(directions, self.config.direction_encoding))
        return torch.sigmoid(self.mlp(torch.cat(parts, dim=-1)))

    def render_rays(
        self,
        origins: torch.Tensor,
        directions: torch.Tensor,
        background: torch.Tensor,
        jitter: torch.Tensor | None = None,
        threshold: float = 1e-4,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rays (n, 3) and (n, 3) → colours (n, 3), depths (n,) and opacities (n,), on a background (3,)."""
        points, t, valid = self._sample_rays(origins, directions, jitter)
        spacing = torch.cat([t[:, 1:] - t[:, :-1], torch.full_like(t[:, :1], self.step)], dim=-1)
        view = directions[:, None].expand(points.shape)
        if self.alpha_volume is not None:
            occupied = self._occupied(points[valid])
            valid = valid.clone()
            valid[valid.clone()] = occupied
        x = (points - self.box[0]) * (2 / (self.box[1] - self.box[0])) - 1
        sigma = torch.zeros(t.shape)
        if valid.any():
            sigma[valid] = self.density(x[valid])
        alpha = 1 - torch.exp(-sigma * spacing * self.config.distance_scale)
        light = torch.cumprod(torch.cat([torch.ones(len(alpha), 1), 1 - alpha + 1e-10], dim=-1), dim=-1)
        weight = alpha * light[:, :-1]
        shown = weight > threshold
        colours = torch.zeros(*t.shape, 3)
        if shown.any():
            colours[shown] = self.colour(self.appearance(x[shown]), view[shown])
        opacity = weight.sum(-1)
        rgb = (weight[..., None] * colours).sum(-2) + (1 - opacity[:, None]) * background
        with torch.no_grad():
            depth = (weight * t).sum(-1)
        return rgb.clamp(0, 1), depth, opacity

    def l1(self) -> torch.Tensor:
        """Mean absolute value of the active density factors, summed over modes, planes and lines."""
        mask = self._mask(1)
        parts = [*self.density_planes, *self.density_lines]
        return sum((torch.mean(torch.abs(p * mask)) for p in parts), start=torch.zeros(()))

    def loss(
        self,
        origins: torch.Tensor,
        directions: torch.Tensor,
        target: torch.Tensor,
        background: torch.Tensor,
        jitter: torch.Tensor | None = None,
        l1_weight: float = 0.0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(total loss, mean squared error) of a batch of rays."""
        rgb, _, _ = self.render_rays(origins, directions, background, jitter)
        mse = torch.mean((rgb - target) ** 2)
        return (mse + l1_weight * self.l1() if l1_weight else mse), mse

    def train_step(self, *batch: torch.Tensor, l1_weight: float = 8e-5) -> float:
        """One optimiser step on (origins, directions, target, background[, jitter]); the batch's squared error."""
        total, mse = self.loss(*batch, l1_weight=l1_weight)
        self.optimiser.zero_grad()
        total.backward()
        self.optimiser.step()
        return float(mse.detach())

    @torch.no_grad()
    def render(
        self, origins: torch.Tensor, directions: torch.Tensor, background: torch.Tensor, chunk: int = 4096
    ) -> torch.Tensor:
        """The colours (n, 3) of many rays, ``chunk`` at a time as the public evaluation does."""
        parts = [
            self.render_rays(o, d, background)[0]
            for o, d in zip(origins.split(chunk), directions.split(chunk), strict=True)
        ]
        return torch.cat(parts)
