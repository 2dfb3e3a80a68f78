"""Starting in less time where Python can put imports off until what they import is used: from 3.15 on."""

from __future__ import annotations

import sys


def put_off() -> None:
    """Let imports at the top of modules wait from now on.

    ``activation.serve()`` loads what was put off once it accepts. A daemon without it calls :func:`load` then.
    """
    if sys.version_info >= (3, 15):
        sys.set_lazy_imports("all")


def load() -> None:
    """Load what was put off: when a command has run out of descriptors, it could not."""
    if sys.version_info >= (3, 15):
        sys.set_lazy_imports("normal")
        import importlib

        for name in sorted(sys.lazy_modules - sys.modules.keys()):
            module, _, attribute = name.rpartition(".")
            try:
                # To look at a name in a module loads what it stands for.
                if not hasattr(sys.modules.get(module), attribute):
                    importlib.import_module(name)
            except Exception:  # noqa: S110
                pass  # It is raised where the name is used.
