"""Where a capture's photographs and masks lie: one search for all formats, by the names that a data set lists.

People rename endings, put photographs into ``input`` or beside the model, keep smaller copies in ``images_4``, and copy
names from Windows. A listed name means the file of exactly that path, else the only one that differs in nothing but
its ending, its case or the form of its Unicode, else the only one whose path ends with it, or which it ends with. All
photographs come from one folder (``Place``), the one in which most of the listed names are found.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tslim.data import image_file
from tslim.errors import SceneError

FULL = ("images", "input", "image", "rgb", "")
"""Folders that photographs usually lie in, the likeliest first; the last is the capture's own."""
MASKS = ("masks", "mask")
OTHERS = ("depth", "depths", "normal", "normals", "semantic", "semantics", "segmentation", "sparse", "distorted")
"""Folders of pictures that are no photographs."""
SPLITS = ("train", "val", "test")
"""Folders that are part of a name: train/0 and test/0 are different pictures."""
DYNAMIC = "dynamic_mask_"
"""instant-ngp: beside NAME.jpg, dynamic_mask_NAME.png marks what moved: everything but black."""
_RAW = (".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".gif", ".tga", ".exr")
"""Endings of pictures that are not read, and that people convert."""
VIDEOS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
"""Endings of videos, which cameras can be found of."""
_MOST_FILES, _MOST_FOLDERS, _DEEPEST = 200_000, 2000, 8


def key(name: str) -> str:
    """What names of the same picture share: no ending, one case, one Unicode form, forward slashes."""
    stem, ending = os.path.splitext(name)
    bare = stem if ending.lower() in (*image_file.ENDINGS, *_RAW) else name
    return unicodedata.normalize("NFC", bare).casefold()


def cleaned(name: str) -> str:
    """A listed path without ``./``, backslashes and a drive letter."""
    name = name.replace("\\", "/")
    if name[1:3] == ":/" and name[0].isalpha():
        name = name[2:]
    return os.path.normpath(name).replace(os.sep, "/") if name else name


class Tree:
    """The image files under a folder."""

    def __init__(self, root: Path, skip: Sequence[str] | None = ()) -> None:
        """``skip`` names folders directly in ``root`` that are left out, in lower case; all files for None."""
        self.root = root
        self.files: dict[str, Path] = {}
        self._alike: dict[str, list[str]] = {}
        self._last: dict[str, list[str]] = {}
        for name, path in _walk(root, set(skip)) if skip is not None else ():
            self.files[name] = path
            self._alike.setdefault(key(name), []).append(name)
            self._last.setdefault(key(name).rsplit("/", 1)[-1], []).append(name)

    def find(self, name: str, shorten: bool = False) -> Path | None:
        """The file that a listed name means (see the module's text), or None.

        ``shorten``: folders at the beginning of the name may be missing here. They always may in paths that lead out
        of the capture's folder, which come from elsewhere.
        """
        name = cleaned(name)
        if name in self.files:
            return self.files[name]
        alike = self._alike.get(key(name), ())
        if alike:
            return self._nearest(name, alike)
        wanted = key(name).split("/")
        shorten = shorten or wanted[0] in ("", "..")
        ends = []
        for candidate in self._last.get(wanted[-1], ()):
            parts = key(candidate).split("/")
            n = min(len(parts), len(wanted))
            left_out = wanted[:-n]
            if parts[-n:] == wanted[-n:] and (not left_out or (shorten and left_out[-1] not in SPLITS)):
                ends.append(candidate)
        return self._nearest(name, ends) if len({key(e) for e in ends}) == 1 else None

    def _nearest(self, name: str, alike: Sequence[str]) -> Path | None:
        """Of files that differ from a name in case and ending only: the one of its ending, or of the usual one."""
        ending = os.path.splitext(name)[1].lower()
        order = (ending, *image_file.ENDINGS) if ending in image_file.ENDINGS else image_file.ENDINGS
        for wanted in order:
            found = [a for a in alike if os.path.splitext(a)[1].lower() == wanted]
            if found:
                return self.files[found[0]] if len(found) == 1 else None
        return None


def require_names(names: Sequence[str], source: Path) -> None:
    """Raises ``SceneError`` for a listed name that means no file, or that is listed twice."""
    for name in names:
        if not name.strip() or "\0" in name:
            raise SceneError(f"{source}: an image has the empty or impossible name {name!r}")
    name, times = Counter(map(cleaned, names)).most_common(1)[0]
    if times > 1:
        raise SceneError(f"{source}: lists {name} twice; each image may have one pose")


def outside(folder: Path, name: str) -> Path | None:
    """The existing file that a listed name means outside of ``folder``, or None; endings are not looked for."""
    path = Path(name.replace("\\", "/"))
    relative = cleaned(name)
    if not path.is_absolute() and relative != ".." and not relative.startswith("../"):
        return None
    try:
        path = folder / path
        return path if path.is_file() and not path.resolve().is_relative_to(folder.resolve()) else None
    except (OSError, ValueError):  # a name too long for the file system
        return None


def _walk(root: Path, skip: set[str]):
    """(path relative to root, path) of every image file under it; links are followed, circles are not."""
    seen: set[str] = set()
    found = 0
    for folder, folders, names in os.walk(root, followlinks=True):
        relative = os.path.relpath(folder, root)
        parts = [] if relative == "." else relative.split(os.sep)
        real = os.path.realpath(folder)
        if real in seen or len(parts) > _DEEPEST:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and (parts or f.lower() not in skip))
        for name in sorted(names):
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in image_file.ENDINGS:
                continue
            path = Path(folder, name)
            if path.is_file():  # a link in a circle is none
                found += 1
                yield "/".join([*parts, name]), path
        if found > _MOST_FILES:
            raise SceneError(f"{root}: more than {_MOST_FILES} pictures; give the folder of one capture")


def folders_below(folder: Path, deepest: int) -> Iterator[Path]:
    """The folders below one, at most ``deepest`` of them one in another, hidden ones left out."""
    seen = 0
    for path, names, _ in os.walk(folder):
        depth = len(Path(path).relative_to(folder).parts)
        names[:] = sorted(n for n in names if not n.startswith(".")) if depth < deepest else []
        seen += 1
        if seen > _MOST_FOLDERS:
            return
        if depth:
            yield Path(path)


def pictures_below(folder: Path) -> list[Path]:
    """All pictures below a folder, hidden ones left out, in the order of their names."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in image_file.ENDINGS and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def unreadable_in(folder: Path) -> str:
    """What to do about pictures below a folder that are of a kind that is not read; "" if there are none."""
    endings = Counter(path.suffix.lower() for path in folder.rglob("*") if path.suffix.lower() in _RAW)
    if not endings:
        return ""
    ending, count = endings.most_common(1)[0]
    return f"{count} {ending} pictures, which are not read: convert them to JPEG or PNG, under the same names"


def pictures_in_folder(folder: Path) -> dict[str, Path]:
    """The image files directly in a folder, by name."""
    try:
        return {p.name: p for p in sorted(folder.iterdir()) if p.suffix.lower() in image_file.ENDINGS}
    except OSError:
        return {}


def alike(path: Path) -> Path | None:
    """The file of that path, or the only one beside it that differs in case, ending or Unicode form only."""
    try:
        if path.is_file():
            return path
    except (OSError, ValueError):  # a name too long for the file system, or none at all
        return None
    found = [p for n, p in pictures_in_folder(path.parent).items() if key(n) == key(path.name) and p.is_file()]
    return found[0] if len(found) == 1 else None


def is_mask(name: str) -> bool:
    """Whether a file among photographs is the mask of another, by its name or by that of a folder that it lies in."""
    *folders, last = key(name).split("/")
    return last.startswith(DYNAMIC) or last.endswith((".mask", "_mask")) or any(f in MASKS for f in folders)


class NoneFoundError(SceneError):
    """Not one of the photographs that a data set lists is there."""


@dataclass(frozen=True)
class Place:
    """A folder of photographs, or of copies ``factor`` times smaller."""

    path: Path
    factor: int
    tree: Tree = field(repr=False, compare=False)
    usual: bool = True
    """named as folders of photographs are: a listed name may have more folders than are here"""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.path.name

    def find(self, name: str) -> Path | None:
        """The photograph that is listed under a name, relative to this folder or to the one that it lies in."""
        head, _, rest = cleaned(name).partition("/")
        own = self.tree.find(rest) if rest and key(head) == key(self.path.name) else None
        return own or self.tree.find(name, self.usual)

    def pictures(self) -> list[Path]:
        """The photographs in it, by name, without masks."""
        return [path for name, path in sorted(self.tree.files.items()) if not is_mask(name)]


def places(folder: Path) -> list[Place]:
    """Every folder in ``folder`` that holds photographs: the likeliest first, then ``folder`` with all that is below,
    then smaller copies by factor."""
    found = []
    try:
        names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        names = []
    copies = {name: factor for name in names if (factor := factor_of_copies(name)) is not None}
    others = [n for n in names if n not in copies and n.lower() not in (*MASKS, *OTHERS) and not is_mask_folder(n)]
    rank = {name: i for i, name in enumerate(FULL)}
    for name in sorted(["", *others], key=lambda n: (rank.get(n.lower(), len(FULL)), n)):
        skip = [n.lower() for n in names] if name == "" else ()
        found.append(Place(folder / name, 1, Tree(folder / name, skip), name.lower() in FULL))
    if len(others) > 1:
        found.append(Place(folder, 1, Tree(folder, [n.lower() for n in names if n not in others]), False))
    for name in sorted(copies, key=lambda name: copies[name]):
        found.append(Place(folder / name, copies[name], Tree(folder / name)))
    return [place for place in found if place.tree.files]


def factor_of_copies(name: str) -> int | None:
    """4 for images_4, None for what is no such name."""
    head, _, factor = name.lower().rpartition("_")
    return int(factor) if head in FULL and head and factor.isdecimal() and 1 < int(factor) <= 64 else None


def is_mask_folder(name: str) -> bool:
    """Whether a folder's name is one of those of folders of masks, or of smaller ones."""
    head, _, factor = name.lower().rpartition("_")
    return name.lower() in MASKS or (head in MASKS and factor.isdecimal())


@dataclass(frozen=True, eq=False)
class Located:
    """Where listed photographs were found."""

    place: Place
    files: dict[str, Path]
    """Listed name to file, for those that were found."""
    rest: int
    """How many times smaller the pictures must still be made."""

    def factor_of(self, file: Path) -> int:
        """How many times smaller a file is than the photograph that it is a copy of."""
        return self.place.factor if file.is_relative_to(self.place.path) else 1


def locate(
    folder: Path, names: Sequence[str], downscale: int, source: Path, anywhere: bool, warnings: list[str]
) -> Located:
    """The photographs that ``source`` lists, from the place that has most of them.

    Where copies are kept, the smallest from which the wanted size can be reached is taken, if it is as complete as
    the full pictures. Files outside of ``folder`` are read only if ``anywhere`` allows it; paths of another machine
    are looked for in the folder by their ends. Raises ``SceneError`` where none of the names is found.
    """
    away = {name: path for name in names if (path := outside(folder, name)) is not None}
    if away:
        name, path = next(iter(away.items()))
        if not anywhere:
            raise SceneError(
                f"{source}: the image path {name[:200]} leaves the scene's folder; --file-paths anywhere reads it"
            )
        if len(away) == len(names):
            return Located(Place(path.parent, 1, Tree(path.parent, None)), away, downscale)
    known = places(folder)
    found = [(place, _files_by_name(place, names)) for place in known]
    most = max((len(files) for _, files in found), default=0)
    if most == 0:
        there = ", ".join(f"{p.path.relative_to(folder)} ({len(p.tree.files)})" for p in known[:6])
        raw, above = unreadable_in(folder), _above(folder, names)
        advice = "put them into its folder images, under the names that are listed"
        if above is not None:
            advice = f"they are in {above[1]}: give {above[0]}, or put them into {folder / 'images'}"
        raise NoneFoundError(
            f"{source}: none of its {len(names)} photographs (the first is {names[0][:100]}) is in {folder}; "
            + (f"folders with pictures there: {there}" if there else f"there are {raw or 'no pictures there'}")
            + ("" if raw and not there else f"; {advice}")
        )
    whole = [(place, files) for place, files in found if len(files) == most]
    for place, files in found:
        if place.factor > 1 and 0 < len(files) < most:
            warnings.append(f"{place.name} has copies of {len(files)} of the {most} photographs only and is not used")
    place = fitting([p for p, _ in whole], downscale, warnings)
    return Located(place, dict(whole)[place] | away, max(1, round(downscale / place.factor)))


def _above(folder: Path, names: Sequence[str]) -> tuple[Path, Path] | None:
    """(folder above that may be meant, the folder in it with the first photograph), if there is one."""
    name = cleaned(names[0]).lstrip("./")
    for above in list(folder.absolute().parents)[:3]:
        for place in FULL:
            try:
                if (above / place / name).is_file():
                    return above, above / place
            except OSError:  # a name too long for the file system
                return None
    return None


def fitting(known: Sequence[Place], downscale: int, warnings: list[str]) -> Place:
    """The place whose pictures are to be read, of those that are complete; the first full one is the likeliest."""
    fit = [p for p in known if downscale % p.factor == 0]
    if not fit:
        place = min(known, key=lambda p: p.factor)
        smaller = place.factor * max(1, round(downscale / place.factor))
        warnings.append(
            f"the images are those of {place.name}, {smaller} times smaller than the capture "
            f"(asked for: {downscale}); larger ones are not there"
        )
        return place
    best = max(p.factor for p in fit)
    return next(p for p in fit if p.factor == best)


def _files_by_name(place: Place, names: Sequence[str]) -> dict[str, Path]:
    """Name to file in a place; where two names mean one file, the one that is spelt like it."""
    found = {name: path for name in names if (path := place.find(name)) is not None and not is_mask(path.name)}
    shared = {path for path, n in Counter(found.values()).items() if n > 1}
    for name, path in list(found.items()):
        exact = cleaned(name) in (relative := path.relative_to(place.path).as_posix(), f"{place.name}/{relative}")
        if path in shared and not exact:
            del found[name]
    return found
