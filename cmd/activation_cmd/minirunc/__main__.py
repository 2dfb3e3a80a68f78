"""``python -m activation_cmd.minirunc``."""

import sys

from .main import main

sys.exit(main())
