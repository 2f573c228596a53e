"""Options as QEMU's users type them."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.commands.run import add_run_options
from emu.options import STATED, Parser, whole_words
from firmware.errors import UserError


def parse(*words: str) -> argparse.Namespace:
    parser = Parser(prog="psci-emu run")
    add_run_options(parser)
    return parser.parse_args(whole_words(words, parser, "psci-emu run"))


@pytest.mark.parametrize("dashes", ["-", "--"])
@pytest.mark.parametrize(
    ("name", "destination"),
    [
        ("append", "append"),
        ("smp", "smp"),
        ("m", "memory"),
        ("d", "debug"),
        ("M", "machine"),
        ("psci", "psci"),
        ("max-insns", "max_insns"),
        ("until", "until"),
    ],
)
def test_a_name_takes_one_dash_or_two_and_its_value_apart_or_joined(dashes: str, name: str, destination: str) -> None:
    assert getattr(parse(dashes + name, "x=y"), destination) == "x=y"
    assert getattr(parse(f"{dashes}{name}=x=y"), destination) == "x=y"


def test_a_value_may_look_like_an_option() -> None:
    assert parse("-append", "-no-reboot --smp 3").append == "-no-reboot --smp 3"
    assert parse("-append", "-kernel").append == "-kernel"
    assert parse("-append", "").append == ""


def test_two_dashes_alone_are_no_value() -> None:
    with pytest.raises(UserError, match=r"^-append cannot be '--'$"):
        parse("-append", "--")


def test_lists_add_up_and_single_values_are_the_last() -> None:
    options = parse("-fwreg", "A=1", "--fwreg=B=2", "-smp", "1", "-smp", "2", "-cap", "c")

    assert (options.fwreg, options.smp, options.cap) == (["A=1", "B=2"], "2", ["c"])


def test_a_flag_takes_no_value() -> None:
    assert parse("-no-reboot").no_reboot
    assert parse("--no-reboot").no_reboot
    with pytest.raises(UserError, match="-no-reboot takes no value"):
        parse("-no-reboot=yes")


@pytest.mark.parametrize("name", STATED)
def test_what_we_do_anyway_may_be_stated_and_nothing_else(name: str) -> None:
    values = STATED[name]
    for dashes in ("-", "--"):
        for value in values or ():
            assert parse(dashes + name, value) == parse() == parse(f"{dashes}{name}={value}")
        if values is None:
            assert parse(dashes + name) == parse()
        with pytest.raises(UserError, match=name):
            parse(f"{dashes}{name}=other")


@pytest.mark.parametrize("name", ["device", "drive", "enable-kvm", "s", "S", "kern", "Kernel", "-kernel", "dd", "mm"])
def test_no_abbreviation_and_no_gluing(name: str) -> None:
    with pytest.raises(UserError, match="is not offered by psci-emu run"):
        parse("-" + name, "x") if not name.startswith("-") else parse("--" + name, "x")


@pytest.mark.parametrize("words", [("-smp2",), ("-m64",), ("-dpsci",)])
def test_a_value_is_not_glued_to_its_name(words: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="is not offered by psci-emu run"):
        parse(*words)


@given(
    words=st.lists(
        st.one_of(st.text(max_size=8), st.sampled_from(["-m", "-d", "-D", "-kernel", "-accel", "-no-reboot", "--", "-", "-M", "-net"])),
        max_size=6,
    )
)
def test_any_words_are_options_or_refused(words: list[str]) -> None:
    if {"-h", "--help", "-help", "--h"} & {word.partition("=")[0] for word in words}:
        return
    try:
        parse(*words)
    except UserError as error:
        assert str(error)  # noqa: PT017
