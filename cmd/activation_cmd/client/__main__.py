"""``python -m activation_cmd.client``."""

import sys

from .main import main

sys.exit(main())
