"""What compact files cost: ``python apps/compact_files.py MODEL.slim [FOLDER OF PHOTOGRAPHS] [VIEWS]``.

Measures the model in half precision and compact, by rounding and by ranks kept, on so many evenly spaced test views
(all if not given); leaves beside it ``MODEL-compact-files.md``, a table, and ``MODEL-compact-files.png``, quality
against size.
"""

import sys
import time
from pathlib import Path

import _checkout  # noqa: F401

import tslim
from tslim import cli, files
from tslim.field.field import Field
from tslim.measuring import evaluate, plots
from tslim.model import model_file
from tslim.model.rounding import ROUNDINGS, rounded
from tslim.model.state import FieldState
from tslim.scene.scene import Views


def measured(name: str, state: FieldState, views: Views) -> list[evaluate.SweepRow]:
    """The model's rows, one printed line for each."""
    rows = []
    for row in tslim.rank_sweep(Field.from_state(state), views, sizes=model_file.sizes(state)):
        print(f"{name:14}{row}", flush=True)
        rows.append(row)
    return rows


def main(model: str, folder: str | None = None, views: str | None = None) -> None:
    """Measures ``model`` on test views of ``folder``, or of the built-in scene."""
    if views is not None and not (views.isdecimal() and int(views)):
        raise tslim.ConfigError(f"{views!r} views: expected a whole number above 0")
    tslim.init()
    state = model_file.read(model)
    scene = tslim.load_scene(folder) if folder else tslim.builtin_scene()
    on = scene.test.spread(int(views or len(scene.test)))
    curves = {"half precision": measured("half precision", model_file.convert(state, "float16"), on)}
    for rounding in ROUNDINGS:
        began = time.perf_counter()
        small = rounded(state, rounding)
        model_file.sizes(small)
        took = time.perf_counter() - began
        print(f"rounded by {rounding} and coded in {took:.1f} s")
        curves[f"rounded by {rounding}"] = measured(f"{rounding}", small, on)
    lines = ["| ranks | " + " | ".join(str(row.rank) for row in curves["half precision"]) + " |"]
    lines.append("| --- " * (len(curves["half precision"]) + 1) + "|")
    for name, rows in curves.items():
        lines.append(f"| {name} | " + " | ".join(f"{row.psnr:.2f} ({row.bytes / 1e6:.2f} MB)" for row in rows) + " |")
    beside = Path(model).with_suffix("")
    print(files.write_bytes(f"{beside}-compact-files.md", ("\n".join(lines) + "\n").encode()))
    names = ["half precision", *(f"rounded by {rounding}" for rounding in ROUNDINGS[::2])]
    plotted = {name: curves[name] for name in names}
    print(plots.size_quality(f"{beside}-compact-files.png", plotted, title=scene.name))


if __name__ == "__main__":
    sys.exit(cli.app(main))
