"""What a sweep's file asks for: scenes × presets × variants × seeds, each a training in a folder of its own.

::

    out = "runs/table"                # where everything goes; next to this file if relative
    presets = ["quick", "fine"]
    seeds = [0, 1]
    ranks = [16, 8, 4, 2]             # that are measured
    lpips = true                      # measure LPIPS, too

    [scenes]
    lego = "data/lego"                # relative to this file
    chair = { path = "data/chair", downscale = 2 }

    [settings]                        # of every training: the options of `tslim train`
    steps = 4800

    [variants.smooth]                 # besides: trainings with other settings; "plain" are those without
    tv_density = 0.1
    schedule.upsilon = 0.3
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tslim import __version__
from tslim.errors import ConfigError, RunFolderError, short
from tslim.presets import PRESETS, REMOVED
from tslim.training.run_folder import RunFolder

PLAIN = "plain"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
_KEYS = ("out", "presets", "seeds", "ranks", "lpips", "scenes", "settings", "variants")
MOST_RUNS = 100_000
"""Most trainings that a file may ask for: a few hundred names of each kind would be billions."""
_MOST_LEVELS = 10
"""Most levels of settings within settings, of which tslim has two."""
_SCENE_KEYS = ("path", "format", "downscale", "background", "max_images", "space")


@dataclass(frozen=True)
class Run:
    """One training of a sweep."""

    scene: str
    preset: str
    variant: str
    seed: int
    path: Path | None
    """folder of the images; None for the built-in scene"""
    words: tuple[str, ...]
    """of the command line, besides scene, preset, seed and folder"""
    ranks: tuple[int, ...] | None = None
    """that are measured; the plan's if None"""

    @property
    def name(self) -> str:
        """The name of its folder."""
        variant = () if self.variant == PLAIN else (self.variant,)
        return "-".join((self.scene, self.preset, *variant, f"seed{self.seed}"))

    @property
    def line(self) -> str:
        """The line of the table that it belongs to: trainings that differ only in scene and seed share one."""
        return self.preset if self.variant == PLAIN else f"{self.preset}, {self.variant}"

    def command(self, folder: Path, *, resume: bool) -> list[str]:
        """The words of ``tslim train`` that start, or continue, this training in a folder."""
        if resume:
            return ["train", "--out", str(folder), "--resume"]
        scene = [] if self.path is None else [str(self.path)]
        return ["train", *scene, "--preset", self.preset, "--seed", str(self.seed), "--out", str(folder), *self.words]

    def recipe(self, folder: Path) -> list[str]:
        """What two trainings must have equal to be the same: the command."""
        return self.command(folder, resume=False)

    def prepare(self, folder: RunFolder) -> None:
        """Does nothing: the command makes the folder."""


@dataclass(frozen=True)
class Prepared:
    """One training whose settings stand in its folder before it starts: more than a command line can say."""

    scene: str
    line: str
    """of the table"""
    name: str
    """of its folder"""
    seed: int
    record: Mapping[str, Any]
    """``scene`` and ``train`` of ``config.json``"""
    ranks: tuple[int, ...] | None = None
    """that are measured; the plan's if None"""

    def command(self, folder: Path, *, resume: bool) -> list[str]:
        """The words of ``tslim train`` that start, or continue, this training in a folder that is prepared."""
        return ["train", "--out", str(folder), "--resume"]

    def recipe(self, folder: Path) -> dict[str, Any]:
        """What two trainings must have equal to be the same: the settings, as json has them."""
        return json.loads(json.dumps(self.record))

    def prepare(self, folder: RunFolder) -> None:
        """Writes ``config.json`` if it is not there. Raises ``RunFolderError`` where the folder holds another run."""
        recipe = self.recipe(folder.path)
        if not folder.config.exists():
            folder.create({"version": __version__, **recipe})
        elif {name: folder.settings()[name] for name in recipe} != recipe:
            raise RunFolderError(f"{folder.path} holds a run with other settings or photographs: choose another --out")


Training = Run | Prepared


@dataclass(frozen=True)
class Plan:
    """A sweep."""

    out: Path
    runs: tuple[Training, ...]
    ranks: tuple[int, ...]
    source: Path = field(default_factory=Path)
    """the file that it was read from"""
    lpips: bool = False
    """whether LPIPS is measured, too"""

    def folder(self, run: Training) -> Path:
        """The folder of one training."""
        return self.out / run.name


def read_plan(path: Path) -> Plan:
    """The plan in a TOML file.

    Raises:
        ConfigError: the file cannot be read, or asks for something that makes no sense; the message names the key.
    """
    data = _read_toml(path)
    _require_known(data, _KEYS, str(path))
    scenes = data.get("scenes", {})
    if not isinstance(scenes, dict) or not scenes:
        raise ConfigError(f'{path}: no scenes: name at least one under [scenes], such as lego = "data/lego"')
    presets = _list_of(data, "presets", str, ["quick"], path)
    for preset in presets:
        if preset not in PRESETS:
            why = f" ({preset}: {REMOVED[preset]})" if preset in REMOVED else ""
            raise ConfigError(f"{path}: preset {short(preset)} is unknown; known: {', '.join(PRESETS)}{why}")
    seeds = _list_of(data, "seeds", int, [0], path)
    ranks = tuple(_list_of(data, "ranks", int, [16, 8, 4, 2], path))
    if min(ranks) < 1:
        raise ConfigError(f"{path}: ranks {list(ranks)}: expected 1 or more")
    common = _words(data.get("settings", {}), f"{path}: settings")
    variants = {PLAIN: ()} | {
        _checked_name(name, path): _words(settings, f"{path}: variants.{name}")
        for name, settings in _table(data, "variants", path).items()
    }
    n_runs = len(scenes) * len(presets) * len(variants) * len(seeds)
    if n_runs > MOST_RUNS:
        raise ConfigError(f"{path}: it asks for {n_runs} trainings: at most {MOST_RUNS} can be")
    runs = []
    for scene, entry in scenes.items():
        where, words = _scene(_checked_name(scene, path), entry, path)
        for preset in presets:
            for variant, more in variants.items():
                for seed in seeds:
                    runs.append(Run(scene, preset, variant, seed, where, (*words, *common, *more)))
    out = data.get("out", f"runs/{path.stem}")
    if not _is_path(out):
        raise ConfigError(f"{path}: out is {short(out)}: expected the path of a folder")
    seen: set[str] = set()
    for run in runs:
        if run.name in seen:
            raise ConfigError(f"{path}: two trainings would be named {run.name}: rename a scene or a variant")
        seen.add(run.name)
    if type(data.get("lpips", False)) is not bool:
        raise ConfigError(f"{path}: lpips is {short(data['lpips'])}: expected true or false")
    return Plan((path.parent / out).absolute(), tuple(runs), ranks, path.absolute(), data.get("lpips", False))


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # of numbers with thousands of digits, too
        raise ConfigError(f"{path} is no TOML: {str(error)[:200]}") from error


def _require_known(data: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = [key for key in data if key not in known]
    if unknown:
        raise ConfigError(f"{where}: unknown key {short(unknown[0])}; known: {', '.join(known)}")


def _table(data: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    found = data.get(key, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: {key} is {short(found)}: expected a table")
    return found


def _list_of(data: Mapping[str, Any], key: str, kind: type, default: list, path: Path) -> list:
    found = data.get(key, default)
    if not isinstance(found, list) or not found or not all(type(value) is kind for value in found):
        raise ConfigError(
            f"{path}: {key} is {short(found)}: expected a list of {'names' if kind is str else 'whole numbers'}"
        )
    if len(set(found)) < len(found):
        raise ConfigError(f"{path}: {key} names something twice: {short(found)}")
    return found


def _checked_name(name: str, path: Path) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{path}: {short(name)} cannot name a folder: use letters, digits, '.', '_' and '-'")
    return name


def _scene(name: str, entry: Any, path: Path) -> tuple[Path | None, tuple[str, ...]]:
    """Folder and options of a scene. "builtin" is the built-in one."""
    options = {"path": entry} if isinstance(entry, str) else entry
    if not isinstance(options, dict) or not _is_path(options.get("path")):
        raise ConfigError(f"{path}: scene {name} is {short(entry)}: expected a path, or a table with one")
    _require_known(options, _SCENE_KEYS, f"{path}: scene {name}")
    words = _words({k: v for k, v in options.items() if k != "path"}, f"{path}: scene {name}")
    return (None if options["path"] == "builtin" else (path.parent / options["path"]).absolute()), words


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _words(settings: Any, where: str) -> tuple[str, ...]:
    """Settings as words of the command line."""
    if not isinstance(settings, dict):
        raise ConfigError(f"{where} is {short(settings)}: expected a table of settings")
    words: list[str] = []
    for name, value in _flat(settings, where):
        prefix, _, last = name.rpartition(".")
        prefix, last = (f"{prefix}." if prefix else "").replace("_", "-"), last.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{prefix}{last}" if value else f"--{prefix}no-{last}")
        elif isinstance(value, list):
            words += [f"--{prefix}{last}", *map(str, value)]
        elif isinstance(value, int | float | str):
            words += [f"--{prefix}{last}", str(value)]
        else:
            raise ConfigError(f"{where}: {name} is {short(value)}: expected a number, a word, true or false, or a list")
    if any("\0" in word for word in words):
        raise ConfigError(f"{where}: a name or a value holds a byte of zero")
    return tuple(words)


def _flat(settings: Mapping[str, Any], where: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if prefix.count(".") > _MOST_LEVELS:
        raise ConfigError(f"{where}: {short(prefix)} is no setting")
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, where, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
