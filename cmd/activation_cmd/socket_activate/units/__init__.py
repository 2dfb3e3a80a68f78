"""From unit files to a model: texts come in, pairs of a socket unit and its service go out.

Read ``load`` first. ``files`` finds a unit's file and its drop-ins, ``syntax`` reads their lines, ``assigned`` reads
the values that count, by ``socket_settings`` and ``service_settings``, and ``building`` makes the unit of them. What
these need for it: ``setting``, ``values``, ``listens``, ``streams``, ``command_lines``, ``environment``,
``specifiers`` and ``names``; ``known`` has the names of all settings of systemd. ``checks`` finds what does not go
together. The other rooms use the rest as well: ``model``, ``accounts``, ``directories``, ``expansion`` and ``results``.
"""
