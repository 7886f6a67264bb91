"""``info``: what a path holds, be it a model, a run or a data set."""

from pathlib import Path

import numpy as np

from tslim.commands import shared
from tslim.commands.console import Console
from tslim.commands.options import Info
from tslim.errors import ConfigError, ModelFileError
from tslim.files import replacing
from tslim.measuring import eval_json
from tslim.model import model_file, th_file, thumbnail
from tslim.model.header import ModelHeader
from tslim.model.sizes import megabytes
from tslim.scene import lenses
from tslim.scene.scene import Scene
from tslim.training.run_folder import RunFolder

BUILT_IN = "built-in"
ENDLESS = 1e9
"""A ``far`` beyond this limits nothing."""
PLOT_SUFFIXES = (".png", ".pdf", ".svg")


def info(args: Info, console: Console) -> None:
    """Says what a path holds."""
    if not args.path.exists():
        raise ConfigError(f"{args.path}: no such file or folder")
    run = RunFolder(args.path)
    is_scene = args.path.suffix.lower() == ".json" or (not args.path.is_file() and not run.config.exists())
    if args.plot is not None and not is_scene:
        raise ConfigError(f"--plot draws a data set's cameras, and {args.path} is a model or a run")
    if args.plot is not None and args.plot.suffix.lower() not in PLOT_SUFFIXES:
        raise ConfigError(f"--plot {args.plot}: expected a name that ends in {', '.join(PLOT_SUFFIXES)}")
    if args.path.is_file() and not is_scene:
        _model_info(args.path, console, quality=True)
    elif run.config.exists():
        if shared.require_run(run, console):
            _run_info(run, console)
        else:
            _model_info(run.model, console, quality=True)
    else:
        scene = shared.open_scene(args.path, args.options)
        _scene_info(scene, console)
        if args.plot is not None:
            from tslim.scene.plots_scene import plot_scene

            with replacing(args.plot) as path:
                plot_scene(scene, path)
            console.line(f"cameras, box and points are drawn in {args.plot}")


def _model_info(path: Path, console: Console, *, quality: bool) -> None:
    header = model_file.read_header(path)
    metadata = header.metadata
    ranks = np.diff([header.fixed_bytes, *header.ends]) / 1e6
    ranks_text = str(header.rank)
    if header.separate_ranks is not None:
        ranks_text = "{} of density, {} of appearance".format(*header.separate_ranks)
    rows: list[tuple[str, object]] = [
        ("ranks", ranks_text),
        ("size", _size_text(path, header)),
        ("each rank", f"{_range(ranks)} MB; decoder and occupancy {header.fixed_bytes / 1e6:.3f} MB"),
        ("grid", "×".join(map(str, header.grid))),
        ("space", shared.space_text(header.space, header.box if header.cube is None else header.cube, header.near)),
        ("ray limits", f"{header.near:g} to {header.far:g}" if header.far < ENDLESS else f"from {header.near:g} on"),
        ("decoder", header.config.decoder),
        ("background", "none" if header.background is None else shared.corner(header.background)),
    ]
    if made := shared.checkpoint_text(header):
        rows.append(("trained by", made))
    if "scene" in metadata:
        rows.append(("trained on", f"{metadata['scene']} ({metadata.get('format', '?')})"))
    if "steps" in metadata:
        rows.append(("training", f"{metadata['steps']} steps in {metadata.get('seconds', 0):.0f} s"))
    if "path" in metadata:
        rows.append(("camera path", metadata["path"].get("path", "?")))
    if thumbnail.NAME in metadata:
        width, height, n_bytes = thumbnail.size_of(metadata[thumbnail.NAME])
        rows.append(("thumbnail", f"{width}×{height}, {n_bytes / 1000:.1f} kB"))
    table = header.table
    if table is not None and len(table.blocks) > header.rank:
        whole = megabytes(table.sizes(header.fixed_bytes)[-1])
        rows.append(("cut from", f"a file of {len(table.blocks)} ranks, {whole}"))
    console.facts_table(rows, title=str(path))
    if table is not None and quality:
        for rank, psnr in sorted(table.quality.items(), reverse=True):
            if rank <= header.rank:
                console.line(f"  rank {rank:>3}  {header.bytes_at(rank) / 1e6:6.2f} MB  {psnr:.2f} dB")


def _size_text(path: Path, header: ModelHeader) -> str:
    size = f"{header.n_bytes / 1e6:.2f} MB ({header.precision}{shared.rounding_text(header)})"
    return f"{path.stat().st_size / 1e6:.2f} MB; as a model file {size}" if th_file.is_th(path) else size


def _range(values: np.ndarray) -> str:
    """The least and the most, or both in one."""
    ends = f"{values.min():.3f}", f"{values.max():.3f}"
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _run_info(folder: RunFolder, console: Console) -> None:
    settings = folder.settings()
    history = folder.history()
    rows: list[tuple[str, object]] = [("scene", settings["scene"].get("path") or BUILT_IN)]
    if history:
        last = history[-1]
        done, steps = last["step"], settings["train"].get("steps")
        rows.append(("progress", f"step {done} of {steps}, rank {last['rank']}, PSNR {last['psnr']:.2f} dB"))
        rows.append(("time", f"{last['seconds']:.0f} s"))
    else:
        rows.append(("progress", "nothing logged yet"))
    model = next((path for path in (folder.model, folder.unfinished) if path.exists()), None)
    state = "not yet" if model is None else f"{model}, of the last checkpoint"
    rows.append(("model", model if model == folder.model else f"{state}; continue with train --resume"))
    console.facts_table(rows, title=str(folder.path))
    measured = False
    try:
        rows_by_rank, _ = eval_json.read(folder.evaluation)
        measured = True
        for row in (row for row in rows_by_rank if row.views is None):
            console.line(f"  rank {row.rank:>3}  {row.bytes / 1e6:6.2f} MB  {row.psnr:.2f} dB  SSIM {row.ssim:.4f}")
    except FileNotFoundError:
        pass
    except ModelFileError as error:
        console.warn(str(error))
    if model is not None:
        _model_info(model, console, quality=not measured)


def _scene_info(scene: Scene, console: Console) -> None:
    sizes = {f"{w}×{h}" for w, h in scene.train.cameras.sizes.tolist()}
    console.facts_table(
        [
            ("format", scene.format),
            ("views", f"{len(scene.train)} to train, {len(scene.test)} to test"),
            ("size", ", ".join(sorted(sizes)[:4]) + (f" and {len(sizes) - 4} more" if len(sizes) > 4 else "")),
            ("space", shared.space_text(scene.space, scene.box, scene.near)),
            ("ray limits", f"{scene.near:g} to {scene.far:g}"),
            ("lenses", _lenses(scene)),
            ("points", "none" if scene.points is None else f"{len(scene.points)}"),
            ("background", "none" if scene.background is None else shared.corner(scene.background)),
            *[("found", note) for note in scene.notes],
        ],
        title=str(scene.source),
    )
    shared.warn_about(scene, console)


def _lenses(scene: Scene) -> str:
    return ", ".join(lenses.NAMES[kind] for kind in sorted(set(scene.train.cameras.lens.tolist())))
