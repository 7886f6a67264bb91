"""LPIPS, the distance of two pictures as people see it (Zhang et al. 2018), by its authors' package ``lpips``.

Optional: the package brings torchvision, which downloads the weights of VGG-16 (500 MB) when they are first wanted.
"""

import numpy as np

from tslim.errors import MissingPackageError
from tslim.optional import need

INSTALL = "pip install lpips"
LEAST = 32
"""Pixels along a side that VGG's five halvings need."""


class Perceptual:
    """LPIPS with the network VGG, as papers on radiance fields give it; lower is better.

    Raises ``MissingPackageError`` where the package, or the weights that it downloads, are not to be had.
    """

    def __init__(self) -> None:
        lpips = need("lpips", "LPIPS", INSTALL)
        self._torch = need("torch", "LPIPS", INSTALL)
        try:
            self._net = lpips.LPIPS(net="vgg", verbose=False)
        except (OSError, RuntimeError, EOFError) as error:  # no network; an answer that is not the file; half of it
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise MissingPackageError(
                f"LPIPS needs the weights of VGG-16, which could not be downloaded ({reason}): with a network, "
                "python -c \"import lpips; lpips.LPIPS(net='vgg')\" puts them into ~/.cache/torch"
            ) from error

    def __call__(self, rgb: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
        """Of pictures (h, w, 3) in [0, 1]. Where ``valid`` (h, w) is false they count as equal.

        NaN for pictures below ``LEAST`` pixels in width or height.
        """
        if min(truth.shape[:2]) < LEAST:
            return float("nan")
        if valid is not None:
            rgb = np.where(valid[..., None], rgb, truth)
        pictures = (np.ascontiguousarray(p.transpose(2, 0, 1)[None], np.float32) for p in (rgb, truth))
        with self._torch.no_grad():
            found = self._net(*(self._torch.from_numpy(p) for p in pictures), normalize=True)
        return float(found)
