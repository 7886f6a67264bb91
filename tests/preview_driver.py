"""Trains a tiny field with the preview open and tells what happens, one JSON object a line: run by the window tests.

Usage: preview_driver.py STEPS FOLDER.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

import tslim
from tslim.preview.preview import Preview


def main(steps: int, folder: Path) -> None:
    tslim.init("cpu")
    scene = tslim.builtin_scene(size=48)
    settings = dataclasses.replace(
        tslim.presets.tiny(), steps=steps, batch_rays=128, schedule=tslim.ScheduleConfig(policy="fixed"), report_every=5
    )
    trainer = tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings)
    with Preview.open_if_possible(share=0.5, size=(900, 640)) as preview:
        for event in trainer.run():
            if isinstance(event, tslim.Started):
                event = dataclasses.replace(event, run_dir=folder)
            preview.show(event)
            if isinstance(event, (tslim.Stepped, tslim.Finished)):
                _tell(preview, event)
                time.sleep(0.02)
    _tell(preview, event, left=True)


def _tell(preview: Preview, event, left: bool = False) -> None:
    controls = preview._controls
    painting = preview.painting
    facts = {
        "step": event.step,
        "finished": isinstance(event, tslim.Finished),
        "left": left,
        "open": preview.is_open,
        "rank": controls.rank,
        "follow": controls.follow,
        "channel": controls.channel,
        "compare": controls.compare,
        "on_view": controls.on_view,
        "view": controls.view,
        "eye": [round(float(v), 4) for v in controls.camera.eye],
        "picture": painting.size if painting else None,
        "psnr": painting.psnr if painting else None,
        "notices": preview.notices,
        "used": preview._budget.used,
    }
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
