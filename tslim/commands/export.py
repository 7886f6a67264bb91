"""``export``: a model as something that others can open, by the suffix of -o."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

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
    same = state.precision == "float16" and args.rank is None
    if state.precision != "float16":
        if state.precision == "compact":
            console.line("browsers cannot unpack a compact file: the page's model is in half precision")
        state = model_file.convert(state, "float16")
    beside = args.out.with_suffix(".slim")
    if args.split:
        _require_beside(beside, source, same)
    shared.start(args.arch, console)
    from tslim.field.field import Field
    from tslim.web.page import write_page

    model = quote(beside.name) if args.split else model_file.blocks(state)
    title = args.title or (folder.path.resolve().name if folder else source.stem)
    sizes = model_file.sizes(state)
    write_page(args.out, Field.from_state(state), title=title, sizes=sizes, psnr=psnr, model=model)
    if not args.split:
        return [args.out]
    if not beside.exists() or not beside.samefile(source):
        model_file.write(state, beside)
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
