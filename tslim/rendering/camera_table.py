"""Cameras as the ray kernels read them."""

import numpy as np

from kernels.rays import CAMERA
from tslim.device import buffers
from tslim.scene import lenses
from tslim.scene.cameras import Cameras


def camera_table(cameras: Cameras):
    """A device array of ``kernels.rays.CAMERA`` numbers a camera: pose, intrinsics, kind and numbers of the lens."""
    table = np.empty((len(cameras.poses), CAMERA), np.float32)
    parts = cameras.poses, cameras.intrinsics, cameras.lens, lenses.device_table(cameras.lens, cameras.distortion)
    np.concatenate([np.reshape(part, (len(table), -1)) for part in parts], axis=1, out=table, casting="same_kind")
    return buffers.upload(table.reshape(-1))
