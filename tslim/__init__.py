"""tslim: a differentiable renderer in Taichi that trains one radiance field and lets you choose its size afterwards.

``import tslim`` is instant and without side effects: each name below is imported when it is first used.
"""

import importlib
import os

from tslim.ownership import require_own_kernels

# For when Taichi is imported: no banner, no call home, and no wrapping of each kernel call in notebooks and tests.
for _name, _value in (("ENABLE_TAICHI_HEADER_PRINT", "0"), ("TI_SKIP_VERSION_CHECK", "ON"), ("TI_ENABLE_PYBUF", "0")):
    os.environ.setdefault(_name, _value)

__version__ = "0.1.0"

_HOMES = {
    "tslim.device.backend": ("init", "Backend"),
    "tslim.scene.cameras": ("Cameras",),
    "tslim.config": ("FieldConfig", "ScheduleConfig", "TrainConfig"),
    "tslim.data": ("load_scene",),
    "tslim.data.builtin": ("builtin_scene",),
    "tslim.rendering.differentiable": ("DifferentiableRenderer",),
    "tslim.errors": (
        "TslimError",
        "BackendError",
        "ConfigError",
        "ModelFileError",
        "OutOfMemoryError",
        "RunFolderError",
        "SceneError",
    ),
    "tslim.measuring.evaluate": ("rank_sweep", "SweepRow"),
    "tslim.training.events": (
        "Event",
        "Started",
        "Stepped",
        "Progress",
        "RankGrew",
        "GridGrew",
        "OccupancyRefreshed",
        "CheckpointSaved",
        "Warned",
        "Finished",
    ),
    "tslim.field.field": ("Field", "load"),
    "tslim.rendering.media": ("render_video",),
    "tslim.measuring.metrics": ("psnr", "ssim"),
    "tslim.preview.preview": ("Preview",),
    "tslim.rendering.renderer": ("Renderer", "Image", "render"),
    "tslim.scene.scene": ("Scene", "Views"),
    "tslim.training.trainer": ("Trainer",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", "presets", *_HOME]


def __getattr__(name: str):
    if name == "presets":
        value = importlib.import_module("tslim.presets")
    elif name in _HOME:
        require_own_kernels()
        value = getattr(importlib.import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'tslim' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
