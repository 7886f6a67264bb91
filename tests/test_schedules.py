"""Rank schedules on scripted sequences of losses."""

import json

import numpy as np
import pytest

from tslim.config import ScheduleConfig
from tslim.errors import ConfigError
from tslim.training.schedules import POLICIES, make_schedule


def ranks_after(schedule, losses: list[float | None]) -> list[int]:
    """The active rank after each loss."""
    ranks = []
    for step, loss in enumerate(losses):
        schedule.update(step, loss)
        ranks.append(schedule.rank)
    return ranks


def train(max_rank: int = 16, **options):
    return make_schedule(ScheduleConfig(policy="train", **options), max_rank, steps=1000)


def test_fixed_uses_all_ranks_from_the_start_and_asks_for_no_loss():
    schedule = make_schedule(ScheduleConfig(policy="fixed"), 16, steps=1000)
    assert schedule.rank == 16 and not schedule.needs_loss
    assert ranks_after(schedule, [None, None]) == [16, 16]
    assert schedule.update(3, None) is None


def test_train_starts_at_one_rank_and_wants_every_loss():
    schedule = train()
    assert schedule.rank == 1 and schedule.needs_loss


def test_train_raises_the_rank_when_the_loss_changes_by_more_than_upsilon_of_the_new_one_either_way():
    # |0.10 - 0.14| / 0.14 = 0.29, |0.14 - 0.25| / 0.25 = 0.44, |0.25 - 0.17| / 0.17 = 0.47, |0.17 - 0.13| / 0.13 = 0.31
    assert ranks_after(train(upsilon=0.4), [0.10, 0.14, 0.25, 0.17, 0.13]) == [1, 1, 2, 3, 3]


def test_train_does_not_react_to_a_change_of_exactly_upsilon():
    # |0.5 - 1| / 1 = 0.5 is not above 0.5; |1 - 0.625| / 0.625 = 0.6 is.
    assert ranks_after(train(upsilon=0.5), [0.5, 1.0, 0.625]) == [1, 1, 2]


def test_the_first_loss_has_nothing_to_be_compared_with():
    assert ranks_after(train(upsilon=0.0), [0.3]) == [1]


def test_train_waits_for_more_than_eta_steps_between_increases():
    # Every step changes the loss by half or twice. With eta = 2 increases are at least 3 steps apart: i - last > 2.
    losses = [1.0, 2.0] * 5
    ranks = ranks_after(train(upsilon=0.4, eta=2), losses)
    increases = [i for i in range(1, 10) if ranks[i] > ranks[i - 1]]
    assert increases == [2, 5, 8]
    # With eta = 0 every jump counts.
    assert ranks_after(train(upsilon=0.4, eta=0), losses) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_the_rank_never_exceeds_what_the_field_has_room_for():
    assert ranks_after(train(max_rank=3, upsilon=0.1), [1.0, 2.0] * 4) == [1, 2, 3, 3, 3, 3, 3, 3]


def test_an_increase_says_what_caused_it_and_no_increase_says_nothing():
    schedule = train(max_rank=2, upsilon=0.4)
    assert schedule.update(0, 0.1) is None
    cause = schedule.update(1, 0.2)
    assert "jumped 50 %" in cause and "0.10000" in cause and "0.20000" in cause
    assert schedule.update(2, 0.4) is None, "there is no rank left to grow"
    falling = train(upsilon=0.4)
    falling.update(0, 0.2)
    assert "fell 100 %" in falling.update(1, 0.1)


def test_a_loss_of_zero_or_none_at_all_never_raises_the_rank():
    assert ranks_after(train(upsilon=0.4), [0.1, 0.0, None, 0.1]) == [1, 1, 1, 1]


def test_a_schedule_continues_from_its_state_as_if_it_had_not_been_interrupted():
    rng = np.random.default_rng(1)
    losses = np.exp(rng.normal(0, 0.5, 60)).tolist()
    whole = train(upsilon=0.4, eta=3)
    expected = ranks_after(whole, losses)
    first = train(upsilon=0.4, eta=3)
    ranks = ranks_after(first, losses[:31])
    second = train(upsilon=0.4, eta=3)
    second.load_state(json.loads(json.dumps(first.state())))
    for step in range(31, 60):
        second.update(step, losses[step])
        ranks.append(second.rank)
    assert ranks == expected and 1 < max(ranks)


def test_every_ray_gets_the_active_rank_when_no_prefixes_are_trained():
    schedule = train()
    ranks_after(schedule, [1.0, 3.0])
    (ranks,) = schedule.ray_ranks(2, 7, np.random.default_rng(0))
    assert ranks.dtype == np.int32 and ranks.tolist() == [2] * 7


def staged(max_rank: int = 16, **options):
    return make_schedule(ScheduleConfig(policy="staged", **options), max_rank, steps=100)


def test_staged_reaches_each_rank_at_its_share_of_the_run_whatever_the_loss_does():
    schedule = staged(stage_ranks=(2, 4, 16), stage_starts=(0.0, 0.1, 0.5))
    ranks = ranks_after(schedule, [None, 1.0, 9.0] * 33)
    # ranks[i] is the rank of step i + 1: stages begin at steps 10 and 50.
    assert ranks == [2] * 9 + [4] * 40 + [16] * 50
    assert staged().rank == 2 and not staged().needs_loss


def test_staged_goes_to_the_fields_own_rank_and_never_beyond():
    assert ranks_after(staged(3), [None] * 100)[-1] == 3
    assert max(ranks_after(staged(40), [None] * 100)) == 40


def test_staged_draws_an_anchor_that_is_named_twice_twice_as_often_and_without_anchors_every_rank():
    schedule = staged(prefix_share=0.5, prefix_ranks=(1, 2, 2, 2, 4, 8))
    schedule.rank = 5
    counts = np.bincount(schedule.ray_ranks(0, 100_000, np.random.default_rng(0))[0], minlength=6)
    # Fifths of 50 000, standard deviations below 110.
    np.testing.assert_allclose(counts, [0, 10_000, 30_000, 0, 10_000, 50_000], atol=600)
    schedule = staged(prefix_share=0.5, prefix_ranks=())
    schedule.rank = 5
    (ranks,) = schedule.ray_ranks(0, 100_000, np.random.default_rng(0))
    counts = np.bincount(ranks, minlength=6)
    assert len(counts) == 6 and counts[0] == 0 and counts[5] == 50_000
    np.testing.assert_allclose(counts[1:5], 12_500, atol=600)


def test_few_ranks_stand_for_many_when_empty_space_is_measured_and_the_active_one_always_does():
    schedule = staged(prefix_ranks=())
    assert schedule.emptied(0) == [1, 2]
    schedule.rank = 16
    assert schedule.emptied(90) == [1, 2, 3, 5, 8, 12, 16]
    assert train().emptied(0) == [1]
    few = staged(prefix_ranks=(8, 4, 4, 30))
    few.rank = 16
    assert few.emptied(90) == [4, 8, 16]


def test_staged_draws_prefix_rays_evenly_from_the_anchors_below_the_active_rank():
    schedule = staged(stage_ranks=(8,), stage_starts=(0.0,), prefix_share=0.4, prefix_ranks=(1, 2, 4, 12))
    assert schedule.rank == 16
    schedule.rank = 8
    (ranks,) = schedule.ray_ranks(0, 30_000, np.random.default_rng(0))
    counts = {int(r): int((ranks == r).sum()) for r in np.unique(ranks)}
    assert set(counts) == {1, 2, 4, 8} and counts[8] == 18_000
    # 4000 expected of each prefix rank, standard deviation about 52.
    assert all(abs(counts[r] - 4000) < 250 for r in (1, 2, 4))


def test_staged_asks_for_no_prefix_rays_where_no_anchor_is_smaller():
    schedule = staged(stage_ranks=(3, 16), stage_starts=(0.0, 0.5), prefix_ranks=(4, 8))
    assert schedule.rank == 3 and staged(stage_ranks=(1, 16), stage_starts=(0.0, 0.5)).prefixes(0)[1] == ()
    assert schedule.ray_ranks(0, 50, np.random.default_rng(0)).tolist() == [[3] * 50]


def test_staged_renders_every_ray_at_different_prefixes_and_the_active_rank_if_asked_to():
    schedule = staged(prefixes_per_ray=2, prefix_ranks=(1, 2, 2, 4, 12))
    assert schedule.most_renders() == 3 and schedule.rank < 4
    schedule.rank = 8
    n = 30_000
    ranks = schedule.ray_ranks(0, n, np.random.default_rng(0))
    assert ranks.shape == (3, n) and ranks.dtype == np.int32 and (ranks[2] == 8).all()
    assert (ranks[0] != ranks[1]).all()
    counts = np.bincount(ranks[:2].ravel(), minlength=9)
    # Rank 2 is left out with probability 2 (1/4 1/3), rank 1 with 1/2 1/2 + 1/4 2/3; standard deviations below 90.
    np.testing.assert_allclose(counts[[1, 2, 4]], [n * 7 / 12, n * 5 / 6, n * 7 / 12], atol=500)
    assert counts.sum() == 2 * n


def test_a_ray_has_no_more_prefixes_than_there_are():
    schedule = staged(prefixes_per_ray=9, prefix_ranks=(1, 2, 2, 4, 12, 16, 40))
    assert schedule.most_renders() == 5 and staged(prefixes_per_ray=99, prefix_ranks=()).most_renders() == 16
    schedule.rank = 4
    ranks = schedule.ray_ranks(0, 20, np.random.default_rng(0))
    assert np.sort(ranks, axis=0).tolist() == [[1] * 20, [2] * 20, [4] * 20]
    schedule.rank = 1
    assert schedule.ray_ranks(0, 20, np.random.default_rng(0)).tolist() == [[1] * 20]


def test_prefixes_count_for_less_and_the_lowest_anchor_for_more_of_that_if_asked_to():
    ranks = np.array([2, 4, 16, 8, 2, 16], np.int32)
    schedule = staged(prefixes_per_ray=2, prefix_ranks=(2, 4, 8), prefix_weight=0.25, lowest_weight=3.0)
    schedule.rank = 16
    weights = schedule.weights(ranks)
    assert weights.dtype == np.float32 and weights.tolist() == [0.75, 0.25, 1, 0.25, 0.75, 1]
    schedule.rank = 2  # the first stage: the lowest prefix rank is the active rank itself
    assert schedule.weights(np.full(5, 2, np.int32)).tolist() == [1] * 5
    schedule = staged(prefixes_per_ray=2, prefix_ranks=(), lowest_weight=3.0)
    schedule.rank = 4
    assert schedule.weights(np.array([1, 2, 4])).tolist() == [3, 1, 1]
    assert staged(prefixes_per_ray=2).weights(ranks) is None
    assert staged(prefix_weight=0.5, lowest_weight=3.0).weights(ranks) is None


def ordered(**options):
    return make_schedule(ScheduleConfig(policy="ordered", **{"order_at": (0.5, 0.75), **options}), 16, steps=100)


def test_ordered_renders_nothing_but_the_full_rank_until_ranks_are_in_order():
    schedule, rng = ordered(prefix_share=0.25, prefix_ranks=(2, 8)), np.random.default_rng(0)
    for step in range(100):
        ranks = schedule.ray_ranks(step, 40, rng)[0].tolist()
        assert set(ranks[:10]) <= ({16} if step < 50 else {2, 8}) and ranks[10:] == [16] * 30
        assert list(schedule.rendered(step)) == schedule.emptied(step) == ([16] if step < 50 else [2, 8, 16])
        assert schedule.update(step, 1.0) is None
    assert [done for done in range(101) if schedule.orders(done)] == [50, 75]
    assert schedule.least_rank() == 2 and not make_schedule(ScheduleConfig(), 16, 100).orders(50)


def test_ordered_lets_learning_rates_fall_twice():
    schedule = ordered(order_rate=0.5)
    assert [schedule.pace(step, 0.1) for step in (0, 25, 50, 75)] == pytest.approx([1, 0.1**0.5, 0.5, 0.5 * 0.1**0.5])
    assert make_schedule(ScheduleConfig(policy="staged"), 16, 100).pace(25, 0.1) is None


def bounded(**options):
    settings = {"stage_ranks": (2, 4, 16), "stage_starts": (0.0, 0.2, 0.6), "bounds": (0.5, 1.5), "upsilon": 0.4}
    return make_schedule(ScheduleConfig(policy="bounded", **{**settings, **options}), 16, steps=100)


def test_bounded_begins_a_stage_at_the_first_jump_once_its_time_has_come():
    # Stages are planned at steps 20 and 60: within 10..30 and 30..90. Jumps at steps 5 (too soon), 12 and 41.
    losses = [0.1] * 100
    for step in (5, 12, 41):
        losses[step] = 0.2
    schedule = bounded()
    assert schedule.rank == 2 and schedule.needs_loss
    ranks = ranks_after(schedule, losses)
    # ranks[i] is the rank of step i + 1.
    assert ranks == [2] * 12 + [4] * 29 + [16] * 59


def test_bounded_begins_a_stage_without_a_jump_when_it_is_high_time():
    ranks = ranks_after(bounded(), [0.1] * 100)
    assert ranks == [2] * 29 + [4] * 60 + [16] * 11
    assert ranks_after(bounded(bounds=(0.5, 100.0)), [0.1] * 100)[-1] == 16, "the last step has all ranks"


def test_bounded_begins_one_stage_a_jump_and_says_why():
    schedule = bounded(bounds=(0.0, 1.5))
    assert schedule.update(0, 0.1) is None
    assert "jumped 50 %" in schedule.update(1, 0.2) and schedule.rank == 4
    assert schedule.update(2, 0.2) is None and schedule.rank == 4
    quiet = bounded()
    causes = [cause for step in range(100) if (cause := quiet.update(step, 0.1))]
    assert causes == ["no jump of the loss by 30 % of training", "no jump of the loss by 90 % of training"]


def test_bounded_draws_the_same_prefix_rays_as_staged():
    one, other = bounded(), staged(stage_ranks=(2, 4, 16), stage_starts=(0.0, 0.2, 0.6))
    one.rank = other.rank = 4
    rays = [s.ray_ranks(30, 999, np.random.default_rng(5))[0].tolist() for s in (one, other)]
    assert rays[0] == rays[1] and set(rays[0]) == {1, 2, 3, 4}


def test_linear_adds_ranks_evenly_over_its_share_of_the_run_and_never_trains_prefixes():
    schedule = make_schedule(ScheduleConfig(policy="linear", linear_share=0.5), 6, steps=100)
    assert schedule.rank == 1 and not schedule.needs_loss
    ranks = ranks_after(schedule, [None, 9.0] * 50)
    assert ranks == [1] * 9 + [2] * 10 + [3] * 10 + [4] * 10 + [5] * 10 + [6] * 51
    assert set(schedule.ray_ranks(70, 50, np.random.default_rng(0))[0]) == {6}


def test_linear_reaches_all_ranks_even_when_there_are_more_of_them_than_steps():
    schedule = make_schedule(ScheduleConfig(policy="linear", linear_share=1.0), 50, steps=10)
    ranks = ranks_after(schedule, [None] * 10)
    assert ranks[-1] == 50 and ranks == sorted(ranks)
    assert make_schedule(ScheduleConfig(policy="linear"), 1, steps=10).update(0, None) is None


@pytest.mark.parametrize("n", [256, 1000, 10])
def test_all_prefixes_gives_every_rank_the_same_number_of_rays(n):
    schedule = make_schedule(ScheduleConfig(policy="all_prefixes"), 16, steps=100)
    assert schedule.rank == 16 and ranks_after(schedule, [0.1, 9.0]) == [16, 16]
    (ranks,) = schedule.ray_ranks(3, n, np.random.default_rng(0))
    assert ranks.dtype == np.int32 and len(ranks) == n and (np.diff(ranks) >= 0).all()
    counts = np.bincount(ranks, minlength=17)
    assert counts[0] == 0 and counts[1:].max() - counts[1:].min() <= 1
    share, choices = schedule.prefixes(3)
    assert share == 15 / 16 and choices == tuple(range(1, 16)), "what the occupancy grid has to cover"


def test_bcd_lets_one_block_learn_at_a_time_and_each_as_often_as_the_others():
    schedule = make_schedule(ScheduleConfig(policy="bcd", bcd_block=4, bcd_steps=3), 10, steps=100)
    turns = []
    for step in range(18):
        turns.append(schedule.learning(step))
        schedule.update(step, 1.0)
        assert schedule.rank == 10 and set(schedule.ray_ranks(step, 40, np.random.default_rng(0))[0]) == {10}
    assert turns == ([(0, 4)] * 3 + [(4, 8)] * 3 + [(8, 10)] * 3) * 2


@pytest.mark.parametrize("policy", ["train", "fixed", "ordered", "staged", "bounded", "linear", "all_prefixes"])
def test_other_policies_let_all_active_ranks_learn(policy):
    schedule = make_schedule(ScheduleConfig(policy=policy, upsilon=0.1), 16, steps=40)
    for step in range(40):
        assert schedule.learning(step) == (0, schedule.rank)
        schedule.update(step, 1.0 + step % 2)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_continues_from_its_state_as_if_it_had_not_been_interrupted(policy):
    def make():
        return make_schedule(ScheduleConfig(policy=policy, upsilon=0.4, eta=2), 16, steps=60)

    losses = np.exp(np.random.default_rng(1).normal(0, 0.4, 60)).tolist()
    whole = make()
    causes = [whole.update(step, loss) for step, loss in enumerate(losses)]
    for at in (1, 7, 31):
        first, second = make(), make()
        for step in range(at):
            first.update(step, losses[step])
        second.load_state(json.loads(json.dumps(first.state())))
        assert [second.update(step, losses[step]) for step in range(at, 60)] == causes[at:]
        assert second.rank == whole.rank and second.learning(60) == whole.learning(60)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_shrinks_passes_the_fields_rank_or_gives_a_ray_more_than_the_active_rank(policy):
    rng = np.random.default_rng(2)
    schedule = make_schedule(ScheduleConfig(policy=policy, upsilon=0.05), 5, steps=80)
    for step in range(80):
        before = schedule.rank
        ranks = schedule.ray_ranks(step, 64, rng).ravel()
        assert len(ranks) <= 64 * schedule.most_renders()
        assert 1 <= ranks.min() and ranks.max() == before <= 5 and ranks[-1] == before
        cause = schedule.update(step, float(np.exp(rng.normal())))
        assert schedule.rank >= before and (cause is not None) == (schedule.rank > before)
    assert schedule.rank == 5


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "none"},
        {"upsilon": -0.1},
        {"upsilon": float("nan")},
        {"eta": -1},
        {"stage_starts": (0.1, 0.2, 0.3, 0.4)},
        {"stage_starts": (0.0, 0.2, 0.3, 1.0)},
        {"stage_ranks": (2, 8, 4, 16)},
        {"stage_ranks": (0, 2, 4, 8)},
        {"prefix_ranks": (0, 2)},
        {"prefix_share": 1.5},
        {"prefixes_per_ray": -1},
        {"lowest_weight": 0.0},
        {"prefix_weight": 0.0},
        {"lowest_weight": float("inf")},
        {"bounds": (1.2, 1.5)},
        {"bounds": (0.5, 0.9)},
        {"linear_share": 0.0},
        {"order_at": ()},
        {"order_at": (0.5, 0.5)},
        {"order_at": (0.0,)},
        {"order_at": (1.0,)},
        {"order_rate": 0.0},
        {"bcd_block": 0},
        {"bcd_steps": 0},
    ],
)
def test_impossible_settings_are_refused_by_name(options):
    with pytest.raises(ConfigError, match=next(iter(options)) if "policy" not in options else "fixed, train") as error:
        make_schedule(ScheduleConfig(**options), 16, 100)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"policy": "fixed"}, 16), ({"policy": "bcd"}, 16), ({"policy": "train"}, 1), ({"policy": "linear"}, 1),
        ({"policy": "all_prefixes"}, 1), ({"policy": "staged"}, 1), ({"policy": "staged", "prefix_ranks": (4, 3)}, 2),
        ({"policy": "bounded", "prefix_ranks": (3, 4), "stage_ranks": (6,), "stage_starts": (0.0,)}, 3),
        ({"policy": "staged", "prefix_share": 0.0}, 2), ({"policy": "ordered", "prefix_ranks": (3, 8)}, 3),
        ({"policy": "staged", "prefix_share": 0.0, "prefixes_per_ray": 2}, 1),
    ],
)  # fmt: skip
def test_the_least_rank_is_the_lowest_that_is_ever_rendered(options, least):
    schedule = make_schedule(ScheduleConfig(**options), 16, steps=400)
    assert schedule.least_rank() == least
    rng, seen = np.random.default_rng(0), set()
    for step in range(400):
        seen |= set(schedule.ray_ranks(step, 64, rng).ravel().tolist())
        schedule.update(step, 1.0 + step % 2)
    assert min(seen) == least
