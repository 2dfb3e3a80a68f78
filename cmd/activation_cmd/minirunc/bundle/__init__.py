"""The configuration of a container: a bundle's config.json comes in, a checked ``Config`` goes out.

``documents`` reads JSON, ``values`` takes values out of it with errors that name their place, ``mount_options``
reads the options of a mount, and ``config`` puts it together. ``spec`` writes a config.json to begin with.
"""
