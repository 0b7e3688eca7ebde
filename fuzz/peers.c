/* peers.c - the other ends of a fuzzed server's connections. Interface: peers.h. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doubles.h"
#include "peers.h"

peer peers[PEERS];
struct sockaddr_un listening;
socklen_t listening_len;

/* ---- flows: bytes that tell where in their direction they stand ---- */

#define TEXT 0x80 /* bytes below it are HTTP, which comes before everything raw */
#define DATAGRAM_HEAD 3

void flow_fill(const flow *f, raw_kind kind, char *at, size_t len) {
  for (size_t i = 0; i < len; i++) at[i] = (char)(TEXT + (f->at + i) % PERIOD);
  if (kind == RAW_DATAGRAM && len) memcpy(at, (char[]){(char)len, (char)(len >> 8), (char)f->at}, DATAGRAM_HEAD);
}

void flow_advance(flow *f, raw_kind kind, size_t len) {
  f->begun = true;
  f->at += kind == RAW_DATAGRAM ? 1 : len;
}

static void check_datagram(flow *f, span data) {
  const uint8_t *at = (const uint8_t *)data.at;
  if (data.len)
    assert(data.len >= DATAGRAM_HEAD && data.len == (size_t)(at[0] | at[1] << 8) && at[2] == (uint8_t)f->at);
  f->at++;
  f->begun = true;
}

/* The first byte tells where a flow is taken up: what came before was the body of a request, perhaps. */
void flow_check(flow *f, raw_kind kind, span data) {
  if (kind == RAW_DATAGRAM) {
    check_datagram(f, data);
    return;
  }
  for (size_t i = 0; i < data.len; i++) {
    uint8_t byte = (uint8_t)data.at[i];
    if (byte < TEXT) {
      assert(!f->begun);
      continue;
    }
    if (!f->begun) f->at = byte - TEXT;
    f->begun = true;
    assert(byte == TEXT + f->at % PERIOD);
    f->at++;
  }
}

size_t size_of(unsigned how, raw_kind kind) {
  static const size_t sizes[] = {0, 1, 5, 100, 4000, COPY_BYTES + 1, 20000, 70000};
  size_t len = sizes[how % 8];
  if (kind != RAW_DATAGRAM || !len) return len;
  return len < DATAGRAM_HEAD ? DATAGRAM_HEAD : len < 4000 ? len : 3000;
}

/* ---- beginning and end ---- */

void make_pair(raw_kind kind, int *ours, int *theirs) {
  int ends[2];
  if (kind == RAW_STREAM || kind == RAW_DATAGRAM) {
    int type = kind == RAW_STREAM ? SOCK_STREAM : SOCK_DGRAM;
    if (socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0) abort();
  } else if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0) {
    abort();
  }
  *ours = ends[kind == RAW_WRITER];
  *theirs = ends[kind != RAW_WRITER];
  make_small(ends[0]);
  make_small(ends[1]);
}

void peer_begin(peer *p, int fd, raw_kind kind) { *p = (peer){.fd = fd, .kind = kind, .number = p->number + 1}; }

peer *peer_of(int fd) {
  struct sockaddr_un name;
  socklen_t len = sizeof name;
  if (getpeername(fd, (struct sockaddr *)&name, &len) < 0) return NULL;
  for (peer *p = peers; p < peers + PEERS; p++)
    if (p->fd >= 0 && p->name_len == len && memcmp(&p->name, &name, len) == 0) return p;
  return NULL;
}

static void connect_to_server(peer *p) {
  peer_begin(p, socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), RAW_STREAM);
  if (p->fd < 0) abort();
  p->name.sun_family = AF_UNIX;
  p->name_len = sizeof p->name;
  /* A name of its own, by which the accepted connection is known. */
  if (bind(p->fd, (struct sockaddr *)&p->name, sizeof p->name.sun_family) < 0) abort();
  if (getsockname(p->fd, (struct sockaddr *)&p->name, &p->name_len) < 0) abort();
  if (connect(p->fd, (struct sockaddr *)&listening, listening_len) == 0) return;
  close(p->fd); /* the server has stopped, or its queue is full */
  p->fd = -1;
}

void peer_close(peer *p) {
  if (p->fd < 0) return;
  close(p->fd);
  p->fd = -1;
}

/* ---- bytes ---- */

void peer_text(peer *p, const char *at, size_t len) {
  if (p->fd < 0) connect_to_server(p);
  if (p->fd < 0 || p->raw || !len) return;
  if (write(p->fd, at, len) < 0) assert(errno == EAGAIN || errno == EPIPE || errno == ECONNRESET || errno == EBADF);
}

void peer_send(peer *p, unsigned how) {
  static char all[70000];
  if (p->fd < 0) connect_to_server(p);
  if (p->fd < 0) return;
  size_t len = size_of(how, p->kind);
  flow_fill(&p->sent, p->kind, all, len);
  ssize_t n = p->kind == RAW_DATAGRAM || len ? write(p->fd, all, len) : 0;
  if (n < 0) return;
  p->raw |= n > 0;
  flow_advance(&p->sent, p->kind, (size_t)n);
}

/* Whether something has come. */
bool peer_read(peer *p, size_t len) {
  static char all[70000];
  if (p->fd < 0) return false;
  ssize_t n = read(p->fd, all, len < sizeof all ? len : sizeof all);
  if (n < 0 || (n == 0 && p->kind != RAW_DATAGRAM)) return false;
  if (p->kind != RAW_DATAGRAM || len >= sizeof all) flow_check(&p->heard, p->kind, (span){all, (size_t)n});
  else p->heard.at++; /* cut short */
  return true;
}
