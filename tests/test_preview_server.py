"""The preview in a browser, without a browser: who is let in, what they can do, and that training never notices."""

import contextlib
import http.client
import io
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import tslim
from tslim import cli
from tslim.errors import BackendError
from tslim.preview import http_server, reports, server
from tslim.preview.camera import OrbitCamera
from tslim.preview.controls import Controls
from tslim.preview.preview import Preview
from tslim.preview.server import ServerLink
from tslim.training import events

PICTURE = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (48, 1, 3))
REPORT = {
    "size": [640, 480], "cursor": [0.5, 0.5], "buttons": [], "held": [], "pressed": [], "panel": {}, "dt": 0.0,
}  # fmt: skip


@pytest.fixture
def link() -> Iterator[ServerLink]:
    opened = ServerLink(640, 480)
    yield opened
    opened.close()


def until(condition, seconds: float = 60.0) -> None:
    deadline = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < deadline, "did not happen in time"
        time.sleep(0.005)


def port_and_token(link: ServerLink) -> tuple[int, str]:
    host, token, _ = link.address.removeprefix("http://").split("/")
    return int(host.rpartition(":")[2]), token


def ask(link: ServerLink, path: str = "", *, method: str = "GET", body: bytes | None = None, token=None, **headers):
    """Status, headers and body of a request; path is behind the token."""
    port, own = port_and_token(link)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, f"/{own if token is None else token}/{path}", body, sent)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def tell(link: ServerLink, *sent: dict, **headers) -> int:
    body = json.dumps([{**REPORT, **report} for report in sent]).encode()
    return ask(link, "input", method="POST", body=body, **{"Content_Type": "application/json", **headers})[0]


class Browser:
    """Follows the stream in a thread; ``pictures`` and ``panels`` are what has come."""

    def __init__(self, link: ServerLink, *, reads: bool = True) -> None:
        port, token = port_and_token(link)
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.sendall(f"GET /{token}/stream HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.pictures: list[np.ndarray] = []
        self.panels: list[list] = []
        self.ended: str | None = None
        if reads:
            threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        with contextlib.suppress(OSError, ValueError, struct.error), self.socket.makefile("rb") as stream:
            while stream.readline().strip():
                pass
            while True:
                kind, length = struct.unpack(">cI", stream.read(5))
                payload = stream.read(length)
                if kind == server.PICTURE:
                    self.pictures.append(np.asarray(Image.open(io.BytesIO(payload))))
                elif kind == server.PANEL:
                    self.panels.append(json.loads(payload))
                elif kind == server.END:
                    self.ended = payload.decode()

    def leave(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


# -- who is let in ---------------------------------------------------------------------------------------------------


def test_the_page_is_whole_and_forbids_everything_else(link):
    status, headers, body = ask(link)
    assert status == 200 and headers["Content-Type"].startswith("text/html")
    text = body.decode()
    assert "{{" not in text and "default-src 'none'" in text
    assert headers["X-Frame-Options"] == "DENY" and headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer" and "Python" not in headers.get("Server", "")


@pytest.mark.parametrize("token", ["", "wrong", "..", "%2e%2e"])
@pytest.mark.parametrize("path", ["", "stream", "input"])
def test_without_the_token_nothing_is_told(link, token, path):
    status, _, body = ask(link, path, token=token)
    assert status == 403 and b"token" in body and b"html" not in body
    assert ask(link, path, token=token, method="POST", body=b"[]")[0] == 403


@pytest.mark.parametrize(
    "path", ["favicon.ico", "../config.json", "..%2f..%2fetc/passwd", "//etc/passwd", "stream/x", "input", "model.slim"]
)
def test_other_paths_are_refused(link, path):
    assert ask(link, path)[0] == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"])
def test_other_methods_are_refused(link, method):
    assert ask(link, "input", method=method)[0] == 501


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "192.168.0.7", "", "[::", "a@b"]
)
def test_a_foreign_name_that_points_here_is_refused(link, host):
    assert ask(link, Host=host)[0] == 421
    assert tell(link, {}, Host=host) == 421 and not link.receive()


@pytest.mark.parametrize("host", ["localhost", "localhost:9999", "127.0.0.1:1", "[::1]:8642", "LOCALHOST"])
def test_this_machines_names_are_accepted_at_any_port_as_tunnels_have_them(link, host):
    assert ask(link, Host=host)[0] == 200


def test_only_the_preview_s_own_page_may_report(link):
    assert tell(link, {}, Origin="http://evil.example", Host="localhost:1") == 403
    assert tell(link, {}, Origin="http://localhost:2", Host="localhost:1") == 403
    assert tell(link, {}, Origin="null", Host="localhost:1") == 403
    assert tell(link, {}, Content_Type="text/plain") == 415, "what a form of another site could send"
    assert not link.receive()
    assert tell(link, {}, Origin="http://localhost:1", Host="localhost:1") == 204
    assert len(link.receive()) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"{}", b"[1]", b"[{}]", b"\xff", b"[" * 50_000,
        json.dumps([{**REPORT, "more": 1}]).encode(), json.dumps([{**REPORT, "panel": {"path": "x"}}]).encode(),
        json.dumps([{**REPORT, "panel": {"rank": "2"}}]).encode(), json.dumps([{**REPORT, "dt": None}]).encode(),
        json.dumps([{**REPORT, "held": ["Escape2"]}]).encode(), json.dumps([REPORT] * 65).encode(),
        json.dumps([{**REPORT, "cursor": [float("nan"), 0]}]).encode(),
    ],
)  # fmt: skip
def test_reports_that_make_no_sense_are_refused(link, body):
    assert ask(link, "input", method="POST", body=body, Content_Type="application/json")[0] == 400
    assert not link.receive()


def test_long_messages_are_refused_unread(link):
    port, token = port_and_token(link)
    for length in (http_server.MOST_BYTES + 1, 10**30, "-1", "x"):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            head = f"POST /{token}/input HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
            assert b" 413 " in connection.recv(100)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*REPORT, "zoom", "rank"]), inner),
    max_leaves=12,
)
LIKELY = st.fixed_dictionaries(
    {name: JSON | st.just(value) for name, value in REPORT.items()} | {"panel": st.dictionaries(
        st.sampled_from(["rank", "view", "percent", "pause", "compare", "error", "set", "leave"]),
        st.booleans() | st.integers() | st.floats(), max_size=3)},
    optional={"zoom": JSON},
)  # fmt: skip


@given(st.lists(LIKELY, min_size=1, max_size=3) | JSON)
def test_whatever_is_sent_is_refused_or_something_that_the_preview_can_do(message):
    try:
        checked = reports.checked(message)
    except (ValueError, KeyError, TypeError):
        return
    controls = Controls(OrbitCamera(np.array([[-1.0] * 3, [1.0] * 3])), 4, {"test": 3}, trains=True, in_browser=True)
    for report in checked:
        controls.apply(report, 0)
    assert 1 <= controls.rank <= 4 and 0 <= controls.view < 3 and 1 <= controls.percent <= 100
    assert np.isfinite(controls.camera.eye).all()


def test_it_listens_to_this_machine_alone_unless_told_otherwise(link):
    assert link._server.server_address[0] == "127.0.0.1"
    assert link.address.startswith("http://127.0.0.1:")


def test_where_others_may_come_in_numbers_and_this_machine_s_name_are_accepted_and_foreign_names_are_not():
    link = ServerLink(640, 480, host="0.0.0.0")
    try:
        assert link._server.server_address[0] == "0.0.0.0"
        assert ask(link, Host="192.168.0.7:8642")[0] == 200
        assert ask(link, Host=socket.gethostname())[0] == 200
        assert ask(link, Host="evil.example")[0] == 421
        assert ask(link, token="wrong")[0] == 403
    finally:
        link.close()


def test_each_server_has_a_token_of_its_own_that_cannot_be_guessed(link):
    other = ServerLink(640, 480)
    tokens = {port_and_token(one)[1] for one in (link, other)}
    other.close()
    assert len(tokens) == 2 and all(len(token) >= 24 for token in tokens)


# -- two browsers, one of which goes ---------------------------------------------------------------------------------


def test_pictures_and_panel_reach_every_browser_and_one_that_goes_does_not_matter(link):
    link.send(PICTURE, [["text", "one"]], share=1.0)
    assert not link.ready and not link.watched, "nobody looks"
    first, second = Browser(link), Browser(link)
    until(lambda: first.pictures and second.pictures)
    assert np.abs(first.pictures[0].astype(int) - PICTURE).max() < 8
    until(lambda: link.ready)
    first.leave()
    for n in range(20):
        link.send(PICTURE if n % 2 else None, [["text", str(n)]], share=1.0)
        until(lambda n=n: second.panels[-1] == [["text", str(n)]])
    assert len(second.pictures) == 11, "a panel alone brings no picture"
    until(lambda: len(link._clients) == 1)
    assert link.ready and link.watched and not link.closed
    second.leave()


def test_a_browser_that_takes_nothing_holds_nobody_up(link, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1600, 3), np.uint8)
    stuck, quick = Browser(link, reads=False), Browser(link)
    until(lambda: len(link._clients) == 2)
    for n in range(8):
        link.send(noise, [["text", str(n)]], share=1.0)
        until(lambda n=n: quick.panels and quick.panels[-1] == [["text", str(n)]])
        until(lambda: link.ready)
    stuck.leave()
    quick.leave()
    until(lambda: not link._clients)


def test_too_many_browsers_are_turned_away(link):
    browsers = [Browser(link) for _ in range(server.MOST_CLIENTS + 2)]
    until(lambda: len(link._clients) == server.MOST_CLIENTS)
    time.sleep(0.1)
    assert len(link._clients) == server.MOST_CLIENTS
    for browser in browsers:
        browser.leave()


def test_reports_come_in_order_with_the_size_of_the_last_and_what_browsers_cost(link):
    assert tell(link, {"pressed": ["k"]}, {"size": [800, 300], "zoom": 0.5}) == 204
    assert tell(link, {"panel": {"rank": 3}, "size": [801, 300]}) == 204
    got = link.receive()
    assert [report["pressed"] for report in got] == [["k"], [], []] and got[1]["zoom"] == 0.5
    assert link.size == (801, 300) and got[-1]["cpu"] > 0 and not link.receive()


def test_reports_that_nobody_takes_do_not_pile_up(link):
    for _ in range(9):
        tell(link, *[{}] * 64)
    assert len(link.receive()) == server.MOST_WAITING


def test_the_end_is_told(link):
    browser = Browser(link)
    until(lambda: link._clients)
    link.close("of the training")
    until(lambda: browser.ended == "of the training")
    with pytest.raises(OSError):
        ask(link)
    link.close()


def test_a_port_that_is_taken_is_one_line_or_the_next_one(link):
    port, _ = port_and_token(link)
    other = ServerLink(640, 480)
    assert port_and_token(other)[0] != port
    other.close()
    with pytest.raises(BackendError, match=f"port {port}: .*; choose another: --serve PORT"):
        ServerLink(640, 480, port=port)
    with pytest.raises(BackendError, match="no.such.host"):
        ServerLink(640, 480, host="no.such.host.invalid")


# -- with a field ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene(cpu):
    return tslim.builtin_scene(size=32, train=4, test=3)


@pytest.fixture
def served(cpu, scene, tmp_path) -> Iterator[Preview]:
    preview = Preview.serve(share=1.0)
    field = tslim.Field(scene.box, max_rank=4, grid=16, near=scene.near, far=scene.far)
    preview.show(events.Started(0, 100, {}, field=field, scene=scene, run_dir=tmp_path))
    yield preview
    preview.close()


def texts(browser: Browser) -> str:
    return "\n".join(row[1] for row in browser.panels[-1] if row[0] == "text")


def test_nothing_is_drawn_while_nobody_looks_and_something_as_soon_as_anybody_does(served):
    for step in range(1, 5):
        served.show(events.Stepped(step, 4))
    assert served.painting is None
    browser = Browser(served._link)
    until(lambda: served._link.ready)
    served.show(events.Stepped(5, 4))
    until(lambda: browser.pictures)
    assert "rank 4 of 4" in texts(browser) and "PSNR" in texts(browser)
    assert browser.pictures[-1].shape == (*served._link.size[::-1], 3), "the panel takes nothing of the picture"
    browser.leave()


def test_the_slider_changes_picture_and_size_and_files_go_where_the_run_is(served, tmp_path):
    browser = Browser(served._link)
    until(lambda: served._link.ready)
    served.show(events.Stepped(1, 4))
    until(lambda: browser.pictures)
    before = browser.pictures[-1]
    size = list(served._link.size)
    tell(served._link, {"size": size, "panel": {"rank": 1}}, {"size": size, "pressed": ["v", "x"]})
    served.show(events.Stepped(2, 4))
    until(lambda: "rank 1 of 4" in texts(browser))
    until(lambda: not np.array_equal(before, browser.pictures[-1]))
    names = {"step000002-rank1.slim", "snapshot-step000002-rank1.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    browser.leave()


def test_whoever_pauses_and_goes_away_does_not_stop_the_training(served, monkeypatch):
    monkeypatch.setattr(server, "GRACE_SECONDS", 0.2)
    browser = Browser(served._link)
    until(lambda: served._link.ready)
    tell(served._link, {"panel": {"pause": True}})
    threading.Timer(0.3, browser.leave).start()
    began = time.perf_counter()
    served.show(events.Stepped(1, 4))
    assert time.perf_counter() - began > 0.25, "it was paused"
    assert any("has gone: it goes on" in line for line in served.notices)
    served.show(events.Stepped(2, 4))


def test_when_training_ends_it_waits_for_who_looks_and_for_nobody_else(served, monkeypatch):
    monkeypatch.setattr(server, "GRACE_SECONDS", 0.1)
    served.show(events.Finished(4, 1.0))
    began = time.perf_counter()
    with served:
        pass
    assert time.perf_counter() - began < 30


def test_leaving_by_the_button_closes_the_preview_and_training_goes_on(served):
    browser = Browser(served._link)
    until(lambda: served._link.ready)
    served.show(events.Stepped(1, 4))
    until(lambda: browser.panels)
    assert ["button", "leave", "go on without the preview"] in browser.panels[-1]
    tell(served._link, {"panel": {"leave": True}})
    served.show(events.Stepped(2, 4))
    until(lambda: browser.ended == "")
    assert not served.is_open and not served.writes_png
    served.show(events.Stepped(3, 4))


# -- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "port"),
    [
        ("train --serve", 0), ("train --serve 9000 --steps 5", 9000), ("train --serve --steps 5", 0),
        ("view m.slim --serve", 0), ("view --serve m.slim", 0), ("view --serve=81 m.slim", 81), ("train", None),
    ],
)  # fmt: skip
def test_serve_takes_a_port_or_none(words, port):
    assert cli.parse(words.split()).serving.serve == port


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --serve-host 0.0.0.0", "has no effect without --serve"),
        ("view m.slim --serve 70000", "a port is a number up to 65535"),
        ("train --serve --preview", "choose one"),
    ],
)
def test_what_makes_no_sense_is_refused(words, message, capsys):
    assert cli.main(words.split()) == 2
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken_leaves_no_run_behind(link, tmp_path, capsys):
    port, _ = port_and_token(link)
    assert cli.main(["train", "--serve", str(port), "--out", str(tmp_path / "run")]) == 2
    assert "choose another: --serve PORT" in capsys.readouterr().err and not (tmp_path / "run").exists()
