"""What README.md tells people to type and click exists."""

import ast
import re
import shlex
from pathlib import Path

import pytest

import tslim
from tslim.commands import options, parsing

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


COMMANDS = [
    line.partition("#")[0].partition(" tslim " if " -m tslim " in line else "tslim ")[2].strip()
    for block in blocks("bash")
    for line in block.splitlines()
    if line.startswith("tslim ") or " -m tslim " in line
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command):
    assert parsing.parse(shlex.split(command)) is not None


def test_there_are_commands_for_everything():
    assert {command.split()[0] for command in COMMANDS} == set(options.COMMANDS)


def test_its_two_commands_stand_on_their_own_in_one_line_each():
    first = blocks("bash")[0].strip()
    test = next(block.strip() for block in blocks("bash") if block.strip().endswith("-m pytest"))
    assert "\n" not in first and "\n" not in test
    assert "-r requirements.txt" in first and first.endswith("-m tslim train --preset demo")
    assert "-r tests/requirements.txt" in test


@pytest.mark.parametrize("code", blocks("python"))
def test_the_library_is_used_by_names_that_it_has(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "tslim":
            assert hasattr(tslim, node.attr), node.attr


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_every_link_and_picture_is_there(target):
    assert (ROOT / target).exists()


def test_every_app_that_is_named_is_there():
    for name in re.findall(r"apps/\w+\.py", README):
        assert (ROOT / name).is_file(), name
