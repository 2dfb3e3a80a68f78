"""From descriptors to processes: the description of a start comes in, a child that is followed to its end goes out.

``start`` is that description, and an ``order`` is how it is sent. ``executor`` is a small process of its own, a
``forker``, and ``execute`` is what its children do until they become the service; ``surroundings`` opens their streams
and makes their folders. ``launch`` and ``reaper`` follow them from this side, and ``spare`` keeps one child waiting for
clients. ``table`` reads the table of processes, ``group`` knows the processes of one service, and ``control`` runs the
commands of ExecReload=.
"""
