"""``view``: a model in a window or a browser, until it is closed."""

import contextlib

from tslim.commands import shared
from tslim.commands.console import Console
from tslim.commands.options import SceneOptions, View
from tslim.errors import TslimError


def view(args: View, console: Console) -> None:
    """Shows a model in a window, or with ``--serve`` in a browser, until it is closed."""
    shared.require_serving(args.serving)
    source, folder = shared.find_model(args.model, console)
    served = shared.served_preview(args.serving, share=1.0)
    if served is not None:
        served.say_notices(console.line)
    shared.start(args.arch, console)
    from tslim.field.loading import load
    from tslim.preview import preview

    field = load(source)
    scene = None
    if folder is not None or field.metadata.get("built_in"):
        # Photographs to compare with are welcome but not needed.
        with contextlib.suppress(TslimError):
            scene = shared.scene_of_model(field.metadata, folder, None, SceneOptions())
    preview.view(
        field,
        scene=scene,
        folder=folder.path if folder else source.parent,
        model=source,
        preview=served,
        say=console.line,
    )
