"""A small picture of what a model shows, in its metadata: WebP in base64, to be shown before anything is unpacked."""

import base64
import binascii

from tslim.errors import ConfigError

NAME = "thumbnail"
"""Its name in the metadata."""
MOST_BYTES = 65_536
MOST_SIDE = 1024
"""pixels"""


def packed(picture: bytes) -> str:
    """A WebP picture as metadata hold it. Raises ``ConfigError`` if it is none, or too large."""
    text = base64.b64encode(picture).decode()
    size_of(text)
    return text


def size_of(text: object) -> tuple[int, int, int]:
    """Width, height and bytes of a thumbnail, by what its first bytes say.

    Raises ``ConfigError`` for what is not WebP in base64, or is larger than ``MOST_BYTES`` or ``MOST_SIDE``.
    """
    if not isinstance(text, str) or len(text) > 4 * (MOST_BYTES // 3 + 1):
        raise ConfigError(f"metadata thumbnail is no text of at most {MOST_BYTES} bytes in base64")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError("metadata thumbnail is not base64") from error
    sides = _sides(data)
    if sides is None or not all(1 <= side <= MOST_SIDE for side in sides):
        raise ConfigError(f"metadata thumbnail is no WebP picture of at most {MOST_SIDE} pixels a side")
    return (*sides, len(data))


def _sides(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP picture (RFC 9649), if it is one."""
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    kind, body = data[12:16], data[20:]
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None
