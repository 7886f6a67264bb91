"""Trains a little on the arch named as the first argument; prints what one step asked of the device, as JSON.

For each preset's schedule: how often the host read an array, or a number, of the device, and wrote one.
"""

import dataclasses
import json
import sys
from collections import Counter

import numpy as np
import taichi as ti

import tslim

STEP = 14
"""The one that is counted: something is to be seen by then, and nothing grows, is emptied or is reported."""


def main(arch: str) -> None:
    tslim.init(arch)
    asked: Counter = Counter()

    def counted(kind: type, name: str, what: str) -> None:
        plain = getattr(kind, name)

        def call(*args, **more):
            asked[what] += 1
            return plain(*args, **more)

        setattr(kind, name, call)

    for kind in (ti.ScalarNdarray, ti.VectorNdarray):
        counted(kind, "to_numpy", "reads")
        counted(kind, "__getitem__", "reads")
        counted(kind, "from_numpy", "writes")
    scene, found = tslim.builtin_scene(size=24, train=8, test=1), {}
    points = np.float32([[0.1 * i, 0, 0] for i in range(8)])
    scene = dataclasses.replace(scene, points=points, train=dataclasses.replace(scene.train, sees=(np.arange(8),) * 8))
    ways = (("fixed", {}), ("staged", {}), ("fixed", {"unseen_occlusion": 0.01}), ("fixed", {"point_depth": 0.01}))
    for policy, changes in ways:
        schedule = tslim.ScheduleConfig(policy=policy, stage_ranks=(2, 4), stage_starts=(0.0, 0.1))
        settings = dataclasses.replace(
            tslim.presets.tiny(), field=tslim.FieldConfig(max_rank=4, rank_scales=True, decoder_width=16),
            schedule=schedule, steps=STEP + 6, batch_rays=64, grid_start=8, grid_end=8, grow_steps=(),
            occupancy_steps=(), report_every=STEP + 6, lr_factors=0.2, **changes,
        )  # fmt: skip
        trainer = tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings)
        trainer.started = True
        for event in trainer.run():
            if isinstance(event, tslim.Stepped) and event.step == STEP - 1:
                asked.clear()
            if isinstance(event, tslim.Stepped) and event.step == STEP:
                found[" ".join((policy, *changes))] = dict(asked)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
