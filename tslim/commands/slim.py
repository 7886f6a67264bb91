"""``slim``: a smaller model by rank, by size, by quality, or with separate ranks of density and appearance."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tslim import config
from tslim.commands import shared
from tslim.commands.console import Console
from tslim.commands.options import Slim
from tslim.commands.reorder import held_text
from tslim.errors import ConfigError, ModelFileError
from tslim.measuring import eval_json, evaluate
from tslim.measuring.evaluate import SweepRow
from tslim.measuring.every_rank import better_below
from tslim.model import model_file, ordering
from tslim.model.sizes import megabytes, size_of_pair
from tslim.model.state import FieldState
from tslim.model.stored import StoredState
from tslim.scene.scene import Scene
from tslim.training.run_folder import RunFolder
from tslim.training.schedules import make_schedule

if TYPE_CHECKING:
    from tslim.field.field import Field

SEARCH_VIEWS = 10
"""Separate ranks are chosen on so many training views: there are many pairs to try, and what was chosen on test views
could not be measured on them any more."""


def slim(args: Slim, console: Console) -> None:
    """Writes a smaller model as a file of its own."""
    _require_consistent(args)
    source, folder = shared.find_model(args.model, console)
    shared.require_new_model(args.out, source)
    as_read = model_file.read(source)
    if made := shared.checkpoint_text(as_read):
        console.line(f"{source}: {made}")
        if args.precision is None and not args.separate:
            args = replace(args, precision="compact")
    state = _ordered(args, as_read, console)
    known = _known_rows(source, folder) if state is as_read else []
    if args.max_mb is not None and not args.separate:
        small = _unbeaten(args, args.max_mb, state, known, console)
    else:
        wanted = args.precision
        if args.separate and wanted is None and state.precision == "compact":
            console.line("pairs of ranks are looked for, and written, in half precision")
            wanted = "float16"
        whole = model_file.convert(state, wanted, args.rounding)
        if args.density_rank is not None and args.appearance_rank is not None:
            small = whole.separate(args.density_rank, args.appearance_rank)
        elif args.separate and args.max_mb is not None:
            if whole.precision == "compact":
                raise ConfigError("--separate looks among models in float16 or float32: round what it finds afterwards")
            small = _best_pair(args, args.max_mb, whole, folder, console)
        elif args.min_psnr is not None:
            small = whole.slim(_rank_of_quality(args, args.min_psnr, state, whole, source, folder, console))
        else:
            small = whole if args.rank is None else whole.slim(args.rank)
            if args.rank is not None and (better := better_below(known, args.rank)):
                console.warn(f"by what eval measured, rank {better.rank} is better: it has {better.psnr:.2f} dB")
    model_file.write(small, args.out)
    console.line(f"kept {_kept_text(small, state)}")
    least = 1 if state.metadata.get(ordering.REORDERED) else _least_trained(state)
    if min(small.separate_ranks or (small.rank,)) < least:
        console.warn(f"training never rendered fewer than {_ranks(least)}: this model may show next to nothing")
    console.written([args.out])


def _ordered(args: Slim, state: StoredState, console: Console) -> StoredState:
    """The model with its ranks in order: if that is asked for, or if they are not and some are about to be dropped, or
    the model comes from a checkpoint, so that what is written is slimmable."""
    wanted = ordering.is_unordered(state) and (bool(shared.checkpoint_text(state)) or _drops_ranks(args, state))
    if args.reorder == "no" or (args.reorder == "auto" and not wanted):
        return state
    new = ordering.reordered(state)
    console.line(held_text(state, new))
    return model_file.convert(new, state.precision)


def _drops_ranks(args: Slim, state: StoredState) -> bool:
    """Whether ranks are dropped by what is asked for. What ``eval`` measured is of the ranks as they are."""
    if args.rank is not None:
        return args.rank < state.rank
    if args.density_rank is not None and args.appearance_rank is not None:
        return min(args.density_rank, args.appearance_rank) < state.rank
    if args.max_mb is not None:
        return args.separate or _fitted(args, state, args.max_mb).rank < state.rank
    return args.min_psnr is not None and args.scene is not None


def _fitted(args: Slim, state: StoredState, max_mb: float) -> StoredState:
    """The most ranks that fit in ``max_mb``; ``ConfigError`` if none does, saying what compact files would do."""
    try:
        return model_file.fit(state, max_mb, args.precision, args.rounding)
    except ConfigError as error:
        if (args.precision or state.precision) == "compact":
            raise
        try:
            small = model_file.fit(state, max_mb, "compact")
        except ConfigError as worse:
            raise ConfigError(f"{error}, and with --precision compact: {worse}") from None
        raise ConfigError(f"{error}; --precision compact keeps {_kept_text(small, state)}") from None


def _unbeaten(args: Slim, max_mb: float, state: StoredState, known: list[SweepRow], console: Console) -> StoredState:
    """What fits in ``max_mb``, unless ``eval`` found fewer ranks to be better: then those."""
    small = _fitted(args, state, max_mb)
    better = better_below(known, small.rank)
    if better is None:
        return small
    psnr = next(row.psnr for row in known if row.rank == small.rank)
    console.line(
        f"{small.rank} would fit, but eval measured {psnr:.2f} dB there and {better.psnr:.2f} dB with {better.rank}"
    )
    return _fitted(args, state.slim(better.rank), max_mb)


def _known_rows(source: Path, folder: RunFolder | None) -> list[SweepRow]:
    """What ``eval`` measured of a model file, lowest rank first; nothing if it did not."""
    try:
        return _stored_rows(source, folder)
    except (ConfigError, ModelFileError):
        return []


def ranks_text(state: "FieldState | model_file.ModelHeader") -> str:
    """The ranks of a model in words."""
    if state.separate_ranks is None:
        return _ranks(state.rank)
    return f"{_ranks(state.separate_ranks[0])} of density and {state.separate_ranks[1]} of appearance"


def _kept_text(small: StoredState, state: StoredState) -> str:
    """What is kept of a model, in words."""
    kept = str(small.rank) if small.separate_ranks is None else ranks_text(small)
    return f"{kept} of {ranks_text(state)}{shared.rounding_text(small)}"


def _ranks(n: int) -> str:
    return f"{n} rank" if n == 1 else f"{n} ranks"


def _least_trained(state: FieldState) -> int:
    """The lowest rank that the model was rendered at while it was trained, 1 if its file does not say."""
    try:
        trained = config.from_dict(state.metadata["train"])
        return make_schedule(trained.schedule, trained.field.max_rank, trained.steps).least_rank()
    except (KeyError, TypeError, ConfigError):
        return 1


def _require_consistent(args: Slim) -> None:
    """Raises ``ConfigError`` unless the options say one thing."""
    pair = (args.density_rank, args.appearance_rank)
    if (pair[0] is None) != (pair[1] is None):
        raise ConfigError("--density-rank and --appearance-rank go together")
    ways = sum(way is not None for way in (args.rank, args.max_mb, args.min_psnr, pair[0]))
    rounds = args.precision is not None or args.rounding is not None
    if ways > 1 or not (ways or rounds):
        raise ConfigError(
            "say one of --rank, --max-mb, --min-psnr, or --density-rank with --appearance-rank; "
            "or --precision alone, which keeps all ranks"
        )
    if args.max_mb is not None and not args.max_mb > 0:
        raise ConfigError(f"--max-mb {args.max_mb:g}: expected a number above 0")
    if args.min_psnr is not None and not math.isfinite(args.min_psnr):
        raise ConfigError(f"--min-psnr {args.min_psnr:g}: expected a number of dB")
    if args.separate and args.max_mb is None:
        raise ConfigError("--separate looks for the best pair of ranks within --max-mb: say how many MB")
    measures = args.separate or args.min_psnr is not None
    read = [f"--{k.replace('_', '-')}" for k, v in vars(args.options).items() if v is not None]
    read += ["--scene"] if args.scene is not None else []
    if read and not measures:
        raise ConfigError(f"{read[0]} has no effect here: only --min-psnr and --separate look at photographs")
    if read and args.scene is None and args.min_psnr is not None:
        raise ConfigError(f"{read[0]} has no effect without --scene: --min-psnr then goes by what eval measured")


def _rank_of_quality(
    args: Slim, wanted: float, state: StoredState, whole: StoredState, source: Path, folder: RunFolder | None,
    console: Console,
) -> int:  # fmt: skip
    """The lowest rank with the PSNR ``wanted``: by what ``eval`` measured of the state, or on the photographs of
    ``--scene``, as it is to be written (``whole``).

    Raises ``ConfigError`` if nothing was measured, or no rank is good enough.
    """
    best: SweepRow | None = None
    rows = _stored_rows(source, folder) if args.scene is None else _rows_upwards(args, whole, folder, console)
    if args.scene is None and whole.precision == "compact" and whole is not state:
        console.warn("eval measured the model before it is rounded; with --scene it is measured as it is written")
    for row in rows:
        best = row if best is None or row.psnr > best.psnr else best
        if row.psnr >= wanted:
            console.line(str(row))
            return row.rank
    found = f"the best is rank {best.rank} with {best.psnr:.2f} dB" if best else "nothing was measured"
    raise ConfigError(f"no rank has {wanted:g} dB: {found}")


def _stored_rows(source: Path, folder: RunFolder | None) -> list[SweepRow]:
    """What ``eval`` measured of a model file, lowest rank first. Raises ``ConfigError`` or ``ModelFileError``."""
    result = shared.results_of(source, folder)
    try:
        rows, _ = eval_json.read(result.evaluation)
    except FileNotFoundError:
        raise ConfigError(
            f"--min-psnr goes by what eval measured, and {result.evaluation} is not there: run eval first, or name "
            "photographs with --scene"
        ) from None
    header = model_file.read_header(source)
    if not rows or any(row.rank > header.rank or row.bytes != header.bytes_at(row.rank) for row in rows):
        raise ModelFileError(f"{result.evaluation} was measured on another model: run eval again")
    return sorted(rows, key=lambda row: row.rank)


def _rows_upwards(args: Slim, state: FieldState, folder: RunFolder | None, console: Console):
    """Measures rank after rank from the lowest, as they are asked for."""
    field, scene = _open(args, state, folder, console)
    views = scene.test
    renderer, sizes = evaluate.new_renderer(field), model_file.sizes(state)
    for rank in range(1, state.rank + 1):
        yield from evaluate.rank_sweep(field, views, (rank,), renderer=renderer, sizes=sizes)


def _open(args: Slim, state: FieldState, folder: RunFolder | None, console: Console) -> tuple["Field", Scene]:
    shared.start(args.arch, console)
    from tslim.field.field import Field

    scene = shared.scene_of_model(state.metadata, folder, args.scene, args.options)
    shared.warn_about(scene, console)
    return Field.from_state(state), scene


def _best_pair(
    args: Slim, max_mb: float, state: StoredState, folder: RunFolder | None, console: Console
) -> StoredState:
    """The pair of ranks with the best mean PSNR on training views, among ``promising_pairs``."""
    pairs = promising_pairs(state, max_mb)
    _, scene = _open(args, state, folder, console)
    from tslim.field.field import Field

    views = scene.train.spread(SEARCH_VIEWS)
    best, best_psnr = state, -math.inf
    for density, appearance in pairs:
        small = state.separate(density, appearance)
        row = next(evaluate.rank_sweep(Field.from_state(small), views, (small.rank,), sizes=model_file.sizes(small)))
        console.line(f"{ranks_text(small):<40} {megabytes(row.bytes):>8}   {row.psnr:.2f} dB")
        if row.psnr > best_psnr:
            best, best_psnr = small, row.psnr
    return best


def promising_pairs(state: FieldState, max_mb: float) -> list[tuple[int, int]]:
    """Ranks of density and appearance to which neither can be added within ``max_mb`` million bytes, and those of the
    prefix that fits, which have learned together; density rising.

    Raises ``ConfigError`` if not even one rank of each fits.
    """
    prefix = model_file.rank_that_fits(state, max_mb)
    most = state.separate_ranks or (state.rank, state.rank)
    fitting: list[tuple[int, int]] = []
    for density in range(1, most[0] + 1):
        ranks = [a for a in range(1, most[1] + 1) if size_of_pair(state, density, a) <= max_mb * 1e6]
        if ranks:
            fitting.append((density, max(ranks)))
    largest = [pair for i, pair in enumerate(fitting) if i + 1 == len(fitting) or fitting[i + 1][1] < pair[1]]
    return sorted({*largest, state.slim(prefix).separate_ranks or (prefix, prefix)})
