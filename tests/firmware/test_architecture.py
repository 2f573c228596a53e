"""Who may import whom, read from the syntax tree."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from firmware.hosts import HOSTS

ROOT = Path(__file__).parents[2]
FIRMWARE = sorted((ROOT / "firmware").rglob("*.py"))
EMU = sorted((ROOT / "emu").rglob("*.py"))
UNICORN_FILES = {"unicorn.py", "engine.py", "registers.py", "sieve.py", "syndrome.py", "trap.py"}


def imported(source: Path) -> set[str]:
    """Return the top-level packages a file imports; importing from inside a function or `if TYPE_CHECKING` counts too."""
    packages = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: a relative import"
            assert node.module is not None
            packages.add(node.module.partition(".")[0])
    return packages


def relative(source: Path) -> str:
    return str(source.relative_to(ROOT))


@pytest.mark.parametrize("source", FIRMWARE, ids=relative)
def test_firmware_imports_the_standard_library_and_itself(source: Path) -> None:
    assert imported(source) <= sys.stdlib_module_names | {"firmware"}


@pytest.mark.parametrize("source", FIRMWARE, ids=relative)
def test_firmware_performs_nothing(source: Path) -> None:
    performs = {"os", "socket", "subprocess", "threading", "time", "random", "secrets", "pathlib", "io", "importlib"}
    allowed = {"importlib"} if relative(source) == "firmware/hosts/__init__.py" else set()  # finds the file of a host

    assert not imported(source) & (performs - allowed)


def _names_unicorn(source: Path) -> bool:
    """Tell whether a file imports Unicorn, or emu/unicorn.py or something from there."""
    imports = [node for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))) if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = [node.module for node in imports if isinstance(node, ast.ImportFrom) and node.module is not None]
    return any("unicorn" in name.split(".") for name in [*modules, *(alias.name for node in imports for alias in node.names)])


@pytest.mark.parametrize("source", EMU, ids=relative)
def test_only_the_unicorn_files_know_unicorn(source: Path) -> None:
    assert _names_unicorn(source) <= (source.relative_to(ROOT / "emu").as_posix() in UNICORN_FILES)


def test_the_syntax_tree_sees_every_kind_of_import(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text("import a.b as c\nfrom d.e import f\ndef g():\n    import h\n", encoding="utf-8")

    assert imported(source) == {"a", "d", "h"}


# The demos of the mail of 2018 are about certain releases, and the linter has a set of firmware that together exposes most; `spec` is
# what a user gets who names none.
NAMED = {
    "emu/migrationdemos.py": {"kvm-4.15", "kvm-4.16", "kvm-4.17", "kvm-5.18"},
    "emu/lint/firmwares.py": {"kvm-4.15", "kvm-6.12", "qemu-7", "tf-a"},
}


def _strings(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_a_host_is_named_in_its_own_file_alone() -> None:
    # What code would compare a host's name, or keep a list of hosts, names one.
    others = [source for source in (*FIRMWARE, *EMU) if source.parent.name != "hosts"]
    named = {relative(source): _strings(source) & HOSTS.keys() - {"spec"} for source in others}

    assert {source: names for source, names in named.items() if names} == NAMED
