/* What libzmq itself carries: DEALER -> ROUTER -> DEALER, each a process, no copy of ours, no protocol, no access check.
 * The bound for the bus with large messages. Usage: relay COUNT SIZE CURVE(0|1) ENDPOINT; prints messages per second.
 * Build: cc -O2 relay.c -lzmq
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

static char server_public[41], server_secret[41], client_public[41], client_secret[41];
static const char *endpoint;
static int count, size, curve;

static void *dealer(const char *name)
{
    void *socket = zmq_socket(zmq_ctx_new(), ZMQ_DEALER);
    int linger = -1, mark = 64;
    if (curve) {
        zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server_public, 40);
        zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, client_public, 40);
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, client_secret, 40);
    }
    zmq_setsockopt(socket, ZMQ_SNDHWM, &mark, sizeof mark);
    zmq_setsockopt(socket, ZMQ_RCVHWM, &mark, sizeof mark);
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(socket, ZMQ_ROUTING_ID, name, 1);
    if (zmq_connect(socket, endpoint) != 0)
        exit(1);
    return socket;
}

static void *router(void)
{
    void *socket = zmq_socket(zmq_ctx_new(), ZMQ_ROUTER);
    int on = 1, mark = 64;
    zmq_setsockopt(socket, ZMQ_SNDHWM, &mark, sizeof mark);
    zmq_setsockopt(socket, ZMQ_RCVHWM, &mark, sizeof mark);
    if (curve) {
        zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &on, sizeof on);
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, server_secret, 40);
    }
    zmq_setsockopt(socket, ZMQ_ROUTER_MANDATORY, &on, sizeof on);
    if (zmq_bind(socket, endpoint) != 0)
        exit(1);
    return socket;
}

static void relay(void)
{
    void *socket = router();
    for (int passed = 0; passed < count;) {
        zmq_msg_t from, body;
        zmq_msg_init(&from);
        zmq_msg_init(&body);
        zmq_msg_recv(&from, socket, 0);
        zmq_msg_recv(&body, socket, 0);
        if (zmq_msg_size(&body) > 1) { /* else the reader is there: tell the writer */
            zmq_send(socket, "R", 1, ZMQ_SNDMORE);
            passed++;
        } else {
            while (zmq_send(socket, "W", 1, ZMQ_SNDMORE) < 0)
                usleep(1000);
        }
        zmq_msg_send(&body, socket, 0);
        zmq_msg_close(&from);
    }
    sleep(1); /* what is queued leaves */
    _exit(0);
}

static void reader(void)
{
    void *socket = dealer("R");
    struct timespec start, end;
    zmq_send(socket, "r", 1, 0);
    for (int seen = 0; seen < count; seen++) {
        zmq_msg_t body;
        zmq_msg_init(&body);
        zmq_msg_recv(&body, socket, 0);
        if (seen == 0)
            clock_gettime(CLOCK_MONOTONIC, &start);
        zmq_msg_close(&body);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.0f\n", count / (end.tv_sec - start.tv_sec + (end.tv_nsec - start.tv_nsec) * 1e-9));
    fflush(stdout);
    _exit(0);
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    count = atoi(argv[1]), size = atoi(argv[2]), curve = atoi(argv[3]), endpoint = argv[4];
    zmq_curve_keypair(server_public, server_secret);
    zmq_curve_keypair(client_public, client_secret);
    if (fork() == 0)
        relay();
    if (fork() == 0)
        reader();
    void *socket = dealer("W");
    char *body = calloc(1, size), ready;
    zmq_recv(socket, &ready, 1, 0);
    for (int sent = 0; sent < count; sent++)
        zmq_send(socket, body, size, 0);
    wait(NULL);
    wait(NULL);
    return 0;
}
