"""Blocks of compact files of version 4, whose texels were whole steps. They are read, and no longer written."""

from tslim.model import neighbours_whole
from tslim.model.compact import CompactLayout


class WholeLayout(CompactLayout):
    """A block: as ``CompactLayout`` has it, but for the side information and how texels are coded."""

    code = neighbours_whole
