"""The masks of photographs, by where they lie and what they are called."""

import os
from pathlib import Path

from tslim.data import image_file, pictures


class Masks:
    """The masks of a capture's photographs, as they are named by COLMAP, instant-ngp, nerfstudio, brush and others.

    ``masks/NAME.jpg.png``, ``masks/NAME.png``, ``masks/NAME.jpg`` and so on, also in ``mask`` and (for copies)
    ``masks_4``, with the photographs' folders or without; ``NAME_mask.png`` or ``NAME.mask.png`` beside a photograph.
    In all these, what is black is left out. ``dynamic_mask_NAME.png`` beside a photograph leaves out all but black.
    """

    def __init__(self, folder: Path, place: Path, factor: int = 1) -> None:
        """``place``: the folder in ``folder`` that the photographs lie in, ``factor`` times smaller than they were."""
        self.place = place
        names = [n for m in pictures.MASKS for n in ((f"{m}_{factor}", m) if factor > 1 else (m,))]
        try:
            there = {p.name.lower(): p for p in sorted(folder.iterdir()) if p.is_dir()}
        except OSError:
            there = {}
        self.trees = [pictures.Tree(there[name]) for name in names if name in there]
        self._beside: dict[Path, dict[str, Path]] = {}
        self.used: set[Path] = set()

    def find(self, name: str, file: Path) -> tuple[image_file.Mask, ...]:
        """The masks of the photograph ``file``, listed as ``name``."""
        found: list[image_file.Mask] = []
        names = [file.relative_to(self.place).as_posix(), name] if file.is_relative_to(self.place) else [name]
        likely = [m for n in names for m in (f"{n}.png", n, *(os.path.splitext(n)[0] + e for e in (".mask", "_mask")))]
        for tree in self.trees:
            path = next((p for n in likely if (p := tree.find(n)) is not None), None)
            if path is not None:
                found.append(image_file.Mask(path))
                break
        if file.parent not in self._beside:
            there = pictures.pictures_in_folder(file.parent)
            self._beside[file.parent] = {pictures.key(n): p for n, p in there.items() if pictures.is_mask(n)}
        beside = self._beside[file.parent]
        for called, inverted in (
            (f"{pictures.DYNAMIC}{file.stem}", True),
            (f"{file.stem}_mask", False),
            (f"{file.stem}.mask", False),
        ):
            if (path := beside.get(pictures.key(f"{called}.png"))) is not None:
                found.append(image_file.Mask(path, inverted))
        self.used.update(mask.path for mask in found)
        return tuple(found)

    def say(self, n_images: int, n_masked: int, warnings: list[str]) -> None:
        """Warns of masks that lie there and fit no photograph."""
        unused = [p for tree in self.trees for p in tree.files.values() if p not in self.used]
        if self.trees and unused and n_masked == 0:
            warnings.append(
                f"{self.trees[0].root.name} holds {len(unused)} pictures, none of which has a photograph's name "
                "(NAME.png or NAME.jpg.png for NAME.jpg): no masks are used"
            )
        elif 0 < n_masked < n_images and unused:
            warnings.append(f"{n_masked} of {n_images} photographs have a mask; {len(unused)} other masks fit none")
