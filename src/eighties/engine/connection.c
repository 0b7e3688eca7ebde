/* connection.c - a connection's life: states, references, deadlines, closing. Contract: engine.h. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef __linux__
#include <linux/sockios.h>
#include <sys/ioctl.h>
#endif
#include <string.h>
#include <unistd.h>

#include "engine.h"

/* What the timer of a connection is set for. Each has its limit; see deadline_of and conn_due. */
enum { WAIT_NONE, WAIT_REQUEST, WAIT_HEAD, WAIT_BODY, WAIT_HANDLER, WAIT_GONE, WAIT_WRITE, WAIT_LINGER };

/* ---- states ---- */

static const char *const in_names[IN_STATES] = {"head", "body", "done", "raw", "linger", "closed"};
static const char *const out_names[OUT_STATES] = {"idle", "owed", "body", "raw"};

#define TO(state) (1u << (state))
static const unsigned in_legal[IN_STATES] = {
    [IN_HEAD] = TO(IN_BODY) | TO(IN_DONE) | TO(IN_RAW) | TO(IN_LINGER) | TO(IN_CLOSED),
    [IN_BODY] = TO(IN_HEAD) | TO(IN_DONE) | TO(IN_LINGER) | TO(IN_CLOSED),
    [IN_DONE] = TO(IN_HEAD) | TO(IN_RAW) | TO(IN_LINGER) | TO(IN_CLOSED),
    [IN_RAW] = TO(IN_LINGER) | TO(IN_CLOSED),
    [IN_LINGER] = TO(IN_CLOSED),
};
static const unsigned out_legal[OUT_STATES] = {
    [OUT_IDLE] = TO(OUT_OWED) | TO(OUT_RAW),
    [OUT_OWED] = TO(OUT_BODY) | TO(OUT_RAW),
    [OUT_BODY] = TO(OUT_IDLE),
};

/* A change that the table does not know is a mistake of ours: say which, and give the connection up, not the worker. */
static void illegal(conn *c, const char *side, const char *from, const char *to) {
  char message[96];
  snprintf(message, sizeof message, "engine: illegal change of a connection's %s from %s to %s", side, from, to);
  c->server->up->log(c->server, true, message);
#ifdef EIGHTIES_CHECK
  abort();
#endif
  c->broken = true;
  conn_enqueue(c);
}

void conn_set_in(conn *c, in_state state) {
  if (!(in_legal[c->in] & TO(state))) illegal(c, "input", in_names[c->in], in_names[state]);
  if (c->in == IN_CLOSED) return;
  c->in = (uint8_t)state;
}

void conn_set_out(conn *c, out_state state) {
  if (!(out_legal[c->out] & TO(state))) illegal(c, "output", out_names[c->out], out_names[state]);
  c->out = (uint8_t)state;
}

void conn_check(const conn *c) {
#ifdef EIGHTIES_CHECK
  size_t bytes = 0;
  for (const chunk *k = c->output.first; k; k = k->next) bytes += k->end - k->start;
  assert(bytes == c->output.bytes);
  assert((c->output.first == NULL) == (c->output.last == NULL));
  assert((c->input.at == NULL) == (c->input.len == 0));
  if (c->in == IN_CLOSED) {
    assert(c->fd < 0 && c->server->passing != c && !c->timer.next && !c->output.first && !c->input.at && !c->body.at);
    assert(!c->exchange || (c->out == OUT_RAW && c->ready)); /* its end is still to be told */
    assert(!handle_find(&c->server->handles, c->handle));
    return;
  }
  assert(c->refs > 0 && (c->fd >= 0) == !c->pending);
  assert(!c->exchange || c->out != OUT_IDLE);
  assert(c->in != IN_HEAD || c->out == OUT_IDLE);
  assert(c->in != IN_LINGER || ((c->out == OUT_IDLE || c->out == OUT_RAW) && c->closing));
  assert(c->in != IN_RAW || c->out == OUT_RAW);
  assert((c->out == OUT_RAW) == (handle_find(&c->server->handles, c->handle) == c));
  assert(!c->pending || c->own);
  assert(c->timer.next || c->fresh || c->ready || c->wait == WAIT_NONE || c->feeding || c->server->polling);
#else
  (void)c;
#endif
}

/* ---- life ---- */

void conn_copy_peer(conn *c, const struct sockaddr *peer) {
  c->peer.family = peer->sa_family;
  if (peer->sa_family == AF_INET) {
    const struct sockaddr_in *in = (const struct sockaddr_in *)peer;
    c->peer.port = in->sin_port;
    memcpy(c->peer.ip, &in->sin_addr, sizeof in->sin_addr);
  } else if (peer->sa_family == AF_INET6) {
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)peer;
    c->peer.port = in6->sin6_port;
    memcpy(c->peer.ip, &in6->sin6_addr, sizeof in6->sin6_addr);
  }
}

conn *conn_make(server *s, bool own) {
  conn *c = calloc(1, sizeof *c);
  if (!c) return NULL;
  c->watch = WATCH_CONN;
  c->fd = -1;
  c->server = s;
  c->io = &transport_plain;
  c->refs = 1;
  c->own = own;
  c->next = s->conns;
  if (s->conns) s->conns->prev = c;
  s->conns = c;
  s->conns_alive++;
  if (!own) s->n_conns++, s->counters[COUNT_CONNECTIONS]++;
  return c;
}

static void unlink_conn(conn *c) {
  server *s = c->server;
  if (s->passing == c) s->passing = c->next;
  if (c->prev) c->prev->next = c->next;
  else s->conns = c->next;
  if (c->next) c->next->prev = c->prev;
  c->prev = c->next = NULL;
  s->n_refused -= c->over_limit;
  if (!c->own) s->n_conns--, s->counters[COUNT_CONNECTIONS]--;
}

conn *conn_new(server *s, int fd, const struct sockaddr *peer) {
  conn *c = conn_make(s, false);
  if (!c) return NULL;
  if (!poller_add(s->poller, fd, c)) {
    unlink_conn(c);
    conn_unref(c);
    return NULL;
  }
  c->fd = fd;
  c->writable = c->fresh = true;
  conn_copy_peer(c, peer);
  conn_arm(c);
  return c;
}

void conn_ref(conn *c) { c->refs++; }

void conn_unref(conn *c) {
  if (--c->refs) return;
  c->server->conns_alive--;
  free(c);
}

static void end(conn *c, bool and_close) {
  server *s = c->server;
  if (c->in == IN_CLOSED) return;
  conn_ref(c);
  conn_set_in(c, IN_CLOSED);
  if (!c->pending) {
    poller_del(s->poller, c->fd);
    if (and_close) close(c->fd);
  }
  c->fd = -1;
  unlink_conn(c);
  wheel_stop(&s->wheel, &c->timer);
  if (c->out == OUT_RAW) {
    handle_end(&s->handles, c->handle);
    conn_enqueue_end(c);
  } else {
    if (c->exchange) s->up->abandon(c);
    c->exchange = NULL;
  }
  queue_clear(&c->output, &s->pool);
  bytes_clear(&c->input);
  bytes_clear(&c->body);
  server_conn_gone(s);
  c->refs--; /* the open connection's own reference; ours goes last */
  conn_unref(c);
}

void conn_close(conn *c) { end(c, true); }

int conn_give(conn *c) {
  int fd = c->fd;
  end(c, false);
  return fd;
}

static void enqueue(conn *c) {
  server *s = c->server;
  if (c->ready) return;
  c->ready = true;
  conn_ref(c);
  c->ready_next = NULL;
  if (s->ready_last) s->ready_last->ready_next = c;
  else s->ready = c;
  s->ready_last = c;
}

void conn_enqueue(conn *c) {
  if (c->in != IN_CLOSED) enqueue(c);
}

void conn_enqueue_end(conn *c) {
  if (!c->exchange) return;
  enqueue(c);
  server_wake(c->server);
}

void conn_kick(conn *c) {
  if (c->server->polling) conn_enqueue(c);
  else server_run(c->server, c);
}

/* Empty lines ahead of a request are no request yet. */
static bool head_begun(const conn *c) { return c->input.len > c->scan.start; }

bool conn_idle(const conn *c) { return c->in == IN_HEAD && !head_begun(c) && !c->output.first; }

void conn_drain(conn *c) {
  if (!conn_idle(c)) return;
  c->readable = true; /* a request may be on its way up: look once more before closing */
  conn_enqueue(c);
}

/* ---- deadlines ---- */

static uint8_t waiting_for(const conn *c) {
  if (c->pending) return WAIT_NONE; /* whoever connects has a limit of its own */
  if (c->output.first && !c->writable) return WAIT_WRITE;
  if (c->in == IN_LINGER) return WAIT_LINGER;
  if (c->out == OUT_RAW) return WAIT_NONE;     /* how long to wait for a peer is the program's to say */
  bool asks = c->expect && c->out == OUT_OWED; /* the client waits for us to want its body */
  if (c->in == IN_BODY && !c->paused && !asks) return WAIT_BODY;
  if (c->out == OUT_OWED) return c->hung_up && !c->asked && !c->http10 ? WAIT_GONE : WAIT_HANDLER;
  if (c->out == OUT_BODY) return WAIT_NONE; /* streaming, and the client has it all: no limit */
  return head_begun(c) ? WAIT_HEAD : WAIT_REQUEST;
}

/* The earlier of: a silence of `timeout`; less than min_rate once `timeout` has passed. */
static uint32_t rate_deadline(const conn *c, uint32_t timeout) {
  const limits *l = &c->server->limits;
  uint64_t slow = (uint64_t)c->since + timeout + (l->min_rate ? c->moved / l->min_rate : UINT32_MAX);
  uint64_t silent = (uint64_t)c->progress + timeout;
  return (uint32_t)(slow < silent ? slow : silent);
}

/* The last second of the wait, or 0 for never. Seconds are cut off, so it is over when that second is. */
static uint32_t deadline_of(const conn *c) {
  const limits *l = &c->server->limits;
  switch (c->wait) {
  case WAIT_REQUEST: {
    uint32_t timeout = c->server->draining ? LINGER_SECONDS : c->fresh ? l->header_timeout : l->keep_alive_timeout;
    return timeout ? c->since + timeout : 0;
  }
  case WAIT_HEAD: return l->header_timeout ? c->since + l->header_timeout : 0;
  case WAIT_BODY: return l->body_timeout ? rate_deadline(c, l->body_timeout) : 0;
  case WAIT_HANDLER: return l->handler_timeout ? c->since + l->handler_timeout : 0;
  case WAIT_GONE: return c->since + GONE_SECONDS;
  case WAIT_WRITE: return l->write_timeout ? rate_deadline(c, l->write_timeout) : 0;
  case WAIT_LINGER: return c->since + LINGER_SECONDS;
  default: return 0;
  }
}

void conn_arm(conn *c) {
  server *s = c->server;
  if (!s->polling) server_touch_clock(s);
  uint8_t wait = waiting_for(c);
  if (wait != c->wait) {
    c->wait = wait;
    c->since = c->progress = s->now;
    c->moved = 0;
  }
  uint32_t deadline = deadline_of(c);
  if (deadline) wheel_set(&s->wheel, &c->timer, deadline + 1), server_tick_on(s);
  else wheel_stop(&s->wheel, &c->timer);
}

/* A client that ends its sending side may be waiting for its answer or may be gone: TCP tells both by the same FIN. Only
 * data tells: a closed socket resets the connection. An interim answer is data that every HTTP/1.1 client must accept
 * before the final one (RFC 9110 section 15.2). */
static void ask_if_there(conn *c) {
  static const char interim[] = "HTTP/1.1 102 Processing\r\n\r\n";
  c->asked = true;
  if (c->out == OUT_OWED && !conn_write(c, interim, sizeof interim - 1)) conn_close(c);
}

/* The kernel tells of room for output only when a good part of its buffer is free: a slow but steady reader may take
 * longer than write_timeout for that. So before such a client is given up, see what it has taken. */
static bool output_moved(conn *c) {
#ifdef __linux__
  int unsent = 0;
  if (ioctl(c->fd, SIOCOUTQ, &unsent) < 0 || c->sent < (uint64_t)unsent) return false;
  uint64_t taken = c->sent - (uint64_t)unsent;
  if (taken <= c->acked) return false;
  c->moved += taken - c->acked; /* counted twice for one buffer: min_rate is milder by that, no more */
  c->acked = taken;
  c->progress = c->server->now;
  return true;
#else
  (void)c;
  return false;
#endif
}

void conn_due(timer *t) {
  conn *c = (conn *)((char *)t - offsetof(conn, timer));
  server *s = c->server;
  if (c->ready) { /* what it waits for may be here: that goes first */
    wheel_set(&s->wheel, t, s->wheel.now + 1);
    return;
  }
  uint32_t deadline = deadline_of(c);
  if (!deadline) return;
  if (c->wait == WAIT_WRITE && deadline < s->wheel.now && output_moved(c)) deadline = deadline_of(c);
  if (deadline >= s->wheel.now) {
    wheel_set(&s->wheel, t, deadline + 1);
    return;
  }
  conn_ref(c);
  if (c->wait != WAIT_REQUEST && c->wait != WAIT_GONE && c->wait != WAIT_LINGER) s->counters[COUNT_TIMEOUTS]++;
  switch (c->wait) {
  case WAIT_HEAD: conn_refuse(c, 408, "the header section took longer than header_timeout"); break;
  case WAIT_GONE: ask_if_there(c); break;
  case WAIT_BODY: conn_refuse(c, 408, "the body came slower than body_timeout and min_rate allow"); break;
  case WAIT_HANDLER:
    if (c->exchange) s->up->timed_out(c);
    c->exchange = NULL;
    conn_refuse(c, 503, "the handler took longer than handler_timeout");
    break;
  default: conn_close(c); break; /* idle, lingering, or not reading: nothing can be said */
  }
  if (c->in != IN_CLOSED) conn_kick(c);
  conn_unref(c);
}

/* ---- refusing ---- */

/* End the connection in stages: nothing more is taken, the output is sent, then the client may finish talking. */
void conn_linger(conn *c) {
  c->closing = c->linger = true;
  c->hungry = false;
  c->taken = 0;
  bytes_clear(&c->body);
  bytes_clear(&c->input);
  conn_set_in(c, IN_LINGER);
}

void conn_refuse(conn *c, int status, const char *reason) {
  server *s = c->server;
  if (c->in == IN_CLOSED || c->in == IN_LINGER) return;
  if (c->out == OUT_RAW) { /* it gets no answer of ours */
    conn_close(c);
    return;
  }
  conn_ref(c);
  if (c->exchange) s->up->abandon(c);
  c->exchange = NULL;
  s->counters[COUNT_ERRORS]++;
  if (c->in == IN_CLOSED || c->out == OUT_BODY) { /* an answer has begun: cutting it short is all that can be said */
    conn_abort(c);
  } else if (c->in == IN_BODY && c->out == OUT_IDLE) { /* answered: another would be taken for the next request's */
    conn_linger(c);
  } else {
    char text[160];
    snprintf(text, sizeof text, "%d %s: %s\n", status, answer_phrase(status), reason);
    if (c->out == OUT_IDLE) conn_set_out(c, OUT_OWED);
    c->keep_alive = false;
    if (answer_text(c, status, text, "")) {
      conn_set_out(c, OUT_IDLE);
      conn_linger(c);
    } else {
      conn_close(c);
    }
  }
  conn_unref(c);
}
