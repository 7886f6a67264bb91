"""instant-ngp, nerfstudio and Blender captures: ``transforms*.json``, which lists images, poses and lenses.

``frames`` is a list of ``file_path`` (relative to the json; an ending may be left out) and ``transform_matrix``
(camera-to-world, OpenGL axes). The lens is given for all frames at the top, or in a frame, which then overrides it:
``fl_x``, ``fl_y``, ``cx``, ``cy``, ``w``, ``h`` in pixels (or ``camera_angle_x``, ``camera_angle_y`` in radians,
``x_fov``, ``y_fov`` in degrees), ``camera_model`` and its coefficients (``tslim.data.transforms_keys``). ``mask_path``
names a mask; at the top, ``ply_file_path`` names a cloud of sparse points. Keys mean the same whatever the file is
called.

Poses are used as they stand. nerfstudio's ``applied_transform`` tells how the world was turned when the file was
written; the poses already contain it, so it changes nothing here.

``train_filenames``, ``val_filenames`` and ``test_filenames`` split the frames, or files of their own do
(``transforms_train.json`` or ``transforms.json``, and ``_test`` or ``_val``); without either every eighth is held out.
``aabb_scale`` of at most 1 means an object inside instant-ngp's unit cube, more a capture that reaches beyond.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tslim.data import pictures, ply, reading, shots, side_files, transforms_keys
from tslim.data.capture import Capture
from tslim.data.image_file import Mask
from tslim.data.masks import Masks
from tslim.data.options import LoadOptions
from tslim.data.shots import Shot
from tslim.data.spaces import Region
from tslim.data.transforms_keys import Holder
from tslim.errors import SceneError

RECOGNISED_BY = "transforms.json"

LISTS = ("train_filenames", "val_filenames", "test_filenames")
NGP_SCALE, NGP_OFFSET = 0.33, 0.5
"""instant-ngp maps a position p to p·scale + offset, into its unit cube [0, 1]³; the json may say otherwise."""


def sniff(folder: Path) -> bool:
    """Whether there is a ``transforms.json``, or one other file named like it."""
    return (folder / RECOGNISED_BY).is_file() or len(_other_files(folder)) == 1


def _other_files(folder: Path) -> list[Path]:
    splits = {f"transforms_{split}.json" for split in ("train", "val", "test")}
    return [p for p in sorted(folder.glob("transforms*.json")) if p.name not in splits and p.is_file()]


def load(folder: Path, options: LoadOptions) -> Capture:
    """Reads the capture from ``transforms.json``, or from the files that are there instead; raises ``SceneError``."""
    path = folder / (options.listing or RECOGNISED_BY)
    if not path.exists():
        if (folder / "transforms_train.json").is_file():
            path = folder / "transforms_train.json"
        elif len(_other_files(folder)) == 1:
            path = _other_files(folder)[0]
    return load_files(folder, path, options, "transforms", Region())


def load_files(folder: Path, path: Path, options: LoadOptions, format: str, usual: Region) -> Capture:
    """Reads ``path`` and the files that belong to it; ``usual``: where the subject is if they don't say."""
    warnings: list[str] = []
    data = reading.read_json(path)
    if path.name == "transforms_train.json":
        data = _completed(folder, path, data, warnings)
    warnings += transforms_keys.unused(data) + transforms_keys.ambiguous(data)
    found = _listed(folder, path, data, options, warnings)
    train, test = _split(found, folder, path, data, options, warnings)
    if path.name != "transforms_train.json":
        read = {shot.file for shot in (*found.shots, *test)}
        unlisted, _ = side_files.sorted_out(found.place.pictures(), read)
        if unlisted:
            where = f"images in {found.place.name} are not listed in {path.name}"
            warnings.append(f"{len(unlisted)} {where} and were skipped")
    if options.listing is None:
        others = [p.name for p in _other_files(folder) if p != path and p.name != RECOGNISED_BY]
        if others:
            warnings.append(
                f"{', '.join(others[:5])} beside {path.name}: not read (give the file instead of the folder)"
            )
    box, is_open = transforms_keys.box_of(data, path, NGP_SCALE, NGP_OFFSET)
    region = usual
    if box is not None or is_open:
        region = Region(box=box, source="" if box is None else f"aabb_scale or aabb in {path.name}", open=is_open)
    notes = list(found.notes)
    points = _points(folder, path, data, options, warnings, notes)
    return Capture(
        folder, format, path, train, test, points, region=region, downscale=found.rest,
        warnings=tuple(warnings), notes=tuple(notes),
    )  # fmt: skip


def _completed(folder: Path, path: Path, data: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    """A split file's data with what ``transforms.json`` beside it says of the same photographs, and it doesn't."""
    beside = folder / RECOGNISED_BY
    if not beside.is_file():
        return data
    shared = reading.read_json(beside)
    ours, theirs = _by_name(data), _by_name(shared)
    common = [name for name in ours if name in theirs]
    same = [n for n in common if _same_pose(ours[n], theirs[n])]
    if not common or len(same) < len(common):
        warnings.append(f"{beside.name} is about other photographs or poses than {path.name} and is not used")
        return data
    if not transforms_keys.same_focal(data, shared):
        warnings.append(f"{beside.name} has another focal length than {path.name}: its lens is not used")
        shared = {k: v for k, v in shared.items() if k not in transforms_keys.LENS}
        theirs = {}
    split = ("frames", *LISTS)
    merged = {k: v for k, v in shared.items() if k not in split} | {k: v for k, v in data.items() if v is not None}
    frames = data.get("frames")
    if isinstance(frames, list):
        merged["frames"] = [
            {**theirs.get(pictures.key(pictures.cleaned(f["file_path"])), {}), **f}
            if isinstance(f, dict) and isinstance(f.get("file_path"), str) else f for f in frames
        ]  # fmt: skip
    return merged


def _by_name(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    frames = data.get("frames")
    named = [f for f in frames if isinstance(f, dict)] if isinstance(frames, list) else []
    return {pictures.key(pictures.cleaned(f["file_path"])): f for f in named if isinstance(f.get("file_path"), str)}


def _same_pose(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    try:
        a, b = (np.array(f["transform_matrix"], np.float64)[:3] for f in (one, other))
        return a.shape == b.shape and bool(np.abs(a - b).max() < 1e-3 * (1 + np.abs(a).max()))
    except (KeyError, TypeError, ValueError, OverflowError):
        return False


def _held_out(folder: Path, data: Mapping[str, Any], options: LoadOptions, warnings: list[str]) -> list[Shot]:
    """The shots of ``transforms_test.json``, or else of ``transforms_val.json``, or none; values for all come from
    ``data``."""
    for split in ("test", "val"):
        path = folder / f"transforms_{split}.json"
        if not path.is_file():
            continue
        own = reading.read_json(path)
        if not any(own.get(key) is not None for key in transforms_keys.FOCAL):
            own = {**{k: v for k, v in data.items() if k in transforms_keys.LENS}, **own}
        elif transforms_keys.same_focal(own, data):
            own = {**{k: data[k] for k in transforms_keys.LENS if k in data and k not in own}, **own}
        found = _listed(folder, path, own, options, warnings, split)
        if found.shots:
            return found.shots
    return []


@dataclass(frozen=True, eq=False)
class Listed:
    """The frames of a file whose images are there, in the file's order."""

    shots: list[Shot]
    names: dict[str, str]
    """the shots' names to those that the file gives them, in the form of ``_same``"""
    place: pictures.Place
    """where they are"""
    rest: int
    """what is left to downscale"""
    notes: tuple[str, ...]


def _listed(
    folder: Path, path: Path, data: Mapping[str, Any], options: LoadOptions, warnings: list[str], split: str = ""
) -> Listed:
    """The frames that ``path`` lists; ``split`` names frames that may all be missing."""
    listed = _without_repeats(reading.frames(data, path), path, warnings)
    names = [frame["file_path"] for frame in listed]
    pictures.require_names(names, path)
    poses = [reading.pose(frame, path) for frame in listed]
    try:
        place = pictures.locate(folder, names, options.downscale, path, options.anywhere, warnings)
    except pictures.NoneFoundError:
        if not split:
            raise
        warnings.append(f"{len(listed)} of the {len(listed)} {split} images are missing and were skipped")
        return Listed([], {}, pictures.Place(folder, 1, pictures.Tree(folder, None)), 1, ())
    masks = Masks(folder, place.place.path, place.place.factor)
    found, known = [], {}
    for frame, name, pose in zip(listed, names, poses, strict=True):
        file = place.files.get(name)
        if file is None:
            continue
        camera = transforms_keys.camera_of(Holder(data, frame, f"{path}: frame {name}"), file, place.factor_of(file))
        mask = _mask(folder, frame, path, options) or masks.find(pictures.cleaned(name), file)
        size, intrinsics, lens, distortion = camera
        shot = Shot(_label(folder, file, name), file, pose, size, intrinsics, lens, distortion, mask)
        found.append(shot)
        known[shot.name] = _same(name)
    missing = [name for name in names if name not in place.files]
    if split and missing:
        warnings.append(f"{len(missing)} of the {len(listed)} {split} images are missing and were skipped")
    elif not split:
        shots.require_images(len(found), len(listed), missing[0] if missing else None, path, warnings)
    notes = [f"photographs in {place.place.name}"]
    if not split:
        masks.say(found, warnings, notes)
    return Listed(found, known, place.place, place.rest, tuple(notes))


def _without_repeats(frames: Sequence[dict[str, Any]], path: Path, warnings: list[str]) -> list[dict[str, Any]]:
    """The frames without those that list a picture and a pose that an earlier one has; other repeats stay."""
    kept: list[dict[str, Any]] = []
    first: dict[str, dict[str, Any]] = {}
    for frame in frames:
        earlier = first.setdefault(pictures.cleaned(frame["file_path"]), frame)
        if earlier is frame or not (earlier == frame or _same_pose(earlier, frame)):
            kept.append(frame)
    if len(kept) < len(frames):
        warnings.append(f"{len(frames) - len(kept)} frames of {path.name} repeat another one and are left out")
    return kept


def _label(folder: Path, file: Path, name: str) -> str:
    """What a photograph is called: its path in the folder, whatever the json writes."""
    try:
        return file.relative_to(folder).as_posix()
    except ValueError:
        return name


def _mask(folder: Path, frame: Mapping[str, Any], path: Path, options: LoadOptions) -> tuple[Mask, ...]:
    name = frame.get("mask_path")
    if name is None:
        return ()
    where = f"{path}: frame {frame['file_path']}"
    if not isinstance(name, str):
        raise SceneError(f"{where}: mask_path is not a file name")
    file = _beside(folder, name, path, options)
    if file is None:
        raise SceneError(f"{where}: its mask {name} is missing; put it there, or leave out mask_path")
    return (Mask(file),)


def _beside(folder: Path, name: str, path: Path, options: LoadOptions) -> Path | None:
    """A file that the json names, or None if it isn't there."""
    if pictures.outside(folder, name) is not None or pictures.cleaned(name).startswith("../"):
        if not options.anywhere:
            raise SceneError(f"{path}: the path {name[:200]} leaves the scene's folder; --file-paths anywhere reads it")
        return pictures.outside(folder, name)
    return pictures.alike(folder / pictures.cleaned(name))


def _split(
    found: Listed, folder: Path, path: Path, data: dict[str, Any], options: LoadOptions, warnings: list[str]
) -> tuple[list[Shot], list[Shot]]:
    """(train, test) as the json's lists say, or files for the test beside it, else every eighth held out."""
    is_train = path.name == "transforms_train.json"
    beside = [n for n in ("transforms_test.json", "transforms_val.json") if (folder / n).is_file()]
    named = any(data.get(key) for key in LISTS)
    if is_train or (beside and path.name == RECOGNISED_BY and not named):
        if named:
            says = f"{' and '.join(beside) or 'the lack of a file for the test'} says what is held out"
            warnings.append(f"the lists of file names in {path.name} are not used: {says}")
        test = _held_out(folder, data, options, warnings)
        if is_train and not test:
            warnings.append("no test images: nothing is held out to measure quality on")
        files = {shot.file for shot in test}
        train = found.shots if is_train else [shot for shot in found.shots if shot.file not in files]
        if is_train or (train and test):
            return reading.evenly(train, options.max_images), reading.evenly(test, options.max_images)
        warnings.append(f"{' and '.join(beside)} leave nothing to train on or to measure: every eighth is held out")
    elif beside and path.name == RECOGNISED_BY:
        warnings.append(f"{' and '.join(beside)}: not used, since {path.name} has lists of file names")
    return _split_by_lists(found, path, data, options, warnings)


def _split_by_lists(found: Listed, path: Path, data: dict[str, Any], options: LoadOptions, warnings: list[str]):
    """(train, test) as the json's lists say, else every eighth held out."""
    lists = {key: data[key] for key in LISTS if data.get(key)}
    for key, names in lists.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SceneError(f"{path}: {key} is not a list of file names")
    if not lists:
        return shots.split(found.shots, options)
    listed = {_same(frame["file_path"]) for frame in data["frames"]}
    sets = {key: {_frame_of(name, listed) for name in names} for key, names in lists.items()}
    for key, names in lists.items():
        unknown = [name for name in names if _frame_of(name, listed) not in listed]
        if unknown:
            warnings.append(f"{len(unknown)} of the {len(names)} {key} are no frames (the first is {unknown[0]})")
    test_names = sets.get("test_filenames") or sets.get("val_filenames") or set()
    held_out = test_names | sets.get("val_filenames", set())
    train_names = sets.get("train_filenames") or listed
    if "train_filenames" in lists and train_names & held_out:
        warnings.append(f"{len(train_names & held_out)} train_filenames are also held out; they are not trained on")
    every = sorted(found.shots, key=lambda shot: shot.name)
    train = [shot for shot in every if found.names[shot.name] in train_names - held_out]
    test = [shot for shot in every if found.names[shot.name] in test_names]
    if not train:
        raise SceneError(f"{path}: no training images: train_filenames names none that is there")
    return reading.evenly(train, options.max_images), reading.evenly(test, options.max_images)


def _frame_of(name: str, listed: Collection[str]) -> str:
    """The listed name that a name in a list of file names means: the same, or the only one that ends with it."""
    same = _same(name)
    if same in listed:
        return same
    ends = [other for other in listed if other.endswith("/" + same)]
    return ends[0] if len(ends) == 1 else same


def _same(name: str) -> str:
    return pictures.key(pictures.cleaned(name))


def _points(
    folder: Path, path: Path, data: Mapping[str, Any], options: LoadOptions, warnings: list[str], notes: list[str]
) -> np.ndarray | None:
    """The sparse points (p, 3), if the json names a cloud of them."""
    name = data.get("ply_file_path")
    if name is None:
        clouds = [p.name for p in sorted(folder.glob("*.ply"))]
        if clouds:
            notes.append(f"{', '.join(clouds[:3])}: not used, since no ply_file_path in {path.name} names points")
        return None
    if not isinstance(name, str):
        raise SceneError(f"{path}: ply_file_path is not a file name")
    file = _beside(folder, name, path, options)
    if file is None:
        warnings.append(f"the points {name[:100]} are missing: box and ray limits are guessed from the cameras alone")
        return None
    points = ply.read_ply(file)
    return points if len(points) else None
