"""``python -m pradot``."""

import sys

from pradot.cli import main

sys.exit(main())
