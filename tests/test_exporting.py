"""Meshes, points, depth, cameras and sequences show what a rendering of the field shows, and others can read them."""

import dataclasses
import json
import struct

import numpy as np
import pytest
from PIL import Image

import tslim
from tests.browser import DOMAINS, camera, smooth_state
from tests.command_line import refused
from tests.test_export import export
from tslim import optional
from tslim.data.ply import read_ply
from tslim.errors import MissingPackageError
from tslim.exporting import mesh_files, points, sequence, surface
from tslim.exporting.surface import Mesh
from tslim.field.field import Field
from tslim.model import model_file
from tslim.scene.paths import Orbit

PATH = Orbit(center=(0.0, 0.0, 0.0), radius=3.0, fov=55.0, size=(32, 24))


def needs_skimage() -> None:
    pytest.importorskip("skimage", reason="scikit-image makes meshes: pip install scikit-image")


@pytest.fixture(scope="module")
def state(cpu):
    """Solid lumps, whose surface is sharp and looks alike from all sides."""
    found = smooth_state("box", ranks=2)
    config = dataclasses.replace(found.config, density_shift=-8.0, distance_scale=100.0)
    found = dataclasses.replace(found, config=config)
    found.density_lines = [10 * line for line in found.density_lines]
    rest = len(found.decoder["w1"]) - 6 * config.direction_encoding
    found.decoder["w1"][27:30] = found.decoder["w1"][rest:] = 0
    found.metadata["path"] = PATH.to_dict()
    return found


@pytest.fixture(scope="module")
def field(state):
    return Field.from_state(state)


@pytest.fixture(scope="module")
def model(state, tmp_path_factory):
    return model_file.write(state, tmp_path_factory.mktemp("model") / "lumps.slim")


@pytest.fixture(scope="module")
def mesh(field):
    pytest.importorskip(
        "skimage", reason="scikit-image, which makes meshes, is not installed (pip install scikit-image)"
    )
    return surface.surface(field)


def small() -> Mesh:
    """A tetrahedron, seen from outside."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    return Mesh(vertices, faces, np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [188, 188, 188]], np.uint8))


def seen(field, made: Mesh, cameras) -> tuple[np.ndarray, np.ndarray]:
    """Of the points that a camera sees: how far they lie before or behind what is rendered, and how far their colours
    are from it."""
    image = tslim.Renderer(field).render(cameras, 0)
    pixels, depth = cameras.project(made.vertices)
    width, height = cameras.sizes[0]
    inside = (pixels > 0).all(1) & (pixels < [width, height]).all(1)
    column, row = pixels[inside].astype(int).T
    rendered = sequence.axial_depth(image, cameras, 0)[row, column]
    visible = (rendered > 0) & (np.abs(depth[inside] - rendered) < 4 * field.voxel)
    colours = np.abs(made.colours[inside] / 255 - image.rgb[row, column]).max(1)
    return (depth[inside] - rendered)[visible], colours[visible]


def test_every_vertex_has_a_unit_normal_also_where_faces_have_no_area():
    vertices = np.array([[0, 0, 0], [1e-7, 0, 0], [0, 1e-7, 0], [3, 3, 3], [3, 3, 3], [3, 3, 3]], np.float32)
    found = surface.normals(vertices, np.array([[0, 1, 2], [3, 4, 5]], np.int32))
    assert np.allclose(found, [0, 0, 1])


def test_a_mesh_lies_where_rays_end_and_has_the_colours_that_they_see(field, mesh):
    away, colours = seen(field, mesh, camera("box", (96, 80)))
    assert len(away) > 500
    assert np.median(np.abs(away)) < field.voxel
    assert np.median(colours) < 0.1


def test_a_mesh_is_closed_and_seen_from_outside(mesh):
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(float) for i in range(3))
    assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() > 0, "its volume"
    edges = np.sort(mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] % 2 == 0).all()
    assert (surface.normals(small().vertices, small().faces)[0] < 0).all()


def test_a_mesh_leaves_out_what_was_measured_to_be_empty(field, mesh):
    state = field.state()
    state.occupancy = np.zeros((8, 8, 8), bool)
    state.occupancy[:4] = True
    half = surface.surface(Field.from_state(state))
    middle = field.box.mean(0)[2]
    assert half.vertices[:, 2].max() < middle + 2 * field.voxel < mesh.vertices[:, 2].max()


@pytest.mark.parametrize("space", ["ndc", "contracted"])
def test_meshes_of_open_spaces_lie_in_the_world(cpu, space):
    pytest.importorskip(
        "skimage", reason="scikit-image, which makes meshes, is not installed (pip install scikit-image)"
    )
    state = smooth_state(space, ranks=2)
    state.density_lines = [10 * line for line in state.density_lines]
    field = Field.from_state(state)
    away, _ = seen(field, surface.surface(field), camera(space, (96, 80)))
    assert len(away) > 100 and np.median(np.abs(away)) < 1.5 * field.voxel


@pytest.mark.parametrize("space", list(DOMAINS))
def test_field_coordinates_come_back_to_the_world(space):
    domain = DOMAINS[space]
    world = np.random.default_rng(0).normal(0, 3, (200, 3)) * [1, 1, 0.3] - [0, 0, 5]
    assert np.allclose(domain.to_world(domain.to_field(world)), world, atol=1e-6)


def test_points_lie_where_rays_end_and_none_in_thin_air(field):
    path = dataclasses.replace(PATH, size=(96, 96))
    made = points.points(field, path.cameras(6))
    assert len(made.faces) == 0 and len(made.vertices) > 500
    away, colours = seen(field, made, path.cameras(6)[[0]])
    assert np.median(np.abs(away)) < 0.5 * field.voxel and np.median(colours) < 0.1
    fewer = points.points(field, path.cameras(6), grid=8)
    assert len(fewer.vertices) < len(made.vertices) / 2


def test_a_ply_file_is_read_by_others(tmp_path):
    path = mesh_files.write_mesh(small(), tmp_path / "x.ply")
    assert np.array_equal(read_ply(path), small().vertices)
    data = path.read_bytes()
    assert b"element face 4\nproperty list uchar int vertex_indices\n" in data
    assert data[-13:] == struct.pack("<B3i", 3, 1, 2, 3)


def test_an_obj_file_has_colours_after_coordinates(tmp_path):
    lines = mesh_files.write_mesh(small(), tmp_path / "x.obj").read_text().splitlines()
    assert lines[0] == "v 0 0 0 1 0 0" and lines[4] == "f 1 3 2" and len(lines) == 8


def test_a_glb_file_holds_what_its_header_says(tmp_path):
    data = mesh_files.write_mesh(small(), tmp_path / "x.glb", up=(0.0, 0.0, 1.0)).read_bytes()
    magic, version, length, n_text, kind = struct.unpack_from("<4sIIII", data)
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), 0x4E4F534A)
    scene = json.loads(data[20 : 20 + n_text])
    binary = data[28 + n_text :]
    assert len(binary) == scene["buffers"][0]["byteLength"]

    def array(index: int, dtype: str) -> np.ndarray:
        view = scene["bufferViews"][scene["accessors"][index]["bufferView"]]
        return np.frombuffer(binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]], dtype)

    assert np.array_equal(array(0, "<f4").reshape(-1, 3), small().vertices)
    assert np.allclose(array(1, "<f4").reshape(-1, 4)[3], [0.5029, 0.5029, 0.5029, 1], atol=1e-3), "linear light"
    assert np.array_equal(array(2, "<u4").reshape(-1, 3), small().faces)
    x, y, z, w = scene["nodes"][0]["rotation"]
    turned = [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)]
    assert np.allclose(turned, [0, 1, 0]), "up is y"


def test_depth_is_written_in_a_unit_that_reaches_as_far(tmp_path):
    assert sequence.unit_for(5.0) == 0.001 and sequence.unit_for(65.5) == 0.001
    assert sequence.unit_for(66.0) == 0.01 and sequence.unit_for(1e5) == 10.0
    depth = np.array([[0.0, 1.2345], [40.0, 100.0]])
    path = sequence.write_depth_png(tmp_path / "x.png", depth, 0.001)
    assert path.read_bytes()[24] == 16, "bits of a number, in the header of a PNG"
    assert np.array(Image.open(path)).tolist() == [[0, 1234], [40000, 65535]]


def test_a_depth_picture_and_array_say_the_same(model, field, tmp_path):
    said = export(model, "-o", tmp_path / "x.png", "--size", "20x16")
    assert "1 in the picture is 0.001 world units" in said
    export(model, "-o", tmp_path / "x.npy", "--size", "20x16", "--frames", 2)
    several = np.load(tmp_path / "x.npy")
    assert several.shape == (2, 16, 20) and several.dtype == np.float32
    assert np.abs(np.array(Image.open(tmp_path / "x.png")) - 1000 * several[0]).max() <= 0.51
    camera = PATH.sized((20, 16)).cameras(2)[[0]]
    image = tslim.render(field, camera)
    row, column = np.argwhere(image.opacity > 0.5)[0]
    _, direction = camera.rays(0)
    at = camera.origins[0] + image.depth[row, column] * direction[20 * row + column]
    assert np.isclose(camera.project(at[None])[1][0], several[0, row, column], atol=1e-3)


def test_a_sequence_is_a_data_set_with_the_same_cameras(model, tmp_path):
    folder = tmp_path / "sequence"
    export(model, "-o", folder, "--frames", 3, "--size", "32x24")
    scene = tslim.load_scene(folder)
    cameras = PATH.cameras(3)
    poses = np.concatenate([scene.train.cameras.poses, scene.test.cameras.poses])
    for pose in cameras.poses:
        assert np.abs(poses - pose).max((1, 2)).min() < 1e-5
    assert np.allclose(scene.train.cameras.intrinsics[0], cameras.intrinsics[0])
    told = json.loads((folder / "transforms.json").read_text())
    assert told["depth_unit_scale_factor"] == 0.001 and (folder / told["frames"][2]["depth_file_path"]).is_file()
    assert "is not empty" in refused("export", model, "-o", folder)


def test_cameras_are_written_without_rendering(model, tmp_path):
    from tests.test_export import tslim as command

    code, _, err = command("export", model, "-o", tmp_path / "transforms.json", "--frames", 4, "--path", "orbit")
    assert (code, err) == (0, "")
    told = json.loads((tmp_path / "transforms.json").read_text())
    assert len(told["frames"]) == 4 and "file_path" not in told["frames"][0] and told["w"] == 32


def test_options_that_would_have_no_effect_are_refused(model, tmp_path):
    assert "--split has no effect on a mesh or points" in refused("export", model, "-o", tmp_path / "x.ply", "--split")
    assert "--frames has no effect on a checkpoint" in refused("export", model, "-o", tmp_path / "x.th", "--frames", 3)
    assert "points are written as .ply" in refused("export", model, "-o", tmp_path / "x.glb", "--what", "points")
    points = ("--what", "points", "--level", "0.3")
    assert "--level has no effect" in refused("export", model, "-o", tmp_path / "x.ply", *points)
    assert "is one picture" in refused("export", model, "-o", tmp_path / "x.png", "--frames", 3)
    assert "does not know a path spiral" in refused("export", model, "-o", tmp_path / "x.json", "--path", "spiral")
    assert not list(tmp_path.iterdir())


def test_nonsense_is_refused(model, tmp_path):
    pytest.importorskip(
        "skimage", reason="scikit-image, which makes meshes, is not installed (pip install scikit-image)"
    )
    for words, message in (
        (("--level", "1"), "above 0 and below 1"),
        (("--grid", "100000"), "expected 2 to 1024"),
        (("--level", "0.999999999"), "the densest voxel stops"),
    ):
        assert message in refused("export", model, "-o", tmp_path / "x.ply", *words)


def test_what_is_not_installed_is_named(model, monkeypatch):
    def lacking(name: str):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])

    monkeypatch.setattr(optional.importlib, "import_module", lacking)
    field = Field.from_state(model_file.read(model))
    with pytest.raises(MissingPackageError, match="pip install scikit-image"):
        surface.surface(field)
