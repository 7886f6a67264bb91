"""The page that shows a preview which another process draws (see ``tslim.preview.server``)."""

from tslim.web import assets


def live_page() -> str:
    """All of it as one text."""
    style = assets.text("base.css") + assets.text("live.css")
    return assets.filled("live.html", style=style, script=assets.script("live.js"))
