"""Meshes and point clouds as files: PLY and GLB in binary, OBJ as text. Colours are per vertex, in sRGB."""

import json
import struct
from pathlib import Path

import numpy as np

from tslim import files
from tslim.errors import ConfigError
from tslim.exporting.surface import Mesh

SUFFIXES = (".ply", ".obj", ".glb")
_FLOAT, _BYTE, _INDEX = 5126, 5121, 5125
"""glTF's names of component types"""


def write_mesh(mesh: Mesh, path: str | Path, *, up: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> Path:
    """Writes a mesh or point cloud in the format of its suffix, in world coordinates.

    ``up``: the world's upward axis. glTF's is y, so a GLB file also holds the rotation from one to the other. Raises
    ``ConfigError`` for other suffixes, and ``RunFolderError`` where nothing can be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".ply":
        return files.write_bytes(path, _ply(mesh))
    if suffix == ".obj":
        return files.write_bytes(path, _obj(mesh))
    if suffix == ".glb":
        return files.write_bytes(path, _glb(mesh, np.asarray(up, np.float64)))
    raise ConfigError(f"{path}: a mesh ends in {', '.join(SUFFIXES)}")


def _ply(mesh: Mesh) -> bytes:
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(mesh.vertices)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"property uchar {colour}" for colour in ("red", "green", "blue")]
    rows = np.empty(len(mesh.vertices), [("at", "<f4", 3), ("colour", "u1", 3)])
    rows["at"], rows["colour"] = mesh.vertices, mesh.colours
    body = rows.tobytes()
    if len(mesh.faces):
        header += [f"element face {len(mesh.faces)}", "property list uchar int vertex_indices"]
        triangles = np.empty(len(mesh.faces), [("n", "u1"), ("of", "<i4", 3)])
        triangles["n"], triangles["of"] = 3, mesh.faces
        body += triangles.tobytes()
    return "\n".join([*header, "end_header", ""]).encode() + body


def _obj(mesh: Mesh) -> bytes:
    """Colours follow the coordinates, which is no standard, but what Blender and MeshLab read."""
    lines = [
        "v {:.6g} {:.6g} {:.6g} {:.4g} {:.4g} {:.4g}".format(*at, *colour)
        for at, colour in zip(mesh.vertices.tolist(), (mesh.colours / 255).tolist(), strict=True)
    ]
    lines += ["f {} {} {}".format(*face) for face in (mesh.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()


def _glb(mesh: Mesh, up: np.ndarray) -> bytes:
    """One node with one primitive, lit by nothing: its colours are what is seen."""
    colours = np.concatenate([_linear(mesh.colours), np.ones((len(mesh.colours), 1))], 1)
    arrays = [
        (np.asarray(mesh.vertices, "<f4"), _FLOAT, "VEC3"),
        (np.asarray(colours, "<f4"), _FLOAT, "VEC4"),
        *([(np.asarray(mesh.faces, "<u4").reshape(-1, 1), _INDEX, "SCALAR")] if len(mesh.faces) else []),
    ]
    data, views, accessors = b"", [], []
    for index, (array, component, kind) in enumerate(arrays):
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": array.nbytes})
        accessors.append({"bufferView": index, "componentType": component, "count": len(array), "type": kind})
        data += array.tobytes()
    accessors[0] |= {"min": mesh.vertices.min(0).tolist(), "max": mesh.vertices.max(0).tolist()}
    primitive = {"attributes": {"POSITION": 0, "COLOR_0": 1}, "material": 0, "mode": 4 if len(mesh.faces) else 0}
    if len(mesh.faces):
        primitive["indices"] = 2
    material = {"doubleSided": True, "extensions": {"KHR_materials_unlit": {}}}
    scene = {
        "asset": {"version": "2.0", "generator": "tslim"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "rotation": _turned_up(up)}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [material | {"pbrMetallicRoughness": {"metallicFactor": 0.0}}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(data)}],
    }
    text = json.dumps(scene, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(data), 0x004E4942) + data
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _linear(colours: np.ndarray) -> np.ndarray:
    """uint8 sRGB as the linear light that glTF has at vertices."""
    c = colours / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def _turned_up(up: np.ndarray) -> list[float]:
    """The rotation, as a quaternion (x, y, z, w), that brings ``up`` to y."""
    up = up / np.linalg.norm(up)
    if up[1] < -0.999999:
        return [1.0, 0.0, 0.0, 0.0]
    across = np.cross(up, [0.0, 1.0, 0.0])
    quaternion = np.array([*across, 1.0 + up[1]])
    return [float(v) for v in quaternion / np.linalg.norm(quaternion)]
