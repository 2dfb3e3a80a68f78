"""client: a program that talks to an echo daemon.

``main`` reads the address and runs ``session``, which sends standard input and prints what comes back, both at once.
"""
