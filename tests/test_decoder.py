"""The decoder against a torch twin in double precision, central differences, and itself on its other path."""

import dataclasses
import sys

import numpy as np
import pytest

from tslim.config import FieldConfig
from tslim.decoder import blas, mlp_bfloat16, mlp_tiles
from tslim.decoder.decoder import Decoder
from tslim.device import buffers, hardware
from tslim.errors import ConfigError, MissingPackageError, ModelFileError

pytestmark = pytest.mark.usefixtures("cpu")

PATHS = {"blas": True, "taichi": False}
N_RAYS = 7


@dataclasses.dataclass
class Case:
    """A decoder with random parameters, inputs and upstream gradient, in larger arrays than needed."""

    config: FieldConfig
    n: int
    blas: bool = True
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.decoder = Decoder(self.config, rng, blas=self.blas)
        self.decoder.train_in(self.precision)
        if self.decoder.size:
            noise = rng.normal(0, 0.05, self.decoder.size).astype(np.float32)
            buffers.write(self.decoder.params, buffers.read(self.decoder.params) + noise)
        room = self.n + 5
        self.features = rng.normal(0, 1.5, room * 27).astype(np.float32)
        self.sample_ray = rng.integers(0, N_RAYS, room).astype(np.int32)
        dirs = rng.normal(size=(N_RAYS, 3))
        self.ray_dirs = (dirs / np.linalg.norm(dirs, axis=1, keepdims=True)).astype(np.float32).reshape(-1)
        self.colours = np.full(room * 3, np.nan, np.float32)
        self.grad_colours = rng.normal(size=room * 3).astype(np.float32)
        self.grad_features = np.full(room * 27, np.nan, np.float32)
        self.grad_directions = np.full(room * 3, np.nan, np.float32)
        self.grad_params = buffers.array(self.decoder.params.shape[0])

    def run(self) -> "Case":
        d = self.decoder
        self.grad_params.fill(0)
        d.forward(self.features, self.sample_ray, self.ray_dirs, self.n, self.colours)
        d.backward(
            self.features, self.sample_ray, self.ray_dirs, self.n, self.colours, self.grad_colours, self.grad_features,
            self.grad_params, self.grad_directions,
        )  # fmt: skip
        return self

    def grads(self) -> dict[str, np.ndarray]:
        """Gradients by name, in double precision."""
        flat = buffers.read(self.grad_params).astype(float)
        named = {
            name: flat[offset : offset + int(np.prod(shape))].reshape(shape)
            for name, (offset, shape) in self.decoder.layout.items()
        }
        directions = self.grad_directions[: 3 * self.n].astype(float).reshape(self.n, 3)
        return named | {
            "features": self.grad_features[: 27 * self.n].astype(float).reshape(self.n, 27),
            "directions": self.across(directions),
        }

    def across(self, by_directions: np.ndarray) -> np.ndarray:
        """Of gradients of directions the part that counts for harmonics, whose formulas hold on the unit sphere."""
        if self.config.decoder != "sh":
            return by_directions
        d = self.ray_dirs.reshape(-1, 3)[self.sample_ray[: self.n]].astype(float)
        return by_directions - d * (d * by_directions).sum(1, keepdims=True)

    def twin(self, rounded: bool = False) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Colours and gradients by torch's autograd, from the equations.

        ``rounded``: what goes into matrix products, and what comes out, is rounded to bfloat16; gradients are not.
        """
        torch = pytest.importorskip("torch")

        def near(x):
            return x + (x.detach().bfloat16().double() - x.detach()) if rounded else x

        leaf = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in self.decoder.state().items()}
        a = torch.tensor(self.features[: 27 * self.n].reshape(-1, 27), dtype=torch.float64, requires_grad=True)
        d = torch.tensor(self.ray_dirs.reshape(-1, 3)[self.sample_ray[: self.n]], dtype=torch.float64)
        d.requires_grad_()
        if self.config.decoder == "sh":
            colour = torch.sigmoid((a.reshape(-1, 3, 9) * spherical_harmonics(torch, d)[:, None]).sum(-1))
        else:

            def encoding(x, k):
                scaled = (x[..., None] * 2.0 ** torch.arange(k)).reshape(len(x), x.shape[1] * k)
                return [torch.sin(scaled), torch.cos(scaled)]

            x = torch.cat(
                [a, d, *encoding(a, self.config.feature_encoding), *encoding(d, self.config.direction_encoding)], -1
            )
            x = torch.relu(near(near(x) @ near(leaf["w1"]) + near(leaf["b1"])))
            x = torch.relu(near(x @ near(leaf["w2"]) + near(leaf["b2"])))
            colour = torch.sigmoid(near(x @ near(leaf["w3"]) + near(leaf["b3"])))
        (colour * torch.tensor(self.grad_colours[: 3 * self.n].reshape(-1, 3))).sum().backward()
        grads = {name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in leaf.items()}
        named = {name: g.numpy() for name, g in grads.items()}
        return colour.detach().numpy(), named | {"features": a.grad.numpy(), "directions": self.across(d.grad.numpy())}


def spherical_harmonics(torch, d):
    """Degree ≤ 2 from associated Legendre functions with the Condon-Shortley sign, order m = -l..l."""
    x, y, z = d.T
    pi = torch.pi
    return torch.stack(
        [
            torch.full_like(x, (1 / (4 * pi)) ** 0.5),
            -((3 / (4 * pi)) ** 0.5) * y,
            (3 / (4 * pi)) ** 0.5 * z,
            -((3 / (4 * pi)) ** 0.5) * x,
            (15 / (4 * pi)) ** 0.5 * x * y,
            -((15 / (4 * pi)) ** 0.5) * y * z,
            (5 / (16 * pi)) ** 0.5 * (3 * z * z - 1),
            -((15 / (4 * pi)) ** 0.5) * x * z,
            (15 / (16 * pi)) ** 0.5 * (x * x - y * y),
        ],
        -1,
    )


def assert_same_gradient(found: np.ndarray, wanted: np.ndarray, name: str, tolerance: float = 2e-5) -> None:
    """Same direction, same length, and no entry off by more than ``tolerance`` of the largest."""
    assert found.shape == wanted.shape
    length = np.linalg.norm(wanted)
    assert length > 0, name
    ratio = np.linalg.norm(found) / length
    cosine = (found * wanted).sum() / (np.linalg.norm(found) * length)
    assert abs(ratio - 1) < tolerance, f"{name}: length ratio {ratio}"
    assert cosine > 1 - 1e-9, f"{name}: cosine {cosine}"
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max(), err_msg=name)


CONFIGS = {
    "mlp": FieldConfig(),
    "mlp without encodings": FieldConfig(feature_encoding=0, direction_encoding=0),
    "mlp, features encoded": FieldConfig(feature_encoding=2, direction_encoding=0),
    "mlp, odd frequencies": FieldConfig(feature_encoding=3, direction_encoding=1),
    "mlp, narrow": FieldConfig(decoder_width=48),
    "sh": FieldConfig(decoder="sh"),
}


@pytest.mark.parametrize("n", [1, 17, 1000, 2500])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", CONFIGS)
def test_colours_and_all_gradients_are_those_of_the_torch_twin(name, path, n):
    case = Case(CONFIGS[name], n, PATHS[path]).run()
    colours, wanted = case.twin()
    np.testing.assert_allclose(case.colours[: 3 * n].reshape(n, 3), colours, rtol=0, atol=2e-6)
    found = case.grads()
    assert found.keys() == wanted.keys()
    for key in wanted:
        assert_same_gradient(found[key], wanted[key], key)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_beyond_the_samples_in_use_is_written(name, path):
    case = Case(CONFIGS[name], 17, PATHS[path]).run()
    assert np.isnan(case.colours[3 * 17 :]).all()
    assert np.isnan(case.grad_features[27 * 17 :]).all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", CONFIGS)
def test_no_samples_give_no_colours_and_zero_gradients(name, path):
    case = Case(CONFIGS[name], 40, PATHS[path]).run()
    case.n = 0
    case.run()
    assert not buffers.read(case.grad_params).any()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["mlp", "sh"])
def test_gradients_match_central_differences(name, path):
    n, step = 12, 5e-3
    case = Case(CONFIGS[name], n, PATHS[path]).run()
    rng = np.random.default_rng(1)
    found = case.grads()

    def loss() -> float:
        case.decoder.forward(case.features, case.sample_ray, case.ray_dirs, n, case.colours)
        return float(np.dot(case.colours[: 3 * n].astype(float), case.grad_colours[: 3 * n]))

    def difference(array: np.ndarray, direction: np.ndarray) -> float:
        before = array.copy()
        values = []
        for sign in (1, -1):
            array[:] = before + sign * step * direction
            values.append(loss())
        array[:] = before
        return (values[0] - values[1]) / (2 * step)

    # Along directions that move every number at once, small enough to cross few kinks of the relus.
    direction = np.zeros_like(case.features)
    direction[: 27 * n] = rng.normal(size=27 * n) / np.sqrt(27 * n)
    along = float(np.dot(direction[: 27 * n], found["features"].ravel()))
    assert difference(case.features, direction) == pytest.approx(along, rel=0.02, abs=2e-4)
    for key, (offset, shape) in case.decoder.layout.items():
        direction = np.zeros_like(case.decoder.params)
        part = slice(offset, offset + int(np.prod(shape)))
        direction[part] = found[key].ravel() / np.linalg.norm(found[key])
        along = np.linalg.norm(found[key])
        assert difference(case.decoder.params, direction) == pytest.approx(along, rel=0.02), key


@pytest.mark.parametrize("name", CONFIGS)
def test_blas_and_taichi_agree(name):
    a, b = (Case(CONFIGS[name], 3001, blas).run() for blas in (True, False))
    np.testing.assert_allclose(a.colours[: 3 * 3001], b.colours[: 3 * 3001], rtol=0, atol=2e-6)
    wanted = b.grads()
    for key, grad in a.grads().items():
        assert_same_gradient(grad, wanted[key], key)


@pytest.mark.parametrize("path", PATHS)
def test_same_inputs_give_the_same_bits_twice(path):
    a, b = (Case(FieldConfig(), 5000, PATHS[path]).run() for _ in range(2))
    np.testing.assert_array_equal(a.colours, b.colours)
    np.testing.assert_array_equal(a.grad_params, b.grad_params)
    np.testing.assert_array_equal(a.grad_features, b.grad_features)


@pytest.mark.parametrize("path", [*PATHS, "bfloat16"])
def test_a_smaller_batch_after_a_larger_one_leaves_no_trace(path):
    def make() -> Case:
        return bfloat16_case(FieldConfig(), 3000) if path == "bfloat16" else Case(FieldConfig(), 3000, PATHS[path])

    case = make().run()
    case.n = 70
    case.run()
    fresh = make()
    fresh.n = 70
    fresh.run()
    np.testing.assert_array_equal(case.grad_params, fresh.grad_params)
    np.testing.assert_array_equal(case.grad_features[: 27 * 70], fresh.grad_features[: 27 * 70])


def test_what_is_not_kept_of_a_large_batch_is_computed_again(monkeypatch):
    n = 2 * blas.FEW * blas.TILE
    wanted = Case(FieldConfig(), n).run()
    monkeypatch.setattr(mlp_tiles, "ROOM", 4 * (160 + 144 + 144) * n // 2)  # the activations of half of them
    case = Case(FieldConfig(), n).run()
    assert case.decoder.nbytes < wanted.decoder.nbytes
    np.testing.assert_array_equal(case.colours, wanted.colours)
    np.testing.assert_array_equal(case.grad_features, wanted.grad_features)
    for name, grad in case.grads().items():  # the same numbers, added up in another order
        assert_same_gradient(grad, wanted.grads()[name], name, 1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_colours_do_not_depend_on_keeping_activations(path):
    case = Case(FieldConfig(), 5000, PATHS[path]).run()
    n_stored = case.colours.copy()
    case.colours[:] = np.nan
    case.decoder.forward(case.features, case.sample_ray, case.ray_dirs, 5000, case.colours, keep=False)
    np.testing.assert_array_equal(case.colours, n_stored)


def test_without_keeping_activations_the_workspace_stays_small():
    n = 60_000
    case = Case(FieldConfig(), n)
    case.decoder.forward(case.features, case.sample_ray, case.ray_dirs, n, case.colours, keep=False)
    small = case.decoder.nbytes
    case.decoder.reserve(n)
    assert small < case.decoder.nbytes / 3


def test_the_workspace_grows_by_half_at_least_and_never_shrinks():
    decoder = Decoder(FieldConfig(), np.random.default_rng(0))
    sizes = []
    for n in range(1000, 30_000, 500):
        decoder.reserve(n)
        sizes.append(decoder.nbytes)
    assert sizes == sorted(sizes)
    assert len(set(sizes)) < 10
    decoder.reserve(1)
    assert decoder.nbytes == sizes[-1]


@pytest.mark.parametrize("path", PATHS)
def test_backward_refuses_what_the_last_forward_did_not_keep(path):
    case = Case(FieldConfig(), 50, PATHS[path])
    with pytest.raises(ValueError, match="kept 0"):
        case.decoder.backward(*[None] * 3, 50, case.colours, case.grad_colours, case.grad_features, case.grad_params)
    case.run()
    case.decoder.forward(case.features, case.sample_ray, case.ray_dirs, 50, case.colours, keep=False)
    with pytest.raises(ValueError, match="50 samples"):
        case.decoder.backward(*[None] * 3, 50, case.colours, case.grad_colours, case.grad_features, case.grad_params)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", [10.0, 1000.0])
def test_encodings_stay_accurate_for_large_features(path, size):
    n = 64
    case = Case(FieldConfig(), n, PATHS[path])
    case.features *= size
    weights = case.decoder.state()
    for name in weights:
        weights[name][:] = 0
    weights["w1"][30:138, :108] = np.eye(108)  # pass the encodings through the relus, one output at a time
    weights["b1"][:108] = 2
    weights["w2"][:108, :108] = np.eye(108)
    scaled = case.features[: 27 * n].astype(np.float64).reshape(n, 27, 1) * [1, 2]
    wanted = np.concatenate([np.sin(scaled).reshape(n, 54), np.cos(scaled).reshape(n, 54)], 1)
    for column in (0, 1, 53, 54, 55, 107):
        weights["w3"][:] = 0
        weights["w3"][column] = 1
        weights["b3"][:] = -2
        case.decoder.load_state(weights)
        case.decoder.forward(case.features, case.sample_ray, case.ray_dirs, n, case.colours)
        colour = case.colours[: 3 * n].astype(np.float64).reshape(n, 3)[:, 0]
        found = np.log(colour / (1 - colour))
        np.testing.assert_allclose(found, wanted[:, column], rtol=0, atol=3e-6 + 4e-7 * 6 * size)


def test_initial_weights_follow_torch_and_the_seed():
    torch = pytest.importorskip("torch")
    state = Decoder(FieldConfig(), np.random.default_rng(3)).state()
    assert {name: value.shape for name, value in state.items()} == {
        "w1": (150, 128), "b1": (128,), "w2": (128, 128), "b2": (128,), "w3": (128, 3), "b3": (3,),
    }  # fmt: skip
    for i, n_in in ((1, 150), (2, 128), (3, 128)):
        layer = torch.nn.Linear(n_in, 1000)
        bound = float(layer.weight.detach().abs().max())
        assert np.abs(state[f"w{i}"]).max() == pytest.approx(bound, rel=0.02)
        assert state[f"w{i}"].std() == pytest.approx(bound / np.sqrt(3), rel=0.1)
    assert np.abs(state["b1"]).max() == pytest.approx(150**-0.5, rel=0.05)
    assert not state["b3"].any()
    again = Decoder(FieldConfig(), np.random.default_rng(3)).state()
    other = Decoder(FieldConfig(), np.random.default_rng(4)).state()
    assert all(np.array_equal(state[name], again[name]) for name in state)
    assert not np.array_equal(state["w1"], other["w1"])


def test_state_goes_into_another_decoder_and_is_a_copy():
    a, b = (Case(FieldConfig(), 30, seed=seed) for seed in (1, 2))
    state = a.decoder.state()
    b.decoder.load_state(state)
    state["w1"][:] = 0
    for case in (a, b):
        case.decoder.forward(a.features, a.sample_ray, a.ray_dirs, 30, case.colours)
    np.testing.assert_array_equal(a.colours[:90], b.colours[:90])


def test_states_of_another_shape_are_refused():
    decoder = Decoder(FieldConfig(), np.random.default_rng(0))
    small = Decoder(FieldConfig(feature_encoding=0), np.random.default_rng(0))
    for state in (small.state(), {}, {k: v for k, v in decoder.state().items() if k != "b3"}):
        with pytest.raises(ModelFileError, match="configuration asks for"):
            decoder.load_state(state)


def test_spherical_harmonics_have_no_parameters():
    decoder = Decoder(FieldConfig(decoder="sh"), np.random.default_rng(0))
    assert decoder.size == 0 and decoder.layout == {} and decoder.state() == {}
    decoder.load_state({})


def bfloat16_case(config: FieldConfig, n: int) -> Case:
    try:
        mlp_bfloat16.import_torch()
    except ConfigError as error:
        pytest.skip(str(error))
    return Case(config, n, precision="bfloat16")


@pytest.mark.parametrize("n", [1, 17, 5000])
@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if config.decoder == "mlp"])
def test_bfloat16_is_the_mlp_with_rounded_products(name, n):
    case = bfloat16_case(CONFIGS[name], n).run()
    colours, wanted = case.twin(rounded=True)
    exact_colours, exact = case.twin()

    def apart(found, wanted) -> float:
        return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)

    assert apart(case.colours[: 3 * n].reshape(n, 3), colours) < 1e-4 + 0.2 * apart(exact_colours, colours)
    for key, grad in case.grads().items():  # gradients are rounded, too, which the twin leaves out
        assert apart(grad, wanted[key]) < 0.01 + 0.3 * apart(exact[key], wanted[key]), key


def test_bfloat16_repeats_and_leaves_torch_its_threads():
    a = bfloat16_case(FieldConfig(), 9000)
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        a.run()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    b = bfloat16_case(FieldConfig(), 9000).run()
    np.testing.assert_array_equal(a.colours, b.colours)
    np.testing.assert_array_equal(a.grad_params, b.grad_params)
    np.testing.assert_array_equal(a.grad_features, b.grad_features)


def test_bfloat16_computes_again_what_is_not_kept(monkeypatch):
    n = 48 * blas.TILE
    wanted = bfloat16_case(FieldConfig(), n).run()
    monkeypatch.setattr(mlp_tiles, "ROOM", 2 * (160 + 144 + 144) * n * 2 // 3)
    case = bfloat16_case(FieldConfig(), n).run()
    assert case.decoder.nbytes < wanted.decoder.nbytes
    np.testing.assert_array_equal(case.colours, wanted.colours)
    np.testing.assert_array_equal(case.grad_features, wanted.grad_features)
    for name, grad in case.grads().items():  # each tile's part of a sum is rounded, and tiles are others
        assert np.linalg.norm(grad - wanted.grads()[name]) < 1e-2 * np.linalg.norm(grad), name


def test_bfloat16_is_for_training_only():
    case, exact = bfloat16_case(FieldConfig(), 300), Case(FieldConfig(), 300)
    for each in (case, exact):
        d = each.decoder
        d.forward(each.features, each.sample_ray, each.ray_dirs, each.n, each.colours, keep=False)
        with pytest.raises(ValueError, match="kept 0"):
            d.backward(
                each.features, each.sample_ray, each.ray_dirs, each.n, each.colours, each.grad_colours,
                each.grad_features, each.grad_params,
            )  # fmt: skip
    np.testing.assert_array_equal(case.colours, exact.colours)
    case.run()
    assert not np.array_equal(case.colours, exact.colours)
    case.decoder.train_in("float32")
    np.testing.assert_array_equal(case.run().colours, exact.colours)


def test_bfloat16_without_torch_or_an_mlp_is_refused(monkeypatch):
    for config, precision, message in (
        (FieldConfig(decoder="sh"), "bfloat16", "for the decoder mlp, not sh"),
        (FieldConfig(), "float16", "accepted: float32, bfloat16"),
    ):
        with pytest.raises(ConfigError, match=message):
            Case(config, 1, precision=precision)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match="pip install torch"):
        Case(FieldConfig(), 1, precision="bfloat16")
    monkeypatch.undo()
    monkeypatch.setattr(hardware, "has_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match="no instructions for it"):
        Case(FieldConfig(), 1, precision="bfloat16")


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="unknown decoder"):
        Decoder(FieldConfig(decoder="rbf"), np.random.default_rng(0))
    with pytest.raises(ConfigError, match="direction_encoding"):
        Decoder(FieldConfig(direction_encoding=-1), np.random.default_rng(0))


ON_DEVICE = """
import sys
import numpy as np
import tslim
tslim.init(sys.argv[1])
from tslim.device import buffers, hardware
from tslim.config import FieldConfig
from tslim.decoder.decoder import Decoder

data = dict(np.load(sys.argv[2]))
n = int(data["n"])
decoder = Decoder(FieldConfig(decoder=sys.argv[3]), np.random.default_rng(0))
decoder.load_state({name: data[name] for name in decoder.layout})
features, rays, dirs, grad_colours = (
    buffers.upload(data[name]) for name in ("features", "sample_ray", "ray_dirs", "grad_colours")
)
colours, grad_features = buffers.array(len(data["colours"])), buffers.array(len(data["features"]))
for count in (1, n):
    grads = buffers.array(decoder.params.shape[0])
    decoder.forward(features, rays, dirs, count, colours)
    decoder.backward(features, rays, dirs, count, colours, grad_colours, grad_features, grads)
np.savez(sys.argv[2], colours=buffers.read(colours)[:3 * n], grad_features=buffers.read(grad_features)[:27 * n],
         grads=buffers.read(grads))
"""


@pytest.mark.parametrize("kind", ["mlp", "sh"])
def test_a_gpu_gives_the_colours_and_gradients_of_the_cpu(gpu, kind, tmp_path):
    n = 37
    case = Case(FieldConfig(decoder=kind), n).run()
    path = tmp_path / "case.npz"
    arrays = {name: getattr(case, name) for name in ("features", "sample_ray", "ray_dirs", "grad_colours", "colours")}
    np.savez(path, n=n, **arrays, **case.decoder.state())
    code = f"import sys\nsys.argv[1:] = [{gpu!r}, {str(path)!r}, {kind!r}]\n" + ON_DEVICE
    done = hardware.run_python(code, timeout=300)
    assert done.returncode == 0, done.stderr
    found = np.load(path)
    np.testing.assert_allclose(found["colours"], case.colours[: 3 * n], rtol=0, atol=2e-6)
    assert_same_gradient(found["grad_features"].astype(float), case.grads()["features"].ravel(), "features")
    if case.decoder.size:
        assert_same_gradient(found["grads"].astype(float), case.grad_params.astype(float), "parameters")
