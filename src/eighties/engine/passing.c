/* passing.c - connections that go on in another process: given away between two requests, adopted there. Contract: engine.h.
 *
 * What goes along is the descriptor, the bytes that were read and not yet used, and two facts about them. All else of an
 * idle connection is as it was when it was accepted.
 */
#include <errno.h>
#include <fcntl.h>
#ifdef __linux__
#include <linux/sockios.h>
#include <sys/ioctl.h>
#endif

#include "engine.h"

/* ---- giving away ---- */

/* Between two requests, with nothing to be sent, and not about to end. One whose peer has hung up ends here. */
static bool can_pass(const conn *c, size_t most) {
  bool between = c->in == IN_HEAD && c->out == OUT_IDLE && !c->exchange && !c->feeding && !c->output.first;
  return between && !c->closing && !c->eof && !c->hung_up && !c->broken && c->input.len <= most;
}

/* It is served here after all. */
static void release(conn *c) {
  c->held = false;
  conn_enqueue(c);
  server_wake(c->server);
}

void server_keep(server *s) {
  if (!s->giving) return;
  s->giving = false;
  for (conn *c = s->conns; c; c = c->next)
    if (c->held) release(c);
}

bool server_give_away(server *s, size_t most, passed *p) {
  if (s->polling) return false; /* who is being run looks at its connection again when its callbacks return */
  if (most > PASSED_BYTES) most = PASSED_BYTES;
  s->giving = true;
  conn *c = s->in_round ? s->passing : s->conns;
  for (; c && !can_pass(c, most); c = c->next)
    if (c->held && !c->output.first) release(c); /* it has too much to say, or hung up */
  s->passing = c;                                /* conn_give moves it on */
  s->in_round = c != NULL;
  if (!c) return false;
  *p = (passed){.input = c->input, .flags = (c->fresh ? PASSED_FRESH : 0) | (c->known ? PASSED_KNOWN : 0)};
  c->input = (bytes){0};
  p->fd = conn_give(c);
  return true;
}

/* ---- adopting ---- */

/* Whether it is the descriptor of a connection, and whose. */
static bool read_peer(int fd, struct sockaddr_storage *peer) {
  int type = 0;
  socklen_t type_len = sizeof type, len = sizeof *peer;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) < 0) return false;
  peer->ss_family = AF_UNIX; /* what an empty address means */
  if (type != SOCK_STREAM) errno = EPROTOTYPE;
  else if (getpeername(fd, (struct sockaddr *)peer, &len) < 0) return false;
  else if (peer->ss_family != AF_INET && peer->ss_family != AF_INET6 && peer->ss_family != AF_UNIX)
    errno = EAFNOSUPPORT;
  else return true;
  return false;
}

static bool prepare(int fd) {
  int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

/* The listener that it may have come from, for a raw program's on_accept: one of its address family; -1: none. */
static int listener_of(const server *s, sa_family_t family) {
  struct sockaddr_storage own;
  for (const listener *l = s->listeners; l; l = l->next) {
    socklen_t len = sizeof own;
    if (getsockname(l->fd, (struct sockaddr *)&own, &len) == 0 && own.ss_family == family) return l->fd;
  }
  return s->listeners ? s->listeners->fd : -1;
}

/* Bytes that the former process has sent may still be on their way: conn_due must not take them for ours. */
static uint64_t bytes_under_way(int fd) {
  int unsent = 0;
#ifdef __linux__
  if (ioctl(fd, SIOCOUTQ, &unsent) < 0) return 0;
#else
  (void)fd;
#endif
  return (uint64_t)unsent;
}

bool server_adopt(server *s, int fd, span unread, unsigned flags) {
  struct sockaddr_storage peer;
  bytes input = {0};
  server_keep(s);
  errno = s->shut ? ESHUTDOWN : unread.len > PASSED_BYTES ? EMSGSIZE : 0;
  if (errno || !read_peer(fd, &peer) || !prepare(fd)) return false;
  errno = ENOMEM; /* where nothing else says why */
  conn *c = bytes_append(&input, unread.at, unread.len) ? conn_new(s, fd, (struct sockaddr *)&peer) : NULL;
  if (!c) {
    bytes_clear(&input);
    return false;
  }
  c->input = input;
  c->fresh = flags & PASSED_FRESH;
  c->known = flags & PASSED_KNOWN;
  c->readable = true;
  c->sent = bytes_under_way(fd);
  if (s->raw && c->fresh) { /* as one that is accepted */
    c->greet = true;
    c->framing.left = (uint64_t)listener_of(s, peer.ss_family);
  }
  conn_enqueue(c);
  server_wake(s);
  return true;
}
