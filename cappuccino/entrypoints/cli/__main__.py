"""`python -m cappuccino.entrypoints.cli`: the same program where the console script is not on the PATH."""

import sys

from cappuccino.entrypoints.cli import main

sys.exit(main())
