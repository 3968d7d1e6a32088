/* The endpoint of the benchmarks: one thread, one epoll, the same answer to every POST after a fixed latency.
 *
 *     server LATENCY_US ANSWER_FILE [CERTIFICATE KEY]     prints its port; ends when its standard input does
 *
 * The answer file is a whole HTTP response. A request is a head with a Content-Length and that many bytes, one at a time
 * on each keep-alive connection. As the latency is the same for all, what is due is a queue and not a heap.
 *
 *     GET /stats  -> {"requests", "cpu_s", "elapsed_s", "first_s", "connections", "late_us", "cut"}, since the last reset
 *     GET /reset  -> the same, and starts them anew
 *
 * first_s is when the first POST arrived (seconds since 1970), late_us how late answers left on average: a server that
 * keeps up is a small part of a millisecond late. Compiled with -DTLS it speaks TLS if given a certificate.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

enum { MOST_FDS = 1 << 16, HEAD = 16384, EVENTS = 512 };

struct connection {
    char head[HEAD];
    size_t filled;    /* bytes of the head so far */
    size_t body_left; /* bytes of the body to come */
    int in_body;
    unsigned serial; /* tells connections apart that had the same descriptor */
#ifdef TLS
    SSL *tls;
#endif
};

struct due {
    int64_t at_us;
    int fd;
    unsigned serial;
};

static struct connection *connections[MOST_FDS];
static struct due waiting[MOST_FDS]; /* a ring: at most one per connection, so it cannot overflow */
static size_t first_due, dues;
static unsigned serials;
static char *answer;
static size_t answer_bytes;
static int64_t latency_us;
static int poller, listener, timer;
static int64_t requests, late_us, answered, cut, since_us, first_us;
static int open_connections;
static double cpu_at_reset;
#ifdef TLS
static SSL_CTX *context;
#endif

static int64_t clock_us(clockid_t which) {
    struct timespec now;
    clock_gettime(which, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

static void hang_up(int fd) {
#ifdef TLS
    if (connections[fd]->tls) SSL_free(connections[fd]->tls);
#endif
    free(connections[fd]);
    connections[fd] = NULL;
    close(fd);
    open_connections--;
}

static void accept_all(void) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        if (fd >= MOST_FDS) {
            close(fd);
            continue;
        }
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = malloc(sizeof *c);
        c->filled = c->body_left = 0;
        c->in_body = 0;
        c->serial = ++serials;
#ifdef TLS
        c->tls = NULL;
        if (context) {
            c->tls = SSL_new(context);
            SSL_set_fd(c->tls, fd);
            SSL_set_accept_state(c->tls);
        }
#endif
        connections[fd] = c;
        open_connections++;
        watch(fd);
    }
}

static ssize_t receive(int fd, struct connection *c, char *into, size_t most) {
#ifdef TLS
    if (c->tls) {
        ERR_clear_error();
        int got = SSL_read(c->tls, into, (int)most);
        if (got > 0) return got;
        int why = SSL_get_error(c->tls, got);
        errno = EAGAIN;
        return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? -1 : 0;
    }
#endif
    (void)c;
    return recv(fd, into, most, 0);
}

static void transmit(int fd, const char *data, size_t bytes) {
    ssize_t sent;
#ifdef TLS
    if (connections[fd]->tls)
        sent = SSL_write(connections[fd]->tls, data, (int)bytes);
    else
#endif
        sent = send(fd, data, bytes, MSG_NOSIGNAL);
    if (sent != (ssize_t)bytes) { /* a client that does not read: no part of these benchmarks */
        cut++;
        hang_up(fd);
    }
}

static void answer_due(void) {
    int64_t now = clock_us(CLOCK_MONOTONIC);
    while (dues && waiting[first_due].at_us <= now) {
        struct due next = waiting[first_due];
        first_due = (first_due + 1) % MOST_FDS;
        dues--;
        if (connections[next.fd] && connections[next.fd]->serial == next.serial) {
            late_us += now - next.at_us;
            answered++;
            transmit(next.fd, answer, answer_bytes);
        }
    }
    if (!dues) return;
    int64_t left = waiting[first_due].at_us - now;
    struct itimerspec when = {.it_value = {left / 1000000, left % 1000000 * 1000 + 1}};
    timerfd_settime(timer, 0, &when, NULL);
}

static void tell(int fd, int reset) {
    char body[512], whole[1024];
    double elapsed_s = (clock_us(CLOCK_MONOTONIC) - since_us) / 1e6;
    int bytes = snprintf(body, sizeof body,
                         "{\"requests\": %lld, \"cpu_s\": %.6f, \"elapsed_s\": %.6f, \"first_s\": %.6f, "
                         "\"connections\": %d, \"late_us\": %.1f, \"cut\": %lld}",
                         (long long)requests, cpu_s() - cpu_at_reset, elapsed_s, first_us / 1e6, open_connections - 1,
                         answered ? (double)late_us / answered : 0.0, (long long)cut);
    bytes = snprintf(whole, sizeof whole,
                     "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", bytes, body);
    if (reset) {
        requests = late_us = answered = cut = first_us = 0;
        since_us = clock_us(CLOCK_MONOTONIC);
        cpu_at_reset = cpu_s();
    }
    transmit(fd, whole, bytes);
}

static void asked(int fd, struct connection *c) {
    c->filled = 0;
    c->in_body = 0;
    if (!requests++) first_us = clock_us(CLOCK_REALTIME);
    int64_t at_us = clock_us(CLOCK_MONOTONIC) + latency_us;
    waiting[(first_due + dues) % MOST_FDS] = (struct due){at_us, fd, c->serial};
    dues++; /* whoever reads events sets the timer afterwards */
}

/* Takes what arrived of a head; what follows it in the buffer is the body. */
static void take_head(int fd, struct connection *c, size_t got) {
    c->filled += got;
    char *end = memmem(c->head, c->filled, "\r\n\r\n", 4);
    if (!end) {
        if (c->filled == HEAD) hang_up(fd);
        return;
    }
    if (!memcmp(c->head, "GET ", 4)) {
        int reset = !memcmp(c->head + 4, "/reset ", 7), stats = !memcmp(c->head + 4, "/stats ", 7);
        c->filled = 0;
        static const char none[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        if (reset || stats)
            tell(fd, reset);
        else
            transmit(fd, none, sizeof none - 1);
        return;
    }
    *end = 0;
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    size_t here = c->filled - (size_t)(end + 4 - c->head), whole = length ? strtoull(length + 17, NULL, 10) : 0;
    c->in_body = 1;
    c->body_left = whole > here ? whole - here : 0;
    if (!c->body_left) asked(fd, c);
}

static void read_all(int fd) {
    static char scrap[1 << 16];
    struct connection *c = connections[fd];
    for (;;) {
        char *into = c->in_body ? scrap : c->head + c->filled;
        size_t room = c->in_body ? sizeof scrap : HEAD - c->filled;
        ssize_t got = receive(fd, c, into, room);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
            hang_up(fd);
            return;
        }
        if (got < 0) return;
        if (!c->in_body) {
            take_head(fd, c, got);
            if (!connections[fd]) return;
        } else if ((c->body_left -= (size_t)got < c->body_left ? (size_t)got : c->body_left) == 0) {
            asked(fd, c);
        }
#ifdef TLS
        if (c->tls) continue; /* records may wait in the library that no event will tell of */
#endif
        if ((size_t)got < room) return;
    }
}

static void load(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    answer = malloc(1 << 20);
    answer_bytes = fread(answer, 1, 1 << 20, file);
    fclose(file);
}

int main(int count, char **words) {
    if (count != 3 && count != 5) return 2;
    latency_us = atoll(words[1]);
    load(words[2]);
#ifdef TLS
    if (count == 5) {
        context = SSL_CTX_new(TLS_server_method());
        SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
        if (SSL_CTX_use_certificate_chain_file(context, words[3]) != 1 ||
            SSL_CTX_use_PrivateKey_file(context, words[4], SSL_FILETYPE_PEM) != 1)
            die("certificate");
    }
#else
    if (count == 5) return 2;
#endif
    signal(SIGPIPE, SIG_IGN);
    struct rlimit most;
    getrlimit(RLIMIT_NOFILE, &most);
    most.rlim_cur = most.rlim_max;
    setrlimit(RLIMIT_NOFILE, &most);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)) die("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    watch(listener);
    watch(timer);
    watch(STDIN_FILENO);
    since_us = clock_us(CLOCK_MONOTONIC);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int n = 0; n < ready; n++) {
            int fd = events[n].data.fd;
            if (fd == STDIN_FILENO)
                return 0;
            else if (fd == listener)
                accept_all();
            else if (fd == timer) {
                uint64_t rings;
                if (read(timer, &rings, sizeof rings) > 0) answer_due();
            } else if (connections[fd])
                read_all(fd);
        }
        answer_due();
    }
}
