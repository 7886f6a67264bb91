"""Imports run one way (apps → tslim → kernels → taichi), and ``import tslim`` changes nothing."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "matplotlib", "imageio", "PIL", "tyro", "rich", "taichi", "numpy", "tkinter", "glfw", "kernels")


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path, *, inside_functions: bool = True) -> set[str]:
    """Top-level packages that a file imports; relative imports count as the file's own package."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    if not inside_functions:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                skipped.update(ast.walk(node))
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                skipped.update(ast.walk(node))
    names = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(path.relative_to(ROOT).parts[0] if node.level else node.module.split(".")[0])
    return names


def run_python(code: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **env}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("path", python_files("kernels"), ids=lambda p: p.name)
def test_kernels_import_taichi_and_nothing_else(path):
    assert imported(path) <= {"taichi", "kernels"}


@pytest.mark.parametrize("path", python_files("kernels"), ids=lambda p: p.name)
def test_kernels_keep_their_annotations_live(path):
    assert "__future__" not in imported(path)


@pytest.mark.parametrize("path", python_files("tslim"), ids=lambda p: str(p.relative_to(ROOT)))
def test_tslim_imports_neither_apps_nor_tests_nor_benchmarks(path):
    assert not imported(path) & {"apps", "tests", "benchmarks", "_checkout"}


@pytest.mark.parametrize("path", python_files("apps"), ids=lambda p: p.name)
def test_apps_do_not_reach_past_tslim(path):
    # Only what times our renderer against the torch twin, or shows it as a function of torch, needs torch.
    text = path.read_text(encoding="utf-8")
    needs_torch = "benchmarks" in imported(path) or "tslim.torch" in text
    assert not imported(path) & ({"kernels", "tests"} | (set() if needs_torch else {"torch"}))
    # What differentiates through the renderer writes a kernel of its own, once tslim.init() has started Taichi.
    assert "taichi" not in imported(path, inside_functions=False)


@pytest.mark.parametrize("path", python_files("apps"), ids=lambda p: p.name)
def test_apps_find_the_checkout_before_tslim(path):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(("import", "from"))]
    ours = [line.split()[1] for line in lines if line.split()[1].split(".")[0] in ("_checkout", "tslim")]
    assert not ours or path.name.startswith("_") or ours[0] == "_checkout"


@pytest.mark.parametrize("path", python_files("tslim"), ids=lambda p: str(p.relative_to(ROOT)))
def test_torch_is_imported_inside_functions_only(path):
    # But for what is there for torch alone, and is imported when it is asked for.
    assert path.parent.name == "torch" or "torch" not in imported(path, inside_functions=False)


def test_the_trainer_does_not_know_the_preview_nor_the_preview_the_trainer():
    def names(file: str | Path) -> set[str]:
        tree = ast.parse((ROOT / "tslim" / file).read_text(encoding="utf-8"))
        modules = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                modules |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
            elif isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
        return modules

    assert not any("preview" in name for name in names("training/trainer.py"))
    files = [path.relative_to(ROOT / "tslim") for path in python_files("tslim/preview")]
    assert files and not any("trainer" in name for file in files for name in names(file))


ROOMS = (
    "errors", "optional", "ownership", "config", "presets", "files", "device", "scene", "data", "poses", "model",
    "decoder", "field", "rendering", "exporting", "torch", "measuring", "training", "web", "preview", "sweeps",
    "commands", "cli", "__main__",
)  # fmt: skip
"""Packages and files of tslim, each of which imports only those before it."""


def test_imports_inside_tslim_run_one_way():
    wrong = []
    for path in python_files("tslim"):
        parts = path.relative_to(ROOT / "tslim").with_suffix("").parts
        room = parts[0]
        if room == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tslim":
                words = node.module.split(".")[1:]
                reached = words[:1] or [alias.name for alias in node.names if not alias.name.startswith("__")]
                wrong += [
                    f"{path.relative_to(ROOT)}:{node.lineno} imports {name}"
                    for name in reached
                    if ROOMS.index(name) > ROOMS.index(room)
                ]
    assert not wrong


def test_only_console_and_command_line_print():
    """The library is silent: no ``print``, no writing to the standard streams, no exit."""
    allowed = {"console.py", "cli.py", "parsing.py", "__main__.py"}
    guilty = []
    for path in python_files("tslim"):
        # A process that only tells another one, line by line, how far it is.
        if path.name in allowed or path.parts[-2:] == ("poses", "worker.py"):
            continue
        # The window's process has a main of its own, which ends when the trainer's does.
        exits = () if path.parts[-2:] == ("preview", "window.py") else ("os._exit",)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "print",
                "exit",
                "quit",
                "sys.exit",
                "sys.stdout.write",
                "sys.stderr.write",
                *exits,
            ):
                guilty.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node.func)}")
    assert not guilty


def test_import_tslim_prints_nothing_writes_nothing_and_loads_nothing_heavy(tmp_path):
    code = "import json, sys, tslim; sys.stderr.write(json.dumps(sorted(sys.modules)))"
    home = tmp_path / "home"
    home.mkdir()
    done = run_python(code, tmp_path, HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    loaded = {name.split(".")[0] for name in json.loads(done.stderr)}
    assert not loaded & set(HEAVY)
    assert [p.name for p in tmp_path.rglob("*")] == ["home"]


def test_using_the_library_loads_no_torch_no_plots_and_no_window_system(tmp_path):
    code = """
import sys, tslim
for name in tslim.__all__:
    if name not in ("Preview", "render_video", "rank_sweep", "SweepRow"):
        getattr(tslim, name)
tslim.init("cpu")
sys.stderr.write(" ".join(sorted({name.split(".")[0] for name in sys.modules})))
"""
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert not set(done.stderr.split()) & {"torch", "matplotlib", "imageio", "tyro", "tkinter", "glfw"}
    assert not list(tmp_path.iterdir())


def test_every_public_name_is_there(tmp_path):
    done = run_python("import tslim\nfor name in tslim.__all__:\n    getattr(tslim, name)", tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error(tmp_path):
    done = run_python("import tslim\ntry: tslim.nonsense\nexcept AttributeError as e: print(e)", tmp_path)
    assert "nonsense" in done.stdout


def test_a_foreign_package_called_kernels_is_one_clear_error(tmp_path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("")
    done = run_python(
        "import sys; from tslim import cli; sys.exit(cli.main(['info', '.']))",
        tmp_path,
        PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}",
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "another package called kernels" in done.stderr and str(tmp_path) in done.stderr


@pytest.mark.parametrize("missing", ["rich", "tyro"])
def test_a_missing_package_is_one_line_that_says_how_to_install(tmp_path, missing):
    code = f"import sys; sys.modules[{missing!r}] = None; from tslim.__main__ import main; sys.exit(main())"
    done = run_python(code, tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "requirements.txt" in done.stderr


def test_a_missing_x11_library_is_one_line_that_names_the_debian_package(tmp_path):
    """Taichi cannot be imported on a minimal server image; stood in for by a taichi that fails as the real one does."""
    (tmp_path / "taichi").mkdir()
    (tmp_path / "taichi" / "__init__.py").write_text(
        "raise ImportError('libX11.so.6: cannot open shared object file: No such file or directory')"
    )
    code = f"import sys; from tslim import cli; sys.exit(cli.main(['train', '--out', {str(tmp_path / 'run')!r}]))"
    done = run_python(code, tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "apt" in done.stderr and "libx11-6" in done.stderr
    assert not (tmp_path / "run").exists()


def test_every_package_is_installed_by_pip_install():
    # Not tomllib: Python 3.10 has none.
    listed = re.search(r"^packages = \[(.*?)\]$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M | re.S)[1]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for folder in ("tslim", "kernels")
        for path in python_files(folder)
        if path.name == "__init__.py"
    }
    assert set(re.findall(r'"(.*?)"', listed)) == found
