"""NeRF-synthetic ("Blender") scenes: ``transforms_{train,val,test}.json`` beside RGBA images of one size.

Each json has ``camera_angle_x`` (horizontal field of view, radians) and ``frames`` with ``file_path`` (extension
optional) and ``transform_matrix`` (camera-to-world, OpenGL axes). The object lies within ±1.5 of the origin.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tslim.data import LoadOptions, images, reading
from tslim.errors import SceneError
from tslim.scene.cameras import Cameras
from tslim.scene.scene import Scene, Views

RECOGNISED_BY = "transforms_train.json"

HALF_BOX = 1.5
NEAR, FAR = 2.0, 6.0
"""The usual limits for NeRF-synthetic, whose cameras stand about 4 from the origin."""
USUAL_DISTANCE = (3.0, 5.0)


def sniff(folder: Path) -> bool:
    """Whether there is a ``transforms_train.json``."""
    return (folder / "transforms_train.json").is_file()


def load(folder: Path, options: LoadOptions) -> Scene:
    """Reads the scene; without usable test images those of ``val`` are held out, or else nothing."""
    warnings: list[str] = []
    train = _load_split(folder, "train", options, warnings)
    test = Views.none()
    for split in ("test", "val"):
        if (folder / f"transforms_{split}.json").is_file():
            test = _load_split(folder, split, options, warnings)
        if len(test):
            break
    else:
        warnings.append("no test images: nothing is held out to measure quality on")
    near, far = _ray_limits(folder, train, warnings)
    return Scene(
        name=folder.resolve().name,
        source=str(folder),
        format="blender",
        train=train,
        test=test,
        box=np.array([[-HALF_BOX] * 3, [HALF_BOX] * 3]),
        near=near,
        far=far,
        background=options.background,
        warnings=tuple(warnings),
    )


def _load_split(folder: Path, split: str, options: LoadOptions, warnings: list[str]) -> Views:
    path = folder / f"transforms_{split}.json"
    data = reading.read_json(path)
    angle = reading.number(data, "camera_angle_x", str(path))
    if not 0 < angle < np.pi:
        raise SceneError(f"{path}: camera_angle_x is {angle:g}, expected radians between 0 and 3.14")
    listed = reading.frames(data, path)
    if split == "train":
        listed = reading.evenly(listed, options.max_images)
    found = _find_images(folder, path, listed)
    if split == "train":
        missing = [f["file_path"] for f, file in zip(listed, found, strict=True) if file is None]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise SceneError(f"{path}: image missing: {missing[0]}{more}, as .png or .jpg in {folder}")
    kept = [(frame, file) for frame, file in zip(listed, found, strict=True) if file is not None]
    if len(kept) < len(listed):
        warnings.append(f"{len(listed) - len(kept)} of the {len(listed)} {split} images are missing and were skipped")
    kept = reading.evenly(kept, options.max_images)
    if not kept:
        return Views.none()
    poses = np.stack([reading.pose(frame, path) for frame, _ in kept])
    names = [str(file.relative_to(folder)) for _, file in kept]
    cameras = Cameras.pinhole(poses, 1.0, (1, 1))
    cameras.validate(names, str(path))
    photographs = images.load_pixels([file for _, file in kept], downscale=options.downscale, same_size=True)
    full_size = photographs.full_sizes[0]
    focal = 0.5 * full_size[0] / np.tan(angle / 2)
    cameras = Cameras.pinhole(poses, focal, full_size).scaled(1 / options.downscale)
    return photographs.views(cameras, names)


def _find_images(folder: Path, path: Path, listed: list[dict[str, Any]]) -> list[Path | None]:
    return [images.find_image(folder, frame["file_path"], path) for frame in listed]


def _ray_limits(folder: Path, train: Views, warnings: list[str]) -> tuple[float, float]:
    """The usual limits where the cameras stand as in NeRF-synthetic, else limits that enclose the box."""
    distances = np.linalg.norm(train.cameras.origins, axis=1)
    inside = (np.abs(train.cameras.origins) < HALF_BOX).all(1)
    if inside.any():
        name = train.names[int(np.argmax(inside))]
        more = f" (and {int(inside.sum()) - 1} more)" if inside.sum() > 1 else ""
        raise SceneError(
            f"{folder}: the camera of {name}{more} lies inside the box of ±{HALF_BOX} that must hold the object; "
            "scale the poses so that the cameras stand about 4 from the origin"
        )
    if USUAL_DISTANCE[0] <= distances.min() and distances.max() <= USUAL_DISTANCE[1]:
        return NEAR, FAR
    reach = HALF_BOX * np.sqrt(3)
    near, far = max(float(distances.min() - reach), 0.05), float(distances.max() + reach)
    warnings.append(
        f"cameras stand {distances.min():.3g} to {distances.max():.3g} from the origin, not about 4 as in "
        f"NeRF-synthetic: near and far are set to {near:.3g} and {far:.3g}"
    )
    return near, far
