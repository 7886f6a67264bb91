"""What the user asked of a loader."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LoadOptions:
    """What the user asked of a loader."""

    downscale: int = 1
    """load images this many times smaller in each direction"""
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """colour behind transparent pixels, sRGB in [0, 1]"""
    max_images: int | None = None
    """use at most so many evenly spaced images of each split"""
    space: str | None = None
    """the space to put the scene in, or None for the one that suits it"""
    file_paths: str = "inside"
    """"anywhere": read photographs that the data set names outside of its folder, too"""

    listing: str | None = None
    """name of the ``transforms*.json`` to read, or None for the usual one"""

    @property
    def anywhere(self) -> bool:
        """Whether files outside of the data set's folder may be read."""
        return self.file_paths == "anywhere"
