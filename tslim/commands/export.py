"""``export``: a model as something that others can open, by the suffix of -o."""

import itertools
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from tslim import files
from tslim.commands import shared
from tslim.commands.console import Console
from tslim.commands.options import Export
from tslim.errors import ConfigError, ModelFileError, RunFolderError
from tslim.measuring import evaluate
from tslim.model import model_file
from tslim.model.header import ModelHeader
from tslim.model.stored import StoredState
from tslim.training.run_folder import RunFolder


def export(args: Export, console: Console) -> None:
    """Writes what the suffix of ``-o`` stands for."""
    write = TARGETS.get(args.out.suffix.lower())
    if write is None:
        raise ConfigError(f"{args.out}: export writes {', '.join(f'{s} ({n})' for s, n in NAMES.items())}")
    source, folder = shared.find_model(args.model, console)
    if args.out.exists() and args.out.samefile(source):
        raise RunFolderError(f"{args.out} is the model itself: choose another -o, so that it is not lost")
    shared.require_writable(args.out)
    state = model_file.read(source, rank=args.rank)
    console.written(write(args, state, source, folder, console))


def _page(args: Export, state: StoredState, source: Path, folder: RunFolder | None, console: Console) -> list[Path]:
    """A page for browsers, with the model inside or, with ``--split``, beside it."""
    psnr = measured(model_file.read_header(source), source, folder)
    precision = args.precision or "compact"
    same = state.precision == precision and args.rank is None
    state = model_file.convert(state, precision)
    beside = args.out.with_suffix(".slim")
    if args.split:
        _require_beside(beside, source, same)
    shared.start(args.arch, console)
    from tslim.field.field import Field
    from tslim.web.page import write_page

    blocks = list(model_file.blocks(state))
    sizes = list(itertools.accumulate(map(len, blocks)))[1:]
    title = args.title or (folder.path.resolve().name if folder else source.stem)
    model = quote(beside.name) if args.split else blocks
    write_page(args.out, Field.from_state(state), title=title, sizes=sizes, psnr=psnr, model=model)
    if not args.split:
        return [args.out]
    if not beside.exists() or not beside.samefile(source):
        files.write_bytes(beside, b"".join(blocks))
    return [args.out, beside]


def _require_beside(beside: Path, source: Path, same: bool) -> None:
    """Raises ``RunFolderError`` unless the page's model may be written to ``beside``, or is the ``same`` and there."""
    shared.require_writable(beside)
    if beside.exists() and beside.samefile(source) and not same:
        raise RunFolderError(f"{beside} is the model itself: choose another -o, so that it is not lost")


def measured(header: ModelHeader, source: Path, folder: RunFolder | None) -> dict[int, float]:
    """dB by rank, as far as ``eval`` has measured this very model; nothing where it has not."""
    result = folder or RunFolder(source.with_name(f"{source.stem}-eval"))
    try:
        rows, _ = evaluate.read_eval_json(result.evaluation)
    except (FileNotFoundError, ModelFileError):
        return {}
    return {row.rank: row.psnr for row in rows if row.rank <= header.rank and row.bytes == header.bytes_at(row.rank)}


def _checkpoint(
    args: Export, state: StoredState, source: Path, folder: RunFolder | None, console: Console
) -> list[Path]:
    """A checkpoint that the public code of TensoRF reads."""
    from tslim.model import tensorf_write

    if state.metadata.get("march", {}).get("colour_span"):
        console.line("TensoRF decodes each sample by itself, and here near ones share a colour: pixels differ a little")
    return [tensorf_write.write(state, args.out)]


NAMES = {".html": "a page for browsers", ".th": "a checkpoint of TensoRF"}
TARGETS: dict[str, Callable[[Export, StoredState, Path, RunFolder | None, Console], list[Path]]] = {
    ".html": _page,
    ".th": _checkpoint,
}
