"""The preview as a consumer of events: time budget, pausing, files; with a real field and a pretended window."""

import dataclasses
import time

import numpy as np
import pytest

import tslim
from tslim.device import buffers
from tslim.model import model_file
from tslim.preview import drawing, painter, preview
from tslim.preview.budget import Progression
from tslim.preview.preview import Preview
from tslim.training import events


class PretendedWindow:
    """Takes everything and reports what the test wants to have done."""

    panel_width, in_browser = preview.COLUMN, False

    @property
    def watched(self) -> bool:
        return not self.closed

    def __init__(self) -> None:
        self.size, self.closed, self.reason, self.ready = (640, 480), False, "", True
        self.todo: list[dict] = []
        self.frames: list[np.ndarray] = []
        self.panels: list[list] = []

    def does(self, **report) -> None:
        blank = {"size": [640, 480], "cursor": [0.7, 0.5], "buttons": [], "held": [], "pressed": [], "panel": {}}
        self.todo.append({**blank, "cpu": 0.0, "dt": 0.02, **report})

    def receive(self) -> list[dict]:
        todo, self.todo = self.todo, []
        return todo

    def send(self, picture, panel, *, share) -> None:
        self.panels.append(panel)
        if picture is not None:
            self.frames.append(picture)

    def close(self, reason: str = "") -> None:
        self.closed, self.reason = True, reason


@pytest.fixture(scope="module")
def scene(cpu):
    return tslim.builtin_scene(size=32, train=4, test=3)


@pytest.fixture
def field(cpu, scene):
    return tslim.Field(scene.box, max_rank=4, grid=16, near=scene.near, far=scene.far)


def started(field, scene, folder=None, steps: int = 100) -> events.Started:
    return events.Started(0, steps, {}, field=field, scene=scene, run_dir=folder)


def progress(step: int, rank: int) -> events.Progress:
    return events.Progress(step, 100, rank, 0.01, 20.0, 1000.0, 1.0, 9.0, 3.0, 1.0)


def make(window, field, scene, folder, share: float = 1.0) -> Preview:
    made = Preview(window, share=share)
    made.show(started(field, scene, folder))
    return made


def test_the_first_picture_is_a_held_out_view_with_its_psnr_and_the_size_as_a_file(field, scene, tmp_path):
    window = PretendedWindow()
    shown = make(window, field, scene, tmp_path)
    assert window.frames[-1].shape == (480, 640, 3)
    text = "\n".join(row[1] for row in window.panels[-1] if row[0] == "text")
    assert "test view: test/0" in text and "PSNR" in text
    field.save(tmp_path / "all.slim")
    assert f"{(tmp_path / 'all.slim').stat().st_size / 1e6:.2f} MB" in text
    for rank in (1, 3):
        size = field.slim(rank).save(tmp_path / f"{rank}.slim").stat().st_size
        assert abs(shown._drawing.painter.file_bytes(rank) - size) < 10


def test_the_size_of_a_field_from_a_compact_file_is_that_of_its_cut_file(field, scene, tmp_path):
    path = field.save(tmp_path / "a.slim", precision="compact")
    shown = Preview(PretendedWindow(), share=1.0)
    shown.look_at(tslim.load(path), scene, folder=tmp_path, model=path)
    for rank in (1, 2, field.rank):
        cut = model_file.write(model_file.read(path, rank=rank), tmp_path / "b.slim").read_bytes()
        assert shown._drawing.painter.file_bytes(rank) == len(cut)
    shown._controls.rank = 2
    shown._save(model=True)
    assert (tmp_path / "rank2.slim").read_bytes() == path.read_bytes()[: shown._drawing.painter.file_bytes(2)]


def test_at_full_size_the_psnr_is_that_of_the_evaluation(field, scene, tmp_path):
    window = PretendedWindow()
    shown = make(window, field, scene, tmp_path)
    deadline = time.perf_counter() + 60
    while shown.painting.size != (32, 32):
        assert time.perf_counter() < deadline
        shown._turn(free=True)
    picture = tslim.render(field, scene.test.cameras, 0).rgb
    assert shown.painting.psnr == pytest.approx(tslim.psnr(picture, scene.test.image(0)), abs=1e-4)


def test_moving_the_rank_slider_changes_picture_and_size_in_the_same_turn(field, scene, tmp_path):
    window = PretendedWindow()
    shown = make(window, field, scene, tmp_path)
    before = window.frames[-1]
    window.does(panel={"rank": 1})
    shown.show(events.Stepped(1, 4))
    assert "rank 1 of 4" in window.panels[-1][0][1]
    assert not np.array_equal(before, window.frames[-1])


class Clock:
    """Stands in for the module ``time``."""

    def __init__(self) -> None:
        self.now = 0.0

    def rules(self, monkeypatch) -> None:
        """What waits or measures time in the preview goes by this clock."""
        for module in (preview, drawing):
            monkeypatch.setattr(module, "time", self)

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("moves", [True, False])
@pytest.mark.parametrize("cost", [0.03, 0.7])
def test_the_preview_keeps_its_share_of_the_time(field, scene, tmp_path, monkeypatch, cost, moves):
    clock, window = Clock(), PretendedWindow()
    clock.rules(monkeypatch)
    shown = make(window, field, scene, tmp_path, share=0.10)
    paint, painted = shown._drawing.painter.paint, []

    def slowly(*args):
        painted.append(clock.now)
        clock.now += cost
        return paint(*args) if len(painted) == 1 else shown.painting

    monkeypatch.setattr(shown._drawing.painter, "paint", slowly)
    step = 0
    while clock.now < 60:
        step += 1
        clock.now += 0.1  # a training step
        if moves:
            window.does(cursor=[0.3 + 0.7 * (step % 2), 0.5], buttons=["LMB"])
        shown.show(events.Stepped(step, 4))
    spent = cost * len(painted)
    assert spent <= 0.10 * clock.now + cost
    assert spent >= 0.05 * clock.now, "and it uses what it was granted"
    assert shown._budget.used == pytest.approx(spent / clock.now, rel=0.1)


def test_sending_pictures_is_within_the_share_too(field, scene, tmp_path, monkeypatch):
    clock, window = Clock(), PretendedWindow()
    clock.rules(monkeypatch)
    shown = make(window, field, scene, tmp_path, share=0.10)
    send, sent = window.send, []

    def slowly(picture, panel, *, share) -> None:
        sent.append(0.2 if picture is not None else 0.01)
        clock.now += sent[-1]
        send(picture, panel, share=share)

    monkeypatch.setattr(window, "send", slowly)
    paint = shown._drawing.painter.paint
    monkeypatch.setattr(shown._drawing.painter, "paint", lambda *args: shown.painting or paint(*args))
    step = 0
    while clock.now < 60:
        step += 1
        clock.now += 0.1
        window.does(cursor=[0.3 + 0.7 * (step % 2), 0.5], buttons=["LMB"])
        shown.show(events.Stepped(step, 4))
    assert 0.03 * clock.now < sum(sent) <= 0.10 * clock.now + 0.4


def test_what_the_user_does_is_seen_at_once_even_while_training_is_drawn_all_the_time(
    field, scene, tmp_path, monkeypatch
):
    clock, window = Clock(), PretendedWindow()
    clock.rules(monkeypatch)
    shown = make(window, field, scene, tmp_path, share=0.10)
    monkeypatch.setattr(shown._drawing.painter, "paint", lambda *args, paint=shown._drawing.painter.paint: (
        clock.sleep(0.04), paint(*args))[1])  # fmt: skip
    for step in range(200):
        clock.now += 0.1
        shown.show(events.Stepped(step, 4))
    frames = len(window.frames)
    assert frames > 20
    for rank in (1, 3, 2, 4, 1):
        clock.now += 0.1
        window.does(panel={"rank": rank})
        shown.show(events.Stepped(step, 4))
        assert f"rank {rank} of 4" in window.panels[-1][0][1]
    assert len(window.frames) == frames + 5


def test_a_picture_in_many_bands_is_the_picture_in_one_and_is_given_up_when_the_user_moves_on(
    field, scene, tmp_path, monkeypatch
):
    window = PretendedWindow()
    shown = make(window, field, scene, tmp_path)
    camera = scene.test.cameras[0]
    whole = tslim.render(field, camera)
    monkeypatch.setattr(painter, "BAND_PIXELS", 100)
    banded = shown._drawing.painter._render(camera, 4)
    for name in ("rgb", "depth", "opacity"):
        assert np.allclose(getattr(banded, name), getattr(whole, name), atol=1e-5), name

    asked = []

    def move_on() -> bool:
        asked.append(len(window.frames))
        if len(asked) == 3:
            window.does(panel={"rank": 2})
        return listen(window, True)

    listen = shown._listen
    shown._drawing.progression = Progression()
    frames = len(window.frames)
    assert not shown._drawing.paint(0, move_on)
    assert len(asked) == 3 and len(window.frames) == frames
    shown._turn(free=True)
    assert len(window.frames) == frames + 1 and "rank 2 of 4" in window.panels[-1][0][1]


def test_pausing_holds_the_training_until_it_is_resumed_and_costs_nothing(field, scene, tmp_path, monkeypatch):
    window = PretendedWindow()
    shown = make(window, field, scene, tmp_path, share=0.5)
    window.does(pressed=["t"])
    turns = []
    turn = shown._turn

    def resume_later(*, free: bool) -> None:
        turns.append(free)
        if len(turns) == 20:
            window.does(pressed=["t"])
        turn(free=free)

    monkeypatch.setattr(shown, "_turn", resume_later)
    elapsed = shown._budget.elapsed
    shown.show(events.Stepped(1, 4))
    assert len(turns) >= 20 and all(turns[1:])
    assert shown._budget.elapsed - elapsed < 0.1


def test_a_window_that_goes_away_while_paused_lets_the_training_go_on(field, scene, tmp_path):
    window = PretendedWindow()
    shown = make(window, field, scene, tmp_path)
    window.does(pressed=["t"])
    turn = shown._turn

    def close(*, free: bool) -> None:
        turn(free=free)
        window.close("the display is gone")

    shown._turn = close
    shown.show(events.Stepped(1, 4))
    shown._turn = turn
    shown.show(events.Stepped(2, 4))
    message = "the display is gone; training goes on, and preview.png is written in the run folder instead"
    assert shown.notices == [message] and not shown.is_open
    shown.show(progress(3, 4))
    shown.show(events.Finished(3, 1.0))
    assert shown.notices == [message] and (tmp_path / "preview.png").exists()


def test_a_window_that_the_user_closes_is_not_spoken_of_and_not_replaced(field, scene, tmp_path):
    window = PretendedWindow()
    shown = make(window, field, scene, tmp_path)
    window.close()
    shown.show(progress(1, 4))
    shown.show(events.Finished(2, 1.0))
    assert shown.notices == [] and not list(tmp_path.iterdir())


def test_saving_and_snapshots_never_overwrite_and_a_folder_that_is_gone_is_no_error(field, scene, tmp_path):
    window = PretendedWindow()
    shown = make(window, field, scene, tmp_path)
    for step in (7, 7):
        window.does(panel={"rank": 2}, pressed=["v", "x"])
        shown.show(events.Stepped(step, 4))
    names = ["snapshot-step000007-rank2", "step000007-rank2"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [f"{names[0]}.png", f"{names[0]}-2.png", f"{names[1]}.slim", f"{names[1]}-2.slim"]
    )
    assert tslim.load(tmp_path / "step000007-rank2.slim").max_rank == 2
    shown._saving.folder = next(tmp_path.iterdir()) / "not a folder"
    window.does(pressed=["v", "x"])
    shown.show(events.Stepped(8, 4))
    assert any("not saved" in row[1] for row in shown._panel() if row[0] == "text")


@pytest.mark.parametrize("channel", ["colour", "depth", "opacity", "ranks", "error"])
@pytest.mark.parametrize("compare", [False, True])
def test_every_channel_is_drawn_beside_the_photograph_and_alone(field, scene, tmp_path, channel, compare):
    window = PretendedWindow()
    shown = make(window, field, scene, tmp_path)
    window.does(panel={channel: True}, pressed=["g"] if compare else [])
    shown.show(events.Stepped(1, 4))
    assert len(shown.painting.panes) == (3 if compare else 1)
    assert all(np.isfinite(pane.picture).all() for pane in shown.painting.panes)


def test_without_a_window_preview_png_is_written_now_and_then_and_at_the_end(field, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "PNG_SECONDS", 0.0)
    shown = Preview(None, share=1.0)
    shown.show(started(field, scene, tmp_path))
    path = tmp_path / "preview.png"
    assert not path.exists(), "nothing is learned yet"
    for step in range(1, 4):
        shown.show(events.Stepped(step, 4))
        shown.show(progress(step, 4))
    first = path.read_bytes()
    buffers.write(field.basis, 2 * buffers.read(field.basis))
    shown.show(events.Stepped(4, 4))
    assert path.read_bytes() != first
    path.unlink()
    shown.show(events.Finished(4, 1.0))
    assert path.exists() and [p.name for p in tmp_path.iterdir()] == ["preview.png"]


def test_a_folder_that_cannot_be_written_ends_preview_png_with_one_notice(field, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "PNG_SECONDS", 0.0)
    (tmp_path / "taken").write_text("a file where the folder should be")
    shown = Preview(None, share=1.0)
    shown.show(started(field, scene, tmp_path / "taken"))
    for step in range(1, 4):
        shown.show(progress(step, 4))
    assert len(shown.notices) == 1 and shown.notices[0].startswith("no preview.png")
    assert not shown.writes_png


def test_a_training_whose_rank_and_grid_grow_under_the_preview_is_shown(cpu, scene, tmp_path):
    settings = dataclasses.replace(
        tslim.presets.tiny(), steps=12, batch_rays=64, grow_steps=(4, 8), occupancy_steps=(6,), report_every=4
    )
    trainer = tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings)
    window = PretendedWindow()
    with Preview(window, share=1.0) as shown:
        for event in trainer.run():
            shown.show(event)
            if isinstance(event, events.Finished):
                window.close()
    assert len(window.frames) >= 2 and shown._news.history.steps == [4, 8, 12]
    assert "finished: step 12 of 12" in "\n".join(row[1] for row in window.panels[-1] if row[0] == "text")


def test_a_lone_model_is_shown_without_data_set(field, tmp_path):
    window = PretendedWindow()
    shown = Preview(window, share=1.0)
    shown.look_at(tslim.load(field.save(tmp_path / "m.slim")), folder=tmp_path)
    shown._turn(free=True)
    assert shown.painting.psnr is None and len(window.frames) == 1
    window.does(panel={"rank": 2}, held=["w"])
    shown._turn(free=True)
    assert "rank 2 of 4" in window.panels[-1][0][1] and len(window.frames) == 2


def test_events_before_the_field_is_known_are_only_noted(cpu):
    shown = Preview(PretendedWindow(), share=1.0)
    shown.show(events.Stepped(1, 2))
    shown.show(progress(1, 2))
    assert shown.painting is None
