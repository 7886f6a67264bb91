"""``eval``, and what ``train`` ends with: a table of sizes and qualities, pictures, plots and a video."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tslim.commands import shared
from tslim.commands.console import Console
from tslim.commands.options import Eval, SceneOptions
from tslim.data import formats_of, parse_colour
from tslim.errors import ConfigError, RunFolderError
from tslim.measuring import eval_json, plots
from tslim.measuring import evaluate as measure
from tslim.measuring import pictures as view_pictures
from tslim.measuring.evaluate import SweepRow
from tslim.measuring.every_rank import every_rank, falls_text, n_renders
from tslim.measuring.perceptual import Perceptual
from tslim.model import model_file
from tslim.rendering import media
from tslim.scene.scene import Scene, Views
from tslim.training.run_folder import RunFolder

if TYPE_CHECKING:
    from tslim.field.field import Field
    from tslim.rendering.renderer import Renderer

TRAINED_VIEWS = 10
"""After training at most so many test views are measured; ``eval`` measures all."""
VIDEO_FRAMES = 60
VIDEO_FPS = 20


def evaluate(args: Eval, console: Console) -> None:
    """Measures a model on all test views."""
    source, folder = shared.find_model(args.model, console)
    out = args.out or shared.results_of(source, folder).path
    _require_place(out, source)
    lpips = Perceptual() if args.lpips else None
    shared.start(args.arch, console)
    from tslim.field.loading import load

    field = load(source)
    sizes = list(model_file.read_header(source).ends)
    scene = shared.scene_of_model(field.metadata, folder, args.scene, args.options)
    shared.warn_about(scene, console)
    if args.options.background is not None:
        field.domain = replace(field.domain, background=parse_colour(args.options.background))
    result = RunFolder(out)
    pictures = result.images if args.save_images else None
    own = folder is not None and source == result.model and args.out is None
    as_trained = args.scene is None and args.options == SceneOptions() and args.fit_gains is None
    written = _measure(
        field, source, scene, result, console,
        ranks=args.ranks, pictures=pictures, sizes=sizes, fit_gains=args.fit_gains, describe=own and as_trained,
        lpips=lpips,
    )  # fmt: skip
    console.written(written)


def _require_place(out: Path, source: Path) -> None:
    """Raises ``ConfigError`` or ``RunFolderError`` unless measurements of ``source`` can go to the folder ``out``."""
    if out.is_file():
        raise ConfigError(f"--out {out} is a file: name a folder")
    run = RunFolder(out)
    own = source.resolve().parent == out.resolve() and source.name in (run.model.name, run.unfinished.name)
    if run.config.exists() and not own:
        raise RunFolderError(f"--out {out} holds another run, with an eval.json of its own: name another folder")
    if formats_of(out):
        raise RunFolderError(f"--out {out} holds photographs, and pictures would lie among them: name another folder")


def report(scene: Scene, run: RunFolder, console: Console) -> None:
    """What ``train`` ends with: measures a run's model as its file has it, and adds pictures and a video."""
    from tslim.field.loading import load

    field = load(run.model)
    sizes = list(model_file.read_header(run.model).ends)
    written = [
        run.model,
        *_measure(field, run.model, scene, run, console, most_views=TRAINED_VIEWS, sizes=sizes, describe=True),
    ]
    history = run.history()
    if history:
        written.append(plots.training_curves(run.images / "training.png", history, title=f"{scene.name}: training"))
        written.append(
            plots.rank_trace(run.images / "rank-trace.png", history, title=f"{scene.name}: ranks in training")
        )
    path = scene.default_path()
    cameras = path.cameras(VIDEO_FRAMES)
    frames = console.track(media.render_frames(field, cameras), "video", len(cameras))
    written.append(media.write_video(run.images / f"{path.to_dict()['path']}.mp4", frames, fps=VIDEO_FPS))
    console.written(written)


def _measure(
    field: "Field",
    source: Path,
    scene: Scene,
    result: RunFolder,
    console: Console,
    *,
    sizes: list[int],
    ranks: tuple[int, ...] | None = None,
    most_views: int | None = None,
    pictures: Path | None = None,
    fit_gains: bool | None = None,
    describe: bool = False,
    lpips: Perceptual | None = None,
) -> list[Path]:
    """Shows the table of ranks; writes ``eval.json``, pictures and the plot of sizes. Returns what it wrote.

    ``source`` is the file that holds the field, ``sizes`` its bytes with 1, 2, ... ranks. What ``eval.json`` knows of
    its other ranks stays there. ``describe``: what was measured is said in the file itself, too, with a thumbnail.
    """
    views, what = _views_to_measure(scene, most_views)
    if fit_gains is None:
        fit_gains = trained_with_gains(field.metadata)
    if fit_gains:
        what = f"the right halves of {what}, after gains fitted on the left"
    renderer = measure.new_renderer(field)
    background = field.background
    total = n_renders(field.rank, len(views)) if ranks is None else len(views) * len(ranks)
    with console.counter("measuring", total) as count:
        options = measure.MeasureOptions(
            background=background, renderer=renderer, image_dir=pictures, sizes=sizes, fit_gains=fit_gains,
            on_view=lambda rank, index: count(), lpips=lpips,
        )  # fmt: skip
        if ranks is None:
            rows = every_rank(field, measure.Measure(field, views, **options))
        else:
            rows = list(measure.rank_sweep(field, views, ranks, **options))
    of = eval_json.fingerprint(source, views, background, fit_gains)
    known = eval_json.merged_with_file(result.evaluation, rows, len(views), of)
    if describe:
        sizes = _describe_file(field, source, known, renderer, console) or sizes
    rows, known = ([replace(row, bytes=sizes[row.rank - 1]) for row in some] for some in (rows, known))
    console.sweep_table(rows, title=f"mean of {what}")
    if falls := falls_text(rows):
        console.warn(f"more ranks are not always better: {falls}")
    written = [eval_json.write(result.evaluation, known, len(views), of=of)]
    written += _pictures(field, views, ranks, renderer, sizes, result.images)
    title = f"{scene.name}: {what}"
    written.append(plots.size_quality(result.images / "size-quality.png", {scene.name: rows}, title=title))
    if pictures is not None:
        written += [pictures / f"rank-{row.rank:02}" for row in rows if row.views is None]
    return written


def _pictures(
    field: "Field",
    views: Views,
    ranks: tuple[int, ...] | None,
    renderer: "Renderer",
    sizes: list[int],
    folder: Path,
) -> list[Path]:
    """Writes a view at several ranks, and what each group of ranks adds to it. Returns what it wrote."""
    view = view_pictures.view_at_ranks(field, views, ranks, background=field.background, renderer=renderer)
    written = [media.write_png(folder / "comparison.png", view_pictures.comparison(view, sizes))]
    if len(view.ranks) > 1:
        written.append(media.write_png(folder / "contributions.png", view_pictures.contributions(view)))
    return written


def trained_with_gains(metadata: dict[str, Any]) -> bool:
    """Whether each image had gains of its own in the model's training."""
    settings = metadata.get("train")
    return isinstance(settings, dict) and settings.get("image_gains") is True


def _describe_file(
    field: "Field", source: Path, rows: list[SweepRow], renderer: "Renderer", console: Console
) -> list[int] | None:
    """Says in a model file what was measured, with a thumbnail.

    Returns the file's sizes by rank as they then are, None if it cannot be written.
    """
    from tslim.rendering.thumbnail import thumbnail

    psnr = {row.rank: row.psnr for row in rows}
    try:
        header = model_file.describe(source, psnr=psnr, picture=thumbnail(field, renderer))
    except RunFolderError as error:
        console.warn(f"{error}; it does not say what its ranks are worth")
        return None
    return list(header.ends)


def _views_to_measure(scene: Scene, most: int | None) -> tuple[Views, str]:
    """The test views, or some of the training views where a scene has none; and what they are, in words."""
    views, kind = (scene.test, "test views") if len(scene.test) else (scene.train, "training views, for want of others")
    total = len(views)
    if most is not None and total > most:
        return views.spread(most), f"{most} of {total} {kind}"
    return views, f"{total} {kind}"
