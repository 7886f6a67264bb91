"""Damaged captures by the thousand: a loader returns a usable scene or raises one of ours, quickly, quietly."""

import json
import shutil
import time
import warnings

import captures
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tslim.data import load_scene
from tslim.errors import TslimError

pytestmark = pytest.mark.slow

SECONDS = 30.0
"""For one load of ten tiny images; typical is 0.02."""

fuzz = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

FILES = {
    "transforms": ["transforms.json", "points.ply", "images/0001.png"],
    "colmap": ["sparse/0/cameras.bin", "sparse/0/images.bin", "sparse/0/points3D.bin", "images/0001.jpg"],
    "colmap text": ["sparse/0/cameras.txt", "sparse/0/images.txt", "sparse/0/points3D.txt"],
    "llff": ["poses_bounds.npy", "images/001.png"],
    "nsvf": ["intrinsics.txt", "bbox.txt", "pose/0_0001.txt"],
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """One folder a format, written once; a test damages a file and puts it back."""
    base = tmp_path_factory.mktemp("captures")
    for name in FILES:
        if name == "colmap text":
            captures.write_colmap(base / name, text=True)
        elif name == "transforms":
            captures.write_transforms(base / name, ply_file_path="points.ply")
            header = "ply\nformat binary_little_endian 1.0\nelement vertex 40\n"
            header += "property float x\nproperty float y\nproperty float z\nend_header\n"
            points = np.random.default_rng(0).normal(0, 0.3, (40, 3)).astype("<f4")
            (base / name / "points.ply").write_bytes(header.encode() + points.tobytes())
        else:
            captures.WRITERS[name](base / name)
    yield base
    shutil.rmtree(base)


def load_or_refuse(folder) -> None:
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy's complaints would reach the user
        try:
            scene = load_scene(folder)
        except TslimError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
        else:
            assert len(scene.train) > 0
            assert np.isfinite(scene.box).all() and 0 <= scene.near < scene.far < np.inf
            for views in (scene.train, scene.test):
                assert np.isfinite(views.cameras.poses).all()
                assert len(views.pixels) < 10**6
    assert time.perf_counter() - begin < SECONDS


def with_contents(path, data: bytes, run) -> None:
    good = path.read_bytes()
    try:
        path.write_bytes(data)
        run()
    finally:
        path.write_bytes(good)


damage = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.floats(0, 1), st.integers(0, 255)),
        st.tuples(st.just("flip"), st.floats(0, 1), st.integers(0, 7)),
        st.tuples(st.just("cut"), st.floats(0, 1), st.integers(1, 64)),
        st.tuples(st.just("insert"), st.floats(0, 1), st.binary(min_size=1, max_size=16)),
        st.tuples(st.just("end"), st.floats(0, 1), st.none()),
        st.tuples(
            st.just("overwrite"), st.floats(0, 1), st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f"])
        ),
    ),
    min_size=1,
    max_size=4,
)


def damaged(data: bytes, steps) -> bytes:
    out = bytearray(data)
    for what, where, value in steps:
        at = int(where * max(len(out) - 1, 0))
        if what == "set" and out:
            out[at] = value
        elif what == "flip" and out:
            out[at] ^= 1 << value
        elif what == "cut":
            del out[at : at + value]
        elif what == "insert":
            out[at:at] = value
        elif what == "end":
            del out[at:]
        elif what == "overwrite":
            out[at : at + len(value)] = value
    return bytes(out)


@pytest.mark.parametrize(("name", "file"), [(name, file) for name, files in FILES.items() for file in files])
@fuzz
@given(steps=damage)
def test_damaged_bytes(name, file, scenes, steps):
    path = scenes / name / file
    with_contents(path, damaged(path.read_bytes(), steps), lambda: load_or_refuse(scenes / name))


words = st.one_of(
    st.sampled_from(["nan", "inf", "-inf", "1e400", "-1", "0", "1e38", "1e-300", "", "#", "0x10", "１", "1_000", "--"]),
    st.floats(width=64).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.text(max_size=8),
)


@pytest.mark.parametrize(
    "file", [("colmap text", f) for f in FILES["colmap text"]] + [("nsvf", f) for f in FILES["nsvf"]]
)
@fuzz
@given(changes=st.lists(st.tuples(st.floats(0, 1), words), min_size=1, max_size=3))
def test_damaged_words(file, scenes, changes):
    name, file = file
    path = scenes / name / file
    parts = path.read_text().split(" ")
    for where, word in changes:
        parts[int(where * (len(parts) - 1))] = word
    with_contents(path, " ".join(parts).encode("utf-8", "replace"), lambda: load_or_refuse(scenes / name))


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([0, -1, 1e-30, 1e30, 1e300, 65536, 3.2, 0.5]),
    st.text(max_size=6),
)
anything = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
top_keys = st.sampled_from(
    "fl_x fl_y cx cy w h k1 k2 k3 k4 p1 p2 camera_model is_fisheye camera_angle_x camera_angle_y aabb_scale scale "
    "offset frames train_filenames val_filenames test_filenames applied_transform".split()
)
frame_keys = st.sampled_from("file_path transform_matrix fl_x w h k1 camera_model mask_path is_fisheye".split())


@fuzz
@given(
    top=st.dictionaries(top_keys, anything, max_size=2),
    dropped=st.sets(top_keys, max_size=1),
    frame=st.dictionaries(frame_keys, anything, max_size=2),
    entry=st.tuples(st.integers(0, 3), st.integers(0, 3), plain),
)
def test_json_of_other_values(scenes, top, dropped, frame, entry):
    path = scenes / "transforms" / "transforms.json"
    data = json.loads(path.read_text())
    data["frames"][4] |= frame
    row, column, value = entry
    data["frames"][5]["transform_matrix"][row][column] = value
    data = {key: value for key, value in (data | top).items() if key not in dropped}
    text = json.dumps(data).encode("utf-8", "replace")
    with_contents(path, text, lambda: load_or_refuse(scenes / "transforms"))


@fuzz
@given(
    cells=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 16), st.floats(width=64)), max_size=4),
    columns=st.lists(st.tuples(st.integers(0, 16), st.floats(1e-3, 1e4)), max_size=2),
)
def test_llff_of_other_values(scenes, cells, columns):
    path = scenes / "llff" / "poses_bounds.npy"
    table = np.load(path)
    good = path.read_bytes()
    for column, value in columns:
        table[:, column] = value
    for row, column, value in cells:
        table[row, column] = value
    try:
        np.save(path, table)
        load_or_refuse(scenes / "llff")
    finally:
        path.write_bytes(good)


@fuzz
@given(
    kind=st.sampled_from(["cameras", "images", "points3D"]),
    at=st.floats(0, 1),
    value=st.one_of(st.floats(width=64), st.sampled_from([0.0, 1e300, -1e300, 1e-300, 1e20])),
)
def test_colmap_of_other_values(scenes, kind, at, value):
    path = scenes / "colmap" / f"sparse/0/{kind}.bin"
    data = bytearray(path.read_bytes())
    # numbers start after the count and the first id: aligned as the first record is
    offset = {"cameras": 32, "images": 12, "points3D": 16}[kind] + 8 * int(at * 6)
    data[offset : offset + 8] = np.float64(value).tobytes()
    with_contents(path, bytes(data), lambda: load_or_refuse(scenes / "colmap"))
