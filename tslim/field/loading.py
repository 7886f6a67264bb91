"""Model files as fields on the device."""

from collections.abc import Iterator

from tslim.field.field import Field
from tslim.model import model_file


def load(source: model_file.Source, *, rank: int | None = None) -> Field:
    """A model file's first ``rank`` ranks, all by default, as a field on the device that ``tslim.init`` chose.

    Args:
        source: a path, the bytes themselves, or a stream, which is read once, from where it is, without seeking, and no
            further than ``rank`` needs.

    Raises as ``model_file.read``.
    """
    return Field.from_state(model_file.read(source, rank=rank))


def load_stream(source: model_file.Source) -> Iterator[Field]:
    """A model as it arrives: the field of its first rank as soon as that is there, then of the first two, and so on.

    Each is a field of its own, with one rank more than the one before; fields that are dropped free their memory.
    Nothing is read ahead of what is asked for, so a caller that has ranks enough stops iterating. A stream that ends
    within a rank ends here with the one before.

    Args:
        source: as for ``load``, such as ``urllib.request.urlopen(address)`` or ``sys.stdin.buffer``.

    Raises as ``model_file.states``.
    """
    for state in model_file.states(source):
        yield Field.from_state(state)
