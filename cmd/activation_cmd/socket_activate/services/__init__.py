"""The life of a service: a pair of units and its sockets come in, services that run and restart go out.

Read ``on_demand`` first, which starts one service for all clients, or ``accepting``, which starts one for each
connection. ``service`` gathers what a start needs. ``life`` follows one start to the end of its last process;
``stopping`` is how that end is brought about, ``hearing`` takes in what the service says at its ``notify_socket``, and
``timers`` has the deadlines. ``limits`` holds the rate limits.
"""
