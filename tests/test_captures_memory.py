"""A phone capture of 300 photographs at 12 megapixels loads in memory bounded by its result."""

import os
import subprocess
import sys

import captures
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

COUNT, WIDTH, HEIGHT, DOWNSCALE = 300, 4000, 3000, 4
RESULT = COUNT * (WIDTH // DOWNSCALE) * (HEIGHT // DOWNSCALE) * 4
ALLOWANCE = 450e6
"""For the interpreter and its libraries (about 100 MB), and a few full-size images that are being decoded."""

PROGRAM = """
import resource, sys
from tslim.data import load_scene
scene = load_scene(sys.argv[1], downscale=4)
print(len(scene.train) + len(scene.test), scene.train.pixels.nbytes + scene.test.pixels.nbytes)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_three_hundred_photographs_of_twelve_megapixels(tmp_path, root):
    names = [f"IMG_{i:04}.jpg" for i in range(COUNT)]
    captures.write_colmap(tmp_path, captures.ring(COUNT, (WIDTH // 100, HEIGHT // 100)), names)
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT // 4, WIDTH // 4, 3), np.uint8)
    Image.fromarray(noise).resize((WIDTH, HEIGHT)).save(tmp_path / "photograph.jpg", quality=85)
    for name in names:  # one file under 300 names: it is decoded 300 times all the same
        (tmp_path / "images" / name).unlink()
        os.link(tmp_path / "photograph.jpg", tmp_path / "images" / name)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=root, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    count, nbytes, peak = map(int, done.stdout.split())
    assert (count, nbytes) == (COUNT, RESULT)
    assert peak < RESULT + ALLOWANCE, f"{peak / 1e6:.0f} MB at the peak for {RESULT / 1e6:.0f} MB of pixels"
