"""The preview's pictures: colour maps, panes, captions and curves, from plain arrays."""

import numpy as np
import pytest

from tslim.preview.frame import (
    BACKDROP,
    CURVES_HEIGHT,
    History,
    Pane,
    compose,
    depth_picture,
    error_picture,
    on_backdrop,
    opacity_picture,
    pane_size,
    rank_picture,
    ranks_needed,
)
from tslim.rendering.colours import ramp

RED, GREEN, BLUE = np.eye(3, dtype=np.float32)


def flat(colour, height: int = 40, width: int = 60) -> np.ndarray:
    return np.broadcast_to(np.float32(colour), (height, width, 3)).copy()


def history(n: int = 50) -> History:
    made = History()
    for i in range(n):
        made.add(25 * i, 0.1 * 0.9**i, 10.0 + 0.3 * i, 1 + i // 10)
    return made


def test_the_ramp_rises_in_brightness_and_shows_the_backdrop_where_there_is_no_value():
    colours = on_backdrop(np.array([[0.0, 0.25, 0.5, 0.75, 1.0, np.nan]]))
    brightness = colours[0, :5] @ np.float32([0.3, 0.6, 0.1])
    assert (np.diff(brightness) > 0.05).all()
    assert np.allclose(colours[0, 5], BACKDROP)


def test_depth_is_bright_where_near_and_empty_where_nothing_is():
    depth = np.linspace(2, 4, 100).reshape(1, 100).repeat(10, 0)
    opacity = np.ones((10, 100))
    opacity[:, 50:60] = 0
    picture = depth_picture(depth, opacity)
    assert picture[0, 0].sum() > picture[0, 40].sum() > picture[0, 99].sum()
    assert np.allclose(picture[0, 55], BACKDROP)
    assert np.allclose(depth_picture(depth, opacity * 0), BACKDROP), "an empty field must not fail"


def test_opacity_is_grey():
    assert np.allclose(opacity_picture(np.array([[0.25]])), 0.25)


def test_the_error_picture_ends_at_a_fifth():
    picture = error_picture(flat((0.5, 0.5, 0.5)), flat((0.7, 0.7, 0.7)))
    assert np.allclose(picture, ramp(np.array([[1.0]]))[0, 0], atol=1e-3)
    assert np.allclose(error_picture(flat(RED), flat(RED)), ramp(np.array([[0.0]]))[0, 0])


def test_a_pixel_needs_as_many_ranks_as_it_takes_to_stay_close_from_there_on():
    # Mean error over colours against the last picture, for ranks 1, 2, 4: pixel 0 is right from rank 1 on; pixel 1
    # from rank 4 on only; pixel 2 is right at rank 1 by chance, then wrong at rank 2; pixel 3 is empty.
    errors = np.array([[0.0, 0.5, 0.0, 0.0], [0.01, 0.1, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    pictures = [np.repeat(e[None, :, None], 3, 2) for e in errors]
    needed = ranks_needed(pictures, [1, 2, 4], np.array([[1.0, 1.0, 1.0, 0.0]]), close=0.02)
    assert needed.tolist() == [[1, 4, 4, 0]]
    colours = rank_picture(needed, 4)
    assert np.allclose(colours[0, 3], BACKDROP) and np.allclose(colours[0, 1], ramp(np.array([[1.0]]))[0, 0])
    assert np.isfinite(rank_picture(np.ones((2, 2), int), 1)).all(), "a field of one rank"


def test_the_panes_lie_side_by_side_right_of_the_column_and_above_the_curves():
    frame = compose(
        [Pane(flat(RED), "red"), Pane(flat(GREEN), "green"), Pane(flat(BLUE), "blue")],
        history(), 1200, 800, column=300, lines=["hello"],
    )  # fmt: skip
    assert frame.shape == (800, 1200, 3) and frame.dtype == np.uint8
    row = frame[18 + 8 + (800 - 2 * 8 - 18 - CURVES_HEIGHT) // 2]
    for colour, (start, end) in zip((RED, GREEN, BLUE), ((300, 600), (600, 900), (900, 1200)), strict=True):
        columns = np.flatnonzero((row == np.uint8(255 * colour)).all(1))
        assert start <= columns.min() and columns.max() <= end and len(columns) > 250
    backdrop = np.array([int(255 * c) for c in BACKDROP])
    assert (frame[60:, :300] == backdrop).all(), "the column is free below its text"
    assert (frame[:40, :300] != backdrop).any(), "the text is there"
    assert (frame[-CURVES_HEIGHT:, 300:] == (250, 200, 60)).all(2).sum() > 500, "the curves are there"


def test_without_history_the_pictures_get_the_room_of_the_curves():
    with_curves = pane_size(1000, 800, 1, True)
    without = pane_size(1000, 800, 1, False)
    assert without[1] - with_curves[1] == CURVES_HEIGHT
    frame = compose([Pane(flat(RED, 100, 100), "red")], History(), 900, 700, column=0, lines=[])
    red = (frame == (255, 0, 0)).all(2)
    assert red.sum() > 600 * 600 and red.any(1).sum() == red.any(0).sum(), "square stays square"


@pytest.mark.parametrize("size", [(40, 30), (301, 200), (2000, 50)])
def test_a_window_of_any_size_gets_a_picture(size):
    assert compose([Pane(flat(RED), "red")] * 3, history(), *size, column=290, lines=["text"]).shape == (*size[::-1], 3)


def test_curves_of_one_point_of_equal_values_and_of_very_many_points_are_drawn():
    for made in (history(1), history(20_000)):
        compose([Pane(flat(RED), "red")], made, 900, 700, column=290, lines=[])
    level = History()
    for step in range(3):
        level.add(step, 0.0, 12.0, 4)
    compose([Pane(flat(RED), "red")], level, 900, 700, column=290, lines=[])


def test_a_resumed_run_continues_its_curve_without_going_back():
    made = history(10)
    made.add(100, 0.5, 3.0, 2)
    assert made.steps == [0, 25, 50, 75, 100] and made.loss[-1] == 0.5 and made.rank[-1] == 2


def test_a_coarse_picture_is_drawn_smoothly():
    """A pane many times the picture's size: brightness rises from pixel to pixel, in no blocks."""
    coarse = np.zeros((4, 4, 3), np.float32)
    coarse[:, 2:] = 1
    shown = compose([Pane(coarse, "")], History(), 440, 440, column=0, lines=[])
    row = shown[220, :, 0].astype(int)
    edge = row[150:290]
    assert np.abs(np.diff(edge)).max() < 10 and len(set(edge.tolist())) > 50
