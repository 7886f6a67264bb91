"""Says in a model file's header what is known of it, and leaves its ranks as they are, bit for bit."""

import itertools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tslim import files
from tslim.model import reading, thumbnail
from tslim.model.head import packed_head
from tslim.model.header import ModelHeader
from tslim.model.parse import read_header_json
from tslim.model.table import SizeTable


def describe(path: str | Path, *, psnr: Mapping[int, float] | None = None, picture: bytes | None = None) -> ModelHeader:
    """Writes the table of sizes and qualities into a model file, and a thumbnail if there is one. Returns its header.

    Args:
        psnr: dB by rank. Of ranks that are not in it, what the file knew is kept.
        picture: a small WebP picture.

    Raises:
        ModelFileError: there is no such model file, or it is damaged.
        RunFolderError: it cannot be written.
    """
    header = reading.read_header(path)
    blocks = [end - start for start, end in itertools.pairwise([header.fixed_bytes, *header.ends])]
    known = header.table
    quality = (known.quality if known else {}) | dict(psnr or {})
    blocks += known.blocks[len(blocks) :] if known else ()
    with open(path, "rb") as source:
        head = described(source.read(header.shared_at), blocks, quality, picture)
        with files.replacing(path) as temporary, open(temporary, "wb") as out:
            out.write(head)
            shutil.copyfileobj(source, out)
    return reading.read_header(path)


def described(
    head: bytes, blocks: Sequence[int], psnr: Mapping[int, float] | None = None, picture: bytes | None = None
) -> bytes:
    """A file's first bytes, prelude and header at least, with table and thumbnail in the header; what follows it stays.

    ``blocks``: bytes of each rank with its checksum.
    """
    version, header, rest = read_header_json(head, "the model")
    changed: dict[str, Any] = {"table": SizeTable.of(blocks, psnr).plain()}
    if picture is not None:
        changed["metadata"] = {**header["metadata"], thumbnail.NAME: thumbnail.packed(picture)}
    return packed_head({**header, **changed}, version) + rest
