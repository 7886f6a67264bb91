"""Trains a tiny field on the arch named as the first argument and prints each test view's PSNR as JSON."""

import dataclasses
import json
import sys

import tslim


def main(arch: str) -> None:
    tslim.init(arch)
    scene = tslim.builtin_scene(size=24, train=12, test=3)
    settings = dataclasses.replace(
        tslim.presets.tiny(),
        field=tslim.FieldConfig(max_rank=3),
        schedule=tslim.ScheduleConfig(policy="fixed"),
        lr_factors=0.06,
        steps=70,
        batch_rays=96,
        grid_start=12,
        grid_end=16,
        grow_steps=(50,),
        occupancy_steps=(40, 60),
    )
    trainer = tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings)
    for _ in trainer.run():
        pass
    renderer = tslim.Renderer(trainer.field)
    views = scene.test
    print(json.dumps([tslim.psnr(renderer.render(views.cameras, i).rgb, views.image(i)) for i in range(len(views))]))


if __name__ == "__main__":
    main(sys.argv[1])
