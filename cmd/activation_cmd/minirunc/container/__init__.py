"""The process that becomes the container: it starts with a ``Config``, and ends with the exec of the program.

The ``guardian`` is forked first. It enters the first namespaces, while minirunc writes its ``id_maps``, and forks the
process of ``container``. That enters the other namespaces, builds its ``filesystem`` from ``mounts``, looks paths up
``inside``, finds its ``program``, drops its ``privileges``, perhaps waits at its ``gate``, and executes the program
with the ``descriptors`` in place. ``syscalls`` and ``mount_calls`` are the system calls that Python lacks.
"""
