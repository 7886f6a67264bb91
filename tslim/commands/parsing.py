"""From the words of a command line to a dataclass of options; every mistake becomes one ``ConfigError``.

tyro does the work. What it says of a value that it cannot use is about its own insides, so that is said here.
"""

import ast
import contextlib
import dataclasses
import difflib
import inspect
import io
import re
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Union

import tyro

from tslim import __version__, presets
from tslim.commands.options import COMMANDS, Train
from tslim.config import RENAMED
from tslim.errors import ConfigError

UNITS = {"MB": "MB", "DB": "dB"}
"""Units that may be written behind a number, by the name that help has for the value."""


def parse(argv: Sequence[str], **defaults: Any) -> Any:
    """The options of one command as its dataclass; None if help or the version was asked for and shown.

    ``defaults`` replaces the default values of fields of ``Train``. Raises ``ConfigError`` in one line.
    """
    argv = list(argv)
    if not argv:
        argv = ["--help"]
    if argv == ["--version"]:
        print(f"tslim {__version__}")
        return None
    if argv[0] not in (*COMMANDS, "-h", "--help"):
        near = difflib.get_close_matches(argv[0], [*COMMANDS, "--help", "--version"], n=1)
        hint = f"; did you mean {near[0]}?" if near else ";"
        raise ConfigError(f"unknown command {argv[0]}{hint} known: {', '.join(COMMANDS)}")
    known: dict[str, Option] = {}
    if argv[0] in COMMANDS:
        known = options_of(COMMANDS[argv[0]])
        argv = [_with_new_name(word, known) for word in argv]
        _require_known(argv[0], argv[1:], known)
    train = Train(**{"settings": presets.PRESETS[_preset(argv)](), **defaults})
    kinds = tuple(
        Annotated[kind, tyro.conf.subcommand(name, default=train) if kind is Train else tyro.conf.subcommand(name)]
        for name, kind in COMMANDS.items()
    )
    return parsed(
        Union[kinds],  # noqa: UP007
        argv,
        f"(see tslim {argv[0]} --help)",
        known=known,
        documented=COMMANDS.values(),
        prog="tslim",
        description="One radiance field from photographs; choose its size afterwards.",
    )


def parsed(
    kind: Any,
    argv: Sequence[str],
    hint: str,
    *,
    known: "dict[str, Option] | None" = None,
    documented: typing.Iterable[type] = (),
    **more: Any,
) -> Any:
    """Reads a command line by tyro; returns None if help was asked for and shown.

    Args:
        hint: where to read more, at the end of a message.
        known: the options; those of ``kind`` if None.
        documented: the dataclasses whose fields help is about; ``kind`` if none are given.
        more: what else ``tyro.cli`` takes.

    Raises:
        ConfigError: a word that is not understood, in one line.
    """
    known = options_of(kind) if known is None else known
    argv = _spelled_out(_with_port(argv), known)
    if {"-h", "--help"} & set(argv):
        for documented_kind in documented or (kind,):
            _let_help_wrap(documented_kind)
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            return tyro.cli(kind, args=argv, **more)
    except SystemExit as stop:
        if stop.code in (0, None):
            return None
        raise ConfigError(f"{_in_our_words(_one_line(message.getvalue()), argv, known)} {hint}") from None


@dataclasses.dataclass(frozen=True)
class Option:
    """What is known of a long option."""

    kind: Any
    """type of its value, without None; bool for a flag"""
    unit: str | None = None
    """unit that may stand behind its number"""

    @property
    def of_numbers(self) -> type | None:
        """int or float if the value is one such number, or several."""
        inner = typing.get_args(self.kind)[0] if self.several else self.kind
        return inner if inner in (int, float) else None

    @property
    def several(self) -> bool:
        """Whether it takes more values than one."""
        return typing.get_origin(self.kind) is tuple

    @property
    def expected(self) -> str:
        """What it takes, in words."""
        if typing.get_origin(self.kind) is typing.Literal:
            return f"one of {', '.join(typing.get_args(self.kind))}"
        if self.several:
            count = "" if ... in typing.get_args(self.kind) else f"{len(typing.get_args(self.kind))} "
            return count + ("whole numbers, such as 16 8 4" if self.of_numbers is int else "numbers, such as 0.5 1.5")
        if self.of_numbers is int:
            return "a whole number"
        if self.of_numbers is float:
            return f"a number of {self.unit}" if self.unit else "a number"
        return "a value"


def options_of(kind: type, prefix: str = "") -> dict[str, Option]:
    """The long options that a dataclass of options makes, as typed."""
    found: dict[str, Option] = {}
    if not dataclasses.is_dataclass(kind):
        return found
    for f in dataclasses.fields(kind):
        marks = getattr(f.type, "__metadata__", ())
        inner: Any = getattr(f.type, "__origin__", f.type) if marks else f.type
        name = prefix + f.name.replace("_", "-")
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            unnamed = any(getattr(mark, "name", None) == "" for mark in marks)
            found |= options_of(inner, prefix if unnamed else f"{name}.")
        elif tyro.conf.Positional not in marks:
            kinds = [k for k in typing.get_args(inner) if k is not type(None)] if _is_union(inner) else [inner]
            unit = next((UNITS[m.metavar] for m in marks if getattr(m, "metavar", None) in UNITS), None)
            found[f"--{name}"] = Option(kinds[0], unit)
            if inner is bool and tyro.conf.FlagCreatePairsOff not in marks:
                found[f"--{prefix}no-{f.name.replace('_', '-')}"] = Option(bool)
    return found


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (Union, types.UnionType)


def _preset(argv: Sequence[str]) -> str:
    """The preset that the arguments name, read before the rest since it sets the other options' defaults."""
    for i, word in enumerate(argv):
        name = word.partition("=")[2] if word.startswith("--preset=") else "".join(argv[i + 1 : i + 2])
        if word.split("=")[0] == "--preset" and name in presets.PRESETS:
            return name
    return "quick"


def _require_known(command: str, words: Sequence[str], known: dict[str, Option]) -> None:
    """Raises ``ConfigError`` for the first word that looks like an option and is none."""
    for word in words:
        name, equals, _ = word.partition("=")
        option = known.get(name)
        if equals and option is not None and option.kind is bool:
            raise ConfigError(f"{name} takes no value (see tslim {command} --help)")
        if re.match(r"-(?![\d.])", name) and name.replace("_", "-") not in (*known, "--help", "-h", "-o"):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"unknown option {name}{hint} (see tslim {command} --help)")


def _with_new_name(word: str, known: dict[str, Option]) -> str:
    """An option by the name that it has now, if the word is one by its old name (``config.RENAMED``)."""
    name, equals, value = word.partition("=")
    group, dot, last = name.removeprefix("--").replace("-", "_").rpartition(".")
    no = "no_" * last.startswith("no_")
    last = last.removeprefix("no_")
    now = f"--{group}{dot}{no}{RENAMED.get(last, last)}".replace("_", "-")
    return now + equals + value if last in RENAMED and now in known else word


def _spelled_out(argv: Sequence[str], known: dict[str, Option]) -> list[str]:
    """The words with numbers as tyro reads them: ``16,8`` as two words, ``4MB`` and ``4 MB`` without their unit."""
    words: list[str] = []
    option: Option | None = None
    unit: str | None = None
    for word in argv:
        if word.startswith("--"):
            name, equals, value = _with_new_name(word, known).partition("=")
            word = name + equals + value
            option, unit = known.get(name.replace("_", "-")), None
            if not equals or option is None or option.of_numbers is None:
                words.append(word)
            elif option.several:
                words += [name, *_split(value)]
            else:
                words.append(f"{name}={_without_unit(value, option)}")
        elif unit and word.casefold() == unit.casefold():
            unit = None
        elif option is None or option.of_numbers is None:
            words.append(word)
        elif option.several:
            words += _split(word)
        else:
            words.append(_without_unit(word, option))
            unit, option = option.unit, None
    return words


def _with_port(argv: Sequence[str]) -> list[str]:
    """``--serve`` without a port as ``--serve=0``, which stands for any."""
    return [
        "--serve=0" if word == "--serve" and not "".join(argv[i + 1 : i + 2]).isdigit() else word
        for i, word in enumerate(argv)
    ]


def _split(numbers: str) -> list[str]:
    return [part for part in re.split(r"[,;]", numbers) if part] or [numbers]


def _without_unit(number: str, option: Option) -> str:
    return re.sub(rf"\s*{option.unit}$", "", number, flags=re.I) if option.unit else number


def _in_our_words(message: str, argv: Sequence[str], known: dict[str, Option]) -> str:
    """What tyro says of a value, as what was found and what is expected; anything else as it is."""
    # Until 1.0.16 tyro names an argument as Python writes the tuple of its names.
    flag = re.search(r"(?:Error parsing |for argument '(?:\(')?(?:-\w', ')?)(--[\w.-]+)", message)
    option = known.get(flag[1]) if flag else None
    if option is None:
        return message
    name = flag[1] if flag else ""
    places = [i for i, word in enumerate(argv) if word.partition("=")[0].replace("_", "-") == name]
    at = places[-1] if places else None
    if at is None or message.startswith("Missing"):
        return f"{name} needs {option.expected}"
    found = [argv[at].partition("=")[2]] if "=" in argv[at] else list(argv[at + 1 : at + 2])
    if option.several:
        rest = argv[at + 1 :]
        end = next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))
        found = [word for word in (found if "=" in argv[at] else rest[:end]) if not _is_value_of(word, option)][
            :1
        ] or found
    removed = presets.REMOVED.get("".join(found)) if name == "--preset" else None
    return f"{name} {' '.join(found)}: expected {option.expected}" + (f" ({found[0]}: {removed})" if removed else "")


def _is_value_of(word: str, option: Option) -> bool:
    try:
        (option.of_numbers or str)(word)
    except ValueError:
        return False
    return True


def _one_line(box: str) -> str:
    """What tyro says in a box, up to its first rule, as one line."""
    box = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│| \t") for line in box.splitlines()[1:]]
    rules = [i for i, line in enumerate(lines) if re.match(r"[─-]{3}|[╰+]", line)]
    # Where boxes are drawn in ASCII, there is a rule below the title as well.
    begin = 1 if rules and rules[0] == 0 else 0
    end = next((i for i in rules if i > begin), len(lines))
    body = [line for line in lines[begin:end] if line]
    text = re.sub(r"^Missing from [\w ]+:", "missing:", " ".join(body)).replace(" (required)", "")
    return text.replace("Unrecognized options:", "unexpected:") or "wrong arguments"


def _let_help_wrap(kind: type) -> None:
    """Gives the fields of a dataclass their docstrings as one line each, for help to wrap.

    tyro would keep the line breaks of a docstring that is indented. What is in a field's metadata goes before that.
    """
    tree: Any = ast.parse(inspect.cleandoc(inspect.getsource(kind)))
    body = tree.body[0].body
    texts = {}
    for statement, following in zip(body, body[1:], strict=False):
        is_field = isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr)
        if is_field and isinstance(following.value, ast.Constant):
            texts[statement.target.id] = " ".join(str(following.value.value).split())
    for f in dataclasses.fields(kind):
        inner: Any = getattr(f.type, "__origin__", f.type)
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            _let_help_wrap(inner)
        elif f.name in texts:
            f.metadata = types.MappingProxyType({**f.metadata, "help": texts[f.name]})
