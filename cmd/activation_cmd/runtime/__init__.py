"""minirunc's own parts: the bundle's configuration, the container's start, its guardian, its state, its supervision.

Everything up to the container's exec is light: no argparse, no json, no trio. A client is waiting for it. And what runs
in the container's process is loaded before that enters its root, where there may be no Python.
"""
