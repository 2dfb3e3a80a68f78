"""minirunc: an OCI runtime that passes descriptors on under their names.

Until the container's exec everything is light: no argparse, no json, no trio, because a client is waiting. What
runs in the container's process is loaded before the process enters its root, where there may be no Python.

1. ``bundle``: from config.json to a checked configuration.
2. ``container``: the process that becomes the container.

``run`` leads through both: it claims the ``state`` and forks the guardian; meanwhile ``supervise`` loads trio, for
signals and for ``notify_proxy``. ``main`` and ``arguments`` are the command line, ``manage`` the commands that run
nothing.
"""
