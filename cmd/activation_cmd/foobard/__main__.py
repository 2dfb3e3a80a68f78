"""``python -m activation_cmd.foobard``."""

import sys

from .main import main

sys.exit(main())
