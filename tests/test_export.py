"""``export``: what it writes and what it refuses, without a browser."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.browser import camera, smooth_state
from tests.command_line import refused, tslim
from tslim.measuring import eval_json
from tslim.measuring.evaluate import SweepRow
from tslim.model import model_file, thumbnail
from tslim.scene import paths


def export(*words: object) -> str:
    code, out, err = tslim("export", "--arch", "cpu", *words)
    assert (code, err) == (0, "")
    return out


@pytest.fixture
def model(cpu, tmp_path) -> Path:
    """A compact file that says all that there is to say."""
    path = model_file.write(model_file.convert(smooth_state("box", ranks=4), "compact"), tmp_path / "lumps.slim")
    model_file.describe(path, psnr={4: 31.0, 1: 25.0}, picture=picture())
    return path


def picture() -> bytes:
    """A WebP of its own colour."""
    from PIL import Image

    packed = io.BytesIO()
    Image.new("RGBA", (20, 30), (10, 200, 30, 128)).save(packed, "WEBP")
    return packed.getvalue()


def about(page: Path) -> dict:
    return json.loads(re.search(r'id="about">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)[1])


def inside(page: Path) -> bytes:
    found = re.findall(r'id="part-(\d+)">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)
    assert [int(index) for index, _ in found] == list(range(len(found)))
    return b"".join(base64.b64decode(text, validate=True) for _, text in found)


def test_a_page_holds_the_model_and_needs_nothing_else(model, tmp_path):
    page = tmp_path / "out" / "page.html"
    assert str(page) in export(model, "-o", page)
    assert inside(page) == model.read_bytes()
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"\{\{\w+\}\}", text)
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(?!data:)[\w./]""", text.split("<script")[0])
    told = about(page)
    assert told["title"] == "lumps" and told["ranks"] == 4 and told["model"] is None
    assert f'src="data:image/webp;base64,{base64.b64encode(picture()).decode()}"' in text


def test_a_split_page_leaves_the_model_beside_it(model, tmp_path):
    page = tmp_path / "out" / "a page.html"
    export(model, "-o", page, "--split", "--rank", 3, "--title", "Lumps & bumps")
    assert inside(page) == b"" and len(page.read_bytes()) < 160_000
    assert about(page)["model"] == "a%20page.slim" and about(page)["title"] == "Lumps & bumps"
    assert "<title>Lumps &amp; bumps</title>" in page.read_text(encoding="utf-8")
    assert page.with_suffix(".slim").read_bytes() == model.read_bytes()[: model_file.sizes(model_file.read(model))[2]]


def test_a_split_page_takes_the_model_that_is_there_and_never_overwrites_another(model, tmp_path):
    before = model.read_bytes()
    export(model, "-o", tmp_path / "lumps.html", "--split")
    assert model.read_bytes() == before
    assert "is the model itself" in refused("export", model, "-o", tmp_path / "lumps.html", "--split", "--rank", 2)
    assert model.read_bytes() == before


def test_a_page_s_model_is_compact_unless_half_precision_is_asked_for(model, tmp_path):
    for wanted in ("compact", "float16"):
        for precision in ("compact", "float16", "float32"):
            state = model_file.convert(model_file.read(model), precision)
            other = model_file.write(state, tmp_path / f"{precision}.slim")
            export(other, "-o", tmp_path / "page.html", *(["--precision", wanted] if wanted == "float16" else []))
            (tmp_path / "a.slim").write_bytes(inside(tmp_path / "page.html"))
            assert model_file.read_header(tmp_path / "a.slim").precision == wanted
            header = model_file.read_header(tmp_path / "a.slim")
            # A model that is rounded here was not measured as it is; about what it is worth, its source knows.
            assert header.table.quality == ({4: 31.0, 1: 25.0} if wanted == precision == "compact" else {})
            assert header.table.sizes(header.fixed_bytes)[-1] == header.n_bytes
            assert about(tmp_path / "page.html")["psnr"] == ({} if precision != "compact" else {"4": 31.0, "1": 25.0})


def test_quality_is_what_eval_measured_of_this_model(model, tmp_path):
    model_file.write(smooth_state("box", ranks=4), model)
    sizes = model_file.sizes(model_file.read(model))
    rows = [SweepRow(4, sizes[3], 30.5, 0.9, 1.0), SweepRow(2, sizes[1] + 1, 25.0, 0.8, 1.0)]
    (tmp_path / "lumps-eval").mkdir()
    eval_json.write(tmp_path / "lumps-eval" / "eval.json", rows, 3)
    export(model, "-o", tmp_path / "page.html")
    assert about(tmp_path / "page.html")["psnr"] == {"4": 30.5}
    export(model, "-o", tmp_path / "page.html", "--precision", "float16")
    (tmp_path / "a.slim").write_bytes(inside(tmp_path / "page.html"))
    header = model_file.read_header(tmp_path / "a.slim")
    assert header.table.quality == {4: 30.5}
    # The model knew no thumbnail: one was rendered.
    assert thumbnail.size_of(header.metadata["thumbnail"])[:2] == (192, 192)


@pytest.mark.parametrize("space", ["box", "ndc", "contracted"])
def test_a_model_without_a_path_is_looked_at_from_where_it_shows(space, cpu, tmp_path):
    from tslim.scene.cameras import Cameras
    from tslim.web.page import start_views

    path = paths.path_of(smooth_state(space, ranks=1), {})
    start = path.cameras(1)
    assert isinstance(start, Cameras) and path.to_dict()["path"] == ("spiral" if space == "ndc" else "orbit")
    wide = camera(space, (40, 30))
    assert np.isclose(
        start_views(wide, ["a"])[0]["fov"], np.degrees(2 * np.arctan(15 / wide.intrinsics[0, 1])), atol=0.01
    )


def test_what_cannot_be_exported_is_refused(model, tmp_path):
    assert ".html (a page for browsers)" in refused("export", model, "-o", tmp_path / "page.pdf")
    assert "no such run folder or model file" in refused(
        "export", tmp_path / "nothing.slim", "-o", tmp_path / "page.html"
    )
    page = tmp_path / "model.html"
    page.write_bytes(model.read_bytes())
    assert "is the model itself" in refused("export", page, "-o", page)
    assert "ranks" in refused("export", model, "-o", tmp_path / "page.html", "--rank", 9)
    (tmp_path / "folder.html").mkdir()
    assert "it is a folder" in refused("export", model, "-o", tmp_path / "folder.html")
    assert not list(tmp_path.glob("page*"))


def test_models_keep_some_cameras_of_their_photographs(cpu):
    from tslim.commands.train import START_CAMERAS, start_cameras
    from tslim.data.builtin import builtin_scene

    scene = builtin_scene(size=8, train=30, test=0)
    cameras = start_cameras(scene)
    assert len(cameras) == START_CAMERAS and cameras[0]["name"] == scene.train.names[0]
    assert np.allclose(cameras[-1]["pose"], scene.train.cameras.poses[-1]) and np.isclose(
        cameras[0]["fov"], 39.6, atol=0.01
    )
    assert len(start_cameras(builtin_scene(size=8, train=30, test=3))) == 3
    assert len(json.dumps(cameras)) < 4000
