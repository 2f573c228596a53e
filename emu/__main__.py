"""`python -m emu` is `psci-emu`."""

import sys

from emu.cli import main

sys.exit(main())
