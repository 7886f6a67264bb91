"""The page that ``export`` writes, in Firefox: another engine, another shader compiler, the same picture."""

import base64
import contextlib
import http.server
import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import x11
from tests.browser import CLOSE, PATIENCE, SETTINGS, camera, page_of, psnr, smooth_state
from tslim.rendering.pipeline import MarchConfig

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
LACKING = [] if FIREFOX else ["Firefox (apt-get install firefox-esr libgl1-mesa-dri libegl1)"]
LACKING += [] if shutil.which("Xvfb") else ["a virtual display (apt-get install xvfb)"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(LACKING), reason=f"needs another browser: {', '.join(LACKING)} is missing"),
]
RANKS = (1, 4, 16)
NAMES = list(SETTINGS)
PREFERENCES = {
    "webgl.force-enabled": True,  # drivers that draw on the CPU are not trusted otherwise
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
}
REPORT = """<script>
(async () => {{
  const said = [];
  addEventListener("error", (event) => said.push(event.message));
  const missing = !document.createElement("canvas").getContext("webgl2");
  const pictures = {{}};
  try {{
    if (!missing) {{
      await tslim.ready;
      for (const rank of {ranks}) {{
        pictures[rank] = btoa(String.fromCharCode(...tslim.picture({view}, {{rank}})));
      }}
    }}
  }} catch (error) {{ said.push(String(error)); }}
  await fetch("/said", {{method: "POST", body: JSON.stringify({{missing, pictures, said}})}});
  {then}
}})();
</script>"""
"""What is put behind a page: it draws at some ranks, sends the pictures, and goes on to the next page"""


class _Listening(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and keeps what pages send."""

    def log_message(self, *args) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.server.heard.put(json.loads(body))


@contextlib.contextmanager
def listening(folder: Path) -> Iterator[tuple[str, queue.Queue]]:
    """The address of a server of a folder, and what its pages have sent."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: _Listening(*args, directory=str(folder)))
    server.heard = queue.Queue()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.heard
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def firefox(folder: Path, address: str) -> Iterator[None]:
    """Firefox in a virtual display, with a profile of its own, drawing on the CPU."""
    profile = folder / "profile"
    profile.mkdir()
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items())
    (profile / "user.js").write_text("".join(lines))
    (folder / "screen").mkdir()
    with x11.Screen(folder / "screen") as screen:
        env = {**os.environ, "DISPLAY": screen.display, "LIBGL_ALWAYS_SOFTWARE": "1", "HOME": str(folder)}
        with (folder / "firefox.log").open("wb") as log:
            process = subprocess.Popen(
                [FIREFOX, "--profile", str(profile), "--no-remote", address], env=env, stdout=log, stderr=log
            )
            try:
                yield
            finally:
                process.terminate()
                process.wait(timeout=PATIENCE)


def test_the_pages_picture_is_the_renderers_in_every_space(cpu, tmp_path):
    folder = tmp_path / "pages"
    folder.mkdir()
    wanted = []
    for i, name in enumerate(NAMES):
        space, config, span = SETTINGS[name]
        state = smooth_state(space, config=config, march=MarchConfig(0.7, 1e-3, 1e-3, span))
        path, view = folder / f"{i}.html", camera(space)
        _, renderer = page_of(state, path)
        wanted.append({rank: renderer.render(view, rank=rank).rgb for rank in RANKS})
        width, height = (int(v) for v in view.sizes[0])
        look = {"pose": view.poses[0].tolist(), "intrinsics": view.intrinsics[0].tolist()}
        then = f'location.href = "/{i + 1}.html";' if i + 1 < len(NAMES) else ""
        look = json.dumps({**look, "width": width, "height": height})
        with path.open("a", encoding="utf-8") as file:
            file.write(REPORT.format(ranks=list(RANKS), view=look, then=then))
    with listening(folder) as (address, heard), firefox(tmp_path, f"{address}/0.html"):
        for name, pictures in zip(NAMES, wanted, strict=True):
            said = heard.get(timeout=3 * PATIENCE)
            if said["missing"]:
                pytest.skip("needs WebGL 2 in Firefox: apt-get install libgl1-mesa-dri libegl1")
            assert not said["said"], name
            for rank, picture in pictures.items():
                pixels = np.frombuffer(base64.b64decode(said["pictures"][str(rank)]), np.uint8)
                drawn = pixels.reshape(*picture.shape[:2], 4)[..., :3] / 255
                assert psnr(drawn, picture) > CLOSE, (name, rank)
