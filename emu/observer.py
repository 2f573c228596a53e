"""What may look on while a machine runs."""

from __future__ import annotations

from emu.trap import Record
from firmware.abi import PowerState
from firmware.trap import EntryState, Event, Reply


class Observer:
    """Something that looks on; every method may be left as it is.

    Times are virtual nanoseconds. `call` is asked for by `Machine.observe(..., calls=...)` alone, since a watched call takes the
    long way.
    """

    def call(self, record: Record) -> None:
        """See a call, answered and applied."""

    def firmware_event(self, event: Event, reply: Reply) -> None:
        """See an event other than a call, and the firmware's reply."""

    def register_write(self, register_id: int, value: int) -> None:
        """See an accepted write to a firmware register."""

    def entry(self, vcpu: int, entry: EntryState, before: PowerState, after: PowerState) -> None:
        """See a vCPU about to begin at an entry point."""

    def event(self, vcpu: int, what: str) -> None:
        """See something that happened to a vCPU or the machine, in words."""

    def console(self, text: bytes) -> None:
        """See what the guest printed."""

    def exception(self, number: int, esr: int, far: int | None, pc: int, vector: int) -> None:
        """See an exception the guest took to EL1."""

    def slice(self, vcpu: int, instructions: int) -> None:
        """See a vCPU about to get its turn."""


class Audience(Observer):
    """Many observers as one: what it sees, each of them sees, in the order they came."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = list(observers)

    def add(self, observer: Observer) -> None:
        self._observers.append(observer)

    def firmware_event(self, event: Event, reply: Reply) -> None:
        for observer in self._observers:
            observer.firmware_event(event, reply)

    def register_write(self, register_id: int, value: int) -> None:
        for observer in self._observers:
            observer.register_write(register_id, value)

    def entry(self, vcpu: int, entry: EntryState, before: PowerState, after: PowerState) -> None:
        for observer in self._observers:
            observer.entry(vcpu, entry, before, after)

    def event(self, vcpu: int, what: str) -> None:
        for observer in self._observers:
            observer.event(vcpu, what)

    def console(self, text: bytes) -> None:
        for observer in self._observers:
            observer.console(text)

    def exception(self, number: int, esr: int, far: int | None, pc: int, vector: int) -> None:
        for observer in self._observers:
            observer.exception(number, esr, far, pc, vector)

    def slice(self, vcpu: int, instructions: int) -> None:
        for observer in self._observers:
            observer.slice(vcpu, instructions)
