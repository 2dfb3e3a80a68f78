"""minirunc's own parts: the bundle's configuration, the container's start, its guardian, its state, its supervision.

Everything up to the container's exec is light: no argparse, no json, no trio. A client is waiting for it. And what
runs in the container's process is loaded before that enters its root, where there may be no Python.

``run`` goes through it all: ``config`` is read (``documents``, ``values``, ``mount_options``) and checked, ``state``
is claimed, and ``guardian`` is forked, which enters the first namespaces, with ``id_maps`` written from outside, and
forks ``container``: the rest of the namespaces, the ``filesystem``, the ``privileges``, and the exec with the
``descriptors``. Meanwhile ``supervise`` loads trio, for signals and for ``notify_proxy``. ``syscalls`` is what Python
lacks for that; ``arguments``, ``spec`` and ``manage`` are the command line and the commands that run nothing.
"""
