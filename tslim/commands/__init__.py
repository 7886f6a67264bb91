"""What the command line can do, a file a command; ``options.py`` says what each can be told, and how.

A command takes its options and speaks through a ``Console``. What several of them need is in ``shared.py``.
"""
