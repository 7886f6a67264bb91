"""COLMAP reconstructions: ``sparse/0/{cameras,images,points3D}`` as ``.bin`` or ``.txt`` beside the photographs.

Conventions. COLMAP stores world-to-camera as a quaternion (w, x, y, z) and a translation, for OpenCV cameras (x right,
y down, z forward), with pixel centres at +0.5; here they become OpenGL camera-to-world in COLMAP's own world. Its scale
is arbitrary and is kept; so is its orientation, until ``tslim.data.orientation`` finds a better one. Photographs that
COLMAP could not place have no pose and are skipped. Of several models (a capture in pieces that COLMAP could not join)
the one with most photographs is read.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tslim.data import colmap_files, geometry, pictures, ply, reading, shots, side_files
from tslim.data.capture import Capture
from tslim.data.colmap_files import Points, Posed
from tslim.data.masks import Masks
from tslim.data.options import LoadOptions
from tslim.data.shots import Shot
from tslim.errors import SceneError, short

RECOGNISED_BY = "sparse/0/cameras.bin or .txt"

PLACES = (("", "sparse/*"), ("", "sparse"), ("", "."), ("", "colmap/sparse/*"), ("dense/*", "sparse"),
          ("dense", "sparse"), ("", "colmap"), ("", "distorted/sparse/*"))  # fmt: skip
"""(where the photographs lie, the model in there) of the folders that models are looked for in, in this order. Where
none has one, all others are looked at."""
DEEPEST = 4
"""Folders between a capture and a model in a place of its own."""


@dataclass(frozen=True)
class Model:
    """A reconstruction that is there."""

    root: Path
    """folder of its photographs' folder"""
    folder: Path
    """folder of its three files"""
    images: int


def models(folder: Path) -> list[Model]:
    """The reconstructions in the first of ``PLACES`` that has any, the largest first (then by name)."""
    for where, inside in PLACES:
        found = []
        for root in sorted(folder.glob(where)) if where else [folder]:
            for model in [root] if inside == "." else sorted(root.glob(inside)):
                if either(model, "cameras") is not None and (listed := either(model, "images")) is not None:
                    found.append(Model(root, model, colmap_files.count_images(listed)))
        if found:
            return sorted(found, key=lambda m: -m.images)
    return _elsewhere(folder)


def _elsewhere(folder: Path) -> list[Model]:
    """The reconstructions in folders of other names, none of them deep down, if they are of one capture.

    Photographs lie in the nearest folder above the model that has any.
    """
    found = []
    for path in pictures.folders_below(folder, DEEPEST):
        if either(path, "cameras") is not None and (listed := either(path, "images")) is not None:
            above = [p for p in path.parents if p.is_relative_to(folder)]
            root = next((p for p in above if pictures.places(p)), folder)
            found.append(Model(root, path, colmap_files.count_images(listed)))
    roots = {model.root for model in found}
    if len(roots) != 1 or not (_is_step(root := roots.pop(), folder) or _is_all(root, folder)):
        return []
    return sorted(found, key=lambda m: (-m.images, m.folder))


def _is_step(root: Path, folder: Path) -> bool:
    """Whether a folder is a capture, or one that COLMAP's undistorter fills for it, and no other capture."""
    return root == folder or any(part in ("dense", "undistorted") for part in root.relative_to(folder).parts)


def _is_all(root: Path, folder: Path) -> bool:
    """Whether all pictures in a folder are in the folder ``root`` below it."""
    return all(path.is_relative_to(root) for path in pictures.pictures_below(folder))


def sniff(folder: Path) -> bool:
    """Whether there is a reconstruction, or a place for one."""
    return (folder / "sparse").is_dir() or bool(models(folder))


def load(folder: Path, options: LoadOptions) -> Capture:
    """Reads the reconstruction and looks for its photographs; raises ``SceneError``."""
    known = models(folder)
    if not known:
        raise SceneError(
            f"{folder / 'sparse' / '0'}: no cameras and images file (.bin or .txt) of a COLMAP model; COLMAP's mapper "
            "writes them there"
        )
    model, *others = known
    warnings: list[str] = []
    notes: list[str] = []
    if others:
        unread = ", ".join(f"{m.folder.relative_to(folder)} ({m.images})" for m in others[:5])
        warnings.append(
            f"COLMAP made several models of this capture: {model.folder.relative_to(folder)} with {model.images} "
            f"images is read, and not {unread}"
        )
    posed = colmap_files.read_images(_model_file(model.folder, "images"))
    found, rest = _shots(folder, model, posed, options, warnings, notes)
    points = _points(model.folder, warnings)
    train, test = _split(found, model.folder / "test.txt", options, warnings)
    return Capture(
        folder, "colmap", _model_file(model.folder, "images"), train, test,
        None if points is None else points.positions, sightings=_sightings(posed, points),
        downscale=rest, warnings=tuple(warnings), notes=tuple(notes),
    )  # fmt: skip


def _shots(
    folder: Path, model: Model, posed: list[Posed], options: LoadOptions, warnings: list[str], notes: list[str]
) -> tuple[list[Shot], int]:
    """The posed photographs that are there, and what is left to downscale."""
    cameras_file, images_file = _model_file(model.folder, "cameras"), _model_file(model.folder, "images")
    cameras = colmap_files.read_cameras(cameras_file)
    if not posed:
        raise SceneError(f"{images_file}: no image has a pose")
    names = [entry.name for entry in posed]
    pictures.require_names(names, images_file)
    root = model.root
    try:
        place = pictures.locate(root, names, options.downscale, images_file, options.anywhere, warnings)
    except pictures.NoneFoundError:
        if root == folder:
            raise
        root, undistorted = folder, f"{model.root.relative_to(folder)}/images"
        place = pictures.locate(root, names, options.downscale, images_file, options.anywhere, warnings)
        warnings.append(
            f"no photographs in {undistorted}: those of {place.place.name} are taken, which is right if they are the "
            f"ones that the model in {model.folder.relative_to(folder)} was made for (undistorted, perhaps)"
        )
    masks = Masks(root, place.place.path, place.place.factor)
    found = []
    for entry, pose in zip(posed, _camera_to_world(posed), strict=True):
        if entry.camera not in cameras:
            raise SceneError(
                f"{images_file}: {short(entry.name)} was taken with camera {entry.camera}, {cameras_file} lacks it"
            )
        file = place.files.get(entry.name)
        if file is not None:
            c = cameras[entry.camera]
            mask = masks.find(entry.name, file)
            found.append(Shot(entry.name, file, pose, c.size, c.intrinsics, c.lens, c.distortion, mask))
    missing = [name for name in names if name not in place.files]
    shots.require_images(len(found), len(posed), missing[0] if missing else None, images_file, warnings)
    masks.say(found, warnings, notes)
    notes.append(f"model {model.folder.relative_to(folder)}, photographs in {place.place.name}")
    unplaced, _ = side_files.sorted_out(place.place.pictures(), set(place.files.values()))
    if unplaced:
        warnings.append(
            f"{len(unplaced)} images in {place.place.name} have no pose in the COLMAP model and were skipped"
        )
    return found, place.rest


def _split(
    found: list[Shot], listing: Path, options: LoadOptions, warnings: list[str]
) -> tuple[list[Shot], list[Shot]]:
    """(train, test) as the names in ``listing`` say, which 3DGS reads beside a model; else every eighth held out."""
    if not listing.is_file():
        return shots.split(found, options)
    names = {pictures.key(pictures.cleaned(line)) for line in reading.read_text(listing).splitlines() if line.strip()}
    test = [shot for shot in found if _called(shot, names)]
    if not test or len(test) == len(found):
        warnings.append(f"{listing.name} names {len(test)} of the {len(found)} photographs: every eighth is held out")
        return shots.split(found, options)
    train = [shot for shot in found if not _called(shot, names)]
    by_name = (sorted(part, key=lambda shot: shot.name) for part in (train, test))
    train, test = (reading.evenly(part, options.max_images) for part in by_name)
    return train, test


def _called(shot: Shot, names: set[str]) -> bool:
    name = pictures.key(pictures.cleaned(shot.name))
    return name in names or name.rsplit("/", 1)[-1] in names


def _sightings(posed: list[Posed], points: Points | None) -> dict[str, np.ndarray]:
    """For each photograph the numbers of the points that it shows."""
    if points is None or not len(points.tracks):
        return {}
    starts = np.searchsorted(points.tracks[:, 0], [entry.number for entry in posed])
    ends = np.searchsorted(points.tracks[:, 0], [entry.number for entry in posed], side="right")
    return {p.name: points.tracks[a:b, 1] for p, a, b in zip(posed, starts, ends, strict=True)}


def _points(model: Path, warnings: list[str]) -> Points | None:
    """The sparse points, as COLMAP or other exporters wrote them."""
    file = either(model, "points3D")
    if file is not None:
        points = colmap_files.read_points(file)
    else:
        clouds = [p for p in sorted(model.glob("*.ply")) if p.stem.lower() == "points3d"]
        if not clouds:
            warnings.append(
                f"no points3D.bin, .txt or .ply in {model}: box and ray limits are guessed from the cameras alone"
            )
            return None
        file = clouds[0]
        points = Points(ply.read_ply(file), np.zeros((0, 2), np.int64))
    if not len(points.positions):
        warnings.append(f"{file.name} holds no points: box and ray limits are guessed from the cameras alone")
        return None
    return points


def either(model: Path, name: str) -> Path | None:
    """The file of that name, binary for preference."""
    return next((path for ext in ("bin", "txt") if (path := model / f"{name}.{ext}").is_file()), None)


def _model_file(model: Path, name: str) -> Path:
    """The file of that name in a model that was found to have it."""
    return either(model, name) or model / f"{name}.bin"


def _camera_to_world(posed: list[Posed]) -> np.ndarray:
    """(n, 3, 4) OpenGL poses: R_cw = R_wcᵀ, origin = −R_wcᵀ t."""
    turn = geometry.rotations(np.array([p.quaternion for p in posed])).transpose(0, 2, 1)
    origin = -turn @ np.array([p.translation for p in posed])[:, :, None]
    return geometry.opengl_from_opencv(np.concatenate([turn, origin], 2))
