"""What runs in a browser: plain JavaScript and GLSL without a build step, and ``page.py``, which makes a page of it.

``march.frag`` is the renderer of one pixel. ``reader.js`` reads a model from where ``source.js`` gets it, unpacks it
with ``decode.js`` if it is compact, and does so in a thread of its own by ``worker.js``; ``field.js`` puts it into the
device's memory. ``painter.js`` draws pictures, ``viewer.js`` decides when and, by ``pace.js``, how fine; ``camera.js``,
``input.js`` and ``app.js`` are what the user has in hand.

The files are put one after the other into two scripts, in the order of ``page.READING`` and ``page.SCRIPTS``: a page
that is opened from a folder cannot import modules.
"""
