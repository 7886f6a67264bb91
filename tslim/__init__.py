"""tslim: a differentiable renderer in Taichi that trains one radiance field and lets you choose its size afterwards.

``import tslim`` is instant and without side effects: each name below is imported when it is first used.
"""

import importlib
import os

TYPE_CHECKING = False  # typing's takes a while to load, in which Ctrl-C would not be heard yet

if TYPE_CHECKING:  # the same names as below, for editors and type checkers
    from tslim import presets as presets
    from tslim import torch as torch
    from tslim.config import FieldConfig as FieldConfig
    from tslim.config import ScheduleConfig as ScheduleConfig
    from tslim.config import TrainConfig as TrainConfig
    from tslim.data import load_scene as load_scene
    from tslim.data.builtin import builtin_scene as builtin_scene
    from tslim.device.backend import Backend as Backend
    from tslim.device.backend import init as init
    from tslim.errors import BackendError as BackendError
    from tslim.errors import ConfigError as ConfigError
    from tslim.errors import DivergedError as DivergedError
    from tslim.errors import MissingPackageError as MissingPackageError
    from tslim.errors import ModelFileError as ModelFileError
    from tslim.errors import OutOfMemoryError as OutOfMemoryError
    from tslim.errors import RunFolderError as RunFolderError
    from tslim.errors import SceneError as SceneError
    from tslim.errors import TslimError as TslimError
    from tslim.field.field import Field as Field
    from tslim.field.loading import load as load
    from tslim.field.loading import load_stream as load_stream
    from tslim.measuring.evaluate import SweepRow as SweepRow
    from tslim.measuring.evaluate import rank_sweep as rank_sweep
    from tslim.measuring.metrics import psnr as psnr
    from tslim.measuring.metrics import ssim as ssim
    from tslim.preview.preview import Preview as Preview
    from tslim.rendering.differentiable import DifferentiableRenderer as DifferentiableRenderer
    from tslim.rendering.media import render_video as render_video
    from tslim.rendering.pipeline import MarchConfig as MarchConfig
    from tslim.rendering.renderer import Image as Image
    from tslim.rendering.renderer import Renderer as Renderer
    from tslim.rendering.renderer import render as render
    from tslim.scene.cameras import Cameras as Cameras
    from tslim.scene.scene import Scene as Scene
    from tslim.scene.scene import Views as Views
    from tslim.training.events import CheckpointSaved as CheckpointSaved
    from tslim.training.events import Event as Event
    from tslim.training.events import Finished as Finished
    from tslim.training.events import GridGrew as GridGrew
    from tslim.training.events import OccupancyRefreshed as OccupancyRefreshed
    from tslim.training.events import Progress as Progress
    from tslim.training.events import RankGrew as RankGrew
    from tslim.training.events import RanksOrdered as RanksOrdered
    from tslim.training.events import Started as Started
    from tslim.training.events import Stepped as Stepped
    from tslim.training.events import Warned as Warned
    from tslim.training.trainer import Trainer as Trainer

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
        "DivergedError",
        "MissingPackageError",
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
        "RanksOrdered",
        "GridGrew",
        "OccupancyRefreshed",
        "CheckpointSaved",
        "Warned",
        "Finished",
    ),
    "tslim.field.field": ("Field",),
    "tslim.field.loading": ("load", "load_stream"),
    "tslim.rendering.media": ("render_video",),
    "tslim.measuring.metrics": ("psnr", "ssim"),
    "tslim.rendering.pipeline": ("MarchConfig",),
    "tslim.preview.preview": ("Preview",),
    "tslim.rendering.renderer": ("Renderer", "Image", "render"),
    "tslim.scene.scene": ("Scene", "Views"),
    "tslim.training.trainer": ("Trainer",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

_MODULES = ("presets", "torch")
"""Modules of the package that need no import of their own; ``torch`` needs PyTorch, hence is not in ``__all__``."""

__all__ = ["__version__", "presets", *_HOME]


if not TYPE_CHECKING:  # or it would pass any name

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            value = importlib.import_module(f"tslim.{name}")
        elif name in _HOME:
            from tslim.ownership import require_own_kernels

            require_own_kernels()
            value = getattr(importlib.import_module(_HOME[name]), name)
        else:
            raise AttributeError(f"module 'tslim' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES})
