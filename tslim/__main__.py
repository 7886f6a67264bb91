"""``python -m tslim``. Imports nothing that may be missing before it can say so in one line."""

import sys


def main() -> int:
    """Runs the command line; returns the exit code."""
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        return _stop(f"needs Python 3.10 to 3.13 (Taichi has no wheels for others); this is {sys.version.split()[0]}")
    try:
        from tslim import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("tslim", "kernels"):
            raise
        return _stop(
            f"the package {error.name} is not installed for {sys.executable}: "
            "use the venv's python, or run: python -m pip install -r requirements.txt"
        )
    return cli.main()


def _stop(message: str) -> int:
    sys.stderr.write(f"tslim: {message}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
