"""From the model to descriptors: a socket unit comes in, open descriptors and entries in the file system go out.

``making`` makes the sockets of one unit. ``descriptors`` opens one descriptor of each kind, ``options`` sets socket
options, and ``nodes`` makes paths, symlinks and folders with their modes and owners, and removes them at the end.
"""
