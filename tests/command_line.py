"""Commands as the tests run them: in this process, what they say caught."""

import contextlib
import io

from tslim import cli

SMALL = ["--arch", "cpu", "--preset", "tiny", "--downscale", "5", "--max-images", "8"]
"""A training of seconds."""


def tslim(*words: object) -> tuple[int, str, str]:
    """Runs a command in this process: exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def refused(*words: object) -> str:
    """Runs a command that must be refused; returns its one line."""
    code, _, err = tslim(*words)
    assert code == 2, err
    assert len(err.splitlines()) == 1 and err.startswith("tslim: "), err
    return err
