"""The page that shows a preview which another process draws (see ``tslim.preview.server``)."""

from tslim.web import assets


def live_page() -> str:
    """All of it as one text."""
    return assets.filled("live.html", head=assets.head("tslim: preview", "live.css"), script=assets.script("live.js"))
