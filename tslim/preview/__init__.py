"""The live preview and the viewer: ``preview.py`` is what training, or a command, shows its field to.

``painter.py`` renders what ``controls.py`` says that the user chose, through a ``camera.py``, as large as ``budget.py``
allows; ``frame.py`` and ``status.py`` put pictures and words together; ``link.py`` sends them to the process of
``window.py`` or, by ``server.py`` and ``http_server.py``, to browsers, whose words ``reports.py`` checks.
"""
