"""Loading what lazy imports have put off, once a daemon serves.

Python 3.15 can put imports off until what they import is used, with ``PYTHON_LAZY_IMPORTS=all`` in the environment or
``sys.set_lazy_imports("all")``, and then starts a daemon in two thirds of the time. What is put off for long may fail
when it is needed: clients have taken every descriptor, so there is none to read a file with, and trio ends in the
middle of a cancellation; the files are another release's after an upgrade; a new root directory does not have them.
"""

from __future__ import annotations

import importlib
import sys

from trio.lowlevel import checkpoint

FIRST_TURNS = 16
"""How many turns of all tasks the clients that wait for the start get before. Each listener accepts one in a turn."""


async def load_what_is_put_off() -> None:
    """Load it, after a few turns and then at once: with more turns in between, clients could take every descriptor."""
    for _ in range(FIRST_TURNS):
        await checkpoint()
    looked_at: set[str] = set()
    # What was ever put off: modules, and names in modules, as ``package.module.name``. Loading puts off more.
    while names := set(getattr(sys, "lazy_modules", ())) - looked_at:
        for name in sorted(names - sys.modules.keys()):
            _load(name)
        looked_at |= names


def _load(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    try:
        # To look at a name in a module loads what it stands for.
        if not hasattr(sys.modules.get(module), attribute):
            importlib.import_module(name)
    except Exception:  # noqa: S110
        pass  # It is raised where the name is used, as ever with lazy imports.
