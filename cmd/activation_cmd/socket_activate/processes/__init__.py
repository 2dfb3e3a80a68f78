"""From descriptors to processes: the description of a start comes in, a child that is followed to its end goes out.

``executor`` is a small process of its own that forks; ``execute`` is what its children do until they become the
service. ``launch`` and ``reaper`` follow them from this side, ``spare`` keeps one forked child waiting, ``table``
reads the table of processes, ``group`` knows the processes of one service, and ``control`` runs control commands
such as ExecReload=.
"""
