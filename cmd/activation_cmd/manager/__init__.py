"""socket-activate's own parts: unit files, the sockets they ask for, and the services that these start.

A run goes through them in this order, which is a good one to read them in:

1. From texts to a model. ``unit_files`` finds the files and drop-ins, ``syntax`` takes them apart, ``settings`` says
   how each value is read (``values``, ``specifiers``, ``command_lines``, ``environment``), ``load`` makes the pairs
   of ``model`` and tells of the rest, for which ``known`` has the names. ``command_line`` makes a pair of addresses
   instead.
2. From the model to descriptors: ``making``, with ``descriptors``, ``socket_options``, ``message_queue`` and
   ``nodes``; ``leftovers`` removes what is made in the file system.
3. From descriptors to processes. ``executor`` is a small process of its own that forks; ``execute`` and ``expansion``
   are what its children do until they become a service. ``launch`` and ``reaper`` follow them from this side.
4. A service's life. ``run`` has all units: those that are ``on_demand``, with one waiting child (``spare``) for all
   of them, and those that are ``accepting``. ``service`` is what a start is made of, with ``accounts`` for whom it runs
   as; ``life`` is what becomes of it, with its processes (``group``, ``processes``), ``timers``, ``control`` commands
   and ``limits``; ``results`` tells how it ended.

Beside that: ``once`` is a run without any of it but the sockets, ``check`` tells of one without doing it.
"""
