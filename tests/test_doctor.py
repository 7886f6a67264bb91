"""The doctor works on the sickest machine: it is what a user with a broken one is asked to run."""

import pytest

from tslim.device import display, doctor, hardware

NO_VULKAN = {"VK_DRIVER_FILES": "/nowhere", "VK_ICD_FILENAMES": "/nowhere"}
REPORT = "from tslim.device import doctor\nprint(doctor.text(doctor.report()))"


def report(before: str = "", **env: str) -> str:
    """The report from a process of its own."""
    done = hardware.run_python(before + REPORT, timeout=150, env={"DISPLAY": "", "WAYLAND_DISPLAY": "", **env})
    assert done.returncode == 0, done.stderr
    assert "(not found out)" not in done.stdout
    return done.stdout


def test_the_doctor_itself_loads_neither_taichi_nor_numpy():
    loaded = "{'taichi', 'numpy', 'torch', 'rich', 'tyro'} & set(sys.modules)"
    code = f"import sys\nfrom tslim.device import doctor\nprint({loaded})"
    assert hardware.run_python(code, timeout=60).stdout == "set()\n"


def test_it_reports_every_arch_and_why_no_window_opens_without_a_display_and_a_vulkan_driver():
    printed = report(**NO_VULKAN)
    assert "cpu                starts, gradients right" in printed
    assert "DISPLAY            not set" in printed
    assert "no display (DISPLAY is not set)  -> look in a browser instead with --serve" in printed
    assert "vulkan             no Vulkan" in printed


def test_it_survives_a_taichi_that_cannot_load_for_want_of_libx11(tmp_path):
    (tmp_path / "taichi").mkdir()
    (tmp_path / "taichi" / "__init__.py").write_text(
        "raise ImportError('libX11.so.6: cannot open shared object file: No such file or directory')\n"
    )
    printed = report(f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n")
    assert "NO  import taichi" in printed and "libx11-6" in printed
    assert "NO  cpu" in printed
    assert "To do" in printed


def test_it_survives_a_taichi_that_kills_its_process(tmp_path):
    (tmp_path / "taichi").mkdir()
    (tmp_path / "taichi" / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    printed = report(f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n")
    assert "NO  import taichi      crashed (signal 11)" in printed
    assert "NO  cpu                crashed (signal 11)" in printed


def test_a_display_that_does_not_answer_is_told_from_one_that_is_not_set(monkeypatch):
    if hardware.vulkan_loader() is None:
        pytest.skip("no Vulkan loader")
    monkeypatch.setenv("DISPLAY", ":4711")
    problem = display.why_no_window()
    assert problem is not None and problem.reason == "the display :4711 does not answer"


def test_a_missing_vulkan_loader_names_the_packages(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(hardware, "vulkan_loader", lambda: None)
    assert "libvulkan1 and mesa-vulkan-drivers" in str(display.why_no_window())


def test_a_fact_that_cannot_be_found_does_not_hide_the_others():
    def broken():
        yield doctor.Row("first", "fine", True)
        raise OSError("the disk is gone")

    rows = doctor._collect(broken)
    assert [str(r) for r in rows] == [
        "  ok  first              fine",
        "  NO  (not found out)    OSError: the disk is gone",
    ]


@pytest.mark.parametrize("has", [True, False])
def test_the_report_says_whether_bfloat16_is_worth_trying(has, monkeypatch):
    monkeypatch.setattr(hardware, "has_bfloat16", lambda: has)
    row = next(row for row in doctor._machine() if row.name == "bfloat16")
    assert (row.ok, "--decoder-precision" in row.value) == (True if has else None, has)


def test_advice_is_gathered_into_one_apt_line_and_said_once(monkeypatch):
    monkeypatch.setattr(doctor, "_is_debian", lambda: True)
    rows = (
        doctor.Row("X11", "missing", False, "install libx11-6"),
        doctor.Row("Vulkan loader", "missing", False, "install libvulkan1"),
        doctor.Row("cpu", "Taichi does not load", False),
        doctor.Row("cuda", "Taichi does not load", False),
        doctor.Row("window", "no Vulkan driver", False, "install mesa-vulkan-drivers"),
        doctor.Row("torch", "not installed", None, "only needed for the tests"),
    )
    todo = doctor._summary([doctor.Section("all", rows)])
    assert [r.name for r in todo.rows] == ["X11", "Vulkan loader", "cpu", "window", "all at once"]
    assert todo.rows[-1].value == "sudo apt install libvulkan1 libx11-6 mesa-vulkan-drivers"
    healthy = doctor._summary([doctor.Section("all", (doctor.Row("cpu", "starts", True),))])
    assert healthy.title == "Everything works" and not healthy.rows
