"""The README tells the truth: each console block is what its commands print today."""

from __future__ import annotations

import doctest
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from emu.cli import main
from emu.commands.run import add_run_options
from emu.options import Parser
from emu.outcome import ExitCode
from tests import real

_ROOT: Final = Path(__file__).parent.parent
_README: Final = (_ROOT / "README.md").read_text(encoding="utf-8")
_PROMPT: Final = "$ psci-emu "


# A block's commands, which may go on from one another's files, each with the lines that it prints.
Block = list[tuple[str, list[str]]]


def _blocks() -> Iterator[Block]:
    for block in re.findall(r"^```console\n(.*?)^```$", _README, re.MULTILINE | re.DOTALL):
        commands = []
        for part in re.split(r"^(?=\$ )", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.rstrip("\n").split("\n")
            assert command.startswith(_PROMPT), command
            commands.append((command.removeprefix(_PROMPT), lines))
        yield commands


@pytest.fixture
def at_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in a folder that has everything of the project's in it, and keeps what a command writes."""
    for entry in _ROOT.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize("block", list(_blocks()), ids=lambda block: block[0][0])
def test_commands_print_what_the_readme_shows(block: Block, capfd: pytest.CaptureFixture[str]) -> None:
    for command, shown in block:
        if ".cache/kernels" in command:
            real.kernel()

        main(shlex.split(command))

        captured = capfd.readouterr()
        printed = (captured.out + captured.err).replace("\r\n", "\n")
        # "..." stands for any lines; all others are exact.
        pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(line) + r"\n" for line in shown)
        assert re.fullmatch(pattern, printed if printed.endswith("\n") else printed + "\n"), command


@pytest.mark.usefixtures("at_root")
def test_the_python_examples_print_what_the_readme_shows() -> None:
    result = doctest.testfile(str(_ROOT / "README.md"), module_relative=False)

    assert result.attempted
    assert not result.failed


def test_every_option_of_run_is_in_the_readme() -> None:
    parser = Parser(prog="psci-emu run")
    add_run_options(parser)
    names = {action.option_strings[0].lstrip("-") for action in parser._actions} - {"help", "h"}

    missing = {name for name in names if not re.search(rf"`--?{re.escape(name)}[ ,`]", _README)}

    assert not missing


def test_every_exit_code_is_in_the_readme() -> None:
    table = _README.partition("### Exit codes")[2].partition("##")[0]

    told = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}

    assert told == {int(code) for code in ExitCode}
