/* An echo server on the listening socket at descriptor 3, for one connection: the floor under every other one. */
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    static char buffer[65536];
    ssize_t size;
    int connection = accept(3, NULL, NULL);

    if (connection < 0)
        return 1;
    while ((size = read(connection, buffer, sizeof buffer)) > 0)
        for (ssize_t sent = 0, more; sent < size; sent += more)
            if ((more = write(connection, buffer + sent, size - sent)) < 0)
                return 1;
    return size != 0;
}
