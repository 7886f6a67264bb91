"""The masks of photographs, by where they lie and what they are called."""

import os
from collections.abc import Sequence
from pathlib import Path

from tslim.data import image_file, pictures, side_files
from tslim.data.shots import Shot


class Masks:
    """The masks of a capture's photographs, as they are named by COLMAP, instant-ngp, nerfstudio, brush and others.

    ``masks/NAME.jpg.png``, ``masks/NAME.png``, ``masks/NAME.jpg`` and so on, also in ``mask`` and (for copies)
    ``masks_4``, with the photographs' folders or without (``side_files.mask_folders`` says where all);
    ``NAME_mask.png``, ``NAME.mask.png`` or ``NAME.jpg.mask.png`` beside a photograph.
    In all these, what is black is left out. ``dynamic_mask_NAME.png`` beside a photograph leaves out all but black.
    """

    def __init__(self, folder: Path, place: Path, factor: int = 1) -> None:
        """``place``: the folder in ``folder`` that the photographs lie in, ``factor`` times smaller than they were."""
        self.folder, self.place = folder, place
        self.trees = [pictures.Tree(path) for path in side_files.mask_folders(folder, place, factor)]
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
        names = [f"{name}{end}" for name in (file.stem, file.name) for end in ("_mask", ".mask")]
        for called, inverted in ((f"{pictures.DYNAMIC}{file.stem}", True), *((name, False) for name in names)):
            if (path := beside.get(pictures.key(f"{called}.png"))) is not None:
                found.append(image_file.Mask(path, inverted))
        self.used.update(mask.path for mask in found)
        return tuple(found)

    def say(self, found: Sequence[Shot], warnings: list[str], notes: list[str]) -> None:
        """Warns of masks that lie there and fit no photograph, and says which other pictures go with them."""
        n_images, n_masked = len(found), sum(shot.masks != () for shot in found)
        used = {shot.file for shot in found} | {mask.path for shot in found for mask in shot.masks}
        others = side_files.unused(self.folder, self.place, used)
        if others:
            what = f"not used, though named like the photographs: {'; '.join(others)}"
            maskish = n_masked == 0 and any(word in o.lower() for o in others for word in side_files.MASKISH)
            if maskish:
                warnings.append(f"{what}; masks are looked for in a folder masks")
            else:
                notes.append(what)
        unused = [p for tree in self.trees for p in tree.files.values() if p not in self.used]
        if self.trees and unused and n_masked == 0:
            warnings.append(
                f"{self.trees[0].root.name} holds {len(unused)} pictures, none of which has a photograph's name "
                "(NAME.png or NAME.jpg.png for NAME.jpg): no masks are used"
            )
        elif 0 < n_masked < n_images and unused:
            warnings.append(f"{n_masked} of {n_images} photographs have a mask; {len(unused)} other masks fit none")
