"""Tiny captures in every format, photographs of a world whose colour along any ray is known in closed form.

The world is the inside of a sphere of radius 6 around the origin, painted with smooth waves; cameras stand inside. So a
loader is right exactly if every pixel shows the colour that its ray hits: one wrong axis, transpose, half pixel or
focal length shows at once.
"""

import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from tslim.scene import lenses
from tslim.scene.cameras import Cameras
from tslim.scene.scene import Views

RADIUS = 6.0
_WAVES = np.array([[0.9, 0.3, -0.5], [-0.4, 0.8, 0.6], [0.5, -0.7, 0.9]])


def colour_along(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(k, 3) colours in [0, 1] where rays leave the sphere."""
    b = (origins * directions).sum(-1)
    distance = -b + np.sqrt(b * b + RADIUS**2 - (origins * origins).sum(-1))
    return 0.5 + 0.45 * np.sin((origins + distance[:, None] * directions) @ _WAVES.T)


def draw(cameras: Cameras, index: int) -> np.ndarray:
    """(h, w, 3) uint8: the photograph that a camera takes."""
    width, height = cameras.sizes[index]
    return np.round(255 * colour_along(*cameras.rays(index)).reshape(height, width, 3)).astype(np.uint8)


def disagreement(views: Views, index: int, cameras: Cameras | None = None) -> float:
    """Largest difference, in [0, 1], between a photograph and what its camera should see."""
    return float(np.abs(views.image(index) - draw(cameras or views.cameras, index) / 255).max())


def assert_right(views: Views, tolerance: float = 0.006) -> None:
    """Every pixel shows what its ray hits. JPEGs need a tolerance of 0.03."""
    assert len(views) > 0
    for i in range(len(views)):
        assert disagreement(views, i) < tolerance, views.names[i]


def ring(n: int = 10, size: tuple[int, int] = (36, 24), seed: int = 0) -> Cameras:
    """Pinhole cameras around the origin that look at it, held at all angles, the principal point off the middle."""
    rng = np.random.default_rng(seed)
    turn = 2 * np.pi * np.arange(n) / n
    eyes = np.stack([3 * np.cos(turn), 3 * np.sin(turn), 0.8 + 0.4 * np.sin(3 * turn)], 1)
    cameras = Cameras.look_at(eyes, rng.normal(0, 0.1, (n, 3)), (0, 0, 1), 50, size)
    intrinsics = cameras.intrinsics.copy()
    intrinsics[:, 1] *= 1.1
    intrinsics[:, 2:] += (1.3, -0.7)
    return Cameras(cameras.poses, intrinsics, cameras.sizes, cameras.lens, cameras.distortion)


def forward_facing(n: int = 10, size: tuple[int, int] = (36, 24)) -> Cameras:
    """Pinhole cameras side by side that all look the same way, which is none of the world's axes."""
    rng = np.random.default_rng(1)
    eyes = np.array([0.5, -0.3, 0.2]) + rng.uniform(-0.3, 0.3, (n, 3))
    return Cameras.look_at(eyes, eyes + (3.0, 2.0, -0.7) + rng.normal(0, 0.1, (n, 3)), (0.1, 0, 1), 60, size)


def with_lens(cameras: Cameras, lens: int, coefficients: tuple[float, ...]) -> Cameras:
    """The same cameras behind a lens."""
    n = len(cameras)
    distortion = np.zeros((n, 8))
    distortion[:, : len(coefficients)] = coefficients
    return Cameras(cameras.poses, cameras.intrinsics, cameras.sizes, np.full(n, lens), distortion)


def take_images(cameras: Cameras, names: list[str], folder: Path, **save) -> None:
    """Writes every camera's picture under its name; ``save`` goes to Pillow."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(cameras, i)).save(folder / name, **save)


def write_transforms(folder: Path, cameras: Cameras | None = None, names=None, **top) -> dict:
    """A transforms.json with one lens for all; returns what was written."""
    cameras = ring() if cameras is None else cameras
    names = [f"images/{i:04}.png" for i in range(len(cameras))] if names is None else names
    take_images(cameras, names, folder)
    fx, fy, cx, cy = (float(v) for v in cameras.intrinsics[0])
    width, height = (int(v) for v in cameras.sizes[0])
    data = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": width, "h": height, "aabb_scale": 4}
    model, keys = {
        lenses.PINHOLE: (None, ""),
        lenses.RADIAL: ("FULL_OPENCV", "k1 k2 p1 p2 k3 k4 k5 k6"),
        lenses.POLYNOMIAL: (None, "k1 k2 k3 k4 p1 p2"),
        lenses.FISHEYE: ("OPENCV_FISHEYE", "k1 k2 k3 k4 p1 p2"),
        lenses.EQUIRECTANGULAR: ("EQUIRECTANGULAR", ""),
    }[int(cameras.lens[0])]
    data |= {key: float(v) for key, v in zip(keys.split(), cameras.distortion[0], strict=False)}
    if model is not None:
        data["camera_model"] = model
    data |= top
    data["frames"] = [
        {"file_path": name, "transform_matrix": [*cameras.poses[i].astype(float).tolist(), [0, 0, 0, 1]]}
        for i, name in enumerate(names)
    ]
    save_json(folder, data)
    return data


def save_json(folder: Path, data) -> None:
    (folder / "transforms.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


COLMAP_MODELS = {
    "SIMPLE_PINHOLE": (0, lambda k, d: (k[0], k[2], k[3])),
    "PINHOLE": (1, lambda k, d: tuple(k)),
    "SIMPLE_RADIAL": (2, lambda k, d: (k[0], k[2], k[3], d[0])),
    "RADIAL": (3, lambda k, d: (k[0], k[2], k[3], d[0], d[1])),
    "OPENCV": (4, lambda k, d: (*k, d[0], d[1], d[2], d[3])),
    "OPENCV_FISHEYE": (5, lambda k, d: (*k, *d[:4])),
    "FULL_OPENCV": (6, lambda k, d: (*k, *d)),
    "SIMPLE_RADIAL_FISHEYE": (8, lambda k, d: (k[0], k[2], k[3], d[0])),
    "RADIAL_FISHEYE": (9, lambda k, d: (k[0], k[2], k[3], d[0], d[1])),
    "THIN_PRISM_FISHEYE": (10, lambda k, d: (*k, d[0], d[1], d[4], d[5], d[2], d[3], d[6], d[7])),
}


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """(w, x, y, z) of a rotation matrix: the eigenvector to the largest eigenvalue of Bar-Itzhack's 4 × 4 matrix."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    k = np.array(
        [
            [a - e - i, d + b, g + c, h - f],
            [d + b, e - a - i, h + f, c - g],
            [g + c, h + f, i - a - e, d - b],
            [h - f, c - g, d - b, a + e + i],
        ]
    )
    x, y, z, w = np.linalg.eigh(k)[1][:, -1]
    return np.array([w, x, y, z])


def write_colmap(
    folder: Path, cameras: Cameras | None = None, names=None, *, model: str = "PINHOLE", text=False, points=None
) -> None:
    """A COLMAP model in sparse/0, one camera entry for each image, and the images."""
    cameras = ring() if cameras is None else cameras
    names = [f"{i:04}.jpg" for i in range(len(cameras))] if names is None else names
    take_images(cameras, [f"images/{name}" for name in names], folder, quality=98, subsampling=0)
    points = np.random.default_rng(2).normal(0, 0.5, (200, 3)) if points is None else points
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True, exist_ok=True)
    number, parameters = COLMAP_MODELS[model]
    lines = {"cameras": ["# Camera list"], "images": ["# Image list"], "points3D": ["# 3D point list"]}
    blobs = {"cameras": [struct.pack("<Q", len(cameras))], "images": [struct.pack("<Q", len(cameras))]}
    blobs["points3D"] = [struct.pack("<Q", len(points))]
    for i, name in enumerate(names):
        width, height = (int(v) for v in cameras.sizes[i])
        values = parameters(cameras.intrinsics[i].astype(float), cameras.distortion[i].astype(float))
        blobs["cameras"] += [
            struct.pack("<iiQQ", i + 1, number, width, height),
            struct.pack(f"<{len(values)}d", *values),
        ]
        lines["cameras"].append(f"{i + 1} {model} {width} {height} " + " ".join(map(repr, map(float, values))))
        # OpenGL camera-to-world → OpenCV world-to-camera
        world_from_camera = cameras.poses[i].astype(float)
        turn = (world_from_camera[:, :3] @ np.diag([1.0, -1.0, -1.0])).T
        q, t = quaternion(turn), -turn @ world_from_camera[:, 3]
        seen = [(3.0, 4.0, 1), (5.0, 6.0, -1)] if i % 2 else []
        blobs["images"] += [struct.pack("<i7di", i + 1, *q, *t, i + 1), name.encode() + b"\0"]
        blobs["images"] += [struct.pack("<Q", len(seen)), *(struct.pack("<2dq", *s) for s in seen)]
        lines["images"] += [
            f"{i + 1} " + " ".join(repr(float(v)) for v in (*q, *t)) + f" {i + 1} {name}",
            " ".join(f"{x} {y} {point}" for x, y, point in seen),
        ]
    for i, (x, y, z) in enumerate(points.tolist()):
        track = [(1, 0), (2, 0), (3, 0)]
        blobs["points3D"].append(struct.pack("<Q3d3BdQ", i, x, y, z, 1, 2, 3, 0.5, len(track)))
        blobs["points3D"] += [struct.pack("<ii", *t) for t in track]
        lines["points3D"].append(f"{i} {x!r} {y!r} {z!r} 1 2 3 0.5 1 0 2 0 3 0")
    for name in lines:
        if text:
            (sparse / f"{name}.txt").write_text("\n".join(lines[name]) + "\n", encoding="utf-8")
        else:
            (sparse / f"{name}.bin").write_bytes(b"".join(blobs[name]))


def write_llff(folder: Path, cameras: Cameras | None = None, *, factor: int = 1, bounds=(1.5, 9.0), save=True):
    """poses_bounds.npy for captures ``factor`` times larger than the images; returns the table."""
    cameras = forward_facing() if cameras is None else cameras
    place = "images" if factor == 1 else f"images_{factor}"
    take_images(cameras, [f"{place}/{i:03}.png" for i in range(len(cameras))], folder)
    rows = []
    for pose, (fx, *_), (width, height) in zip(cameras.poses, cameras.intrinsics, cameras.sizes, strict=True):
        right, up, back, origin = pose.astype(float).T
        matrix = np.stack([-up, right, back, origin, np.array([height, width, fx]) * factor], 1)
        rows.append([*matrix.ravel(), *bounds])
    rows = np.array(rows)
    if save:
        np.save(folder / "poses_bounds.npy", rows)
    return rows


def write_nsvf(folder: Path, cameras: Cameras | None = None, names=None) -> None:
    """intrinsics.txt, bbox.txt, pose/ and rgb/; every fourth camera is for the test."""
    cameras = ring() if cameras is None else cameras
    names = [f"{int(i % 4 == 3)}_{i:04}" for i in range(len(cameras))] if names is None else names
    take_images(cameras, [f"rgb/{name}.png" for name in names], folder)
    (folder / "pose").mkdir(parents=True, exist_ok=True)
    for name, pose in zip(names, cameras.poses.astype(float), strict=True):
        matrix = np.eye(4)
        matrix[:3] = pose
        matrix[:3, 1:3] *= -1
        np.savetxt(folder / "pose" / f"{name}.txt", matrix)
    fx, fy, cx, cy = cameras.intrinsics[0].astype(float)
    np.savetxt(folder / "intrinsics.txt", np.array([[fx, 0, cx, 0], [0, fy, cy, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    (folder / "bbox.txt").write_text("-1 -1.5 -0.5 1 1.5 0.75 0.1\n")


WRITERS = {"transforms": write_transforms, "colmap": write_colmap, "llff": write_llff, "nsvf": write_nsvf}


def write_colmap_of_one_side(folder: Path, farthest: float) -> None:
    """A COLMAP capture by cameras close together that look one way, at points from 2 to ``farthest`` before them."""
    cameras = forward_facing()
    rng = np.random.default_rng(3)
    ahead = cameras.forward.mean(0) / np.linalg.norm(cameras.forward.mean(0))
    points = cameras.origins.mean(0) + rng.uniform(2, farthest, (300, 1)) * (ahead + rng.normal(0, 0.2, (300, 3)))
    write_colmap(folder, cameras, points=points)


def write_two_lenses(folder: Path, first: Cameras, second: Cameras, lens: dict[str, float]) -> dict:
    """transforms.json of ten images, the last five by other cameras, whose frames say so; returns what was written."""
    names = [f"images/{i:04}.png" for i in range(10)]
    data = write_transforms(folder, first, names)
    take_images(second[5:], names[5:], folder)
    for i in range(5, 10):
        (fx, fy, cx, cy), (width, height) = second.intrinsics[i].astype(float), second.sizes[i].tolist()
        data["frames"][i] |= {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": width, "h": height} | lens
    return data
