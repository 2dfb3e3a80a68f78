"""The configuration of a container: reads a bundle's config.json, and returns a checked ``Config``.

``documents`` reads JSON, and ``values`` takes values out of it, with errors that name their place. ``process`` and
``mounts`` are two of its members, and ``config`` is the whole. ``unapplied`` collects what minirunc does not do.
``kernel`` and ``mount_options`` have the kernel's numbers for the words of config.json. ``spec`` writes a config.json
to start from.
"""
