"""An echo by hand on epoll, without tasks and cancellation: the floor for Python. It assumes that no call fails."""

import select
import socket

listener = socket.socket(fileno=3)
listener.setblocking(False)
epoll = select.epoll()
epoll.register(listener, select.EPOLLIN)
connections: dict[int, socket.socket] = {}
unsent: dict[int, bytes] = {}

while True:
    for number, event in epoll.poll():
        if number == 3:
            connection, _ = listener.accept()
            connection.setblocking(False)
            connections[connection.fileno()] = connection
            epoll.register(connection, select.EPOLLIN)
            continue
        connection = connections[number]
        data = unsent.pop(number) if event & select.EPOLLOUT else connection.recv(65536)
        if not data:
            epoll.unregister(number)
            connections.pop(number).close()
            continue
        try:
            sent = connection.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            unsent[number] = data[sent:]
            epoll.modify(number, select.EPOLLOUT)
        elif event & select.EPOLLOUT:
            epoll.modify(number, select.EPOLLIN)
