/* raw.c - connections that speak bytes: opened, taken out of HTTP, written to, closed. Contract: engine.h.
 *
 * No function here calls the layer above but raw_begin, raw_finish and raw_eof, which run under server_poll. So a program
 * can write, close and open whatever it likes within a callback, and none of its callbacks begins before that returns.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "engine.h"

static const transport *const transports[] = {
    [RAW_STREAM] = &transport_plain,
    [RAW_DATAGRAM] = &transport_datagram,
    [RAW_READER] = &transport_pipe,
    [RAW_WRITER] = &transport_pipe,
};

static void run_soon(conn *c) {
  conn_enqueue(c);
  server_wake(c->server);
}

/* ---- becoming one ---- */

static bool make_raw(conn *c, void *socket) {
  c->handle = handle_new(&c->server->handles, c);
  if (!c->handle) return false;
  conn_set_out(c, OUT_RAW);
  c->exchange = socket;
  c->fresh = c->hungry = c->keep_alive = false;
  return true;
}

conn *raw_open(server *s, raw_kind kind, void *socket) {
  conn *c = s->shut ? NULL : conn_make(s, true);
  if (!c) return NULL;
  c->pending = true;
  c->kind = (uint8_t)kind;
  c->io = transports[kind];
  if (!make_raw(c, socket)) {
    conn_close(c);
    return NULL;
  }
  conn_set_in(c, IN_RAW);
  return c;
}

bool raw_attach(conn *c, int fd) {
  struct sockaddr_storage peer;
  socklen_t len = sizeof peer;
  if (!c->pending || c->in == IN_CLOSED) {
    errno = c->in == IN_CLOSED ? EBADF : EISCONN;
    return false;
  }
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return false;
  bool pipe = c->kind == RAW_READER || c->kind == RAW_WRITER;
  if (!(pipe ? poller_add_pipe(c->server->poller, fd, c, c->kind == RAW_WRITER) : poller_add(c->server->poller, fd, c)))
    return false;
  if (c->kind == RAW_STREAM) transport_keep_alive(fd);
  c->fd = fd;
  c->pending = false;
  c->writable = true;
  if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0) conn_copy_peer(c, (struct sockaddr *)&peer);
  raw_greet(c);
  return true;
}

bool raw_take(conn *c, void *socket, bool ended) {
  bool expects = c->expect && c->in == IN_BODY, running = c->in == IN_HEAD || c->feeding;
  if (!make_raw(c, socket)) return false;
  if (c->in == IN_HEAD || (c->in == IN_DONE && !ended)) conn_set_in(c, IN_RAW);
  if (expects && !conn_write_continue(c)) conn_close(c);
  if (!running || c->server->alone) run_soon(c);
  return true;
}

void raw_greet(conn *c) {
  c->greet = true;
  run_soon(c);
}

/* ---- output ---- */

bool raw_writes(const conn *c) {
  bool open = c->out == OUT_RAW && c->in != IN_CLOSED && c->in != IN_LINGER;
  return open && c->kind != RAW_READER && (!c->broken || c->kind == RAW_DATAGRAM);
}

/* Send at once, or soon where this connection or another one is being run: then several writes are one send. Whoever may
 * wait for it to be sent is told when it is. */
static void send_soon(conn *c) {
  if (c->pending || c->feeding || c->server->polling) {
    c->wants_send |= c->output.bytes > RAW_HOLD_BYTES || (!c->writable && !c->pending);
    if (!c->pending && !c->feeding) conn_enqueue(c);
    return;
  }
  conn_ref(c);
  conn_flush(c);
  if (c->in != IN_CLOSED) conn_arm(c);
  if (c->output.first) c->wants_send = true;
  else if (c->wants_send) run_soon(c);
  conn_unref(c);
}

/* What has come before the peer went away is still handed on; then the connection closes. */
bool raw_send_failed(conn *c) {
  if (c->in != IN_RAW || c->eof || c->kind != RAW_STREAM) return false;
  queue_clear(&c->output, &c->server->pool);
  c->writable = false;
  c->broken = c->readable = true;
  run_soon(c);
  return true;
}

static bool too_much(conn *c) {
  if (c->output.bytes + c->output.n * sizeof(chunk) <= RAW_QUEUE_BYTES) return false;
  char message[112];
  snprintf(message, sizeof message, "a raw connection is closed: %zu bytes wait for a peer that does not read",
           c->output.bytes);
  c->server->up->log(c->server, true, message);
  return true;
}

bool raw_write(conn *c, span data, void *owner) {
  bool fine = raw_writes(c) && !too_much(c);
  if (!fine) {
    if (owner) c->server->pool.release(owner);
    if (raw_writes(c)) conn_close(c);
    return false;
  }
  fine = owner ? conn_write_ref(c, data.at, data.len, owner) : conn_write(c, data.at, data.len);
  if (fine) send_soon(c);
  else conn_close(c);
  return fine;
}

bool raw_close(conn *c) {
  if (c->out != OUT_RAW || c->in == IN_CLOSED || c->in == IN_LINGER) return false;
  bool waits = c->output.first && c->kind != RAW_READER; /* also of one that is still being connected */
  if (!waits && (c->pending || c->kind != RAW_STREAM)) {
    conn_close(c);
    return true;
  }
  conn_linger(c);
  c->linger = c->kind == RAW_STREAM;
  run_soon(c);
  return true;
}

/* ---- input ---- */

void raw_pause(conn *c, bool paused) {
  if (c->paused == paused) return;
  c->paused = paused;
  if (!paused) run_soon(c);
}

void raw_eof(conn *c) {
  if (!c->server->up->eof(c)) raw_close(c);
}

/* A connection that is not read has ended, at least at its peer's side: see whether there is something left to be read,
 * which waits until it is, or whether this is the end. */
static void look_for_end(conn *c) {
  char byte;
  ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (n > 0 || (n < 0 && !c->broken && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))) return;
  c->eof = true;
  if (n < 0 || c->broken || c->in == IN_BODY) conn_close(c); /* a body that is cut short is no end of input */
  else raw_eof(c);
}

/* ---- under server_poll ---- */

static void greet(conn *c) {
  const upcalls *up = c->server->up;
  c->greet = false;
  if (c->out == OUT_RAW) up->opened(c);
  else if (!up->accepted(c, (int)c->framing.left)) conn_close(c);
}

void raw_begin(conn *c) {
  if (c->greet && c->in != IN_CLOSED) greet(c);
  if (c->in == IN_CLOSED || c->in == IN_LINGER) return;
  /* With both directions gone nothing can be written; what can still be read is read first. */
  bool done = c->eof || (c->in == IN_DONE && !c->paused); /* paused: what came early is not handed on yet */
  if (c->broken && (done || c->kind == RAW_WRITER)) conn_close(c);
}

static bool may_have_ended(const conn *c) {
  bool unread = c->paused && !c->eof && !c->input.len && !c->ready && c->kind == RAW_STREAM;
  return unread && (c->in == IN_RAW || c->in == IN_BODY) && (c->hung_up || c->broken);
}

void raw_finish(conn *c) {
  if (may_have_ended(c)) look_for_end(c);
  if (!c->wants_send || c->output.first || c->in == IN_LINGER || c->in == IN_CLOSED) return;
  if (c->broken && !c->paused && c->kind == RAW_STREAM) return; /* its end comes instead */
  c->wants_send = false;
  c->server->up->drained(c);
}
