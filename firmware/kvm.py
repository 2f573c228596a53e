"""KVM's user interface to the firmware, as a VMM's author knows it: ioctls by name, each refusal with that release's errno.

1. It keeps what user space alone can see (features, the SMCCC filter); everything else is `Firmware`'s, and asked of it each time.
2. A release's peculiarities are columns (`Host.user_interface`); no name is compared.
3. Source, unless a rule says otherwise: Linux Documentation/virt/kvm/api.rst and arch/arm64/kvm/arm.c of the release.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
from typing import Any, Final, NamedTuple

from firmware.abi import MASK32, MASK64, PowerState
from firmware.dispatch import Firmware, configuration
from firmware.errors import KernelError, UserError
from firmware.host import Host, UserInterface
from firmware.trap import Access, Conduit, Enter, EntryState, Init, MpState, MpStateValue, Reply, Resume, SystemEvent, Trap

# Linux arch/arm64/include/uapi/asm/kvm.h.
KVM_ARM_TARGET_GENERIC_V8: Final = 5
KVM_ARM_VCPU_POWER_OFF: Final = 0
KVM_ARM_VCPU_PSCI_0_2: Final = 2
_FEATURE_WORDS: Final = 7
_OFFERED: Final = 1 << KVM_ARM_VCPU_POWER_OFF | 1 << KVM_ARM_VCPU_PSCI_0_2

# Linux include/uapi/linux/kvm.h.
KVM_CAP_ARM_SYSTEM_SUSPEND: Final = 216
KVM_EXIT_HYPERCALL: Final = 3
KVM_EXIT_SYSTEM_EVENT: Final = 24
KVM_SYSTEM_EVENT_WAKEUP: Final = 4
KVM_HYPERCALL_EXIT_SMC: Final = 1 << 0
KVM_ARM_VM_SMCCC_CTRL: Final = 0
KVM_ARM_VM_SMCCC_FILTER: Final = 0

# Ranges that a filter must leave alone: the Arm Architecture service's (arch/arm64/kvm/hypercalls.c, init_smccc_filter).
_RESERVED: Final = ((0x8000_0000, 0x1_0000), (0xC000_0000, 0x1_0000))


class FilterAction(enum.IntEnum):
    """KVM_SMCCC_FILTER_*."""

    HANDLE = 0
    DENY = 1
    FWD_TO_USER = 2


class Exit(NamedTuple):
    """Why KVM_RUN came back.

    reason  KVM_EXIT_SYSTEM_EVENT or KVM_EXIT_HYPERCALL
    type    of a system event
    flags   of a system event before 5.19, and of a hypercall
    data    of a system event since 5.19; ndata is its length
    nr      of a hypercall: the function ID
    """

    reason: int
    type: int = 0
    flags: int = 0
    data: tuple[int, ...] = ()
    nr: int = 0


class Called(NamedTuple):
    """A guest's call: x0 to x3 after it, how the vCPU goes on, and the exit it caused, if any."""

    regs: tuple[int, int, int, int]
    resume: Resume
    exit: Exit | None


class Vm:
    """A virtual machine on a host; its vCPUs are to be initialised one by one.

    target   what KVM_ARM_PREFERRED_TARGET says
    columns  further fields of `Config`, such as mitigations
    Raises UserError for a host that is not KVM's.
    """

    def __init__(self, host: Host, mpidrs: tuple[int, ...] = (0,), *, target: int = KVM_ARM_TARGET_GENERIC_V8, **columns: Any) -> None:
        if host.user_interface is None:
            raise UserError(f"host {host.name} is not a release of KVM: it has no such user interface")
        self.interface: UserInterface = host.user_interface
        self.target = target
        self.firmware = Firmware(configuration(host, mpidrs, initialised=False, **columns))
        self.vcpus = tuple(Vcpu(self, index) for index in range(len(mpidrs)))
        self._filter: list[tuple[int, int, FilterAction]] = []

    def check_extension(self, capability: int) -> int:
        """KVM_CHECK_EXTENSION: 1 for a capability of the firmware's that the release has, else 0."""
        return int(capability in self.interface.extensions)

    def enable_cap(self, capability: int, flags: int = 0) -> None:
        """KVM_ENABLE_CAP: KVM_CAP_ARM_SYSTEM_SUSPEND, at any time. Raises EINVAL."""
        if flags or capability != KVM_CAP_ARM_SYSTEM_SUSPEND or not self.check_extension(capability):
            raise KernelError(errno.EINVAL, f"capability {capability} with flags {flags:#x} cannot be enabled")
        config = self.firmware.config
        self.firmware.configure(dataclasses.replace(config, capabilities=config.capabilities | {"system-suspend"}))

    def has_device_attr(self, group: int, attribute: int) -> None:
        """KVM_HAS_DEVICE_ATTR, of the VM. Raises EINVAL where the release has no such ioctl for a VM, ENXIO for an unknown attribute."""
        self._check_has_attributes()
        if (group, attribute) != (KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER):
            raise KernelError(errno.ENXIO, f"attribute {attribute} of group {group} is not known")

    def _check_has_attributes(self) -> None:
        # Linux commit e0fc6b21616d ("KVM: arm64: Add vm fd device attribute accessors") (in v6.4) brought them for the filter.
        if not self.interface.filter:
            raise KernelError(errno.EINVAL, "this release has no attributes of a VM, and so no SMCCC filter")

    def set_smccc_filter(self, base: int, nr_functions: int, action: int, pad: bytes = bytes(15)) -> None:
        """KVM_ARM_VM_SMCCC_FILTER: what becomes of a range of function IDs, before anything else is asked.

        Raises EINVAL, also where the release has none; EBUSY once the VM has run; EEXIST for a range that overlaps another.
        """
        self._check_has_attributes()
        # Nothing from 0 on wraps to everything, and overlaps. Linux commit 64dc6f1db7e6 made it EINVAL, in 2026 and after v7.0.
        end = base + nr_functions - 1 if base or nr_functions else MASK32
        if any(pad) or end < base or end > MASK32 or action not in list(FilterAction):
            raise KernelError(errno.EINVAL, f"{nr_functions} functions from {base:#x} with action {action} are no filter")
        if self.firmware.has_run:
            raise KernelError(errno.EBUSY, "the VM has run, and its filter cannot change")
        for other, count in (*_RESERVED, *((start, count) for start, count, _ in self._filter)):
            if max(base, other) <= min(end, other + count - 1):
                raise KernelError(errno.EEXIST, f"functions {base:#x} to {end:#x} overlap {other:#x} to {other + count - 1:#x}")
        self._filter.append((base, nr_functions, FilterAction(action)))

    def action(self, fid: int) -> FilterAction:
        """Return what the filter says of a function ID."""
        for base, count, action in self._filter:
            if base <= fid < base + count:
                return action
        return FilterAction.HANDLE

    def initialise(self, with_psci_0_2: bool) -> None:
        """Note the PSCI_0_2 feature of the vCPU that is initialised; the model has it for the whole VM.

        Raises UserError where vCPUs differ in it, which releases before 6.5 allowed.
        """
        # There each vCPU's own bit decides whether it has the VM's version or 0.1, while the store stays the VM's, and a write of 0.1
        # through a vCPU without the bit reaches those with it (Linux v5.4 include/kvm/arm_psci.h, kvm_psci_version). A `Config`, and with
        # it the tables of ready answers, is the whole VM's: this would take a second set of them, for VMs that no VMM is known to create.
        config = self.firmware.config
        if config.initialised and config.psci_0_2 != with_psci_0_2:
            raise UserError("vCPUs of one VM that differ in KVM_ARM_VCPU_PSCI_0_2 are not modelled")
        self.firmware.configure(dataclasses.replace(config, initialised=True, psci_0_2=with_psci_0_2))


class Vcpu:
    """A virtual CPU, and what user space asks of it."""

    def __init__(self, vm: Vm, index: int) -> None:
        self._vm = vm
        self._index = index
        self._features: int | None = None

    def init(self, target: int = KVM_ARM_TARGET_GENERIC_V8, features: tuple[int, ...] = (1 << KVM_ARM_VCPU_PSCI_0_2,)) -> EntryState:
        """KVM_ARM_VCPU_INIT: return what the vCPU is reset to; words of `features` that are left out are 0.

        A reset that waits (CPU_ON's) is taken for this one, and its request stays: the next access or run resets again, to PC 0.

        Raises EINVAL for another target, a feature that is not offered, or other features than before (since 6.5 also than those of the
        VM's other vCPUs); ENOENT for a feature that the release does not know.
        """
        interface = self._vm.interface
        bits, rest = features[0] if features else 0, features[1:]
        if target != self._vm.target and not (target == KVM_ARM_TARGET_GENERIC_V8 and interface.generic_target):
            raise KernelError(errno.EINVAL, f"target {target} is not this host's, {self._vm.target}")
        if bits >> interface.features or any(rest) or len(features) > _FEATURE_WORDS:
            raise KernelError(errno.ENOENT, f"features {', '.join(map(hex, features))}: {interface.features} are known")
        if bits & ~_OFFERED:
            raise KernelError(errno.EINVAL, f"features {bits:#x}: only POWER_OFF and PSCI_0_2 are offered")
        kept = bits if interface.power_off_is_kept else bits & ~(1 << KVM_ARM_VCPU_POWER_OFF)
        if self._features not in (None, kept):
            raise KernelError(errno.EINVAL, f"features {bits:#x}: this vCPU was initialised with {self._features:#x}")
        others = {vcpu._features for vcpu in self._vm.vcpus} - {None}
        if not interface.power_off_is_kept and others - {kept}:
            raise KernelError(errno.EINVAL, f"features {bits:#x}: the VM's vCPUs have others")
        self._vm.initialise(bool(bits >> KVM_ARM_VCPU_PSCI_0_2 & 1))
        self._features = kept
        entry = self._vm.firmware.handle(Init(self._index, stopped=bool(bits >> KVM_ARM_VCPU_POWER_OFF & 1))).entry
        assert entry is not None
        return entry

    # ---- registers

    def get_one_reg(self, register_id: int) -> int:
        """KVM_GET_ONE_REG, of the firmware's registers. Raises ENOEXEC, EINVAL, ENOENT."""
        self._access(f"register {register_id:#018x}")
        return self._vm.firmware.get_one_reg(register_id, self._index)

    def set_one_reg(self, register_id: int, value: int) -> None:
        """KVM_SET_ONE_REG; a write is VM-wide, but for the switch of WORKAROUND_2. Raises ENOEXEC, EINVAL, ENOENT, EBUSY."""
        self._access(f"register {register_id:#018x}")
        self._vm.firmware.set_one_reg(register_id, value, self._index)

    def get_reg_list(self, room: int) -> tuple[int, ...]:
        """KVM_GET_REG_LIST, of the firmware's registers. Raises ENOEXEC, E2BIG (RegisterListError, whose `count` is the n to come with)."""
        self._check_initialised("the register list")
        return self._vm.firmware.reg_list(room)

    def _access(self, what: str) -> EntryState | None:
        self._check_initialised(what)
        # A reset that waits is applied first, where the release does so.
        return self._vm.firmware.handle(Access(self._index)).entry

    def _check_initialised(self, what: str) -> None:
        if self._features is None:
            raise KernelError(errno.ENOEXEC, f"{what}: vCPU {self._index} has not been initialised")

    def registers_at_entry(self) -> EntryState | None:
        """Return the registers that a waiting reset gives the vCPU when user space looks at them; None where it changes nothing."""
        return self._access("the core registers")

    # ---- states

    def get_mp_state(self) -> MpStateValue:
        """KVM_GET_MP_STATE. Raises EINVAL where the release has none."""
        if not self._vm.interface.mp_state:
            raise KernelError(errno.EINVAL, "this release has no multiprocessing state")
        state = self._vm.firmware.power.states[self._index]
        if state is PowerState.OFF:
            return MpStateValue.STOPPED
        # A vCPU in CPU_SUSPEND waits within KVM_RUN, and is RUNNABLE to user space.
        return MpStateValue.SUSPENDED if self._vm.firmware.power.is_suspended_by_user(self._index) else MpStateValue.RUNNABLE

    def set_mp_state(self, state: int) -> None:
        """KVM_SET_MP_STATE. Raises EINVAL for a state that the release does not have."""
        known = {int(value) for value in MpStateValue} - (set() if self._vm.interface.suspended else {int(MpStateValue.SUSPENDED)})
        if not self._vm.interface.mp_state or state not in known:
            raise KernelError(errno.EINVAL, f"multiprocessing state {state} is not known; known: {', '.join(map(str, sorted(known)))}")
        self._vm.firmware.handle(MpState(self._index, MpStateValue(state)))

    # ---- running

    def run(self) -> tuple[EntryState | None, Exit | None]:
        """KVM_RUN: return the registers that a waiting reset gives the vCPU, and the exit if it comes back at once.

        Raises ENOEXEC. A vCPU that user space suspended comes back with WAKEUP each time, until user space makes it RUNNABLE.
        """
        self._check_initialised("KVM_RUN")
        entry = self._vm.firmware.handle(Enter(self._index)).entry
        if self._vm.firmware.power.is_suspended_by_user(self._index):
            return entry, Exit(KVM_EXIT_SYSTEM_EVENT, KVM_SYSTEM_EVENT_WAKEUP)
        return entry, None

    def call(self, conduit: Conduit, x0: int, x1: int = 0, x2: int = 0, x3: int = 0, imm: int = 0) -> Called:
        """Let the guest make a call on this vCPU; return what it and user space see."""
        firmware, regs = self._vm.firmware, (x0, x1, x2, x3)
        fid = x0 & MASK32
        action = FilterAction.HANDLE if firmware.is_answered_early(conduit, fid, imm) else self._vm.action(fid)
        if action is FilterAction.FWD_TO_USER:
            flags = KVM_HYPERCALL_EXIT_SMC if conduit is Conduit.SMC else 0
            return Called(regs, Resume.EXIT, Exit(KVM_EXIT_HYPERCALL, flags=flags, nr=fid))
        if action is FilterAction.DENY:
            return Called((MASK64, 0, 0, 0), Resume.NEXT, None)
        reply = firmware.handle(Trap(self._index, conduit, regs, imm))
        after = {**dict(enumerate(regs)), **dict(reply.regs)}
        return Called((after[0], after[1], after[2], after[3]), reply.resume, self._exit(reply))

    def _exit(self, reply: Reply) -> Exit | None:
        for effect in reply.effects:
            if isinstance(effect, SystemEvent):
                if not self._vm.interface.event_data:
                    return Exit(KVM_EXIT_SYSTEM_EVENT, int(effect.type), effect.flags)
                data = () if effect.type.name == "SUSPEND" else (effect.flags,)
                return Exit(KVM_EXIT_SYSTEM_EVENT, int(effect.type), data=data)
        return None
