"""Trains a field and renders a video, in the library's own words: ``python apps/train.py [FOLDER OF PHOTOGRAPHS]``.

``python -m tslim train`` does the same with every option; this shows how little it takes.
"""

import sys
from pathlib import Path

import _checkout  # noqa: F401

import tslim
from tslim import cli
from tslim.files import free_path


def main(folder: str | None = None) -> None:
    """Trains on ``folder``, or on the built-in scene; prints a table of sizes; leaves a small model and a video in
    a folder of ``runs/``."""
    print(tslim.init())
    scene = tslim.load_scene(folder) if folder else tslim.builtin_scene()
    settings = tslim.presets.quick(scene.space)
    field = tslim.Trainer.new_field(scene, settings)
    trainer = tslim.Trainer(field, scene, settings)

    with tslim.Preview.open_if_possible() as preview:
        for event in trainer.run():
            preview.show(event)
            if isinstance(event, tslim.RankGrew | tslim.Progress):
                print(event)

    for row in tslim.rank_sweep(field, scene.test):
        print(row)
    folder = free_path(Path("runs") / scene.name)
    print(field.slim(field.rank // 2 or 1).save(folder / "half.slim"))
    print(tslim.render_video(field, scene.orbit(frames=60), folder / "orbit.mp4"))


if __name__ == "__main__":
    sys.exit(cli.app(main))
