"""Pictures and videos: PNG, MP4, GIF, captioned grids, depth in colours.

A picture is (h, w, 3) sRGB or (h, w) grey, float in [0, 1] or uint8. Files appear whole or not at all.
"""

import errno
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tslim import files
from tslim.errors import ConfigError
from tslim.rendering.colours import depth_colours, depth_limits

if TYPE_CHECKING:
    from tslim.field.field import Field
    from tslim.rendering.renderer import Image
    from tslim.scene.cameras import Cameras

VIDEO_SUFFIXES = (".mp4", ".gif")
What = Literal["rgb", "depth", "opacity"]

_GAP = 8
_PAPER = 255
_INK = 30
_FRAME = 224


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Floats of any shape as uint8: clipped to [0, 1] and rounded to nearest; NaN becomes 0."""
    return (np.clip(np.nan_to_num(values, nan=0.0), 0, 1) * 255 + 0.5).astype(np.uint8)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """A picture as (h, w, 3) uint8; floats are clipped to [0, 1] and rounded to nearest, NaN becomes 0."""
    image = np.asarray(image)
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise ConfigError(f"a picture has shape (h, w, 3) or (h, w), got {image.shape}")
    if image.dtype != np.uint8:
        image = as_bytes(image)
    return np.broadcast_to(image[..., None] if image.ndim == 2 else image, (*image.shape[:2], 3))


def png_bytes(image: np.ndarray) -> bytes:
    """A picture as the contents of a PNG file."""
    import imageio.v3 as iio

    return iio.imwrite("<bytes>", np.ascontiguousarray(to_uint8(image)), extension=".png")


def write_png(path: str | Path, image: np.ndarray) -> Path:
    """Writes a picture; raises ``RunFolderError`` where that cannot be."""
    return files.write_bytes(path, png_bytes(image))


def write_video(path: str | Path, frames: Iterable[np.ndarray], *, fps: int = 30) -> Path:
    """Writes a video from pictures of one size, one at a time: ``.mp4`` (H.264) or ``.gif`` (endless).

    H.264 wants even sides: an odd one is lengthened by repeating its last row or column.

    Raises:
        ConfigError: another suffix, no frames, frames of different sizes, or fps below 1.
        RunFolderError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise ConfigError(f"{path}: a video ends in {' or '.join(VIDEO_SUFFIXES)}")
    if fps < 1:
        raise ConfigError(f"a video has at least 1 frame a second, not {fps}")
    with files.replacing(path) as temporary:
        frames = iter(frames)
        first = next(frames, None)
        if first is None:
            raise ConfigError(f"{path}: a video needs at least one frame")
        pictures = _of_one_size(itertools.chain([first], frames), path)
        if path.suffix.lower() == ".mp4":
            _write_mp4(temporary, pictures, fps)
        else:
            _write_gif(temporary, pictures, fps)
    return path


def render_video(
    field: "Field",
    cameras: "Cameras",
    path: str | Path,
    *,
    fps: int = 30,
    rank: int | None = None,
    what: What = "rgb",
) -> Path:
    """A video of a field along cameras of one size. Raises as ``write_video``, before rendering where it can."""
    return write_video(path, render_frames(field, cameras, rank=rank, what=what), fps=fps)


def render_frames(
    field: "Field", cameras: "Cameras", *, rank: int | None = None, what: What = "rgb"
) -> Iterator[np.ndarray]:
    """Renders a picture (h, w, 3) uint8 for each camera, when it is asked for.

    Depth colours span the same distances in all frames: those at which the first frame shows something.
    """
    from tslim.rendering.renderer import Renderer

    renderer = Renderer(field)
    limits = None
    for index in range(len(cameras)):
        image = renderer.render(cameras, index, rank=rank)
        if what == "depth" and limits is None:
            limits = depth_limits(image.depth, image.opacity)
        yield picture(image, what, limits)


def picture(image: "Image", what: What = "rgb", limits: tuple[float, float] | None = None) -> np.ndarray:
    """One channel of a rendered image (colour, opacity or depth), as (h, w, 3) uint8."""
    if what == "rgb":
        return to_uint8(image.rgb)
    if what == "opacity":
        return to_uint8(image.opacity)
    if what == "depth":
        return to_uint8(depth_colours(image.depth, image.opacity, limits))
    raise ConfigError(f"cannot show {what}; known: rgb, depth, opacity")


def grid(
    images: Sequence[np.ndarray], captions: Sequence[str] | None = None, *, columns: int | None = None
) -> np.ndarray:
    """Pictures side by side, each with its caption below, as one picture (h, w, 3) uint8.

    Pictures may differ in size: each is centred in its cell; cells are as large as the largest, and thinly framed.
    All stand in one row unless ``columns`` says otherwise.
    """
    if not images or (captions is not None and len(captions) != len(images)):
        raise ConfigError(f"{len(images)} pictures, {len(captions or ())} captions")
    pictures = [to_uint8(image) for image in images]
    columns = min(columns or len(pictures), len(pictures))
    high, wide = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    labels = [_label(text, wide) for text in captions] if captions is not None else []
    label_high = max((label.shape[0] + 1 for label in labels), default=0)
    rows = -(-len(pictures) // columns)
    step_y, step_x = high + label_high + _GAP, wide + _GAP
    sheet = np.full((rows * step_y + _GAP, columns * step_x + _GAP, 3), _PAPER, np.uint8)
    for i, shown in enumerate(pictures):
        y, x = _GAP + i // columns * step_y, _GAP + i % columns * step_x
        top, left = y + (high - shown.shape[0]) // 2, x + (wide - shown.shape[1]) // 2
        sheet[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
        sheet[y - 1 : y + high + 1, [x - 1, x + wide]] = _FRAME
        sheet[[y - 1, y + high], x : x + wide] = _FRAME
        if labels:
            sheet[y + high + 1 : y + high + 1 + labels[i].shape[0], x : x + wide] = labels[i]
    return sheet


def _label(text: str, wide: int) -> np.ndarray:
    """Text centred on paper, (h, wide, 3) uint8, in the largest size that fits; lines are split at line breaks."""
    from PIL import Image, ImageDraw, ImageFont

    lines = text.split("\n")
    size = min(max(wide // 16, 11), 22)
    while size > 6:
        font = ImageFont.load_default(size)
        if max(font.getlength(line) for line in lines) <= wide:
            break
        size -= 1
    pitch = round(1.35 * size)
    paper = Image.new("L", (wide, pitch * len(lines) + size // 2), _PAPER)
    draw = ImageDraw.Draw(paper)
    for i, line in enumerate(lines):
        draw.text((wide / 2, size // 4 + (i + 0.5) * pitch), line, font=font, fill=_INK, anchor="mm")
    return to_uint8(np.asarray(paper))


def _of_one_size(frames: Iterable[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    size = None
    for frame in frames:
        frame = to_uint8(frame)
        size = size or frame.shape
        if frame.shape != size:
            raise ConfigError(
                f"{path}: frames of {size[1]}x{size[0]} and {frame.shape[1]}x{frame.shape[0]} in one video"
            )
        yield frame


def _write_mp4(path: Path, frames: Iterator[np.ndarray], fps: int) -> None:
    """Raises ``OSError`` where ffmpeg does not write all of it; what the frames raise passes through."""
    import imageio.v2 as iio
    import imageio_ffmpeg

    writer = iio.get_writer(
        path,
        format="FFMPEG",
        mode="I",
        fps=fps,
        codec="libx264",
        pixelformat="yuv420p",
        macro_block_size=1,
        quality=None,
        output_params=["-crf", "18", "-movflags", "+faststart"],
        ffmpeg_log_level="quiet",
    )
    n_frames = 0
    try:
        for frame in frames:
            n_frames += 1
            odd = (frame.shape[0] % 2, frame.shape[1] % 2)
            writer.append_data(np.pad(frame, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge"))
    finally:
        writer.close()
    # A full disk, say, does not make the writer raise: ffmpeg says so only in its exit code, which imageio drops.
    try:
        found = imageio_ffmpeg.count_frames_and_secs(str(path))[0]
    except RuntimeError:
        found = 0
    if found != n_frames:
        raise OSError(errno.EIO, f"ffmpeg wrote {found} of {n_frames} frames; is the disk full?")


def _write_gif(path: Path, frames: Iterator[np.ndarray], fps: int) -> None:
    from PIL import Image

    pictures = (Image.fromarray(np.ascontiguousarray(frame)) for frame in frames)
    next(pictures).save(path, save_all=True, append_images=pictures, duration=round(1000 / fps), loop=0)
