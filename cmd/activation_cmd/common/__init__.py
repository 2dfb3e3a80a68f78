"""What the commands share.

``addresses`` reads socket addresses as people and systemd write them, and makes the sockets they stand for;
``stdio`` and ``journal`` print messages and logs without ever waiting for a reader; ``leftovers`` removes what a
command made in the file system; ``imports`` puts imports off; and ``message_queue`` has the calls for POSIX message
queues that Python lacks.
"""
