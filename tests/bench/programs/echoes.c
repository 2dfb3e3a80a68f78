/* An echo server on the listening socket at descriptor 3, for any number of connections: the floor for a server. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 256
#define SIZE 65536

struct connection {
    int socket;
    ssize_t size, sent; /* what was read, and what of it is written */
    char buffer[SIZE];
};

static int epoll;

static void watch(struct connection *connection, int how, int socket, unsigned events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};

    if (epoll_ctl(epoll, how, socket, &event))
        exit(1);
}

static void end(struct connection *connection)
{
    close(connection->socket);
    free(connection);
}

/* Whether all that was read is written. */
static int written(struct connection *connection)
{
    while (connection->sent < connection->size) {
        ssize_t more = send(connection->socket, connection->buffer + connection->sent,
                            connection->size - connection->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (more < 0)
            return 0;
        connection->sent += more;
    }
    return 1;
}

static void echo(struct connection *connection, unsigned events)
{
    int waits = !!(events & EPOLLOUT);

    if (!waits) {
        connection->sent = 0;
        connection->size = recv(connection->socket, connection->buffer, SIZE, MSG_DONTWAIT);
        if (connection->size < 0 && errno == EAGAIN)
            return;
        if (connection->size <= 0) {
            end(connection);
            return;
        }
    }
    if (!written(connection)) {
        if (errno != EAGAIN)
            end(connection);
        else if (!waits)
            watch(connection, EPOLL_CTL_MOD, connection->socket, EPOLLOUT);
    } else if (waits) {
        watch(connection, EPOLL_CTL_MOD, connection->socket, EPOLLIN);
    }
}

int main(void)
{
    static struct epoll_event events[EVENTS];

    epoll = epoll_create1(0);
    watch(NULL, EPOLL_CTL_ADD, 3, EPOLLIN);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);

        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr) {
                echo(events[i].data.ptr, events[i].events);
            } else {
                int socket = accept(3, NULL, NULL);
                struct connection *connection = malloc(sizeof *connection);

                if (socket < 0 || !connection)
                    return 1;
                connection->socket = socket;
                watch(connection, EPOLL_CTL_ADD, socket, EPOLLIN);
            }
        }
    }
}
