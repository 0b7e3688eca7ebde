/*
 * floor: the least a server can do, as the mark that the others are measured against.
 *
 * Single-threaded, edge-triggered epoll, one recv and one send per readable event. It parses nothing: each blank line
 * (CR LF CR LF) that arrives is one request, and each is owed the same canned answer, byte for byte as long as the one
 * 80s gives to /echo?name=Abcde. Only the date in it changes, once a second. A FILE, if given, holds another answer: all
 * that follows the date's line, so that the floor can send the very bytes of a page.
 *
 * Usage: floor PORT [FILE]        (on 127.0.0.1; ends at SIGTERM)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
  TAIL = 3,          /* bytes kept of one recv, so that a blank line split between two is found */
  RECEIVE = 16384,   /* bytes asked of one recv */
  BATCH = 64,        /* answers ready to leave in one send */
  EVENTS = 512,      /* events taken by one epoll_wait */
  BACKLOG = 4096,    /* connections the kernel may queue */
  HEAD_SPACE = 128,  /* more than what comes before the rest needs */
  REST_SPACE = 4096, /* the longest rest after it */
};

struct connection {
  uint64_t owed;   /* bytes of answers not sent yet */
  char tail[TAIL]; /* the last bytes received since the last blank line */
};

struct floor {
  int epoll_fd;
  int listen_fd;
  size_t descriptors;             /* how many connections the table holds */
  struct connection *connections; /* by file descriptor */
  time_t second;                  /* the one the answers are dated with */
  size_t rest_length;
  char rest[REST_SPACE]; /* of the answer: what follows the date */
  size_t answer_length;
  char answers[BATCH * (HEAD_SPACE + REST_SPACE)]; /* BATCH copies of the answer, end to end */
  char received[TAIL + RECEIVE];
};

/* Takes the rest of the answer from a file, or the usual one. False: it cannot be read, or is too long. */
static bool floor_load(struct floor *floor, const char *path) {
  static const char usual[] = "Content-Type: text/plain; charset=utf-8\r\nContent-Length: 10\r\n\r\nHi, Abcde!";
  if (path == NULL) {
    floor->rest_length = sizeof usual - 1;
    memcpy(floor->rest, usual, sizeof usual - 1);
    return true;
  }
  FILE *file = fopen(path, "rb");
  if (file == NULL) { return false; }
  floor->rest_length = fread(floor->rest, 1, REST_SPACE, file);
  bool whole = !ferror(file) && fgetc(file) == EOF;
  fclose(file);
  if (!whole) { errno = EFBIG; }
  return whole;
}

/* Writes the answers anew when the second has changed. The date has a fixed width, so their length never changes. */
static void floor_date(struct floor *floor) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  if (now.tv_sec == floor->second) { return; }
  floor->second = now.tv_sec;
  struct tm utc;
  gmtime_r(&now.tv_sec, &utc);
  char date[64];
  char head[HEAD_SPACE];
  strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &utc);
  int length = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nServer: 80s\r\nDate: %s\r\n", date);
  floor->answer_length = (size_t)length + floor->rest_length;
  for (size_t i = 0; i < BATCH; i++) {
    char *answer = floor->answers + i * floor->answer_length;
    memcpy(answer, head, (size_t)length);
    memcpy(answer + length, floor->rest, floor->rest_length);
  }
}

/*
 * Counts the blank lines in the bytes just received, which stand after the connection's tail in floor->received.
 * A byte that is neither CR nor LF cannot be in one, so the search goes on four bytes further.
 */
static uint64_t floor_count(struct floor *floor, struct connection *conn, size_t length) {
  char *bytes = floor->received;
  memcpy(bytes, conn->tail, TAIL);
  size_t end = TAIL + length;
  size_t last = 0; /* where the last blank line ended */
  uint64_t count = 0;
  for (size_t i = TAIL; i < end;) {
    if (bytes[i] == '\n') {
      if (memcmp(bytes + i - TAIL, "\r\n\r\n", TAIL + 1) == 0) {
        count++;
        last = i + 1;
        i += TAIL + 1;
      } else {
        i += 2;
      }
    } else {
      i += bytes[i] == '\r' ? 1 : TAIL + 1;
    }
  }
  memset(conn->tail, 0, TAIL);
  size_t keep = end - last < TAIL ? end - last : TAIL;
  memcpy(conn->tail + TAIL - keep, bytes + end - keep, keep);
  return count;
}

/* Sends what is owed. False: the connection is gone. What the socket does not take waits for EPOLLOUT. */
static bool floor_send(struct floor *floor, int fd, struct connection *conn) {
  while (conn->owed > 0) {
    size_t into = (floor->answer_length - conn->owed % floor->answer_length) % floor->answer_length;
    size_t length = BATCH * floor->answer_length - into;
    if (length > conn->owed) { length = conn->owed; }
    ssize_t sent = send(fd, floor->answers + into, length, MSG_NOSIGNAL);
    if (sent < 0) { return errno == EAGAIN || errno == EINTR; }
    conn->owed -= (uint64_t)sent;
  }
  return true;
}

/* One event of a client: one recv, and a second only if the first filled its buffer or the end is due; then one send. */
static bool floor_serve(struct floor *floor, int fd, uint32_t events) {
  struct connection *conn = &floor->connections[fd];
  for (;;) {
    if (!floor_send(floor, fd, conn)) { return false; }
    if (conn->owed > 0) { return true; /* it does not read: nothing more is taken from it until it does */ }
    ssize_t length = recv(fd, floor->received + TAIL, RECEIVE, 0);
    if (length < 0) { return errno == EAGAIN; }
    if (length == 0) { return false; }
    conn->owed += floor_count(floor, conn, (size_t)length) * floor->answer_length;
    if (length < RECEIVE && !(events & EPOLLRDHUP)) { return floor_send(floor, fd, conn); }
  }
}

static void floor_accept(struct floor *floor) {
  int fd;
  while ((fd = accept4(floor->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = fd};
    int one = 1;
    if ((size_t)fd >= floor->descriptors || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0 ||
        epoll_ctl(floor->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
      close(fd);
      continue;
    }
    floor->connections[fd] = (struct connection){0};
  }
}

static bool floor_open(struct floor *floor, uint16_t port) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) { return false; }
  floor->descriptors = (size_t)limit.rlim_cur;
  floor->connections = calloc(floor->descriptors, sizeof *floor->connections);
  floor->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  floor->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (floor->connections == NULL || floor->epoll_fd < 0 || floor->listen_fd < 0) { return false; }
  int one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = floor->listen_fd};
  return setsockopt(floor->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
         bind(floor->listen_fd, (struct sockaddr *)&address, sizeof address) == 0 &&
         listen(floor->listen_fd, BACKLOG) == 0 &&
         epoll_ctl(floor->epoll_fd, EPOLL_CTL_ADD, floor->listen_fd, &event) == 0;
}

static bool floor_turn(struct floor *floor) {
  struct epoll_event events[EVENTS];
  int count = epoll_wait(floor->epoll_fd, events, EVENTS, -1);
  if (count < 0) { return errno == EINTR; }
  floor_date(floor);
  for (int i = 0; i < count; i++) {
    int fd = events[i].data.fd;
    if (fd == floor->listen_fd) {
      floor_accept(floor);
    } else if (!floor_serve(floor, fd, events[i].events)) {
      close(fd);
    }
  }
  return true;
}

int main(int argc, char **argv) {
  static struct floor floor; /* zeroed; too big for the stack */
  long port = argc == 2 || argc == 3 ? strtol(argv[1], NULL, 10) : 0;
  if (port < 1 || port > UINT16_MAX) {
    fprintf(stderr, "usage: %s PORT [FILE]\n", argv[0]);
    return 2;
  }
  if (!floor_load(&floor, argc == 3 ? argv[2] : NULL) || !floor_open(&floor, (uint16_t)port)) {
    perror("floor");
    return 1;
  }
  while (floor_turn(&floor)) {}
  perror("floor");
  return 1;
}
