"""`Firmware`: events in, replies out, registers, state. The only file that lists the services.

1. A trap changes no table; only an accepted register write or `configure` builds new ones.
2. `state()` is everything that `restore()` needs, and nothing that a `Config` already says.
"""

from __future__ import annotations

import dataclasses
import errno
from dataclasses import dataclass
from typing import Any, Final, assert_never

from firmware import fwregs, overlay
from firmware.abi import MASK32, PSCI_0_1, Version
from firmware.entropy import Entropy
from firmware.errors import RegisterError, RegisterListError, UserError, unknown
from firmware.general import STANDARD_SECURE
from firmware.host import Call, Config, Host
from firmware.power import Power, PowerSnapshot
from firmware.psci import PSCI
from firmware.psci_0_1 import PSCI_0_1_IDS
from firmware.psci_optional import PSCI_OPTIONAL
from firmware.pv_time import PV_TIME
from firmware.smccc import SMCCC
from firmware.table import Faulty, Function, Live, Service, Tables, build, encode, with_hints
from firmware.trap import NOTHING, Access, Conduit, Enter, EntryState, Event, Init, MpState, Reply, Reset, Resume, Trap, Woken
from firmware.trng import TRNG
from firmware.vendor_hyp import VENDOR_HYP

SERVICES: Final[tuple[Service, ...]] = (PSCI_0_1_IDS, PSCI, PSCI_OPTIONAL, SMCCC, TRNG, PV_TIME, VENDOR_HYP, STANDARD_SECURE)

_STATUSES: Final = 16
_NEXT: Final = Resume.NEXT  # a look into an enumeration is slow


@dataclass(frozen=True, slots=True)
class FirmwareState:
    """What a call, an event or a register write may change.

    version, psci_0_2, bitmaps  the registers' values
    power                       power states, pending entries, and what is remembered beside them
    entropy                     seed and position
    has_run                     whether any vCPU has been entered
    replies                     how many replies each function that faults name has given
    Time is not among them: it comes in with each event that needs it.
    """

    version: Version
    psci_0_2: bool
    bitmaps: tuple[tuple[str, int], ...]
    power: PowerSnapshot
    entropy: tuple[int, int]
    has_run: bool
    replies: tuple[tuple[str, int], ...] = ()


class Firmware:
    """The firmware of one virtual machine.

    config  what the answers depend on
    seed    of TRNG's entropy
    beside  firmware of the same configuration but for faults, whose tables are taken where they are the same
    """

    def __init__(self, config: Config, seed: int = 0, beside: Firmware | None = None) -> None:
        self.power = Power(config.mpidrs, config.ssbd_off)
        self.entropy = Entropy(seed)
        self.has_run = False
        self._replies: dict[str, int] = {}
        self.configure(config, beside)

    def configure(self, config: Config, beside: Firmware | None = None) -> None:
        """Replace the configuration and build its tables."""
        self.config = config
        if beside is not None and beside.config.host is config.host:
            plain, names = beside._plain, beside.names
        else:
            plain, names = build(config, SERVICES), functions_by_id(config)
        self._plain: Tables = plain
        self.names: dict[int, Function] = names
        self.tables = overlay.overlaid(config, self._plain, self.names) if config.faults else self._plain
        self._statuses: dict[int, Reply] = {}

    # ---- events

    def handle(self, event: Event) -> Reply:
        """Answer one event; the reply is all that happens."""
        match event:
            case Trap():
                return self._trap(event)
            case Enter():
                self.has_run = True
                return _entering(self.power.enter(event.vcpu))
            case Access():
                return _entering(self.power.access(event.vcpu)) if self.config.host.access_applies_reset else NOTHING
            case Woken():
                return _entering(self.power.wake(event.vcpu, event.time_ns))
            case Init():
                return _entering(self.power.initialise(event.vcpu, stopped=event.stopped))
            case MpState():
                self.power.set_mp_state(event.vcpu, event.state)
                return NOTHING
            case Reset():
                self.power.reset()
                return NOTHING
            case _:
                assert_never(event)

    def _trap(self, trap: Trap) -> Reply:
        return self._reply(self.tables.by_conduit[trap.conduit].find(trap.regs[0], trap.regs[1], trap.imm), trap)

    def _reply(self, found: Reply | Live | Faulty, trap: Trap) -> Reply:
        if isinstance(found, Live):
            return self.answer(found, trap.vcpu, trap.conduit, trap.regs[1:], trap.big_endian, trap.time_ns)
        if not isinstance(found, Faulty):
            return found
        count = self._replies[found.name] = self._replies.get(found.name, 0) + 1
        plain = found.plain.find(trap.regs[0], trap.regs[1], trap.imm)
        return overlay.answer(self.config, found, count, trap.regs[1], lambda: self._reply(plain, trap))

    def answer(self, live: Live, vcpu: int, conduit: Conduit, args: tuple[int, int, int], big_endian: bool, time_ns: int) -> Reply:
        """Work out the reply to a call whose table entry is not a ready answer; `args` are x1 to x3 as the guest left them."""
        if live.truncated:
            x1, x2, x3 = args
            args = (x1 & MASK32, x2 & MASK32, x3 & MASK32)
        result = live.handler(Call(live.function.name, self.config, self.power, self.entropy, vcpu, conduit, args, big_endian, time_ns))
        written_back = args if live.truncated and self.config.host.truncation_written_back else None
        values, resume, effects, padded = result
        plain = written_back is None and not effects and resume is _NEXT and padded
        if not plain or values is None or len(values) != 1 or not -_STATUSES < values[0] < _STATUSES:
            return encode(self.config.host, result, written_back)
        # A status is the same reply each time; anything wider would fill the store.
        reply = self._statuses.get(values[0])
        if reply is None:
            reply = self._statuses[values[0]] = encode(self.config.host, result)
        return reply

    def is_answered_early(self, conduit: Conduit, fid: int, imm: int) -> bool:
        """Say whether a call is answered in front of the dispatcher, or for its immediate alone."""
        table, function = self.tables.by_conduit[conduit], self.names.get(fid)
        early = function is not None and function.name in self.config.host.at_el2
        return (
            (early and conduit is Conduit.HVC and self.config.el2_fast_path)
            or (bool(imm) and table.immediate is not None)
            or conduit in self.config.host.undispatched
        )

    # ---- registers

    def get_one_reg(self, register_id: int, vcpu: int = 0) -> int:
        """Return a firmware pseudo-register's 64-bit value; raise RegisterError with KVM's errno."""
        return fwregs.read(fwregs.find(self.config, register_id), self.config, off=vcpu in self.power.ssbd_off)

    def set_one_reg(self, register_id: int, value: int, vcpu: int = 0) -> None:
        """Write a firmware pseudo-register, in force at the next call; raise RegisterError with KVM's errno.

        A write is VM-wide but for the bit that is each vCPU's own (`Register.switch`).
        """
        if not 0 <= value < 1 << 64:
            raise UserError(f"register value {value:#x} does not fit in 64 bits")
        register = fwregs.find(self.config, register_id)
        config = register.set(self.config, value, self.has_run)
        if config != self.config:
            self.configure(config)
        on = fwregs.switched(register, config, value)
        if on is not None:
            self.power.switch_ssbd(vcpu, on=on)

    def reg_list(self, room: int | None = None) -> tuple[int, ...]:
        """Return the firmware registers' IDs as KVM_GET_REG_LIST orders them; E2BIG if there is `room` for fewer."""
        if not self.config.initialised:
            raise RegisterError(errno.ENOEXEC, "the register list: the vCPU has not been initialised")
        ids = tuple(register.id for register in fwregs.of_host(self.config))
        if room is not None and room < len(ids):
            raise RegisterListError(room, len(ids))
        return ids

    # ---- state

    @property
    def config_as_it_is(self) -> Config:
        """The configuration of a firmware that could begin in this one's place."""
        return dataclasses.replace(self.config, ssbd_off=self.power.ssbd_off)

    def state(self) -> FirmwareState:
        return FirmwareState(
            self.config.version,
            self.config.psci_0_2,
            self.config.bitmaps,
            self.power.snapshot(),
            (self.entropy.seed, self.entropy.position),
            self.has_run,
            tuple(sorted(self._replies.items())),
        )

    def restore(self, state: FirmwareState) -> None:
        config = self.config
        if (state.version, state.psci_0_2, state.bitmaps) != (config.version, config.psci_0_2, config.bitmaps):
            self.configure(dataclasses.replace(config, version=state.version, psci_0_2=state.psci_0_2, bitmaps=state.bitmaps))
        self.power.restore(state.power)
        self.entropy.seed, self.entropy.position = state.entropy
        self.has_run = state.has_run
        self._replies = dict(state.replies)


def _entering(entry: EntryState | None) -> Reply:
    return NOTHING if entry is None else Reply(entry=entry)


# ---- configurations


def configuration(
    host: Host,
    mpidrs: tuple[int, ...] = (0,),
    *,
    psci: Version | None = None,
    smccc: Version | None = None,
    **columns: Any,
) -> Config:
    """Return the configuration of a fresh VM on a host.

    psci   the version to offer: 0.1 by initialising without the PSCI_0_2 bit, any other by the version register
    smccc  the SMCCC version, where the host has more than one
    Raises UserError (RegisterError with EINVAL where the host has the register) for a version the host does not offer.
    """
    check_trusted_os(host, len(mpidrs))
    config = Config(
        host=host,
        mpidrs=mpidrs,
        version=host.latest,
        smccc=_smccc(host, smccc),
        bitmaps=tuple(sorted(host.bitmap_resets.items())),
        **columns,
    )
    if psci is None or psci == config.offered:
        return config
    if psci == PSCI_0_1 and host.offers_0_1:
        return dataclasses.replace(config, psci_0_2=False)
    if "PSCI_VERSION" not in host.registers:
        raise UserError(f"host {host.name} has no version register: PSCI {host.latest} is all it offers, not {psci}")
    return fwregs.BY_NAME["PSCI_VERSION"].set(config, psci.word, False)


def check_trusted_os(host: Host, vcpus: int) -> None:
    """Raise UserError for a machine without the vCPU that the host's Trusted OS sits on."""
    if host.trusted_os is not None and host.trusted_os.vcpu >= vcpus:
        raise UserError(f"the Trusted OS of host {host.name} sits on vCPU {host.trusted_os.vcpu}, and there are only {vcpus}")


def _smccc(host: Host, smccc: Version | None) -> Version | None:
    if smccc is None:
        return host.smccc
    if smccc not in host.smccc_versions:
        offered = ", ".join(map(str, host.smccc_versions)) or "none"
        raise UserError(f"host {host.name} does not offer SMCCC {smccc}; it offers: {offered}")
    return smccc


# ---- names


def rows(config: Config) -> tuple[tuple[Service, Function], ...]:
    """Return every row there is, served or not, with the service it belongs to."""
    return tuple((service, function) for service in SERVICES for function in service.functions(config))


def functions_by_id(config: Config) -> dict[int, Function]:
    """Return the row of every function ID that has a name, whether the host serves it or not."""
    return with_hints(config, {fid: function for _, function in rows(config) for fid in function.fids})


def function_names(config: Config) -> frozenset[str]:
    return frozenset(function.name for _, function in rows(config))


def check_function_name(config: Config, name: str) -> str:
    """Return the name if there is such a function; raise UserError with the nearest."""
    names = function_names(config)
    if name not in names:
        raise unknown("function", name, names)
    return name
