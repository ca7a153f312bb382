/*
 * A client of the bus in C: libzmq and msgpack-c, from docs/protocol/sb1.md alone.
 *
 *   apt-get install gcc libzmq3-dev libmsgpack-dev
 *   cc -O2 -Wall -Wextra -o client client.c -lzmq -lmsgpackc
 *   ./client ENDPOINT BROKER_KEY KEY_FILE NAME PEER...
 *
 * It says HELLO, pings, tells its PEERs hello and hears theirs, serves app.echo.NAME and asks theirs, stores
 * an order in the durable topic "orders" and consumes those of all by its consumer NAME, which an operator
 * has made. The key file is JSON with "public" and "secret"; the role app is enough.
 */
#include <msgpack.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <zmq.h>

enum { HELLO = 0x01, PING, BYE, PUBLISH = 0x10, SUBSCRIBE = 0x12, REQUEST = 0x14, REPLY, SERVE, PULL = 0x20, SETTLE };
enum { WELCOME = 0x81, PONG, GOODBYE, OK, ERROR, DELIVERY = 0x90, RECORD = 0x92, REQUEST_DELIVERY = 0x94, REPLY_DELIVERY };

static void *bus;             /* the DEALER */
static const char *name;      /* ours */
static char **peers;          /* whom we expect */
static int peer_count;
static int welcome, pongs;
static int heard[64], heard_count, served, orders; /* of our peers; requests answered; records consumed */
static uint64_t last_id, answered_ref;             /* the answer that came last */
static char answer[256];                           /* its body */
static time_t said, listened;

static void fail(const char *what, const char *why) {
    fprintf(stderr, "error: %s: %s\n", what, why);
    exit(1);
}

/* Send a command. `types` has a letter for each field that follows as name and value: s text, i uint64_t,
 * A array of one text, I array of one uint64_t. A body of NULL is none. */
static void say(int code, const char *body, const char *types, ...) {
    msgpack_sbuffer head;
    msgpack_packer packer;
    va_list fields;

    msgpack_sbuffer_init(&head);
    msgpack_packer_init(&packer, &head, msgpack_sbuffer_write);
    const char start[4] = {'S', 'B', 1, (char)code};
    msgpack_sbuffer_write(&head, start, 4);
    msgpack_pack_map(&packer, strlen(types));
    va_start(fields, types);
    for (; *types; types++) {
        const char *key = va_arg(fields, const char *);
        msgpack_pack_str_with_body(&packer, key, strlen(key));
        if (*types == 'A' || *types == 'I')
            msgpack_pack_array(&packer, 1);
        if (*types == 's' || *types == 'A') {
            const char *value = va_arg(fields, const char *);
            msgpack_pack_str_with_body(&packer, value, strlen(value));
        } else {
            msgpack_pack_uint64(&packer, va_arg(fields, uint64_t));
        }
    }
    va_end(fields);
    if (zmq_send(bus, head.data, head.size, body ? ZMQ_SNDMORE : 0) < 0 ||
        (body && zmq_send(bus, body, strlen(body), 0) < 0))
        fail("cannot send", zmq_strerror(zmq_errno()));
    msgpack_sbuffer_destroy(&head);
    said = time(NULL);
}

static const msgpack_object *field(const msgpack_object *map, const char *key) {
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object *k = &map->via.map.ptr[i].key;
        if (k->type == MSGPACK_OBJECT_STR && k->via.str.size == strlen(key) && !memcmp(k->via.str.ptr, key, strlen(key)))
            return &map->via.map.ptr[i].val;
    }
    return NULL;
}

static uint64_t number(const msgpack_object *map, const char *key) {
    const msgpack_object *value = field(map, key);
    return value && value->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? value->via.u64 : 0;
}

static const char *text(const msgpack_object *map, const char *key, char out[256]) {
    const msgpack_object *value = field(map, key);
    int size = value && value->type == MSGPACK_OBJECT_STR ? (int)value->via.str.size : 0;
    snprintf(out, 256, "%.*s", size, size ? value->via.str.ptr : "");
    return out;
}

static void greet(void) {
    char subject[128], body[128];
    snprintf(subject, sizeof subject, "app.hello.%s", name);
    snprintf(body, sizeof body, "hello from %s", name);
    say(PUBLISH, body, "s", "s", subject);
}

/* A delivery on app.hello.PEER: who is new here is greeted again, because it has not heard us. */
static void hear(const char *subject, const char *body) {
    for (int i = 0; i < peer_count; i++) {
        if (!heard[i] && !strcmp(strrchr(subject, '.') + 1, peers[i])) {
            heard[i] = 1;
            heard_count++;
            printf("heard %s\n", body);
            greet();
        }
    }
}

static void take(int code, const msgpack_object *map, const char *body) {
    char one[256], two[256], reply[512];

    switch (code) {
    case WELCOME: welcome = 1; printf("welcome %s\n", text(map, "key", one)); break;
    case PONG: pongs++; break;
    case OK: answered_ref = number(map, "ref"); snprintf(answer, sizeof answer, "%llu", (unsigned long long)number(map, "seq")); break;
    case REPLY_DELIVERY:
        if (*text(map, "err", one))
            fail(one, text(map, "msg", two));
        answered_ref = number(map, "ref");
        snprintf(answer, sizeof answer, "%s", body);
        break;
    case DELIVERY: hear(text(map, "s", one), body); break;
    case REQUEST_DELIVERY:
        snprintf(reply, sizeof reply, "%s heard %s", name, body);
        say(REPLY, reply, "i", "r", number(map, "r"));
        served++;
        break;
    case RECORD:
        printf("order %llu: %s\n", (unsigned long long)number(map, "seq"), body);
        say(SETTLE, NULL, "ssI", "topic", "orders", "consumer", name, "seqs", number(map, "seq"));
        orders++;
        break;
    case ERROR: case GOODBYE: fail(*text(map, "err", one) ? one : "goodbye", text(map, code == ERROR ? "msg" : "reason", two));
    }
}

/* Wait a little, take in one message, keep the session alive. */
static void turn(void) {
    zmq_pollitem_t item = {bus, 0, ZMQ_POLLIN, 0};
    time_t now = time(NULL);

    if (welcome && now - said >= 5)
        say(PING, NULL, "");
    if (now - listened > 30)
        fail("the broker", "is silent");
    if (zmq_poll(&item, 1, 100) <= 0)
        return;
    zmq_msg_t head, rest;
    zmq_msg_init(&head);
    zmq_msg_init(&rest);
    if (zmq_msg_recv(&head, bus, 0) < 4 || (zmq_msg_more(&head) && zmq_msg_recv(&rest, bus, 0) < 0))
        fail("cannot receive", zmq_strerror(zmq_errno()));
    listened = now;
    char body[256];
    snprintf(body, sizeof body, "%.*s", (int)zmq_msg_size(&rest), (const char *)zmq_msg_data(&rest));
    const unsigned char *data = zmq_msg_data(&head);
    msgpack_unpacked unpacked;
    msgpack_unpacked_init(&unpacked);
    if (msgpack_unpack_next(&unpacked, (const char *)data + 4, zmq_msg_size(&head) - 4, NULL) == MSGPACK_UNPACK_SUCCESS &&
        unpacked.data.type == MSGPACK_OBJECT_MAP)
        take(data[3], &unpacked.data, body);
    msgpack_unpacked_destroy(&unpacked);
    zmq_msg_close(&head);
    zmq_msg_close(&rest);
}

#define UNTIL(condition, what)                                                     \
    for (time_t end = time(NULL) + 30; !(condition); turn())                        \
        if (time(NULL) > end) fail(what, "not within 30 s")

/* The answer to the command that was said with this id. */
static const char *answer_to(uint64_t id) {
    UNTIL(answered_ref == id, "no answer");
    return answer;
}

static void read_key(const char *path, const char *key, char out[41]) {
    char content[1024] = "", *at;
    FILE *file = fopen(path, "r");
    if (!file || !fread(content, 1, sizeof content - 1, file) || !(at = strstr(content, key)) ||
        sscanf(at + strlen(key), "\" : \"%40[^\"]", out) != 1)
        fail(path, "not a key file");
    fclose(file);
}

static void dial(const char *endpoint, const char *broker_key, const char *key_file) {
    char public[41], secret[41], id[17] = {1};
    int linger = 0, reconnect = -1, interval = 10000, timeout = 15000, ttl = 30000, patience = 5000;

    read_key(key_file, "public", public);
    read_key(key_file, "secret", secret);
    bus = zmq_socket(zmq_ctx_new(), ZMQ_DEALER);
    if (getrandom(id + 1, 16, 0) != 16) /* never shown to anybody, never used twice */
        fail("getrandom", "failed");
    zmq_setsockopt(bus, ZMQ_ROUTING_ID, id, sizeof id);
    zmq_setsockopt(bus, ZMQ_CURVE_SERVERKEY, broker_key, 41);
    zmq_setsockopt(bus, ZMQ_CURVE_PUBLICKEY, public, 41);
    zmq_setsockopt(bus, ZMQ_CURVE_SECRETKEY, secret, 41);
    zmq_setsockopt(bus, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(bus, ZMQ_SNDTIMEO, &patience, sizeof patience); /* a lost connection takes nothing */
    zmq_setsockopt(bus, ZMQ_RECONNECT_IVL, &reconnect, sizeof reconnect);
    zmq_setsockopt(bus, ZMQ_HEARTBEAT_IVL, &interval, sizeof interval);
    zmq_setsockopt(bus, ZMQ_HEARTBEAT_TIMEOUT, &timeout, sizeof timeout);
    zmq_setsockopt(bus, ZMQ_HEARTBEAT_TTL, &ttl, sizeof ttl);
    if (zmq_connect(bus, endpoint) < 0)
        fail(endpoint, zmq_strerror(zmq_errno()));
    said = listened = time(NULL);
    say(HELLO, NULL, "ssA", "name", name, "lang", "c", "caps", "durable");
    for (time_t end = time(NULL) + 5; !welcome; turn())
        if (time(NULL) > end)
            fail(endpoint, "no broker answers, or it does not allow this key");
}

int main(int count, char **arguments) {
    if (count < 5 || count > 64) {
        fprintf(stderr, "usage: client ENDPOINT BROKER_KEY KEY_FILE NAME PEER...\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    name = arguments[4];
    peers = arguments + 5;
    peer_count = count - 5;
    char subject[128], body[128];
    dial(arguments[1], arguments[2], arguments[3]);

    say(PING, NULL, "i", "t", (uint64_t)4711);
    UNTIL(pongs > 0, "no PONG");
    printf("pong\n");

    snprintf(subject, sizeof subject, "app.echo.%s", name);
    say(SERVE, NULL, "is", "id", ++last_id, "s", subject);
    answer_to(last_id);
    say(SUBSCRIBE, NULL, "iis", "id", ++last_id, "sid", (uint64_t)1, "s", "app.hello.*");
    answer_to(last_id);
    greet();
    UNTIL(heard_count == peer_count, "not all peers are there");

    for (int i = 0; i < peer_count; i++) {
        snprintf(subject, sizeof subject, "app.echo.%s", peers[i]);
        say(REQUEST, name, "isi", "id", ++last_id, "s", subject, "dl", (uint64_t)10000);
        printf("answer %s\n", answer_to(last_id));
    }

    /* OK comes when the order is on disk; said again with the same mid it would be stored once. */
    snprintf(subject, sizeof subject, "app.order.%s", name);
    snprintf(body, sizeof body, "order of %s", name);
    say(PUBLISH, body, "sis", "s", subject, "id", ++last_id, "mid", name);
    printf("stored %s\n", answer_to(last_id));
    while (orders < peer_count + 1) {
        say(PULL, NULL, "issii", "id", ++last_id, "topic", "orders", "consumer", name, "n", (uint64_t)16, "wait", (uint64_t)5000);
        answer_to(last_id);
    }

    UNTIL(served == peer_count, "not all peers asked");
    printf("served %d\n", served);
    say(BYE, NULL, "s", "reason", "done");
    nanosleep(&(struct timespec){0, 100000000}, NULL); /* LINGER is 0: give it time to leave */
    return 0;
}
