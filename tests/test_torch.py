"""The renderer as a function of torch: values, gradients through any loss, and parameters that are the field's own."""

import copy
import dataclasses
import gc
import os
import pickle
import re
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch

from tests import reference
from tests.device_field import assert_gradient
from tests.test_spaces import BACKGROUND, N_RAYS, NEAR_PLANE, field_points, make_field, make_rays, samples_of
from tslim.errors import ConfigError

RANKS = np.resize(np.array((5, 1, 13, 8, 3), np.int32), N_RAYS)


@pytest.fixture
def config(cpu):
    from tslim.rendering.pipeline import MarchConfig

    return MarchConfig(weight_threshold=0.0, early_stop=0.0)


def rays(space: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Leaves in single precision; directions of length 3."""
    origins, directions = make_rays(space)
    return torch.tensor(origins, requires_grad=True), torch.tensor(3 * directions, requires_grad=True)


def named(module) -> dict[str, np.ndarray]:
    """Gradients of a module's parameters, named and shaped as the twin's."""
    found = {}
    for name, parameter in module.named_parameters():
        grad = parameter.grad.cpu().numpy()
        head, _, part = name.partition(".")
        if head.endswith(("planes", "lines")):
            components = 13 * (1 if head.startswith("density") else 3)
            grad = np.moveaxis(grad, -1, 1)
            found[f"{head}[{part}]"] = grad.reshape(-1, *grad.shape[2:])[:components]
        elif head == "basis":
            found[head] = grad.transpose(1, 0, 2, 3).reshape(3, -1, 27)[:, :39]
        else:
            found[name] = grad
    return found


@pytest.mark.parametrize("space", ["box", "ndc", "contracted"])
def test_values_and_all_gradients_of_a_loss_are_those_of_the_twin(config, space):
    from tslim.torch import FieldModule, function, render

    field, state = make_field(space)
    module, (origins, directions) = FieldModule(field, config=config), rays(space)
    rgb, depth, opacity = render(module, origins, directions, rank=RANKS, background=BACKGROUND, jitter=(3, 7))
    seen = torch.arange(N_RAYS) != 1  # which in ndc looks away
    goal = torch.tensor(np.random.default_rng(71).random((N_RAYS, 3)), dtype=torch.float32)

    def loss(rgb, depth, opacity):
        return ((rgb - goal.to(rgb.dtype)) ** 2).sum() + (opacity**2).sum() + 0.02 * (depth[seen] ** 2).sum()

    loss(rgb, depth, opacity).backward()

    twin = reference.ReferenceField.from_state(state, requires_grad=True)
    leaves = [torch.tensor(a).double().requires_grad_() for a in (make_rays(space)[0], 3 * make_rays(space)[1])]
    o, d = leaves[0], leaves[1] / leaves[1].norm(dim=1, keepdim=True)
    pipeline = function._engine(field, config).pipeline
    t, ray = (torch.tensor(a) for a in samples_of(pipeline))
    t = t.double()
    found = reference.render_samples(
        twin, o, d, ray, t, torch.full_like(t, pipeline.step_size), torch.tensor(RANKS).long(),
        torch.tensor(BACKGROUND).double(), 0.0, 0.0, 0.0, field_points(space, o, d, t, ray),
    )  # fmt: skip
    by_depth = found.depth
    if space == "ndc":
        by_depth = torch.zeros_like(found.depth)
        by_depth[seen] = reference.ndc_depth(o[seen], d[seen], NEAR_PLANE, found.opacity[seen], found.depth[seen])
    for ours, right in ((rgb, found.rgb), (opacity, found.opacity), (depth[seen], by_depth[seen])):
        assert (ours.detach().cpu().double() - right.detach()).abs().max() < 2e-4 * max(1, right.abs().max())
    loss(found.rgb, by_depth, found.opacity).backward()
    ours = named(module) | {"origins": origins.grad.numpy(), "directions": directions.grad.numpy()}
    for name, leaf in (twin.named_parameters() | {"origins": leaves[0], "directions": leaves[1]}).items():
        assert_gradient(name, ours[name], leaf.grad, tolerance=3e-3)


def test_several_renders_in_one_loss_each_get_their_own_gradients(config):
    from tslim.torch import FieldModule

    field, _ = make_field("box")
    module, (origins, directions) = FieldModule(field, config=config), rays("box")
    halves = [slice(0, 15), slice(15, N_RAYS)]

    def differentiate(parts: list[slice]) -> list[torch.Tensor]:
        found = [module(origins[part], directions[part], rank=7)[0] for part in parts]
        torch.cat(found).square().sum().backward()
        grads = [t.grad.clone() for t in (origins, directions, *module.parameters())]
        for t in (origins, directions, *module.parameters()):
            t.grad = None
        return grads

    for once, twice in zip(differentiate([slice(None)]), differentiate(halves), strict=True):
        assert torch.allclose(once, twice, atol=1e-5 * float(once.abs().max()), rtol=1e-4)


def test_on_the_cpu_parameters_are_the_fields_own_memory(cpu):
    from tslim.torch import FieldModule

    if not cpu.is_cpu:
        pytest.skip("on a GPU they are handed over")
    field, _ = make_field("box")
    module = FieldModule(field)
    with torch.no_grad():
        module.density_planes[1][0, 2, 3, 5] = 0.25
        module.decoder["b3"][1] = -3.0
        module.rank_scales[4, 0] = 7.0
    state = field.state()
    assert state.density_planes[1][5, 2, 3] == 0.25
    assert state.decoder["b3"][1] == -3.0 and state.rank_scales[4, 0] == 7.0
    assert sum(p.numel() for p in module.parameters()) > 4000
    assert repr(field) in repr(module)


@pytest.mark.parametrize("swap", [False, True], ids=["changed in place", "given other memory"])
def test_what_torch_changes_is_what_is_rendered_next_and_kept(config, swap):
    from tslim.torch import FieldModule

    field, _ = make_field("box")
    module, (origins, directions) = FieldModule(field, config=config), rays("box")
    before = module(origins, directions)[0].detach()
    with torch.no_grad():
        if swap:
            module.decoder["b3"].data = module.decoder["b3"] + 1
        else:
            module.decoder["b3"] += 1
    after = module(origins, directions)[0].detach()
    assert (after - before).abs().max() > 0.05
    assert (torch.tensor(field.decoder.state()["b3"]) - module.decoder["b3"].detach().cpu()).abs().max() == 0


def test_an_optimiser_of_torch_teaches_a_field_a_picture_at_every_rank(config):
    from tslim.torch import FieldModule

    field, _ = make_field("box")
    module, (origins, directions) = FieldModule(field, config=config), (ray.detach() for ray in rays("box"))
    hits = module(origins, directions)[2].detach() > 0.1
    goal = torch.tensor(np.random.default_rng(72).random((N_RAYS, 3)), dtype=torch.float32)[hits]
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    losses = []
    for step in range(30):
        rgb, _, _ = module(origins[hits], directions[hits], rank=(3, 13)[step % 2])
        loss = (rgb - goal).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-2:]) < 0.3 * np.mean(losses[:2])
    assert module.density_planes[0].grad[0, :, :, 13:].abs().max() == 0, "lanes of no component stay as they are"


def test_a_pose_is_differentiated_as_central_differences_say(cpu):
    # Within near and far all rays run inside the box, so that their samples keep their distances when the camera moves.
    from tslim.rendering.pipeline import MarchConfig
    from tslim.torch import render

    field, _ = make_field("box", occupancy=False)
    size = float((field.box[1] - field.box[0]).min())
    field.domain = dataclasses.replace(field.domain, near=0.05 * size, far=0.25 * size)
    rng = np.random.default_rng(5)
    origins = torch.tensor(field.box.mean(0) + 0.1 * size * rng.uniform(-1, 1, (N_RAYS, 3)), dtype=torch.float32)
    directions = torch.tensor(rng.normal(size=(N_RAYS, 3)), dtype=torch.float32)

    def seen_from(pose: torch.Tensor) -> torch.Tensor:
        turned = directions + torch.linalg.cross(pose[3:].expand_as(directions), directions)
        config = MarchConfig(step_ratio=0.05, weight_threshold=0.0, early_stop=0.0)
        rgb, depth, opacity = render(field, origins + size * pose[:3], turned, rank=9, config=config)
        return rgb.square().sum() + 0.1 * depth.sum() + opacity.sum()

    pose = torch.zeros(6, requires_grad=True)
    seen_from(pose).backward()
    with torch.no_grad():
        ends = [[seen_from(2e-3 * sign * axis) for sign in (1, -1)] for axis in torch.eye(6)]
    slopes = torch.tensor([(a - b) / 4e-3 for a, b in ends])
    assert (pose.grad - slopes).abs().max() < 0.02 * slopes.abs().max()


def test_rays_keep_their_shape_and_none_are_none(config):
    from tslim.torch import FieldModule

    field, _ = make_field("box")
    module, (origins, directions) = FieldModule(field, config=config), rays("box")
    rgb, depth, opacity = module(origins.reshape(5, 8, 3), directions.reshape(5, 8, 3), rank=torch.full((5, 8), 4))
    assert (rgb.shape, depth.shape, opacity.shape) == ((5, 8, 3), (5, 8), (5, 8))
    flat = module(origins, directions, rank=4)
    assert torch.equal(flat[0].reshape(5, 8, 3), rgb)
    rgb, _, _ = module(origins[:0], directions[:0])
    rgb.sum().backward()
    assert rgb.shape == (0, 3) and module.basis.grad.abs().max() == 0
    with torch.no_grad():
        assert module(origins, directions)[0].grad_fn is None


def test_what_makes_no_sense_is_refused(config):
    from tslim.torch import FieldModule, render

    field, _ = make_field("box")
    module, (origins, directions) = FieldModule(field, config=config), rays("box")
    with pytest.raises(ConfigError, match="expected"):
        render(field, origins, directions[:3])
    with pytest.raises(ConfigError, match="1 to 13"):
        render(field, origins, directions, rank=14)
    with pytest.raises(ConfigError, match="as many as rays"):
        render(field, origins, directions, rank=torch.ones(3).int())
    rgb, _, _ = render(module, origins, directions)
    with torch.no_grad():
        module.basis += 1
    with pytest.raises(RuntimeError, match="inplace"):
        rgb.sum().backward()
    field.grow(12)
    with pytest.raises(ConfigError, match="another module"):
        render(module, origins, directions)


NO_RAYS = {
    "origins are ndarray": lambda o, d: (o.detach().numpy(), d),
    r"origins \(4, 3\), directions \(40, 3\)": lambda o, d: (o[:4], d),
    r"directions \(40, 2\)": lambda o, d: (o[:, :2], d[:, :2]),
    "origins on meta, directions on cpu": lambda o, d: (o.to("meta"), d),
    r"ray 0 from .* along \[.*0.0, .*\]: no ray": lambda o, d: (o, d * torch.arange(len(d))[:, None]),
    "ray 39 from .*: no ray": lambda o, d: (o / (torch.arange(len(d), 0, -1)[:, None] - 1), d),
    "ray 0 .*: no ray": lambda o, d: (o, 1e25 * d),
    "along .*e-20.*: no ray": lambda o, d: (o, 1e-20 * d),
}


@pytest.mark.parametrize("message", NO_RAYS)
def test_what_is_no_ray_is_refused_in_one_line(config, message):
    from tslim.torch import render

    field, _ = make_field("box")
    with pytest.raises(ConfigError, match=message) as raised:
        render(field, *NO_RAYS[message](*rays("box")), config=config)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"rank": 2.5}, "rank 2.5: expected a whole number"),
        ({"rank": "all"}, "rank 'all': expected a whole number"),
        ({"rank": -1}, "rank -1: this field has ranks 1 to 13"),
        ({"background": (1, 1)}, r"background \(1, 1\): expected three numbers"),
        ({"background": "red"}, "background 'red': expected three"),
        ({"background": (0, float("nan"), 0)}, "background .*: expected three finite"),
        ({"jitter": 3}, "jitter 3: expected a seed and a step"),
        ({"jitter": (-1, 0)}, r"jitter \(-1, 0\): expected a seed and a step"),
    ],
)
def test_what_no_ray_can_be_rendered_with_is_refused_in_one_line(config, how, message):
    from tslim.torch import render

    with pytest.raises(ConfigError, match=message):
        render(make_field("box")[0], *rays("box"), config=config, **how)


def test_only_fields_are_rendered_and_made_modules(config):
    from tslim.torch import FieldModule, render

    with pytest.raises(ConfigError, match="cannot render 'x': expected a Field or a FieldModule"):
        render("x", *rays("box"))
    with pytest.raises(ConfigError, match="cannot make a module of 'x': expected a Field"):
        FieldModule("x")


def test_rays_may_be_of_any_layout_and_precision_and_share_an_origin(config):
    from tslim.torch import render

    field, _ = make_field("box")
    origins, directions = (ray.detach() for ray in rays("box"))
    right = render(field, origins, directions, config=config)[0]
    turned, apart = (lambda a: a.T.contiguous().T), (lambda a: torch.cat([a, a], 1)[:, :3])
    for change in (turned, apart, torch.Tensor.double):
        found = render(field, change(origins), change(directions), config=config, background=torch.ones(3))[0]
        assert found.dtype == torch.float32 and torch.allclose(found, right, atol=1e-6)
    ones = [torch.ones(3, dtype=torch.float64, requires_grad=True), torch.ones(N_RAYS, 3, requires_grad=True)]
    for origin in ones:
        render(field, origin, directions, config=config)[0].square().sum().backward()
    assert ones[0].grad.dtype == torch.float64 and ones[1].grad.abs().max() > 0
    assert torch.allclose(ones[0].grad.float(), ones[1].grad.sum(0), rtol=1e-4, atol=1e-5)


def test_only_what_asks_for_a_gradient_gets_one(config):
    from tslim.torch import FieldModule

    field, _ = make_field("box")
    module, (origins, directions) = FieldModule(field, config=config), rays("box")
    module.requires_grad_(False)
    module.decoder["b3"].requires_grad_(True)
    module(origins.detach(), directions)[0].sum().backward()
    asked = {"decoder.b3": module.decoder["b3"].grad, "directions": directions.grad}
    assert all(grad.abs().max() > 0 for grad in asked.values()) and origins.grad is None
    assert [name for name, p in module.named_parameters() if p.grad is not None] == ["decoder.b3"]


def test_a_gradient_is_not_differentiated_again_and_not_taken_for_constant(config):
    from tslim.torch import FieldModule

    field, _ = make_field("box")
    module, (origins, directions) = FieldModule(field, config=config), rays("box")
    rgb, _, _ = module(origins, directions)
    (by_origins,) = torch.autograd.grad(rgb.sum(), origins, create_graph=True)
    assert by_origins.abs().max() > 0
    with pytest.raises(ConfigError, match="differentiable once"):
        (rgb.sum() + by_origins.square().sum()).backward()


def test_functional_gradients_are_those_of_the_tape(config):
    from tslim.torch import FieldModule

    field, _ = make_field("box")
    module, (origins, directions) = FieldModule(field, config=config), rays("box")
    module(origins, directions)[0].square().sum().backward()
    found = torch.func.grad(lambda o: module(o, directions.detach())[0].square().sum())(origins.detach())
    assert torch.equal(found, origins.grad)


def test_a_copy_of_a_module_has_a_field_of_its_own(config):
    from tslim.torch import FieldModule

    field, _ = make_field("box")
    module, (origins, directions) = FieldModule(field, config=config), rays("box")
    module.basis.requires_grad_(False)
    other = copy.deepcopy(module)
    before = module(origins, directions)[0].detach()
    assert torch.equal(other(origins, directions)[0], before) and not other.basis.requires_grad
    with torch.no_grad():
        other.decoder["b3"] += 1
    assert torch.equal(module(origins, directions)[0], before)
    assert (other(origins, directions)[0] - before).abs().max() > 0.05
    with pytest.raises(ConfigError, match="save its field or its state_dict"):
        pickle.dumps(module)


def test_a_slimmed_view_is_rendered_by_an_engine_that_goes_with_it(config):
    from tslim.torch import render

    field, _ = make_field("box")
    origins, directions = (ray.detach() for ray in rays("box"))
    whole, view = render(field, origins, directions, config=config)[0], field.slim(4)
    first = render(view, origins, directions, config=config)[0]
    assert torch.equal(first, render(field, origins, directions, rank=4, config=config)[0])
    assert torch.equal(render(field, origins, directions, config=config)[0], whole)
    gone = weakref.ref(view)
    del view
    gc.collect()
    assert gone() is None


def test_without_torch_one_line_says_how_to_install_it(root):
    code = "import sys, tslim; sys.modules['torch'] = None\ntry: tslim.torch\nexcept tslim.TslimError as e: print(e)"
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "tslim.torch needs torch, which is not installed: pip install torch", done.stderr


@pytest.mark.long
def test_poses_that_are_off_come_back(cpu, root, monkeypatch, capsys):
    import tslim

    monkeypatch.syspath_prepend(str(root / "apps"))
    import refine_poses

    demo = tslim.presets.demo

    def short(space: str) -> tslim.TrainConfig:
        from tslim.config import with_steps

        return with_steps(demo(space), 800)

    monkeypatch.setattr(tslim.presets, "demo", short)
    # Half as far off as in the recipe: of few rays and steps a camera that starts farther away may settle elsewhere.
    changed = {"VIEWS": 4, "STEPS": 160, "RAYS": 1024, "LEARNING_RATE": 2e-3, "DEGREES": 1.5, "SHARE": 0.015}
    for name, value in changed.items():
        monkeypatch.setattr(refine_poses, name, value)
    refine_poses.main()
    printed = capsys.readouterr().out
    first, last = (re.findall(r"turned by ([\d.]+)°.*shifted by ([\d.]+) %", line)[0] for line in wanted(printed))
    assert float(first[0]) == pytest.approx(1.5, abs=0.05) and float(first[1]) == pytest.approx(1.5, abs=0.05)
    assert float(last[0]) < 0.5 and float(last[1]) < 1.0, printed


def wanted(printed: str) -> tuple[str, str]:
    """The lines of the poses that are off and of the last found."""
    lines = printed.splitlines()
    return next(line for line in lines if line.startswith("off")), [li for li in lines if li.startswith("after")][-1]
