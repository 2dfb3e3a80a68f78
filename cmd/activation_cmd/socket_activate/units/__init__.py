"""From texts to a model: unit files come in, pairs of a socket unit and its service go out, and a list of problems.

``files`` finds unit files and drop-ins, ``syntax`` splits them into assignments, and ``settings`` says how each
value is read, with ``values``, ``specifiers``, ``command_lines`` (and its ``expansion``), ``environment`` and
``accounts``. ``load`` puts it together into the classes of ``model`` and reports the settings that ``known`` lists
as not done here. ``results`` holds the rules for how a service has ended.
"""
