"""From the model to descriptors: a socket unit comes in, open descriptors and entries in the file system go out.

``listening`` makes the sockets of all units, ``making`` those of one. ``descriptors`` opens one descriptor of each
kind, ``options`` sets socket options, and ``nodes`` makes paths, symlinks and folders with their modes and owners, and
removes them at the end.
"""
