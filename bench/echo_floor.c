/*
 * echo_floor: the least an echo server can do, as the mark for the raw API.
 *
 * Single-threaded, edge-triggered epoll, one recv and one send per readable event; what the kernel does not take of an
 * answer is kept and sent when it does.
 *
 * Usage: echo_floor PORT        (on 127.0.0.1; ends at SIGTERM)
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
#include <unistd.h>

enum {
  RECEIVE = 65536, /* bytes asked of one recv */
  EVENTS = 512,    /* events taken by one epoll_wait */
  BACKLOG = 4096,  /* connections the kernel may queue */
};

struct connection {
  char *kept; /* what was received and not sent yet */
  size_t length;
};

struct echo {
  int epoll_fd;
  int listen_fd;
  size_t descriptors;
  struct connection *connections; /* by file descriptor */
  char received[RECEIVE];
};

static bool keep(struct connection *conn, const char *bytes, size_t length) {
  if (length == 0) { return true; }
  char *grown = realloc(conn->kept, conn->length + length);
  if (grown == NULL) { return false; }
  memcpy(grown + conn->length, bytes, length);
  conn->kept = grown;
  conn->length += length;
  return true;
}

/* Returns how many bytes the kernel took, or -1 when the connection is gone. */
static ssize_t send_some(int fd, const char *bytes, size_t length) {
  ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
  return sent < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : sent;
}

/* Sends what was kept. False: the connection is gone. */
static bool echo_kept(int fd, struct connection *conn) {
  if (conn->length == 0) { return true; }
  ssize_t sent = send_some(fd, conn->kept, conn->length);
  if (sent < 0) { return false; }
  conn->length -= (size_t)sent;
  memmove(conn->kept, conn->kept + sent, conn->length);
  return true;
}

/* One event of a client: one recv, and a second only if the first filled its buffer or the end is due. */
static bool echo_serve(struct echo *echo, int fd, uint32_t events) {
  struct connection *conn = &echo->connections[fd];
  for (;;) {
    if (!echo_kept(fd, conn)) { return false; }
    if (conn->length > 0) { return true; }
    ssize_t length = recv(fd, echo->received, RECEIVE, 0);
    if (length < 0) { return errno == EAGAIN; }
    if (length == 0) { return false; }
    ssize_t sent = send_some(fd, echo->received, (size_t)length);
    if (sent < 0 || !keep(conn, echo->received + sent, (size_t)(length - sent))) { return false; }
    if (length < RECEIVE && !(events & EPOLLRDHUP)) { return true; }
  }
}

static void echo_accept(struct echo *echo) {
  int fd;
  while ((fd = accept4(echo->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = fd};
    int one = 1;
    if ((size_t)fd >= echo->descriptors || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0 ||
        epoll_ctl(echo->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
      close(fd);
    }
  }
}

static void echo_close(struct echo *echo, int fd) {
  free(echo->connections[fd].kept);
  echo->connections[fd] = (struct connection){0};
  close(fd);
}

static bool echo_open(struct echo *echo, uint16_t port) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) { return false; }
  echo->descriptors = (size_t)limit.rlim_cur;
  echo->connections = calloc(echo->descriptors, sizeof *echo->connections);
  echo->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  echo->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (echo->connections == NULL || echo->epoll_fd < 0 || echo->listen_fd < 0) { return false; }
  int one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = echo->listen_fd};
  return setsockopt(echo->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
         bind(echo->listen_fd, (struct sockaddr *)&address, sizeof address) == 0 &&
         listen(echo->listen_fd, BACKLOG) == 0 &&
         epoll_ctl(echo->epoll_fd, EPOLL_CTL_ADD, echo->listen_fd, &event) == 0;
}

static bool echo_turn(struct echo *echo) {
  struct epoll_event events[EVENTS];
  int count = epoll_wait(echo->epoll_fd, events, EVENTS, -1);
  if (count < 0) { return errno == EINTR; }
  for (int i = 0; i < count; i++) {
    int fd = events[i].data.fd;
    if (fd == echo->listen_fd) {
      echo_accept(echo);
    } else if (!echo_serve(echo, fd, events[i].events)) {
      echo_close(echo, fd);
    }
  }
  return true;
}

int main(int argc, char **argv) {
  static struct echo echo; /* zeroed; too big for the stack */
  long port = argc == 2 ? strtol(argv[1], NULL, 10) : 0;
  if (port < 1 || port > UINT16_MAX) {
    fprintf(stderr, "usage: %s PORT\n", argv[0]);
    return 2;
  }
  if (!echo_open(&echo, (uint16_t)port)) {
    perror("echo_floor");
    return 1;
  }
  while (echo_turn(&echo)) {}
  perror("echo_floor");
  return 1;
}
