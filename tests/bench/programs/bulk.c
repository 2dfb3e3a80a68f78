/*
 * Bulk through an echo server: bulk PATH CLIENTS MESSAGES PID
 *
 * Each client sends that many messages of 64 KiB to a Unix socket and receives them back, both as fast as it can. Prints
 * how many messages came back, in how many seconds, and for how many of these the server, process PID, and this program
 * were on a core.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 64
#define SIZE 65536
#define PATIENCE 60 /* seconds */

struct client {
    int socket;
    size_t sent, back;
};

static char message[SIZE], answer[SIZE];
static size_t total; /* bytes that each client sends */
static int epoll;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double clock_seconds(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void watch(struct client *client, int how, unsigned events)
{
    struct epoll_event event = {.events = events, .data.ptr = client};

    if (epoll_ctl(epoll, how, client->socket, &event))
        fail("epoll_ctl");
}

static void give(struct client *client)
{
    while (client->sent < total) {
        size_t from = client->sent % SIZE;
        ssize_t more = send(client->socket, message + from, SIZE - from, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (more < 0 && errno == EAGAIN)
            return;
        if (more < 0)
            fail("send");
        client->sent += more;
    }
    watch(client, EPOLL_CTL_MOD, EPOLLIN);
}

/* Whether all is back. */
static int take(struct client *client)
{
    while (client->back < total) {
        size_t from = client->back % SIZE;
        ssize_t more = recv(client->socket, answer, SIZE - from, MSG_DONTWAIT);

        if (more < 0 && errno == EAGAIN)
            return 0;
        if (more < 0)
            fail("recv");
        if (more == 0 || memcmp(answer, message + from, more)) {
            fprintf(stderr, more ? "the answer is no echo\n" : "the server closed the connection\n");
            exit(1);
        }
        client->back += more;
    }
    return 1;
}

int main(int argc, char **argv)
{
    static struct sockaddr_un address = {.sun_family = AF_UNIX};
    static struct epoll_event events[EVENTS];
    double begun, own, its;
    struct client *clients;
    clockid_t server;
    int count, waiting;

    if (argc != 5 || strlen(argv[1]) >= sizeof address.sun_path)
        return 2;
    strcpy(address.sun_path, argv[1]);
    count = waiting = atoi(argv[2]);
    total = atol(argv[3]) * SIZE;
    if (clock_getcpuclockid(atoi(argv[4]), &server)) {
        fprintf(stderr, "there is no process %s\n", argv[4]);
        return 1;
    }
    for (size_t i = 0; i < SIZE; i++)
        message[i] = 'a' + i % 23 + i / 251 % 3;
    alarm(PATIENCE);
    epoll = epoll_create1(0);
    clients = calloc(count, sizeof *clients);
    if (epoll < 0 || !clients)
        fail("epoll");
    begun = clock_seconds(CLOCK_MONOTONIC);
    own = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
    its = clock_seconds(server);
    for (int i = 0; i < count; i++) {
        clients[i].socket = socket(AF_UNIX, SOCK_STREAM, 0);
        if (clients[i].socket < 0 || connect(clients[i].socket, (struct sockaddr *)&address, sizeof address))
            fail("connect");
        watch(&clients[i], EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
    }
    while (waiting) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);

        if (ready < 0)
            fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;

            if (events[i].events & EPOLLOUT)
                give(client);
            if (events[i].events & EPOLLIN && take(client)) {
                close(client->socket);
                waiting--;
            }
        }
    }
    printf("%ld %.9f %.9f %.9f\n", atol(argv[3]) * count, clock_seconds(CLOCK_MONOTONIC) - begun,
           clock_seconds(server) - its, clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - own);
    return 0;
}
