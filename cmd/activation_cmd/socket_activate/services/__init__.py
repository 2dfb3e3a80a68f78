"""The life of a service: pairs of units come in, services that run and restart go out.

``assembly`` makes the sockets and the services. ``on_demand`` starts one service for all clients, ``accepting`` one for
each connection. ``service`` is what a service keeps from one start to the next, ``starts`` describes its starts. A
``life`` is one of these, to the end of its last process; ``running`` has its states, ``stopping`` how it is stopped,
``hearing`` takes in what the service says at its ``notify_socket``, and ``timers`` has the deadlines. ``ends`` tells
what follows an end, and ``limits`` holds the rate limits.
"""
