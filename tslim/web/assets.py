"""The files of this folder as text, and how a page is put together of them."""

import html
import json
from importlib import resources
from typing import Any


def text(name: str) -> str:
    """A file of this folder."""
    return resources.files("tslim.web").joinpath(name).read_text(encoding="utf-8")


def script(*names: str, **constants: Any) -> str:
    """Scripts as one, with names of their own; constants are defined before them."""
    defined = [f"const {name} = {json_text(value)};" for name, value in constants.items()]
    return "\n".join(['(() => {\n"use strict";', *defined, *map(text, names), "})();"])


def module(name: str, *names: str, exports: tuple[str, ...]) -> str:
    """Scripts as one, of whose names other scripts of the page see ``exports``, as members of ``name``."""
    return "\n".join(
        [f'const {name} = (() => {{\n"use strict";', *map(text, names), f"return {{ {', '.join(exports)} }};\n}})();"]
    )


def json_text(value: Any) -> str:
    """As json that may stand within a script element, whatever strangers' texts it holds."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def head(title: str, style: str) -> str:
    """What every page begins with, up to its body; ``style``: its own file of styles."""
    return filled("head.html", title=html.escape(title), style=text("base.css") + text(style))


def filled(name: str, **values: str) -> str:
    """A file whose ``{{names}}`` are replaced; what is filled in is not looked at again."""
    first, *pieces = text(name).split("{{")
    out = [first]
    for piece in pieces:
        key, rest = piece.split("}}", 1)
        out.append((values[key] if key in values else "{{" + key + "}}") + rest)
    return "".join(out)
