"""`python -m emu` is `psci-emu`."""

import gc
import sys


def run() -> int:
    """Run one command; return its exit code."""
    # What start-up allocates stays to the end. Not looking through it for garbage, then or at the end, is a fifth of a short run.
    gc.disable()
    from emu.cli import main  # noqa: PLC0415  after gc.disable

    gc.freeze()
    gc.enable()
    code = main()
    gc.freeze()
    return code


if __name__ == "__main__":
    sys.exit(run())
