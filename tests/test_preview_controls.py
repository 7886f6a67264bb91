"""What mouse, keys and panel do in the preview, from the window's reports alone."""

import numpy as np
import pytest

from tslim.preview.camera import OrbitCamera
from tslim.preview.controls import CHANNELS, Controls, panel_rows
from tslim.scene.cameras import Cameras

BOX = np.array([[-1, -1, -1], [1, 1, 1]], np.float32)
COLUMN = 300
DATASET = Cameras.look_at(
    [[4 * np.cos(a), 4 * np.sin(a), 1.5] for a in np.linspace(0, 5, 6)], (0, 0, 0), (0, 0, 1), 40, (80, 60)
)


@pytest.fixture
def controls() -> Controls:
    """Training at rank 3 of 8, on the first of 6 test views."""
    made = Controls(OrbitCamera.like(DATASET, BOX), 8, {"test": 6, "train": 20}, rank=3, follow=True, trains=True)
    made.moved = made.changed = False
    return made


def send(controls: Controls, *, at=(0.6, 0.5), buttons=(), held=(), pressed=(), dt=0.05, **panel) -> None:
    controls.apply(
        {
            "size": [1280, 800],
            "cursor": list(at),
            "buttons": list(buttons),
            "held": list(held),
            "pressed": list(pressed),
            "panel": panel,
            "dt": dt,
            "cpu": 0.0,
        },
        COLUMN,
    )


def drag(controls: Controls, start=(0.6, 0.5), end=(0.65, 0.55), buttons=("LMB",), held=()) -> None:
    for at in (start, end):
        send(controls, at=at, buttons=buttons, held=held)
    send(controls, at=end)


def snap(controls: Controls) -> None:
    """What the preview does about the action."""
    assert controls.actions == ["snap"]
    controls.actions.clear()
    controls.camera.snap(DATASET[controls.view % len(DATASET)])


def test_dragging_the_picture_orbits_and_leaves_the_data_set_view(controls):
    eye = controls.camera.eye.copy()
    assert controls.on_view
    drag(controls)
    assert controls.moved and not controls.on_view
    assert not np.allclose(controls.camera.eye, eye)
    assert np.linalg.norm(controls.camera.eye - controls.camera.target) == pytest.approx(controls.camera.distance)


def test_a_drag_that_starts_on_the_panel_moves_nothing_even_when_it_ends_on_the_picture(controls):
    drag(controls, start=(0.1, 0.5), end=(0.9, 0.9))
    assert not controls.moved and controls.on_view
    send(controls, pressed=["Tab"])
    drag(controls, start=(0.1, 0.5), end=(0.2, 0.5))
    assert controls.moved, "where the panel was hidden, there is picture"


def test_a_drag_of_a_slider_on_a_panel_that_was_moved_over_the_picture_moves_nothing(controls):
    send(controls, at=(0.6, 0.5), buttons=["LMB"])
    send(controls, at=(0.62, 0.5), buttons=["LMB"], rank=5)
    send(controls, at=(0.7, 0.5), buttons=["LMB"])
    assert controls.rank == 5 and not controls.moved


@pytest.mark.parametrize("buttons, held", [(("RMB",), ()), (("MMB",), ()), (("LMB",), ("Shift",))])
def test_panning_by_any_of_its_gestures_moves_the_target_and_not_the_direction(controls, buttons, held):
    target, rotation = controls.camera.target.copy(), controls.camera.rotation.copy()
    drag(controls, buttons=buttons, held=held)
    assert not np.allclose(controls.camera.target, target)
    assert np.allclose(controls.camera.rotation, rotation)


def test_zooming_by_drag_and_by_keys(controls):
    distance = controls.camera.distance
    drag(controls, start=(0.6, 0.5), end=(0.6, 0.4), held=("Control",))
    nearer = controls.camera.distance
    assert nearer < distance
    send(controls, held=["Up"])
    assert controls.camera.distance < nearer
    send(controls, held=["Down"], dt=0.1)
    assert controls.camera.distance > nearer * 0.9


@pytest.mark.parametrize(
    "key, axis, sign", [("w", 2, -1), ("s", 2, 1), ("d", 0, 1), ("a", 0, -1), (" ", 1, 1), ("c", 1, -1)]
)
def test_flying_goes_the_way_that_the_key_says(controls, key, axis, sign):
    eye = controls.camera.eye.copy()
    send(controls, held=[key])
    moved = controls.camera.rotation.T @ (controls.camera.eye - eye)
    assert np.argmax(np.abs(moved)) == axis and np.sign(moved[axis]) == sign


def test_a_report_that_comes_late_does_not_make_the_camera_jump(controls):
    eye = controls.camera.eye.copy()
    send(controls, held=["w"], dt=30.0)
    assert np.linalg.norm(controls.camera.eye - eye) < 0.05 * controls.camera.extent


def test_the_rank_follows_training_until_the_user_chooses_one_and_again_on_request(controls):
    controls.follow_rank(4)
    assert controls.rank == 4
    send(controls, rank=2)
    controls.follow_rank(5)
    assert controls.rank == 2 and not controls.follow
    send(controls, pressed=["k", "k", "j"])
    assert controls.rank == 3
    send(controls, pressed=["f"])
    controls.follow_rank(6)
    assert controls.rank == 6


def test_the_rank_stays_within_what_there_is(controls):
    send(controls, pressed=["k"] * 20)
    assert controls.rank == 8
    send(controls, pressed=["j"] * 20)
    assert controls.rank == 1


def test_stepping_through_data_set_views_wraps_around_and_comes_back_to_the_last_one_after_a_flight(controls):
    send(controls, pressed=["Left"])
    assert controls.view == 5
    snap(controls)
    send(controls, held=["w"])
    assert not controls.on_view
    send(controls, pressed=["Right"])
    assert controls.view == 5, "the first press returns to the view that was left"
    snap(controls)
    send(controls, pressed=["Right"])
    assert controls.view == 0
    snap(controls)
    send(controls, view=3)
    assert controls.view == 3


def test_the_other_set_of_views_starts_at_its_first(controls):
    send(controls, pressed=["n"])
    assert (controls.split, controls.view) == ("train", 0)
    snap(controls)
    send(controls, set=True)
    assert controls.split == "test"


def test_side_by_side_and_error_return_to_the_data_set_view_that_they_need(controls):
    drag(controls)
    send(controls, pressed=["g"])
    assert controls.compare
    snap(controls)
    send(controls, pressed=["g"])
    assert not controls.compare
    drag(controls)
    send(controls, pressed=["o"])
    assert controls.channel == "error"
    snap(controls)
    send(controls, pressed=["o"])
    assert controls.channel == "colour"


def test_m_goes_through_the_channels_and_buttons_choose_one(controls):
    seen = []
    for _ in range(5):
        send(controls, pressed=["m"])
        seen.append(controls.channel)
    assert seen == ["depth", "opacity", "ranks", "colour", "depth"]
    for name in CHANNELS:
        send(controls, **{name: True})
        assert controls.channel == name and controls.changed


def test_pause_save_snapshot_and_reset(controls):
    send(controls, pressed=["t"])
    assert controls.paused
    send(controls, pause=True)
    assert not controls.paused
    send(controls, pressed=["v", "x"])
    send(controls, save=True)
    assert controls.actions == ["save", "snapshot", "save"]
    eye = controls.camera.eye.copy()
    drag(controls)
    send(controls, pressed=["r"])
    assert np.allclose(controls.camera.eye, eye)


def test_without_training_and_data_set_their_keys_and_widgets_are_dead():
    lone = Controls(OrbitCamera(BOX), 4, rank=4)
    for key in ("t", "f", "g", "o", "n", "Left"):
        send(lone, pressed=[key])
    assert not (lone.paused or lone.follow or lone.compare or lone.actions) and lone.channel == "colour"
    names = {row[1] for row in panel_rows(lone, [], "") if row[0] != "text"}
    assert names == {"rank", "colour", "depth", "opacity", "ranks", "reset", "save", "snapshot"}


def test_every_widget_of_the_panel_is_understood(controls):
    rows = panel_rows(controls, ["step 1"], "test/0")
    assert rows[0] == ["text", "step 1"]
    for index in range(len(rows)):
        row = panel_rows(controls, ["step 1"], "test/0")[index]
        if row[0] == "text":
            assert len(row[1]) <= 38, "lines must fit the panel"
            continue
        before = repr(controls)
        value = {"button": True, "check": not row[-1], "slider": row[-1]}[row[0]]
        send(controls, **{row[1]: value})
        if not (row[1] == "colour" or row[1] == "reset"):
            assert repr(controls) != before, f"{row[1]} did nothing"


def test_a_hidden_panel_has_no_rows(controls):
    send(controls, pressed=["Tab"])
    assert panel_rows(controls, ["step 1"], "test/0") == []
