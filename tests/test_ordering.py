"""Ranks in order after training: the same field, prefixes that are never worse, in every space and for every rank."""

import dataclasses

import numpy as np
import pytest

from tests.test_model_file import make_state
from tslim.config import FieldConfig
from tslim.errors import ModelFileError
from tslim.field.field import Field
from tslim.model import model_file, nested_fit, ordering, rounding
from tslim.model.state import FieldState


def shuffled_state(rank: int, rank_scales: bool = True, seed: int = 5):
    """A field whose ranks say more and less in an order of chance: what training at full rank leaves."""
    rng = np.random.default_rng(seed)
    state = make_state(rank=rank, grid=(14, 15, 16), occupancy=None)
    for kind, per_rank in (("density", 1), ("appearance", 3)):
        sizes = np.repeat(0.7 ** rng.permutation(rank), per_rank).astype(np.float32)
        setattr(state, f"{kind}_planes", [a * sizes[:, None, None] for a in getattr(state, f"{kind}_planes")])
    state.rank_scales = rng.normal(1, 0.2, (rank, 56)).astype(np.float32) if rank_scales else None
    state.config = dataclasses.replace(state.config, rank_scales=rank_scales)
    return state


def folded(state):
    """The same field with its last rank's scales within the factors, and its ranks as they are."""
    return ordering.folded(state)


@pytest.mark.parametrize("space", ["box", "ndc", "contracted"])
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_density_at_full_rank_is_the_same_to_rounding(cpu, space, rank):
    """In a field of that space, through its own kernels."""
    box = np.float32([[-1] * 3, [1] * 3])
    field = Field(box, FieldConfig(decoder="sh"), max_rank=rank, grid=16, space=space, near=1)
    values = shuffled_state(rank)
    unordered = dataclasses.replace(
        values, domain=field.domain, decoder=field.decoder.state(),
        config=dataclasses.replace(values.config, density_shift=-2.0),
    )  # fmt: skip
    points = np.random.default_rng(1).uniform(field.box[0], field.box[1], (2000, 3))
    before = Field.from_state(unordered).density_at(points)
    ordered = Field.from_state(unordered)
    ordered.reorder()
    after = ordered.density_at(points)
    assert before.std() > 0.2
    np.testing.assert_allclose(after, before, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("rank_scales", [True, False])
def test_every_prefix_holds_at_least_as_much_as_before(rank_scales):
    state = shuffled_state(6, rank_scales)
    before, after = ordering.held(folded(state)), ordering.held(ordering.reordered(state, rounds=100))
    assert (after.density >= before.density - 1e-6).all()
    assert (after.appearance[:-1] >= before.appearance[:-1] - 1e-6).all()
    assert after.density[0] > before.density[0] + 0.2 and after.appearance[0] > before.appearance[0] + 0.05
    assert after.density[-1] == pytest.approx(1, abs=1e-6)


def test_density_prefixes_are_the_best_of_their_length():
    """Against the singular values of the whole matrix of a mode, without any compression."""
    unordered = folded(shuffled_state(5))
    new = ordering.reordered(unordered, rounds=2)

    def matrix(state, mode, rank):
        planes, lines = state.density_planes[mode][:rank], state.density_lines[mode][:rank]
        return np.einsum("kn,km->nm", planes.reshape(rank, -1), lines, dtype=np.float64)

    for mode in range(3):
        whole = matrix(unordered, mode, 5)
        squares = np.linalg.svd(whole, compute_uv=False) ** 2
        for rank in range(1, 6):
            error = np.sum((whole - matrix(new, mode, rank)) ** 2)
            assert error == pytest.approx(float(squares[rank:].sum()), rel=1e-3, abs=1e-6 * float(squares.sum()))


def test_appearance_at_full_rank_keeps_nearly_all():
    state = folded(shuffled_state(6))
    new = ordering.reordered(state, rounds=100)
    for mode in range(3):
        before, after = (
            np.einsum("kvu,kw,kc->wvuc", s.appearance_planes[mode], s.appearance_lines[mode], s.basis[mode])
            for s in (state, new)
        )
        assert np.sum((after - before) ** 2) < 0.03 * np.sum(before**2)


def test_what_is_in_order_stays_as_good():
    """A second time there is nothing to gain, and nothing may be lost."""
    once = ordering.reordered(shuffled_state(4), rounds=100)
    twice = ordering.reordered(once, rounds=100)
    for before, after in zip(ordering.held(once), ordering.held(twice), strict=True):
        assert (after >= before - 1e-3).all()


def test_separate_ranks_stay_separate():
    state = shuffled_state(6).separate(2, 5)
    new = ordering.reordered(state, rounds=20)
    assert new.separate_ranks == (2, 5) and new.rank == 5
    assert all(not a[2:].any() for a in (*new.density_planes, *new.density_lines))
    held = ordering.held(new)
    assert len(held.density) == 2 and len(held.appearance) == 5
    assert held.density[-1] == pytest.approx(1, abs=1e-6)


def test_hidden_texels_do_not_take_part_and_are_carried_along():
    """What only empty space reads decides nothing about the order, but is mixed as the rest is."""
    state = shuffled_state(4)
    cells = np.zeros((8, 8, 8), bool)
    cells[2:5, 2:5, 2:5] = True
    state = dataclasses.replace(state, occupancy=cells, occupancy_box=None)
    seen = rounding.visible_texels(state)
    for mode in range(3):
        state.density_planes[mode][:, ~seen[mode][0]] *= 100
    new = ordering.reordered(state, rounds=2)
    for mode in range(3):
        before, after = (
            np.einsum("kvu,kw->vuw", s.density_planes[mode], s.density_lines[mode]) for s in (folded(state), new)
        )
        np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3 * np.abs(before).max() / 100)


def test_more_terms_than_texels_and_terms_of_nothing_are_taken():
    """A matrix of 6 texels a side has no more than 6 ranks; a rank of zeros is no rank."""
    state = make_state(rank=9, grid=(6, 6, 6), occupancy=None)
    state.density_planes[0][4] = 0
    state.appearance_planes[1][:] = 0
    new = ordering.reordered(state, rounds=20)
    assert all(np.isfinite(a).all() for a in (*new.density_planes, *new.appearance_planes, new.basis))
    whole, again = (np.einsum("kvu,kw->vuw", s.density_planes[0], s.density_lines[0]) for s in (folded(state), new))
    np.testing.assert_allclose(again, whole, rtol=1e-3, atol=1e-4 * np.abs(whole).max())


def test_a_compact_model_is_no_longer_rounded():
    new = ordering.reordered(rounding.rounded(shuffled_state(3)), rounds=2)
    assert type(new) is FieldState and "rounding" not in new.metadata


def test_values_that_are_not_finite_are_refused():
    state = shuffled_state(2)
    state.appearance_lines[1][0, 0] = np.nan
    with pytest.raises(ModelFileError, match="not finite"):
        ordering.reordered(state)


def test_rounds_of_the_fit_never_make_it_worse():
    rng = np.random.default_rng(2)
    terms = tuple(rng.normal(size=(n, 12)) for n in (10, 11, 8))
    core = np.einsum("ik,jk,ck->ijc", *terms)
    weights = ordering.prefix_weights(4)
    errors = [
        weights @ nested_fit.prefix_errors(core, nested_fit._fit(core, terms, weights, rounds), 4)
        for rounds in range(8)
    ]
    assert (np.diff(errors) <= 1e-9).all() and errors[-1] < 0.9 * errors[0]


@pytest.mark.parametrize(
    "metadata, unordered",
    [
        ({}, False),
        ({"train": {"schedule": {"policy": "fixed"}}}, True),
        ({"train": {"schedule": {"policy": "bcd"}}}, True),
        ({"train": {"schedule": {"policy": "staged"}}}, False),
        ({"train": {"schedule": {"policy": "fixed"}}, "reordered": True}, False),
        ({"train": None}, False),
    ],
)
def test_lack_of_order_is_known_by_provenance(metadata, unordered):
    assert ordering.is_unordered(dataclasses.replace(make_state(), metadata=metadata)) is unordered


def test_reordered_says_so_in_the_file(tmp_path):
    state = shuffled_state(3)
    state.metadata["train"] = {"schedule": {"policy": "fixed"}}
    path = model_file.write(ordering.reordered(state, rounds=2), tmp_path / "a.slim")
    assert ordering.is_unordered(state) and not ordering.is_unordered(model_file.read(path))
