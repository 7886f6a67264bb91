"""``export``: a model as something that others can open, by the suffix of -o."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from tslim import files
from tslim.commands import export_shapes, shared
from tslim.commands.console import Console
from tslim.commands.options import Export
from tslim.errors import ConfigError, ModelFileError, RunFolderError
from tslim.measuring import eval_json
from tslim.model import model_file, ordering, thumbnail
from tslim.model.describe import described
from tslim.model.header import ModelHeader
from tslim.model.stored import StoredState
from tslim.training.run_folder import RunFolder


def export(args: Export, console: Console) -> None:
    """Writes what the suffix of ``-o`` stands for."""
    target = TARGETS.get(args.out.suffix.lower())
    if target is None:
        known = ", ".join(f"{suffix or 'no suffix'} ({target.what})" for suffix, target in TARGETS.items())
        raise ConfigError(f"{args.out}: export writes {known}")
    _require_effect(args, target)
    source, folder = shared.find_model(args.model, console)
    if args.out.exists() and args.out.samefile(source):
        raise RunFolderError(f"{args.out} is the model itself: choose another -o, so that it is not lost")
    (shared.require_writable if args.out.suffix else shared.require_new_folder)(args.out)
    state = model_file.read(source, rank=args.rank)
    console.written(target.write(args, state, source, folder, console))


def _page(args: Export, state: StoredState, source: Path, folder: RunFolder | None, console: Console) -> list[Path]:
    """A page for browsers, with the model inside or, with ``--split``, beside it."""
    psnr = measured(model_file.read_header(source), source, folder)
    if ordering.is_unordered(state):
        console.warn("its ranks are in no order, so that fewer of them show little: slim or reorder it first")
    precision = args.precision or "compact"
    as_it_is = state.precision == precision
    state = model_file.convert(state, precision)
    beside = args.out.with_suffix(".slim")
    if args.split:
        _require_model_path(beside, source, as_it_is and args.rank is None)
    if thumbnail.NAME not in state.metadata:
        state.metadata = state.metadata | {thumbnail.NAME: _thumbnail(state, args.arch, console)}
    from tslim.web.page import write_page

    parts = list(model_file.blocks(state))
    if state.table is None:
        parts[0] = described(parts[0], [len(part) for part in parts[1:]], psnr if as_it_is else None)
    title = files.text_of(args.title or (folder.path.resolve().name if folder else source.stem))
    write_page(args.out, state, title=title, model=quote(os.fsencode(beside.name)) if args.split else parts, psnr=psnr)
    if not args.split:
        return [args.out]
    if not beside.exists() or not beside.samefile(source):
        files.write_bytes(beside, b"".join(parts))
    return [args.out, beside]


def _thumbnail(state: StoredState, arch: str, console: Console) -> str:
    shared.start(arch, console)
    from tslim.field.field import Field
    from tslim.rendering.thumbnail import thumbnail as rendered

    return thumbnail.packed(rendered(Field.from_state(state)))


def _require_model_path(beside: Path, source: Path, same: bool) -> None:
    """Raises ``RunFolderError`` unless the page's model may be written to ``beside``, or is the ``same`` and there."""
    if not (beside.exists() and beside.samefile(source)):
        shared.require_writable(beside)
    elif not same:
        raise RunFolderError(f"{beside} is the model itself: choose another -o, so that it is not lost")


def measured(header: ModelHeader, source: Path, folder: RunFolder | None) -> dict[int, float]:
    """dB by rank, as the file says, or as ``eval`` has measured this very model; nothing where neither has."""
    if header.table is not None and header.table.quality:
        return header.table.quality
    result = shared.results_of(source, folder)
    try:
        rows, _ = eval_json.read(result.evaluation)
    except (FileNotFoundError, ModelFileError):
        return {}
    return {row.rank: row.psnr for row in rows if row.rank <= header.rank and row.bytes == header.bytes_at(row.rank)}


class Target(NamedTuple):
    """What a suffix stands for."""

    what: str
    write: Callable[[Export, StoredState, Path, RunFolder | None, Console], list[Path]]
    options: tuple[str, ...]
    """options that have an effect on it"""


_CAMERAS = ("path", "frames", "size")
TARGETS: dict[str, Target] = {
    ".html": Target("a page for browsers", _page, ("split", "rank", "precision", "title", "arch")),
    ".th": Target("a checkpoint of TensoRF", export_shapes.checkpoint, ("rank",)),
    ".ply": Target("a mesh or points", export_shapes.shape, ("rank", "what", "grid", "level", "arch")),
    ".obj": Target("a mesh", export_shapes.shape, ("rank", "what", "grid", "level", "arch")),
    ".glb": Target("a mesh", export_shapes.shape, ("rank", "what", "grid", "level", "arch")),
    ".json": Target("a camera path", export_shapes.cameras, _CAMERAS),
    ".png": Target("depth of one view", export_shapes.depth, ("rank", "arch", *_CAMERAS)),
    ".npy": Target("depth of views", export_shapes.depth, ("rank", "arch", *_CAMERAS)),
    "": Target("a folder of pictures with depth and cameras", export_shapes.sequence, ("rank", "arch", *_CAMERAS)),
}


def _require_effect(args: Export, target: Target) -> None:
    """Raises ``ConfigError`` for an option that has no effect on what is written."""
    for option in dataclasses.fields(args):
        given = option.name not in ("model", "out") and getattr(args, option.name) != option.default
        if given and option.name not in target.options:
            known = ", ".join(f"--{name}" for name in target.options)
            raise ConfigError(f"--{option.name} has no effect on {target.what}: what has is {known}")
