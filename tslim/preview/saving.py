"""What the preview writes: models, snapshots and ``preview.png``."""

from pathlib import Path

import numpy as np

from tslim import files
from tslim.field.field import Field
from tslim.model import model_file
from tslim.preview.painter import Painting
from tslim.rendering.media import to_uint8, write_png


class Saving:
    """Files of one field in ``folder``, which never take the place of others.

    ``model`` is the file that the field was read from, or None. Methods raise ``OSError`` or ``TslimError`` where
    nothing can be written.
    """

    def __init__(self, field: Field, folder: Path | None, model: Path | None) -> None:
        self.field, self.folder, self.model = field, folder or Path(), model

    def save(self, rank: int, step: int | None) -> Path:
        """Writes a model of the first ranks, in the precision of the file that it is from; ``step`` of training."""
        path = files.free_path(self.folder / f"{_stem(rank, step)}.slim")
        if self.model is None:
            self.field.slim(rank).save(path)
        else:
            model_file.write(model_file.read(self.model, rank=rank), path)
        return path

    def snapshot(self, painting: Painting, rank: int, step: int | None) -> Path:
        """Writes what was painted, side by side."""
        path = files.free_path(self.folder / f"snapshot-{_stem(rank, step)}.png")
        write_png(path, np.concatenate([to_uint8(pane.picture) for pane in painting.panes], axis=1))
        return path

    def write_preview(self, picture: np.ndarray) -> None:
        """Writes ``preview.png`` over the last one."""
        write_png(self.folder / "preview.png", picture)


def _stem(rank: int, step: int | None) -> str:
    return f"rank{rank}" if step is None else f"step{step:06}-rank{rank}"
