"""``transforms_{train,val,test}.json``: NeRF-synthetic ("Blender") scenes, and any other capture with split files.

The files are read as ``transforms.json`` is (``tslim.data.transforms``), which may lie beside them with what they leave
out. Where nothing is said about the subject, it is what such scenes usually are: an object within ±1.5 of the origin,
cut out or before a plain background, that cameras some 4 away surround.
"""

from pathlib import Path

import numpy as np

from tslim.data import transforms
from tslim.data.capture import Capture
from tslim.data.options import LoadOptions
from tslim.data.spaces import Region

RECOGNISED_BY = "transforms_train.json"

HALF_BOX = 1.5
NEAR, FAR = 2.0, 6.0
"""The usual limits for NeRF-synthetic, whose cameras stand about 4 from the origin."""
USUAL = Region(
    box=np.array([[-HALF_BOX] * 3, [HALF_BOX] * 3]),
    source=f"the box of ±{HALF_BOX} that is usual for {RECOGNISED_BY}",
    usual=True,
    limits=(NEAR, FAR),
)


def sniff(folder: Path) -> bool:
    """Whether there is a ``transforms_train.json``."""
    return (folder / RECOGNISED_BY).is_file()


def load(folder: Path, options: LoadOptions) -> Capture:
    """Reads the capture; without usable test images those of ``val`` are held out, or else nothing."""
    return transforms.load_files(folder, folder / RECOGNISED_BY, options, "blender", USUAL)
