"""``python -m activation_cmd.socket_activate``."""

import sys

from .main import main

sys.exit(main())
