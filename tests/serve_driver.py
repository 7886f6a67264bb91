"""Trains a tiny field with the preview served and tells what happens, one JSON object a line: run by browser tests.

Usage: serve_driver.py STEPS FOLDER.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

import tslim
from tslim.preview.preview import Preview


def main(steps: int, folder: Path) -> None:
    with Preview.serve(share=0.5) as preview:
        print(json.dumps({"address": preview._link.address}), flush=True)
        tslim.init("cpu")
        scene = tslim.builtin_scene(size=48, train=8, test=3)
        settings = dataclasses.replace(
            tslim.presets.tiny(), steps=steps, batch_rays=128, report_every=5,
            schedule=tslim.ScheduleConfig(policy="fixed"),
        )  # fmt: skip
        trainer = tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings)
        for event in trainer.run():
            if isinstance(event, tslim.Started):
                event = dataclasses.replace(event, run_dir=folder)
            preview.show(event)
            if isinstance(event, (tslim.Stepped, tslim.Finished)):
                controls = preview._controls
                facts = {
                    "step": event.step,
                    "rank": controls.rank,
                    "compare": controls.compare and controls.on_view,
                    "eye": [round(float(v), 4) for v in controls.camera.eye],
                    "distance": controls.camera.distance,
                    "used": preview._budget.used,
                    "size": preview._link.size if preview.is_open else None,
                    "notices": preview.notices,
                }
                print(json.dumps(facts), flush=True)
                time.sleep(0.02)
    print(json.dumps({"left": True}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
