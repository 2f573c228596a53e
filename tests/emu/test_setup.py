"""How a user's words become a setup."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emu import words
from emu.setup import Choices, VersionChange, make
from emu.words import CallPoint
from firmware.abi import Version
from firmware.errors import RegisterError, UserError
from firmware.trap import Conduit

V0_1, V0_2, V1_0, V1_1, V1_3 = Version(0, 1), Version(0, 2), Version(1, 0), Version(1, 1), Version(1, 3)


@pytest.mark.parametrize(
    ("choices", "offered"),
    [
        (Choices(), V1_3),
        (Choices(psci="0.1"), V0_1),
        (Choices(psci="0.2"), V0_2),
        (Choices(host="kvm-6.12"), V1_1),
        (Choices(host="kvm-6.12", psci="0.1"), V0_1),
        (Choices(fwreg=("PSCI_VERSION=0.1",)), V0_1),
        (Choices(fwreg=("PSCI_VERSION=1",)), V0_1),
        (Choices(fwreg=("PSCI_VERSION=2",)), V0_2),
        (Choices(fwreg=("KVM_REG_ARM_PSCI_VERSION=1.0",)), V1_0),
        (Choices(psci="1.0", fwreg=("PSCI_VERSION=1.1",)), V1_1),
        (Choices(fwreg=("PSCI_VERSION=1.1", "PSCI_VERSION=1.0")), V1_0),
        (Choices(host="qemu-7", psci="1.1"), V1_1),
    ],
)
def test_the_offered_version_is_the_last_one_written(choices: Choices, offered: Version) -> None:
    assert make(choices).config.offered == offered


def test_0_1_may_be_asked_for_by_the_registers_id_too() -> None:
    assert make(Choices(fwreg=("0x6030000000140000=1",))).config.offered == V0_1


def test_a_setup_is_the_same_machine_again() -> None:
    setup = make(Choices(fwreg=("STD_BMAP=0",), mpidrs=(0, 1)))

    assert setup.firmware().config == setup.firmware().config == setup.config
    assert setup.config.bitmap("STD_BMAP") == 0


HVC, SMC, BOTH = {Conduit.HVC}, {Conduit.SMC}, set(Conduit)
CONDUITS = [("hvc", "hvc", HVC), ("smc", "smc", SMC), ("both", "hvc", BOTH), ("none", "hvc", set()), (None, "hvc", HVC)]


@pytest.mark.parametrize(("conduit", "method", "served"), CONDUITS)
def test_a_conduit_decides_method_and_what_is_served(conduit: str | None, method: str, served: set[Conduit]) -> None:
    setup = make(Choices(conduit=conduit))

    assert (setup.method, setup.config.conduits) == (method, frozenset(served))


def test_without_firmware_nothing_is_served_and_there_is_no_node() -> None:
    setup = make(Choices(psci="none", conduit="both"))

    assert setup.config.conduits == frozenset()
    assert setup.psci_node() is None


@pytest.mark.parametrize(
    ("psci", "changes"),
    [
        ("0.2@call:CPU_ON#1", (VersionChange(V0_2, CallPoint("CPU_ON", 1)),)),
        ("0.2@call:CPU_ON", (VersionChange(V0_2, CallPoint("CPU_ON", 1)),)),
        (
            "1.0@call:CPU_OFF#7,1.1@call:CPU_ON#99",
            (VersionChange(V1_0, CallPoint("CPU_OFF", 7)), VersionChange(V1_1, CallPoint("CPU_ON", 99))),
        ),
        ("1.0,0.2@call:CPU_ON#2", (VersionChange(V0_2, CallPoint("CPU_ON", 2)),)),
    ],
)
def test_version_changes_are_read(psci: str, changes: tuple[VersionChange, ...]) -> None:
    assert make(Choices(psci=psci)).version_changes == changes


@pytest.mark.parametrize("psci", ["1.3@call:CPU_ON#1", "0.1@call:CPU_ON#1"])
def test_a_version_change_that_the_host_would_refuse_is_refused_now(psci: str) -> None:
    with pytest.raises(RegisterError, match=r"^EINVAL: "):
        make(Choices(host="kvm-6.12", psci=psci))


@pytest.mark.parametrize(
    ("text", "mpidrs"),
    [
        ("1", (0,)),
        ("8", (0, 1, 2, 3, 4, 5, 6, 7)),
        ("18", (*range(16), 0x100, 0x101)),
        ("cpus=4", (0, 1, 2, 3)),
        ("cpus=8,clusters=2", (0, 1, 2, 3, 0x100, 0x101, 0x102, 0x103)),
        ("clusters=2,cpus=2", (0, 0x100)),
        ("4,clusters=4", (0, 0x100, 0x200, 0x300)),
    ],
)
def test_smp_numbers_aff0_within_aff1(text: str, mpidrs: tuple[int, ...]) -> None:
    assert words.parse_smp(text) == mpidrs


@pytest.mark.parametrize(
    "text",
    ["", "0", "124", "-1", "1,2", "cpus=", "cpus=1,cpus=1", "cores=2", "cpus=3,clusters=2", "1.0", "0x2"],
)
def test_other_smp_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^-smp "):
        words.parse_smp(text)


@pytest.mark.parametrize(
    ("text", "ns"),
    [("1", 10**9), ("10s", 10**10), ("500ms", 5 * 10**8), ("7ns", 7), ("0.5s", 5 * 10**8), ("1.5us", 1500)],
)
def test_a_timeout_has_a_unit_or_is_seconds(text: str, ns: int) -> None:
    assert words.parse_timeout(text) == ns


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "1m", "1e3", "inf", "nan", ".5", "1.", "0.1ns", "1" * 13, "١"])  # noqa: RUF001
def test_other_timeouts_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^--timeout "):
        words.parse_timeout(text)


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("007", 7), ("18446744073709551615", (1 << 64) - 1), ("0xFFFF", 0xFFFF), ("0X10", 16)]
)
def test_numbers_are_decimal_or_0x(text: str, number: int) -> None:
    assert words.parse_number("-x", text) == number


@pytest.mark.parametrize("text", ["", "x", "0x", "-1", "+1", "1_0", "1.0", " 1", "18446744073709551616", "1" * 21, "0b1"])
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(UserError):
        words.parse_number("-x", text)


@pytest.mark.parametrize(("text", "mpidrs"), [("0", (0,)), ("0,1", (0, 1)), ("0x100, 3", (0x100, 3)), ("0xff00ffffff", (0xFF_00FF_FFFF,))])
def test_mpidrs_are_a_list_of_affinities(text: str, mpidrs: tuple[int, ...]) -> None:
    assert words.parse_mpidrs(text, None) == mpidrs


def test_until_is_a_call_or_an_expression() -> None:
    config = make(Choices()).config

    assert words.parse_until(config, "call:CPU_ON#3") == CallPoint("CPU_ON", 3)
    assert words.parse_until(config, "console:a.b") == re.compile(b"a.b")


def test_debug_categories_are_a_set() -> None:
    assert words.parse_debug("psci,int,psci") == frozenset({"psci", "int"})


texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)


@given(text=texts)
@example("1@call:CPU_ON#1")
@example("none@")
@example("@")
@example(",")
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    config = make(Choices()).config
    readers: list[Callable[[], object]] = [
        lambda: make(Choices(psci=text)),
        lambda: make(Choices(fwreg=(text,))),
        lambda: make(Choices(fwreg=(f"{text}=1",))),
        lambda: make(Choices(fwreg=(f"STD_BMAP={text}",))),
        lambda: make(Choices(host=text)),
        lambda: make(Choices(conduit=text)),
        lambda: make(Choices(smccc=text)),
        lambda: make(Choices(cap=(text,))),
        lambda: words.parse_smp(text),
        lambda: words.parse_mpidrs(text, None),
        lambda: words.parse_timeout(text),
        lambda: words.parse_until(config, text),
        lambda: words.parse_until(config, f"console:{text}"),
        lambda: words.parse_until(config, f"call:{text}"),
        lambda: words.parse_debug(text),
        lambda: words.parse_cpu(text),
    ]
    for read in readers:
        try:
            read()
        except UserError as error:
            assert "\n" not in str(error).replace(text, "")  # noqa: PT017
