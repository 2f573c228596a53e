"""What a modelled host answers when a guest executes HVC or SMC: PSCI, SMCCC and KVM's other services, sans-IO.

Events go in and replies come out as plain data (`firmware.trap`); `firmware.dispatch.Firmware` is the door. The package
imports the standard library alone and never sees the machine that runs the guest.
"""
