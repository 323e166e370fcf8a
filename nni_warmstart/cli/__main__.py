"""``python -m nni_warmstart.cli``."""

import sys

from .main import main

sys.exit(main())
