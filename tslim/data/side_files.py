"""Files that lie with photographs and are none: where masks are, and what else goes with a photograph by its name."""

from collections.abc import Collection, Iterable
from pathlib import Path

from tslim.data.pictures import FULL, MASKS, SPLITS, factor_of_copies, is_mask_folder, key, pictures_in_folder

MASKISH = ("mask", "alpha", "matte", "segment", "silhouette")
"""Words in the names of folders and files that may be masks."""


def sorted_out(found: Iterable[Path], photographs: Collection[Path]) -> tuple[list[Path], list[Path]]:
    """(pictures of their own, pictures that go with photographs) of those found that are no photographs.

    What goes with a photograph is called like one in its folder and a word: NAME_depth.png, NAME.alpha.png, mask_NAME.
    """
    stems: dict[Path, set[str]] = {}
    for path in photographs:
        stems.setdefault(path.parent, set()).add(key(path.name))
    own: list[Path] = []
    beside: list[Path] = []
    for path in found:
        if path not in photographs:
            (beside if _and_a_word(path, stems.get(path.parent, ())) else own).append(path)
    return own, beside


def _and_a_word(file: Path, stems: Collection[str]) -> bool:
    name = key(file.name)
    ends = [i for i, letter in enumerate(name) if letter in "._"]
    after = any(name[:i] in stems and name[i + 1 : i + 2].isalpha() for i in ends)
    return after or any(name[i + 1 :] in stems and name[:i].isalpha() for i in ends)


def mask_folders(folder: Path, place: Path, factor: int) -> list[Path]:
    """The folders of masks of the photographs in ``place``, copies ``factor`` times smaller, the likeliest first.

    ``masks``, ``mask``, ``masks_4`` (of whatever size) and ``images_masks`` in the capture's folder, ``masks`` and
    ``mask`` in the photographs' own.
    """
    try:
        there = {p.name.lower(): p for p in sorted(folder.iterdir()) if p.is_dir()}
        inside = {p.name.lower(): p for p in sorted(place.iterdir()) if p.is_dir()} if place != folder else {}
    except OSError:
        return []
    own = [f"{m}_{factor}" for m in MASKS] if factor > 1 else []
    others = [name for name in there if is_mask_folder(name) and name not in (*own, *MASKS)]
    named = [f"{place.name.lower()}_{m}" for m in MASKS]
    first = [there[name] for name in (*own, *MASKS, *named) if name in there]
    return [*first, *(inside[m] for m in MASKS if m in inside), *(there[name] for name in others)]


def unused(folder: Path, place: Path, used: Collection[Path]) -> list[str]:
    """Which pictures go with photographs by their names and are not ``used``, in words: a folder or an ending each.

    ``place``: the folder in ``folder`` that the photographs lie in. Copies of other sizes are left out.
    """
    found = []
    stems = {key(path.name) for path in used}
    for path in sorted(folder.iterdir()):
        name = path.name.lower()
        if path.name.startswith(".") or not path.is_dir() or factor_of_copies(name) or name in (*SPLITS, *FULL, *MASKS):
            continue
        if path == place or any(p.is_relative_to(path) for p in used):
            continue
        alike = [p for p in pictures_in_folder(path).values() if key(p.name) in stems or _and_a_word(p, stems)]
        if alike:
            found.append(f"folder {path.name} ({len(alike)} pictures)")
    for parent in sorted({path.parent for path in used if path.is_relative_to(place)}):
        _, beside = sorted_out(pictures_in_folder(parent).values(), used)
        if beside:
            found.append(f"{beside[0].name} and {len(beside) - 1} more beside the photographs")
    return found
