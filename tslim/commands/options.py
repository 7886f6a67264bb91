"""What each command can be told: one frozen dataclass a command, one documented field an option.

Flags and help are made from these, and from ``tslim.config`` for the settings of training. ``cli.py`` reads them, and
each command's own file acts on them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from tslim import config, presets
from tslim.poses.options import PoseOptions

Arch = Literal["auto", "cpu", "cuda", "vulkan"]


def _maybe(metavar: str, **more) -> object:
    """How an option that may be left out is shown; what happens then is in its help, not "default: None"."""
    return arg(metavar=metavar, help_behavior_hint="", **more)


_Out = _maybe("PATH", aliases=("-o",))
_Path = _maybe("PATH")
_Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, arg(help_behavior_hint="")]
"""One that is off unless it is typed."""


@dataclass(frozen=True)
class SceneOptions:
    """How photographs are read."""

    format: Annotated[str | None, _maybe("NAME")] = None
    """data set format; recognised by its files if not given"""
    downscale: Annotated[int | None, _maybe("INT")] = None
    """load photographs this many times smaller in each direction"""
    background: Annotated[str | None, _maybe("COLOUR")] = None
    """colour behind transparent pixels: white, black or #rrggbb (white if not given)"""
    max_images: Annotated[int | None, _maybe("INT")] = None
    """use at most so many evenly spaced photographs of each split"""
    space: Annotated[Literal["box", "ndc", "contracted"] | None, _maybe("{box,ndc,contracted}")] = None
    """an object in a box, a forward-facing scene, or everything around; chosen by the photographs if not given"""
    file_paths: Annotated[Literal["inside", "anywhere"] | None, _maybe("{inside,anywhere}")] = None
    """whether photographs that a data set names outside of its folder are read, too; inside if not given"""


_SceneFlags = Annotated[SceneOptions, arg(name="")]


@dataclass(frozen=True)
class ServeOptions:
    """Whether the preview is for browsers."""

    serve: Annotated[int | None, _maybe("[PORT]")] = None
    """show the preview in a browser, at this port of this machine (8642, or the next that is free, if none is given);
    the address is printed. From elsewhere: ssh -L 8642:localhost:8642 MACHINE"""
    serve_host: Annotated[str | None, _maybe("HOST")] = None
    """with --serve: listen at this address of the machine, so that others can connect; 0.0.0.0 for all of its
    addresses. Whoever has the address that is printed sees and steers the preview, and others on the way can read
    along"""


_ServeFlags = Annotated[ServeOptions, arg(name="")]


@dataclass(frozen=True)
class Train:
    """Trains one slimmable field on photographs, and shows what each size is worth."""

    path: Positional[Annotated[Path | None, _maybe("[PATH]")]] = None
    """folder of posed photographs; if not given, the built-in scene"""
    preset: Literal["quick", "fine", "best", "demo", "paper", "tiny"] = "quick"
    """where the settings below start from, as suits the scene's space (their defaults here are those for a box); quick
    takes minutes on two CPU cores, fine a quarter of an hour or more, best an hour or more; demo a third of quick, tiny
    seconds; paper is the published one"""
    find_poses: _Flag = False
    """PATH holds photographs without cameras, or is a video: find cameras first, as tslim poses does, and make a data
    set of them, PATH-posed"""
    out: Annotated[Path | None, _Out] = None
    """run folder; runs/NAME of the scene if not given"""
    resume: _Flag = False
    """continue the interrupted run in --out, exactly where it was saved"""
    arch: Arch = "auto"
    """device; auto takes a GPU that works, else the CPU"""
    preview: _Flag = False
    """show the field in a window while it trains"""
    model_only: _Flag = False
    """end with the model: measure nothing, and make no pictures and no video (tslim eval measures it later)"""
    serving: _ServeFlags = field(default_factory=ServeOptions)
    scene: _SceneFlags = field(default_factory=SceneOptions)
    settings: Annotated[config.TrainConfig, arg(name="")] = field(default_factory=presets.quick)


@dataclass(frozen=True)
class Eval:
    """Measures a model at every rank on test views: table, eval.json and plot."""

    model: Positional[Annotated[Path, arg(metavar="RUN|FILE")]]
    """run folder or model file"""
    ranks: Annotated[tuple[int, ...] | None, _maybe("RANK ...")] = None
    """ranks to measure; by default the model's rank and its halves down to 1, and those between on a few views"""
    scene: Annotated[Path | None, _Path] = None
    """folder of posed photographs; by default those that the model was trained on"""
    out: Annotated[Path | None, _Out] = None
    """folder for eval.json and pictures; by default the run folder, or FILE-eval beside a file"""
    save_images: _Flag = False
    """also write every test view at every rank that is measured on all of them"""
    fit_gains: Annotated[bool | None, _maybe("{True,False}")] = None
    """compare the right halves of test views, after a gain of each was fitted on its left half; by default for models
    that were trained with --image-gains"""
    lpips: _Flag = False
    """measure LPIPS, too, by its network VGG (needs the package lpips, which downloads weights of 500 MB once)"""
    arch: Arch = "auto"
    """device"""
    options: _SceneFlags = field(default_factory=SceneOptions)


@dataclass(frozen=True)
class Slim:
    """Writes a smaller model: the first ranks of a larger one, or all in fewer bytes."""

    model: Positional[Annotated[Path, arg(metavar="RUN|FILE")]]
    """run folder or model file"""
    out: Annotated[Path, arg(aliases=("-o",), metavar="PATH")]
    """model file to write (.slim)"""
    rank: Annotated[int | None, _maybe("INT")] = None
    """ranks to keep"""
    max_mb: Annotated[float | None, _maybe("MB")] = None
    """keep as many ranks as fit in so many million bytes, but none that eval found to be worse than a lower one"""
    min_psnr: Annotated[float | None, _maybe("DB")] = None
    """keep the fewest ranks that have so many dB, by what eval measured, or by photographs if --scene names them"""
    density_rank: Annotated[int | None, _maybe("INT")] = None
    """ranks of density to keep where they should be other than those of appearance"""
    appearance_rank: Annotated[int | None, _maybe("INT")] = None
    """ranks of appearance to keep, with --density-rank"""
    separate: _Flag = False
    """with --max-mb: try different ranks of density and appearance on training photographs, and keep the best pair"""
    precision: Annotated[config.Precision | None, _maybe("{float16,float32,compact}")] = None
    """how numbers are stored: in half or single precision, or compact, in a tenth of the bytes of half, for a few
    hundredths of a dB; as in the model if not given, and compact if that is a checkpoint (.th). Without a size, all
    ranks are kept"""
    rounding: Annotated[float | None, _maybe("FLOAT")] = None
    """how coarsely a compact model is rounded; 0.1 if not given, and with --max-mb as coarsely as it takes for all
    ranks to fit, before ranks are dropped"""
    reorder: Literal["auto", "yes", "no"] = "auto"
    """put ranks in order first (see the command reorder); auto: where they are in none, and some are dropped or the
    model is a checkpoint of TensoRF"""
    scene: Annotated[Path | None, _Path] = None
    """folder of posed photographs to measure on; --separate takes those that the model was trained on if not given"""
    arch: Arch = "auto"
    """device to measure on"""
    options: _SceneFlags = field(default_factory=SceneOptions)


@dataclass(frozen=True)
class Reorder:
    """Puts the ranks of a model that was trained whole in order, for slim."""

    model: Positional[Annotated[Path, arg(metavar="RUN|FILE")]]
    """run folder or model file"""
    out: Annotated[Path, arg(aliases=("-o",), metavar="PATH")]
    """model file to write (.slim)"""
    steps: Annotated[int | None, _maybe("INT")] = None
    """train all sizes further, for so many steps on photographs; some hundreds are worth it"""
    scene: Annotated[Path | None, _Path] = None
    """folder of posed photographs to measure on, and to train on with --steps, which takes those that the model was
    trained on if not given"""
    precision: Annotated[config.Precision | None, _maybe("{float16,float32,compact}")] = None
    """how numbers are stored; as in the model if not given"""
    arch: Arch = "auto"
    """device to train and measure on"""
    options: _SceneFlags = field(default_factory=SceneOptions)


@dataclass(frozen=True)
class Render:
    """Renders a model along a camera path to a video or pictures; needs no data set."""

    model: Positional[Annotated[Path, arg(metavar="RUN|FILE")]]
    """run folder or model file"""
    out: Annotated[Path, arg(aliases=("-o",), metavar="PATH")]
    """video (.mp4, .gif), one picture (.png), or a folder of pictures (no suffix)"""
    path: Literal["auto", "orbit", "spiral", "test"] = "auto"
    """orbit around the scene, spiral in front of it, its test cameras (these need the photographs), or auto: the one
    that suits the scene"""
    what: Literal["rgb", "depth", "opacity"] = "rgb"
    """colour, distance or opacity"""
    rank: Annotated[int | None, _maybe("INT")] = None
    """ranks to render with; all by default"""
    frames: Annotated[int | None, _maybe("INT")] = None
    """number of pictures along an orbit or spiral; 120 by default, 1 for a .png"""
    fps: int = 30
    """pictures a second in a video"""
    size: Annotated[str | None, _maybe("WIDTHxHEIGHT")] = None
    """size in pixels, such as 800x600; by default that of the photographs. In another shape, more is shown at two
    sides, and nothing less"""
    scene: Annotated[Path | None, _Path] = None
    """folder of posed photographs for --path test; by default those that the model was trained on"""
    arch: Arch = "auto"
    """device"""
    options: _SceneFlags = field(default_factory=SceneOptions)


@dataclass(frozen=True)
class View:
    """Shows a model in a window or a browser, with a slider for the rank."""

    model: Positional[Annotated[Path, arg(metavar="RUN|FILE")]]
    """run folder or model file"""
    arch: Arch = "auto"
    """device"""
    serving: _ServeFlags = field(default_factory=ServeOptions)


@dataclass(frozen=True)
class Export:
    """Turns a model into a page for browsers, a mesh, points, depth or a checkpoint."""

    model: Positional[Annotated[Path, arg(metavar="RUN|FILE")]]
    """run folder or model file"""
    out: Annotated[Path, arg(aliases=("-o",), metavar="PATH")]
    """what to write, by its suffix: a page that shows the model in any browser, with a slider for the rank (.html); a
    mesh with coloured vertices (.ply, .obj, .glb); the camera path as transforms.json (.json); depth of one view as a
    16-bit picture (.png), or of several as an array (.npy); a folder of pictures with depth and cameras (no suffix); a
    checkpoint for the public code of TensoRF (.th)"""
    split: _Flag = False
    """leave the model in a file beside the page, which a web server sends as it is needed: the page is sharp before all
    of it has arrived"""
    rank: Annotated[int | None, _maybe("INT")] = None
    """ranks to keep; all by default"""
    precision: Annotated[Literal["compact", "float16"] | None, _maybe("{compact,float16}")] = None
    """how the page's model is stored: compact, or in half precision in ten times the bytes; compact if not given"""
    title: Annotated[str | None, _maybe("TEXT")] = None
    """what stands above the page's picture; the model's name if not given"""
    what: Annotated[Literal["mesh", "points"] | None, _maybe("{mesh,points}")] = None
    """what a .ply holds: a mesh, which needs scikit-image, or a cloud of points as seen from all around; a mesh if not
    given"""
    grid: Annotated[int | None, _maybe("INT")] = None
    """cubes of the mesh, or of the points, along the longest side; as many as the model has voxels if not given"""
    level: Annotated[float | None, _maybe("SHARE")] = None
    """share of the light that a voxel on the mesh stops; 0.5 if not given"""
    path: Annotated[Literal["orbit", "spiral"] | None, _maybe("{orbit,spiral}")] = None
    """which camera path cameras, depth and pictures lie on; the one that suits the scene if not given"""
    frames: Annotated[int | None, _maybe("INT")] = None
    """number of cameras on it; 120 by default, 1 for depth"""
    size: Annotated[str | None, _maybe("WIDTHxHEIGHT")] = None
    """size in pixels, such as 800x600; that of the photographs if not given"""
    arch: Arch = "auto"
    """device to render with"""


@dataclass(frozen=True)
class Info:
    """Says what a model file, a run folder or a data set holds."""

    path: Positional[Annotated[Path, arg(metavar="FILE|RUN|SCENE")]]
    """model file, run folder or folder of posed photographs"""
    plot: Annotated[Path | None, _Path] = None
    """draw the data set's cameras, box and points to this picture (.png, .pdf or .svg)"""
    options: _SceneFlags = field(default_factory=SceneOptions)


@dataclass(frozen=True)
class Poses:
    """Finds the cameras of photographs, or of a video, and makes a data set of them."""

    source: Positional[Annotated[Path, arg(metavar="FOLDER|VIDEO")]]
    """folder of pictures, or a video"""
    out: Annotated[Path, arg(aliases=("-o",), metavar="PATH")]
    """folder for the data set: images/ and sparse/0. Interrupted, the same command goes on"""
    options: Annotated[PoseOptions, arg(name="")] = field(default_factory=PoseOptions)


@dataclass(frozen=True)
class Sweep:
    """Trains many scenes, presets, settings and seeds from one file, into one table."""

    file: Positional[Annotated[Path, arg(metavar="FILE")]]
    """what to train (.toml; docs/sweeps.md). What is done already is not done again, what was begun goes on"""
    address: Annotated[str | None, _maybe("ADDRESS")] = None
    """Ray cluster to run on, such as auto or 10.0.0.1:6379; this machine if not given"""
    cpus: Annotated[int | None, _maybe("INT")] = None
    """cores that a training takes; all of a machine if not given"""
    gpus: float = 0.0
    """GPUs that a training takes"""
    arch: Arch = "auto"
    """device of each training"""
    slurm: _Flag = False
    """write an array of SLURM jobs instead of running anything"""
    only: Annotated[int | None, _maybe("INT")] = None
    """run this one training, counted from 0, here, without Ray: what a job of the array does"""
    table: _Flag = False
    """run nothing: write the table of what is finished"""


@dataclass(frozen=True)
class Doctor:
    """Checks what tslim needs on this machine, and that gradients come out right."""


COMMANDS: dict[str, type] = {
    "train": Train,
    "eval": Eval,
    "slim": Slim,
    "reorder": Reorder,
    "render": Render,
    "view": View,
    "export": Export,
    "info": Info,
    "poses": Poses,
    "sweep": Sweep,
    "doctor": Doctor,
}
