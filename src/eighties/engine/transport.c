/* transport.c - how bytes get in and out of a descriptor: sockets, datagrams, pipes. Contract: engine.h. */
#include <errno.h>
#include <netinet/tcp.h>
#ifdef __linux__
#include <sys/sendfile.h>
#endif
#include <unistd.h>

#include "engine.h"

#define COPY_FILE_BYTES 16384 /* one step where there is no sendfile */

/* ---- stream sockets ---- */

static ssize_t plain_recv(conn *c, char *at, size_t len) { return recv(c->fd, at, len, 0); }

static ssize_t plain_send(conn *c, const struct iovec *iov, int n) {
  if (n == 1) return send(c->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL);
  struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};
  return sendmsg(c->fd, &message, MSG_NOSIGNAL);
}

static ssize_t plain_sendfile(conn *c, int fd, size_t offset, size_t len) {
#ifdef __linux__
  off_t from = (off_t)offset;
  return sendfile(c->fd, fd, &from, len);
#else
  char copy[COPY_FILE_BYTES];
  ssize_t n = pread(fd, copy, len < sizeof copy ? len : sizeof copy, (off_t)offset);
  return n <= 0 ? n : send(c->fd, copy, (size_t)n, MSG_NOSIGNAL);
#endif
}

static void plain_shutdown(conn *c) { shutdown(c->fd, SHUT_WR); }

const transport transport_plain = {plain_recv, plain_send, plain_sendfile, plain_shutdown};

/* ---- datagrams: one piece of output is one ---- */

static ssize_t datagram_send(conn *c, const struct iovec *iov, int n) {
  (void)n;
  return send(c->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL);
}

/* ---- pipes ---- */

static ssize_t pipe_recv(conn *c, char *at, size_t len) { return read(c->fd, at, len); }

/* Python ignores SIGPIPE, and writev has no flag against it. */
static ssize_t pipe_send(conn *c, const struct iovec *iov, int n) { return writev(c->fd, iov, n); }

static ssize_t no_sendfile(conn *c, int fd, size_t offset, size_t len) {
  (void)c, (void)fd, (void)offset, (void)len;
  errno = ENOTSUP;
  return -1;
}

static void no_shutdown(conn *c) { (void)c; }

const transport transport_datagram = {plain_recv, datagram_send, no_sendfile, no_shutdown};
const transport transport_pipe = {pipe_recv, pipe_send, no_sendfile, no_shutdown};

void transport_keep_alive(int fd) {
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
#ifdef TCP_KEEPIDLE
  int idle = KEEPALIVE_SECONDS, each = PROBE_SECONDS, count = PROBE_COUNT;
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &each, sizeof each);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
#endif
}
