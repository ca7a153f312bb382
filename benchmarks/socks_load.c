/* Both ends of the SOCKS benchmark, so cheap that what lies between them is what is measured.
 *
 *   socks_load serve ADDRESS PORT
 *       answers "N\n" with N bytes and ends the connection
 *   socks_load load PROXY-PORT ADDRESS PORT BYTES COUNT AT-ONCE PAUSE-MS
 *       COUNT connections through the SOCKS5 proxy on 127.0.0.1, AT-ONCE at a time, each of which asks for BYTES;
 *       prints seconds from the first to the last, and the median microseconds from connect() to the first byte
 *
 * Build: cc -O2 socks_load.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 4096, ZEROS = 8 << 20 };
enum state { CONNECTING, GREETED, ASKED, LOADING };

struct connection {
    enum state state;
    size_t have, left;
    char line[32];
    double begun;
};

static struct connection table[MOST]; /* by descriptor */
static int polled;

static void die(const char *what)
{
    fprintf(stderr, "socks_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static struct sockaddr_in place(const char *address, const char *port)
{
    struct sockaddr_in found = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    if (inet_pton(AF_INET, address, &found.sin_addr) != 1)
        die(address);
    return found;
}

static void watch(int descriptor, int operation, unsigned events)
{
    struct epoll_event event = {.events = events, .data.fd = descriptor};
    if (descriptor >= MOST || epoll_ctl(polled, operation, descriptor, &event) != 0)
        die("epoll_ctl");
}

static int stream(void)
{
    int one = 1, made = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (made < 0 || setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0)
        die("socket");
    return made;
}

/* The server. */

static void serve_one(int descriptor, int zeros)
{
    struct connection *one = &table[descriptor];
    if (one->state != LOADING) {
        ssize_t size = recv(descriptor, one->line + one->have, sizeof one->line - 1 - one->have, 0);
        if (size <= 0) {
            close(descriptor);
            return;
        }
        one->have += size;
        if (!memchr(one->line, '\n', one->have))
            return;
        one->state = LOADING;
        one->left = strtoul(one->line, NULL, 10);
    }
    while (one->left) {
        off_t at = 0;
        ssize_t size = sendfile(descriptor, zeros, &at, one->left < ZEROS ? one->left : ZEROS);
        if (size < 0 && errno == EAGAIN) {
            watch(descriptor, EPOLL_CTL_MOD, EPOLLOUT);
            return;
        }
        if (size <= 0)
            break;
        one->left -= size;
    }
    close(descriptor);
}

static void serve(const char *address, const char *port)
{
    int zeros = memfd_create("zeros", 0), one = 1, server = stream();
    struct sockaddr_in here = place(address, port);
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (zeros < 0 || ftruncate(zeros, ZEROS) != 0)
        die("memfd_create");
    char *pages = mmap(NULL, ZEROS, PROT_WRITE, MAP_SHARED, zeros, 0);
    if (pages == MAP_FAILED)
        die("mmap");
    memset(pages, 0, ZEROS);
    if (bind(server, (struct sockaddr *)&here, sizeof here) != 0 || listen(server, 1024) != 0)
        die("bind");
    watch(server, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        struct epoll_event events[64];
        int count = epoll_wait(polled, events, 64, -1);
        for (int each = 0; each < count; each++) {
            int descriptor = events[each].data.fd;
            if (descriptor != server) {
                serve_one(descriptor, zeros);
                continue;
            }
            int client = accept4(server, NULL, NULL, SOCK_NONBLOCK);
            if (client < 0)
                continue;
            table[client] = (struct connection){0};
            watch(client, EPOLL_CTL_ADD, EPOLLIN);
        }
    }
}

/* The client. */

static struct sockaddr_in proxy, target;
static size_t bytes;
static int count, begun, ended;
static double *waits;

static void begin(void)
{
    int descriptor = stream();
    table[descriptor] = (struct connection){.begun = now()};
    if (connect(descriptor, (struct sockaddr *)&proxy, sizeof proxy) != 0 && errno != EINPROGRESS)
        die("connect");
    watch(descriptor, EPOLL_CTL_ADD, EPOLLOUT);
    begun++;
}

static void say(int descriptor, const void *data, size_t size)
{
    if (send(descriptor, data, size, MSG_NOSIGNAL) != (ssize_t)size)
        die("send");
}

static int heard(int descriptor, size_t size)
{
    struct connection *one = &table[descriptor];
    ssize_t came = recv(descriptor, one->line + one->have, size - one->have, 0);
    if (came < 0 && errno == EAGAIN)
        return 0;
    if (came <= 0)
        die("the proxy hung up");
    one->have += came;
    if (one->have < size)
        return 0;
    one->have = 0;
    if (one->line[1] != 0) {
        fprintf(stderr, "socks_load: the proxy refused with %d\n", one->line[1]);
        exit(1);
    }
    return 1;
}

/* Nonzero when the connection is over. */
static int load_one(int descriptor)
{
    struct connection *one = &table[descriptor];
    char text[32];
    if (one->state == CONNECTING) {
        say(descriptor, "\5\1\0", 3);
        watch(descriptor, EPOLL_CTL_MOD, EPOLLIN);
        one->state = GREETED;
    } else if (one->state == GREETED && heard(descriptor, 2)) {
        memcpy(text, "\5\1\0\1", 4);
        memcpy(text + 4, &target.sin_addr, 4);
        memcpy(text + 8, &target.sin_port, 2);
        say(descriptor, text, 10);
        one->state = ASKED;
    } else if (one->state == ASKED && heard(descriptor, 10)) {
        say(descriptor, text, snprintf(text, sizeof text, "%zu\n", bytes));
        one->state = LOADING;
        one->left = bytes;
    } else if (one->state == LOADING) {
        static char sink[1 << 20];
        ssize_t size = recv(descriptor, sink, sizeof sink, MSG_TRUNC);
        if (size < 0 && errno == EAGAIN)
            return 0;
        if (size < 0 || (size == 0 && one->left))
            errno = size < 0 ? errno : ECONNABORTED, die("a connection ended early");
        if (one->left == bytes)
            waits[ended] = now() - one->begun;
        one->left -= size;
        return size == 0;
    }
    return 0;
}

static int compare(const void *one, const void *other)
{
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

static void load(int at_once, int pause)
{
    double start = now();
    waits = calloc(count, sizeof *waits);
    while (begun < count && begun < at_once)
        begin();
    while (ended < count) {
        struct epoll_event events[64];
        int ready = epoll_wait(polled, events, 64, 30000);
        if (ready <= 0) {
            errno = ETIMEDOUT;
            die("nothing for 30 s");
        }
        for (int each = 0; each < ready; each++) {
            if (!load_one(events[each].data.fd))
                continue;
            close(events[each].data.fd);
            ended++;
            if (pause)
                usleep(pause * 1000);
            if (begun < count)
                begin();
        }
    }
    double seconds = now() - start;
    qsort(waits, count, sizeof *waits, compare);
    printf("%.6f %.1f\n", seconds, waits[count / 2] * 1e6);
}

int main(int argc, char **argv)
{
    polled = epoll_create1(0);
    signal(SIGPIPE, SIG_IGN);
    if (argc == 4 && strcmp(argv[1], "serve") == 0)
        serve(argv[2], argv[3]);
    if (argc != 9 || strcmp(argv[1], "load") != 0) {
        fprintf(stderr, "socks_load: see the head of socks_load.c\n");
        return 2;
    }
    proxy = place("127.0.0.1", argv[2]);
    target = place(argv[3], argv[4]);
    bytes = strtoul(argv[5], NULL, 10);
    count = atoi(argv[6]);
    load(atoi(argv[7]), atoi(argv[8]));
    return 0;
}
