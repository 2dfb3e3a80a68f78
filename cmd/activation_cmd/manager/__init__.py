"""socket-activate's own parts: unit files, the sockets they ask for, and the services that these start."""
