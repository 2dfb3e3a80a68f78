"""socket-activate: systemd's socket units without systemd.

Texts come in, running services go out. Read the rooms in the order in which a run passes through them:

1. ``units``: from unit files to a model.
2. ``sockets``: from the model to descriptors.
3. ``processes``: from descriptors to processes.
4. ``services``: the life of a service.

``main`` runs the command, by the options in ``arguments``. ``command_line`` makes a model of addresses and a COMMAND
instead of unit files. As soon as the sockets listen, and ``signals`` are noted, ``run`` loads the event loop and runs
the services; ``once`` becomes COMMAND instead, and ``check`` only tells what a run would do.

The units and the sockets have named tuples instead of attrs classes: clients wait for them, and attrs takes longer to
load and to make its classes than a hundred units to read.
"""
