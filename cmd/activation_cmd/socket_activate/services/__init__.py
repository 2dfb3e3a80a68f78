"""The life of a service: a pair of units and its sockets come in, services that run and restart go out.

``on_demand`` starts one service for all clients, ``accepting`` one for each connection. ``service`` gathers what a
start needs; ``life`` is one run, from its start to the end of its last process, with ``timers``. ``limits`` holds
the rate limits.
"""
