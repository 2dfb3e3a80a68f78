"""minirunc: an OCI runtime that passes descriptors on under their names.

A client waits until the container runs, so minirunc loads neither argparse nor json nor trio before the container's
exec. And it loads all that the container's process needs before that process enters its root, where there may be no
Python.

Read it in this order:

1. ``bundle`` reads config.json, and returns a checked configuration.
2. ``container`` is the process that becomes the container, and its guardian.
3. ``starting`` leads from one to the other, with the container's ``state`` in a folder.
4. ``run`` stays until the container ends: ``supervise`` loads trio then, forwards signals, and runs ``notify_proxy``.
   ``create`` leaves the container to a container engine.

``main`` and ``arguments`` are the command line. ``manage`` has the commands that start nothing.
"""
