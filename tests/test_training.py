"""A training run as a whole: it learns, repeats bit by bit, continues exactly, and leaves what is masked alone."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from tslim.config import FieldConfig, ScheduleConfig, TrainConfig
from tslim.field.basis import device_rows
from tslim.model import ordering

SETTINGS = TrainConfig(
    field=FieldConfig(max_rank=6, density_shift=-3.0),
    schedule=ScheduleConfig(policy="train", upsilon=0.1),
    steps=40,
    batch_rays=256,
    grid_start=16,
    grid_end=22,
    grow_steps=(20, 32),
    occupancy_steps=(20, 26),
    occupancy_threshold=0.0042,
    report_every=10,
)


@pytest.fixture(scope="module")
def scene(cpu):
    from tslim import builtin_scene

    return builtin_scene(size=32, train=6, test=0)


def run_to(trainer, step: int) -> list:
    """All events until ``step`` steps are done."""
    events = []
    if trainer.step < step:
        for event in trainer.run():
            events.append(event)
            if event.step >= step and type(event).__name__ == "Stepped":
                break
    return events


def bits(trainer) -> dict[str, bytes]:
    """Everything that a trainer continues from, as bytes."""
    arrays, plain = trainer.state()
    named = {name: np.asarray(values).tobytes() for name, values in arrays.items()}
    schedule = repr((plain["step"], plain["grid"], plain["schedule"], plain["sampler"], plain["l1"])).encode()
    return named | {"plain": schedule}


def assert_same(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if one[name] != other[name]]
    assert not different, f"these differ: {', '.join(different)}"


@pytest.fixture(scope="module")
def finished(scene):
    """A run to its end: its bits, and its events by type."""
    from tslim.training.trainer import Trainer

    trainer = Trainer(Trainer.new_field(scene, SETTINGS), scene, SETTINGS)
    events = list(trainer.run())
    result = bits(trainer)
    kinds: dict[str, list] = {}
    for event in events:
        kinds.setdefault(type(event).__name__, []).append(event)
    return result, kinds


def test_a_run_meets_every_kind_of_change_on_its_way(finished):
    # What the tests of repeatability below go through, lest they pass on a run in which nothing happens.
    _, events = finished
    assert len(events["Stepped"]) == 40 and len(events["Progress"]) == 4
    assert [e.step for e in events["GridGrew"]] == [20, 32]
    assert [e.box is not None for e in events["OccupancyRefreshed"]] == [True, False]
    assert 0 < events["OccupancyRefreshed"][0].occupied < 1
    assert len(events["RankGrew"]) >= 2
    assert events["Progress"][-1].rank == 1 + len(events["RankGrew"])


def test_training_lowers_the_loss(finished):
    losses = [e.loss for e in finished[1]["Progress"]]
    assert losses[-1] < 0.8 * losses[0]


def test_two_runs_of_one_seed_give_the_same_bits(new_trainer, finished):
    again = new_trainer()
    run_to(again, 40)
    assert_same(finished[0], bits(again))


def test_another_seed_gives_another_run(new_trainer):
    planes = []
    for seed in (0, 1):
        trainer = new_trainer(dataclasses.replace(SETTINGS, seed=seed))
        run_to(trainer, 3)
        planes.append(bits(trainer)["density.p.plane0"])
        del trainer
    assert planes[0] != planes[1]


@pytest.mark.parametrize("at", [5, 22, 33])
def test_a_run_that_was_interrupted_continues_with_the_same_bits(new_trainer, finished, at):
    first = new_trainer()
    run_to(first, at)
    arrays, plain = first.state()
    arrays = {name: np.array(values) for name, values in arrays.items()}
    at_break = bits(first)
    del first
    second = new_trainer()
    run_to(second, 2)  # what a trainer did before must not matter
    second.load_state(arrays, plain)
    assert_same(at_break, bits(second))
    run_to(second, 40)
    assert_same(finished[0], bits(second))


def test_a_report_holds_psnr_by_rank_and_the_increases_since_the_last_one(finished):
    _, events = finished
    grown = [increase for report in events["Progress"] for increase in report.grew]
    assert grown == events["RankGrew"] and all(e.cause for e in grown)
    for report in events["Progress"]:
        assert all(report.step - 10 < e.step <= report.step for e in report.grew)
        assert report.rank in report.psnr_by_rank or report.grew


def test_psnr_by_rank_is_that_of_the_rays_at_that_rank_and_the_loss_that_of_the_active_rank():
    from tslim.training.progress import Window

    window = Window(0.0, 0, max_rank=4)
    ranks, losses = np.array([1, 1, 4, 4, 4], np.int32), np.array([0.1, 0.3, 0.01, 0.02, 0.03], np.float32)
    assert window.add_losses(4, ranks, losses) == pytest.approx(0.02)
    assert window.add_losses(4, ranks[:2], losses[:2]) is None, "no ray was at the active rank"
    report = window.report(10, 20, 4, 1.0, ())
    assert report.psnr_by_rank == pytest.approx({1: -10 * np.log10(0.2), 4: -10 * np.log10(0.02)})
    assert report.psnr == pytest.approx(report.psnr_by_rank[4])


def test_an_interrupted_run_does_not_forget_an_increase_that_was_not_reported_yet(new_trainer):
    settings = dataclasses.replace(SETTINGS, schedule=ScheduleConfig(policy="linear", linear_share=0.5))
    trainer = new_trainer(settings)
    run_to(trainer, 5)
    arrays, plain = trainer.state()
    arrays = {name: np.array(values) for name, values in arrays.items()}
    del trainer
    again = new_trainer(settings)
    again.load_state(arrays, json.loads(json.dumps(plain)))
    reports = [e for e in run_to(again, 11) if type(e).__name__ == "Progress"]
    assert [e.step for e in reports[0].grew] == [4, 8]


@pytest.mark.parametrize(
    ("policy", "prefixes_per_ray"),
    [("bounded", 0), ("bounded", 2), ("all_prefixes", 0), ("bcd", 0), ("ordered", 0), ("ordered", 2)],
)
def test_other_policies_train_and_continue_with_the_same_bits(new_trainer, policy, prefixes_per_ray):
    schedule = ScheduleConfig(
        policy=policy, stage_ranks=(1, 2, 6), stage_starts=(0, 0.2, 0.4), upsilon=0.1, bcd_block=2, bcd_steps=3,
        prefix_ranks=(1, 2, 4), prefixes_per_ray=prefixes_per_ray, order_at=(0.3, 0.6),
    )  # fmt: skip
    settings = dataclasses.replace(SETTINGS, schedule=schedule)
    trainer = new_trainer(settings)
    run_to(trainer, 17)
    arrays, plain = trainer.state()
    arrays = {name: np.array(values) for name, values in arrays.items()}
    run_to(trainer, 30)
    expected = bits(trainer)
    del trainer
    again = new_trainer(settings)
    again.load_state(arrays, json.loads(json.dumps(plain)))
    run_to(again, 30)
    assert_same(expected, bits(again))


def test_ranks_are_in_order_once_the_schedule_says_so(new_trainer):
    """Half of the ranks hold more of the density than they did, and all of them the same."""
    schedule = ScheduleConfig(policy="ordered", order_at=(0.5,), prefix_ranks=(2, 4))
    trainer = new_trainer(dataclasses.replace(SETTINGS, schedule=schedule, grow_steps=(), occupancy_steps=()))
    run_to(trainer, 19)
    points = np.random.default_rng(0).uniform(trainer.field.box[0], trainer.field.box[1], (500, 3))
    before, seen = trainer.field.density_at(points), ordering.held(trainer.field.state()).density
    learn, trainer.optimizer.step = trainer.optimizer.step, lambda *args, **options: None
    events = [type(event).__name__ for event in itertools.islice(trainer.run(), 3)]
    trainer.optimizer.step = learn
    assert events == ["Started", "Stepped", "RanksOrdered"]
    np.testing.assert_allclose(trainer.field.density_at(points), before, rtol=1e-4, atol=1e-6)
    after = ordering.held(trainer.field.state()).density
    assert after[2] > seen[2] + 0.05 and not any(array.any() for array in moments(trainer))
    assert trainer.schedule.rendered(trainer.step) == (2, 4, 6)


def moments(trainer) -> list[np.ndarray]:
    """The optimizer's, of planes and lines."""
    return [values for name, values in trainer.optimizer.state().items() if ".m." in name or ".v." in name]


def test_every_ray_is_rendered_at_several_ranks_if_asked_to(new_trainer):
    schedule = ScheduleConfig(
        policy="staged", stage_ranks=(6,), stage_starts=(0.0,), prefix_ranks=(1, 4), prefixes_per_ray=2,
        prefix_weight=0.5, lowest_weight=3.0,
    )  # fmt: skip
    trainer = new_trainer(dataclasses.replace(SETTINGS, schedule=schedule, distortion=0.01))
    pipeline, batch, n, penalties = trainer.pipeline, trainer.batch, SETTINGS.batch_rays, []
    backward = pipeline.backward

    def noting(gradients, weights, *args, **kwargs) -> None:
        penalties.append(weights)
        backward(gradients, weights, *args, **kwargs)

    pipeline.backward = noting
    run_to(trainer, 3)
    assert pipeline.n_rays == batch.max_rays == 3 * n
    assert [p.distortion for p in penalties] == pytest.approx([0.03] * 3), "as much as errors count: 1 + 0.5 + 1.5"
    assert trainer.sampler.position == 3 * n, "as many pixels a step as the batch has rays"
    for values in (batch.origins, batch.directions, batch.target):
        first, second, third = np.split(values, 3)
        assert (first == second).all() and (first == third).all() and first.std() > 0
    ranks = batch.ranks.reshape(3, n)
    assert (np.sort(ranks, axis=0) == np.array([[1], [4], [6]])).all()
    np.testing.assert_allclose(batch.weight.reshape(3, n), np.select([ranks == 1, ranks == 4], [1.5, 0.5], 1))
    # The loss is the weighted sum over a pixel's renders, a mean over pixels.
    pixel, weight = batch.pixel.reshape(-1, 3), batch.weight[:, None]
    expected = 2 / 3 * (pixel - batch.target.reshape(-1, 3)) * weight / n * ((pixel >= 0) & (pixel <= 1))
    np.testing.assert_allclose(batch.grad_pixel.reshape(-1, 3), expected, rtol=1e-4, atol=1e-9)


def test_ranks_that_are_added_start_with_the_scale_and_shift_of_the_last_one(new_trainer):
    settings = dataclasses.replace(
        SETTINGS, field=dataclasses.replace(SETTINGS.field, rank_scales=True),
        schedule=ScheduleConfig(policy="staged", stage_ranks=(2, 5), stage_starts=(0, 0.2), prefix_ranks=(1, 2)),
    )  # fmt: skip
    trainer = new_trainer(settings)
    run_to(trainer, 8)
    rows = trainer.field.rank_scales.reshape(-1, 56)
    assert trainer.rank == 6 and trainer.step == 8
    assert (rows[1] != rows[0]).all() and rows[1, 0] != 1
    assert (rows[2:] == rows[1]).all()


def test_block_descent_changes_its_block_and_nothing_of_the_others(new_trainer):
    settings = dataclasses.replace(
        SETTINGS, schedule=ScheduleConfig(policy="bcd", bcd_block=2, bcd_steps=4), tv_density=0.1, tv_appearance=0.1
    )
    trainer = new_trainer(settings)
    blocks = {
        "density": [slice(0, 2), slice(2, 4), slice(4, 6)],
        "appearance": [slice(0, 6), slice(6, 12), slice(12, 18)],
    }
    for turn in range(4):
        before = {name: np.array(values) for name, values in trainer.state()[0].items()}
        run_to(trainer, 4 * (turn + 1))
        after, _ = trainer.state()
        for kind, slices in blocks.items():
            for name in (f"{kind}.p.plane0", f"{kind}.p.line2", f"{kind}.m.plane1"):
                changed = [bool((after[name][block] != before[name][block]).any()) for block in slices]
                assert changed == [block == turn % 3 for block in range(3)], (turn, name)
        assert (after["decoder.p"] != before["decoder.p"]).any()
    gradients = trainer.optimizer.gradients
    assert not any(np.any(a) for factors in (gradients.density, gradients.appearance) for a in factors.get(6)[0])


def test_between_two_regularised_steps_what_no_ray_met_stays_as_it_is(new_trainer):
    settings = dataclasses.replace(
        SETTINGS, schedule=ScheduleConfig(policy="fixed"), batch_rays=32, grid_start=64, grid_end=64, lazy_adam=True,
        tv_density=0.1, tv_appearance=0.1, regularize_every=3,
    )  # fmt: skip
    trainer = new_trainer(settings)
    names = ("density.p.plane0", "appearance.p.plane0")
    moved = {name: [] for name in names}
    for step in range(1, 5):
        before = {name: np.array(trainer.state()[0][name]) for name in names}
        run_to(trainer, step)
        after, _ = trainer.state()
        for name in names:
            moved[name].append(float((after[name] != before[name]).mean()))
    for shares in moved.values():
        assert min(shares[0], shares[3]) > 0.99 and max(shares[1:3]) < 0.9, moved


def test_components_above_the_active_rank_keep_their_bits(new_trainer):
    settings = dataclasses.replace(
        SETTINGS, schedule=ScheduleConfig(policy="train", upsilon=1e9), tv_density=0.1, tv_appearance=0.1
    )
    trainer = new_trainer(settings)
    trainer.schedule.rank = 5  # an odd rank, so that a chunk of 16 is cut in two by 5 and by 15
    before, _ = trainer.state()
    before = {name: np.array(values) for name, values in before.items()}
    run_to(trainer, 8)
    assert trainer.rank == 5
    after, _ = trainer.state()
    for kind, active in (("density", 5), ("appearance", 15)):
        for part in ("plane0", "plane1", "plane2", "line0", "line1", "line2"):
            for array in "pmv":
                name = f"{kind}.{array}.{part}"
                assert (after[name][:active] != before[name][:active]).any(), name
                assert after[name][active:].tobytes() == before[name][active:].tobytes(), name
    rows = device_rows(3 * trainer.field.max_rank)
    basis = [a["basis.p"].reshape(-1, 27)[rows] for a in (before, after)]
    assert (basis[0][:, :15] != basis[1][:, :15]).any()
    assert basis[0][:, 15:].tobytes() == basis[1][:, 15:].tobytes()


def test_a_step_is_one_adam_step_on_the_gradient_of_squared_error_and_l1(new_trainer):
    """Against the twin: the first step of a run, from its own batch of rays."""
    import torch

    from tests import reference

    settings = dataclasses.replace(SETTINGS, schedule=ScheduleConfig(policy="fixed"), early_stop=0.0,
                                   l1_start=0.05)  # fmt: skip
    trainer = new_trainer(settings)
    twin = reference.ReferenceField.from_state(trainer.field.state(), requires_grad=True)
    run_to(trainer, 1)
    pipeline, batch, n = trainer.pipeline, trainer.batch, trainer.pipeline.n_samples
    rays = [torch.tensor(np.array(a).reshape(-1, 3)).double() for a in (batch.origins, batch.directions, batch.target)]
    ray = torch.tensor(np.repeat(np.arange(256), np.diff(pipeline.ray_start[:257])))
    seen = reference.render_samples(
        twin, *rays[:2], ray, torch.tensor(pipeline.sample_t[:n]).double(),
        torch.full((n,), pipeline.step_size, dtype=torch.float64), torch.full((256,), 6),
        torch.ones(3, dtype=torch.float64),
    )  # fmt: skip
    squared = reference.mse(seen.rgb.clamp(0, 1), rays[2])
    assert float(batch.pixel.mean()) == pytest.approx(float(seen.rgb.detach().mean()), abs=1e-5)
    assert float(trainer.batch.loss.mean()) == pytest.approx(float(squared.detach()), rel=1e-4)
    (squared + 0.05 * reference.l1(twin.density_planes, twin.density_lines)).backward()
    moved = reference.ReferenceField.from_state(trainer.field.state())
    for name, tensor in twin.named_parameters().items():
        lr = 1e-3 if name.startswith(("basis", "decoder")) else 0.02
        # From rest, Adam's first step is lr g / (|g| + epsilon); entries lost in rounding are left out.
        g = tensor.grad
        clear = g.abs() > 1e-3 * g.abs().max()
        expected = -lr * g / (g.abs() + 1e-8)
        step = moved.named_parameters()[name] - tensor.detach()
        wrong = ((step - expected)[clear].abs() > 0.02 * lr).double().mean()
        assert wrong < 2e-3, f"{name}: {100 * wrong:.2f} % of the entries moved otherwise"


@pytest.mark.parametrize("shift, penalised", [(-3.0, True), (-20.0, False)])
def test_the_l1_penalty_begins_when_rays_meet_something_however_few_samples_get_a_colour(new_trainer, shift, penalised):
    def trained(weight: float) -> dict[str, bytes]:
        field = dataclasses.replace(SETTINGS.field, density_shift=shift)
        settings = dataclasses.replace(SETTINGS, field=field, weight_threshold=0.2, l1_start=weight)
        trainer = new_trainer(settings)
        run_to(trainer, 2)
        assert trainer.pipeline.n_visible < 256
        return {name: value for name, value in bits(trainer).items() if name.startswith("density")}

    assert (trained(0.0) != trained(0.05)) == penalised


def test_a_decoder_in_bfloat16_learns_nearly_the_same(new_trainer):
    from tslim.decoder import mlp_bfloat16
    from tslim.errors import ConfigError

    try:
        mlp_bfloat16.import_torch()
    except ConfigError as error:
        pytest.skip(str(error))
    losses, colours = [], []
    for precision in ("float32", "bfloat16"):
        trainer = new_trainer(dataclasses.replace(SETTINGS, decoder_precision=precision))
        run_to(trainer, 25)
        losses.append(float(trainer.batch.loss[: trainer.n_pixels].mean()))
        colours.append(np.array(trainer.batch.pixel))
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert not np.array_equal(*colours)


def test_a_batch_too_small_to_sort_out_pixels_with_is_refused(new_trainer):
    from tslim.errors import ConfigError

    with pytest.raises(ConfigError, match="batch_rays is 31"):
        new_trainer(dataclasses.replace(SETTINGS, batch_rays=31))


def test_pixels_are_dropped_exactly_where_their_rays_meet_nothing(new_trainer):
    from kernels import rays
    from tslim.device import buffers
    from tslim.field.occupancy import Occupancy

    trainer = new_trainer()
    cells = np.zeros((10, 9, 12), bool)
    cells[3:6, 4:6, 5:9] = True
    trainer.field.occupancy = Occupancy.from_cells(cells, trainer.field.box)
    sampler, pipeline, hits = trainer.sampler, trainer.pipeline, []
    for first in range(0, sampler.n_pixels, 256):
        n = min(256, sampler.n_pixels - first)
        where = sampler.n_images, sampler.images, sampler.cameras
        rays.pixel_rays(n, first, *where, trainer.batch.origins, trainer.batch.directions)
        pipeline.march(n)
        hits.append(buffers.read(pipeline.ray_count)[:n] > 0)
    hits = np.concatenate(hits)
    assert 0.05 < hits.mean() < 0.9
    assert sampler.keep_hits(pipeline) == hits.mean()
    used = np.unpackbits(buffers.read(sampler.used).view(np.uint8), bitorder="little")
    assert (used[: len(hits)] == hits).all()


def test_a_step_makes_the_host_wait_for_two_counts_and_no_more(new_trainer, monkeypatch):
    # On the CPU it looks at each step's losses, colours and opacities besides, where that costs nothing.
    from tslim.device import buffers

    asked = []
    for name in ("read", "number"):
        plain = getattr(buffers, name)
        monkeypatch.setattr(buffers, name, lambda *a, plain=plain, name=name: asked.append(name) or plain(*a))
    settings = dataclasses.replace(SETTINGS, unseen_occlusion=0.01, report_every=40, schedule=ScheduleConfig("fixed"))
    trainer = new_trainer(settings)
    run_to(trainer, 9)
    assert trainer.started
    asked.clear()
    run_to(trainer, 10)
    samples, visible_and_groups, samples_of_unseen = "number", "read", "number"
    assert asked == [samples, visible_and_groups, samples_of_unseen, "read", "read", "read"]
