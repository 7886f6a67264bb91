"""What to say of a folder that is no data set: the likeliest mistake in one line, with what to do about it.

Most such folders are near misses: one folder too high or too low, photographs without cameras, or cameras in a form
that other programs write and that nothing here reads.
"""

from collections.abc import Callable
from pathlib import Path

from tslim.data import pictures
from tslim.errors import SceneError

EXPORT = "export a COLMAP model (text or binary) or a transforms.json"
_COLMAP_OF_OTHERS = "its program exports COLMAP models, too"
FOREIGN = (
    ("*.xml", "Metashape's cameras", "<document", _COLMAP_OF_OTHERS),
    ("bundle.out", "Bundler's cameras", "", _COLMAP_OF_OTHERS),
    ("*.nvm", "VisualSFM's cameras", "", "COLMAP's or nerfstudio's converters read it"),
    ("*.csv", "RealityCapture's or RealityScan's camera table", "#name", _COLMAP_OF_OTHERS),
    ("*.xmp", "RealityCapture's camera files", "", _COLMAP_OF_OTHERS),
    ("*/*.xmp", "RealityCapture's camera files", "", _COLMAP_OF_OTHERS),
    ("reconstruction.json", "OpenSfM's or ODM's cameras", "", "opensfm export_colmap converts it"),
    ("opensfm/reconstruction.json", "OpenDroneMap's cameras", "", "opensfm export_colmap converts it"),
    ("sfm_data.json", "OpenMVG's cameras", "", "openMVG_main_openMVG2Colmap converts it"),
    ("cameras.sfm", "Meshroom's cameras", "", "its node ConvertSfMFormat or ExportColmap converts it"),
    ("keyframes/corrected_cameras", "Polycam's raw data", "", "nerfstudio's ns-process-data polycam converts it"),
    ("keyframes/cameras", "Polycam's raw data", "", "nerfstudio's ns-process-data polycam converts it"),
    ("EXR_RGBD/metadata.json", "Record3D's raw data", "", "nerfstudio's ns-process-data record3d converts it"),
    ("metadata.json", "Record3D's raw data", '"poses"', "nerfstudio's ns-process-data record3d converts it"),
    ("*.json", "ARKit's frames", "cameraPoseARFrame", "nerfstudio's ns-process-data converts such exports"),
    ("cameras_sphere.npz", "the cameras of IDR and NeuS", "", EXPORT),
    ("cameras.npz", "the cameras of IDR and NeuS", "", EXPORT),
    ("train/intrinsics", "NeRF++'s cameras", "", EXPORT),
    ("cfg_args", "a trained Gaussian splat", "", "its source_path names the data set"),
    ("cameras.json", "the cameras of a trained Gaussian splat", '"img_name"', EXPORT),
    ("database.db", "COLMAP's database of features", "", "COLMAP's mapper makes a model of it"),
)  # fmt: skip
"""(file, what it is, text in its beginning, how to get something that is read) of what is known but not read."""
_MOST_FOLDERS = 100


def error(folder: Path, formats_of: Callable[[Path], list[str]], known: str) -> SceneError:
    """Why a folder cannot be read. ``formats_of`` says which formats recognise one; ``known`` lists them for people."""
    files = sorted(path.name for path in folder.glob("transforms*.json"))
    splits = [name for name in files if name in ("transforms_test.json", "transforms_val.json")]
    if len(files) > len(splits):
        some = ", ".join(files[:5])
        return SceneError(f"{folder} holds {some}: give the one to be read in its place, such as {folder / files[0]}")
    if splits:
        return SceneError(f"{folder} holds {splits[0]} without transforms_train.json, which lists what to train on")
    below = [path for path in _folders(folder) if not (folder / "train" / "intrinsics").is_dir() and formats_of(path)]
    if len(below) == 1:
        return SceneError(f"{folder} holds a data set one folder deeper: give {below[0]}")
    if below:
        some = ", ".join(path.name for path in below[:5])
        return SceneError(f"{folder} holds {len(below)} data sets ({some}): give one of them, such as {below[0]}")
    if _is_part(folder):
        for above in (folder.absolute().parent, folder.absolute().parent.parent):
            if formats_of(above):
                return SceneError(f"{folder} is a part of the data set {above}: give that")
    return _without_cameras(folder, known)


def _without_cameras(folder: Path, known: str) -> SceneError:
    """The same where there is no data set above or below."""
    found = pictures.pictures_below(folder)
    find = (
        f"find them with 'tslim poses {folder} -o NEW_FOLDER', then train on that, or do both with "
        f"'tslim train {folder} --find-poses'"
    )
    foreign = _foreign(folder)
    if foreign:
        anew = f"; or, of its {len(found)} pictures, {find}" if found else ""
        return SceneError(f"{folder} holds {foreign}{anew}; known: {known}")
    if found:
        return SceneError(
            f"{folder} holds {len(found)} pictures, but no cameras of a known format: {find}; known: {known}"
        )
    raw = pictures.unreadable_in(folder)
    if raw:
        return SceneError(f"{folder} holds {raw}")
    try:
        videos = sorted(p for p in folder.iterdir() if p.suffix.lower() in pictures.VIDEOS)
    except OSError:
        videos = []
    if videos:
        return SceneError(f"{folder} holds a video: make a data set of it with 'tslim poses {videos[0]} -o NEW_FOLDER'")
    return SceneError(f"{folder}: unknown format; known: {known}")


def not_a_folder(path: Path) -> SceneError:
    """Why a file cannot be read as a data set."""
    ending = path.suffix.lower()
    if ending in pictures.VIDEOS:
        find = f"make a data set of it with 'tslim poses {path} -o NEW_FOLDER', or train it with --find-poses"
        return SceneError(f"{path}: a video; {find}")
    if ending in (".slim", ".th"):
        return SceneError(f"{path}: a model; give the folder that holds the images and poses")
    if ending in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
        return SceneError(f"{path}: an archive; unpack it, and give the folder that holds the images and poses")
    if path.name.startswith(("cameras.", "images.", "points3D.")):
        return SceneError(f"{path}: a file of a COLMAP model; give the folder that holds the images and the model")
    return SceneError(f"{path}: not a folder; give the folder that holds the images and poses, or a transforms*.json")


def _foreign(folder: Path) -> str:
    for pattern, what, text, advice in FOREIGN:
        for path in sorted(folder.glob(pattern))[:3]:
            if not text or _begins_with(path, text):
                return f"{path.relative_to(folder)}, {what}, which is not read: {advice}"
    return ""


def _begins_with(path: Path, text: str) -> bool:
    """Whether a text is among the first bytes of a file."""
    try:
        with path.open("rb") as file:
            return text.encode() in file.read(4096)
    except OSError:
        return False


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))[:_MOST_FOLDERS]
    except OSError:
        return []


def _is_part(folder: Path) -> bool:
    """Whether a folder is called as those in a data set are."""
    name = folder.absolute().name.lower()
    parts = (*pictures.FULL, *pictures.MASKS, *pictures.OTHERS, *pictures.SPLITS, "dense", "colmap", "pose")
    return name in parts or name.split("_")[0] in pictures.FULL or name.isdecimal()
