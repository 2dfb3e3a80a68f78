"""The process that becomes the container: a ``Config`` comes in, the exec of its program comes out.

``guardian`` is forked first and enters the first namespaces, with ``id_maps`` written from outside; it forks
``container``, which enters the others, builds the ``filesystem``, drops its ``privileges`` and executes the program
with the ``descriptors`` in place. ``syscalls`` has the system calls that Python lacks.
"""
