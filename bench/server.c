/* The fastest container there can be: an HTTP/1.1 keep-alive server in one thread, so that what a benchmark measures is
 * this system and not the container.
 *
 *     server PORT [COMPLETIONS] [DELAY_MS] [REFUSE]
 *
 * Listens on 127.0.0.1:PORT and answers 200 with a tiny body to every request. For each POST to /on-job-complete it adds
 * a line "JOB_ID NANOSECONDS" to the file COMPLETIONS: the wall clock when the answer was written. DELAY_MS makes it
 * wait before it answers a batch. A batch whose body holds the character REFUSE is answered 500.
 *
 * Understands what the dequeuer and usual clients send: a head of at most 64 KiB, bodies with Content-Length, requests
 * one after another on a connection (also several in one packet). Anything else closes the connection.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUFFER 65536
#define EVENTS 64

static const char ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";
static const char REFUSAL[] = "HTTP/1.1 500 No\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nbad";
static const char COMPLETE[] = "POST /on-job-complete ";

struct connection {
    int fd;
    int complete; /* the request in hand is a POST to /on-job-complete */
    char job[64]; /* and this is its job */
    int refused;  /* its body holds what is refused */
    size_t used;  /* bytes in `data`: the beginning of a head */
    size_t skip;  /* bytes of a body that are still to come */
    char data[BUFFER];
};

static int completions = -1;
static long delay_ms = 0;
static char refuse = 0;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* A header's value inside a head that ends with an empty line, or NULL. `name` includes the colon. */
static const char *header(const char *head, const char *end, const char *name) {
    size_t length = strlen(name);
    for (const char *line = memchr(head, '\n', end - head); line; line = memchr(line, '\n', end - line)) {
        if (++line + length > end) return NULL;
        if (strncasecmp(line, name, length) == 0) {
            const char *value = line + length;
            while (*value == ' ') value++;
            return value;
        }
    }
    return NULL;
}

/* Note what the head of a request says. Returns the length of its body. */
static size_t begin(struct connection *c, const char *head, const char *end) {
    const char *length = header(head, end, "Content-Length:");
    c->refused = 0;
    c->complete = strncmp(head, COMPLETE, sizeof COMPLETE - 1) == 0;
    if (c->complete) {
        const char *job = header(head, end, "X-Cortex-Job-ID:");
        snprintf(c->job, sizeof c->job, "%.*s", job ? (int)strcspn(job, "\r\n") : 1, job ? job : "-");
    }
    return length ? strtoul(length, NULL, 10) : 0;
}

static void log_completion(const char *job, const struct timespec *at) {
    char line[128];
    int length = snprintf(line, sizeof line, "%s %lld\n", job, at->tv_sec * 1000000000LL + at->tv_nsec);
    if (write(completions, line, length) != length) fail("cannot write completions");
}

/* Answer the request in hand. Returns 0 when the connection is to be closed. */
static int answer(struct connection *c) {
    struct timespec now, delay = {delay_ms / 1000, delay_ms % 1000 * 1000000L};
    if (delay_ms && !c->complete) nanosleep(&delay, NULL);
    if (c->complete) clock_gettime(CLOCK_REALTIME, &now);
    const char *text = c->refused ? REFUSAL : ANSWER;
    ssize_t length = strlen(text), sent = send(c->fd, text, length, MSG_NOSIGNAL);
    if (c->complete && completions >= 0) log_completion(c->job, &now);
    return sent == length;
}

/* Take what has come. Returns 0 when the connection is to be closed. */
static int take(struct connection *c) {
    for (;;) {
        ssize_t got = recv(c->fd, c->data + c->used, BUFFER - c->used, 0);
        if (got < 0) return errno == EAGAIN || errno == EINTR;
        if (got == 0) return 0;
        int full = (size_t)got == BUFFER - c->used;
        c->used += got;
        char *at = c->data, *stop = c->data + c->used;
        while (at < stop) {
            if (c->skip == 0) {
                char *end = memmem(at, stop - at, "\r\n\r\n", 4);
                if (!end) break;
                c->skip = begin(c, at, end + 4);
                at = end + 4;
            }
            size_t body = c->skip < (size_t)(stop - at) ? c->skip : (size_t)(stop - at);
            if (refuse && memchr(at, refuse, body)) c->refused = 1;
            at += body;
            c->skip -= body;
            if (c->skip == 0 && !answer(c)) return 0;
        }
        c->used = stop - at;
        if (c->used == BUFFER) return 0;
        memmove(c->data, at, c->used);
        if (!full) return 1;
    }
}

static int listen_on(int port) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1024)) fail("cannot listen");
    return fd;
}

int main(int count, char **given) {
    if (count < 2) {
        fprintf(stderr, "usage: %s PORT [COMPLETIONS] [DELAY_MS]\n", given[0]);
        return 2;
    }
    if (count > 2 && *given[2]) {
        completions = open(given[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (completions < 0) fail(given[2]);
    }
    if (count > 3) delay_ms = atol(given[3]);
    if (count > 4) refuse = *given[4];
    int listener = listen_on(atoi(given[1])), poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.ptr = NULL};
    if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event)) fail("epoll");
    for (;;) {
        int ready = epoll_wait(poll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (c) {
                if (!take(c)) {
                    close(c->fd);
                    free(c);
                }
                continue;
            }
            int on = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fd < 0) continue;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            c = malloc(sizeof *c);
            if (!c) fail("malloc");
            c->fd = fd;
            c->used = c->skip = c->refused = 0;
            event.data.ptr = c;
            if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event)) fail("epoll");
        }
    }
}
