/*
 * Load on an echo server: load ADDRESS KIND CLIENTS SECONDS PID
 *
 * ADDRESS is the path of a Unix socket, or a port on 127.0.0.1.
 *
 * KIND is `connections` (each client connects, has one byte echoed, closes, and begins anew), `round-trips` (each
 * stays connected, sends 32 bytes, waits until all came back, and repeats) or `datagrams` (the same by datagrams, to a
 * port). Prints how many of them there were, in how many seconds, and of these, for how many the server, process PID,
 * and this program were on a core.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 256
#define LARGEST 32
#define PATIENCE 30 /* seconds */

static union {
    struct sockaddr any;
    struct sockaddr_un local;
    struct sockaddr_in internet;
} address;
static socklen_t address_size;
static int type = SOCK_STREAM;
static char message[LARGEST];
static size_t size;
static int epoll;
static size_t *back; /* how many bytes of the message have come back, by descriptor */

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

static void begin(int client)
{
    back[client] = 0;
    /* It is less than any buffer, and the buffer is empty. */
    if (send(client, message, size, MSG_NOSIGNAL) != (ssize_t)size)
        fail("send");
}

static int read_address(const char *text)
{
    if (strspn(text, "0123456789") == strlen(text)) {
        address.internet.sin_family = AF_INET;
        address.internet.sin_port = htons(atoi(text));
        address.internet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address_size = sizeof address.internet;
        return 1;
    }
    if (strlen(text) >= sizeof address.local.sun_path)
        return 0;
    address.local.sun_family = AF_UNIX;
    strcpy(address.local.sun_path, text);
    address_size = sizeof address.local;
    return 1;
}

static void open_client(void)
{
    struct epoll_event event = {.events = EPOLLIN};
    int client = socket(address.any.sa_family, type, 0);

    if (client < 0)
        fail("socket");
    if (connect(client, &address.any, address_size))
        fail("connect");
    event.data.fd = client;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, client, &event))
        fail("epoll_ctl");
    begin(client);
}

/* Whether all of the message is back. */
static int take(int client)
{
    char answer[LARGEST];
    ssize_t more = recv(client, answer, size - back[client], MSG_DONTWAIT);

    if (more < 0 && errno == EAGAIN)
        return 0;
    if (more < 0)
        fail("recv");
    if (more == 0 || memcmp(answer, message + back[client], more)) {
        fprintf(stderr, more ? "the answer is no echo\n" : "the server closed the connection\n");
        exit(1);
    }
    back[client] += more;
    return back[client] == size;
}

int main(int argc, char **argv)
{
    static struct epoll_event events[EVENTS];
    struct rlimit limit;
    double seconds, now, begun = 0, ended = 0, own = 0, its = 0;
    long count = 0, before = 0, counted = 0;
    int anew, clients, waiting;
    clockid_t server;

    if (argc != 6 || !read_address(argv[1]))
        return 2;
    anew = !strcmp(argv[2], "connections");
    if (!strcmp(argv[2], "datagrams"))
        type = SOCK_DGRAM;
    clients = waiting = atoi(argv[3]);
    seconds = atof(argv[4]);
    if (clock_getcpuclockid(atoi(argv[5]), &server)) {
        fprintf(stderr, "there is no process %s\n", argv[5]);
        return 1;
    }
    size = anew ? 1 : LARGEST;
    for (size_t i = 0; i < size; i++)
        message[i] = 'a' + i % 26;

    alarm(PATIENCE);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    back = calloc(clients + 64, sizeof *back);
    epoll = epoll_create1(0);
    if (!back || epoll < 0)
        fail("epoll");
    for (int i = 0; i < clients; i++)
        open_client();

    while (waiting) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);

        if (ready < 0)
            fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            int client = events[i].data.fd;

            if (!take(client))
                continue;
            count++;
            if (ended) {
                waiting--;
            } else if (anew) {
                close(client);
                open_client();
            } else {
                begin(client);
            }
        }
        if (!begun && count >= clients) {
            /* Everybody was accepted: from here on it counts. */
            begun = clock_seconds(CLOCK_MONOTONIC);
            before = count;
            own = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
            its = clock_seconds(server);
        } else if (begun && !ended && (now = clock_seconds(CLOCK_MONOTONIC)) >= begun + seconds) {
            /* Nobody leaves before the answer. */
            ended = now;
            counted = count - before;
            own = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - own;
            its = clock_seconds(server) - its;
        }
    }
    printf("%ld %.9f %.9f %.9f\n", counted, ended - begun, its, own);
    return 0;
}
