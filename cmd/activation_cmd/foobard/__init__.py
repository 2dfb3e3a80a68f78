"""foobard: an echo daemon for everything that socket activation can pass.

``main`` reads the command line (``arguments``, loaded only if there is one) and runs ``echo``, which serves streams and
datagrams until the daemon is told to stop.
"""
