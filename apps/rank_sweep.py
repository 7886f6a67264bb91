"""What each rank of a model is worth: ``python apps/rank_sweep.py MODEL.slim [FOLDER OF PHOTOGRAPHS]``.

One line a rank, and beside the model ``MODEL-rank-sweep.png``: quality against size.
"""

import sys
from pathlib import Path

import _checkout  # noqa: F401

import tslim
from tslim import cli
from tslim.measuring import plots


def main(model: str, folder: str | None = None) -> None:
    """Measures every rank of ``model`` on the test views of ``folder``, or of the built-in scene."""
    tslim.init()
    field = tslim.load(model)
    scene = tslim.load_scene(folder) if folder else tslim.builtin_scene()
    rows = []
    for row in tslim.rank_sweep(field, scene.test, ranks=range(1, field.rank + 1)):
        print(row)
        rows.append(row)
    source = Path(model)
    print(plots.size_quality(source.with_name(f"{source.stem}-rank-sweep.png"), {scene.name: rows}))


if __name__ == "__main__":
    sys.exit(cli.app(main))
