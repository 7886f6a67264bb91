"""What ``poses`` can be told."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PoseOptions:
    """How cameras are looked for."""

    frames: int = 120
    """frames to take of a video, the sharpest of as many equal parts"""
    matching: Literal["auto", "exhaustive", "sequential"] = "auto"
    """exhaustive compares every pair of pictures; sequential compares neighbours, for a series in order; auto takes
    sequential for a video and for more than 150 pictures"""
    overlap: int = 15
    """sequential: neighbours that each picture is compared with"""
    camera_model: Literal["SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE", "PINHOLE"] = "OPENCV"
    """lens to look for"""
    cameras: Literal["auto", "one"] = "auto"
    """one: all pictures were taken with one lens at one zoom, as the frames of a video; auto goes by their EXIF"""
    max_size: int = 1600
    """look for features in pictures made no larger than this, in pixels along the longer side"""
    seed: int = 0
    """of the random choices in matching and mapping"""
