"""Cameras from photographs alone: collects them, has pycolmap find the cameras, and writes a COLMAP data set."""
