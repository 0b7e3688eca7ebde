/* input.c - a connection's bytes to requests: receive, find heads and bodies, hand them up. Contract: engine.h. */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

/* Whether the connection can take input now: one request at a time, and none while its client does not read. */
static bool takes(const conn *c) {
  switch (c->in) {
  case IN_HEAD:
    return !c->held && c->out == OUT_IDLE && !c->closing && c->output.bytes < c->server->limits.max_buffered;
  case IN_BODY: return !c->paused;
  case IN_RAW: return !c->paused && !c->eof && c->kind != RAW_WRITER && !c->pending;
  case IN_LINGER: /* of a raw connection what is queued goes first, however much its peer still says */
    return c->kind != RAW_WRITER && !c->pending && (c->out != OUT_RAW || !c->output.first);
  default: return false;
  }
}

/* ---- answers of our own ---- */

/* The built-in answer to a request without a route: 404, 405, 501, or OPTIONS. */
static void answer_unrouted(conn *c) {
  char allow[ALLOW_BYTES + 1] = "", text[64] = "";
  int status = c->refusal;
  c->refusal = 0;
  if (c->allowed) allow[answer_allow(allow, c->allowed)] = 0;
  if (status != 204) {
    strcat(strcpy(text, answer_phrase(status)), "\n");
    c->server->counters[COUNT_ERRORS]++;
  }
  if (answer_text(c, status, text, allow)) conn_end_answer(c);
  else conn_close(c);
}

/* ---- bodies ---- */

static void complete_body(conn *c) {
  server *s = c->server;
  switch (c->sink) {
  case SINK_BUFFER: {
    bytes body = c->body; /* taken out: the handler may close the connection */
    bool taken = false;
    c->body = (bytes){0};
    conn_set_in(c, IN_DONE);
    s->up->run(c, (span){body.at, body.len}, &taken);
    if (!taken) free(body.at);
    break;
  }
  case SINK_STREAM:
    conn_set_in(c, IN_DONE);
    if (c->out == OUT_RAW) raw_eof(c);
    else s->up->body_end(c);
    break;
  default:
    if (c->out == OUT_IDLE) { /* answered already: this was the unread rest */
      conn_set_in(c, IN_HEAD);
      c->held = s->giving;
    } else {
      conn_set_in(c, IN_DONE);
      answer_unrouted(c);
    }
  }
}

static void take_data(conn *c, span data) {
  server *s = c->server;
  if (!data.len) return;
  c->taken += data.len;
  if (c->sink == SINK_STREAM) {
    if (c->out == OUT_RAW) s->up->data(c, data);
    else s->up->chunk(c, data);
    return;
  }
  uint64_t most = c->sink == SINK_DISCARD && c->out == OUT_IDLE ? DISCARD_BYTES : s->limits.max_body;
  if (c->taken > most) {
    if (c->out == OUT_IDLE) { /* its answer is out */
      conn_linger(c);
    } else {
      conn_refuse(c, 413, "the body is longer than max_body");
    }
  } else if (c->sink == SINK_BUFFER && !bytes_append(&c->body, data.at, data.len)) {
    conn_close(c);
  }
}

static size_t feed_body(conn *c, const char *at, size_t len) {
  span data;
  bool done;
  size_t used;
  if (c->chunked_in) {
    http1_error error;
    ssize_t n = http1_read_chunked(&c->framing.chunked, at, len, c->server->limits.http.max_fields, &data, &error);
    if (n < 0) {
      conn_refuse(c, error.status, error.reason);
      return len;
    }
    used = (size_t)n;
    done = c->framing.chunked.state == HTTP1_CHUNKED_DONE;
  } else {
    used = len < c->framing.left ? len : (size_t)c->framing.left;
    data = (span){at, used};
    c->framing.left -= used;
    done = c->framing.left == 0;
  }
  take_data(c, data);
  if (done && c->in == IN_BODY) complete_body(c);
  return used;
}

static void begin_body(conn *c, const http1_head *head, sink to) {
  conn_set_in(c, IN_BODY);
  c->sink = (uint8_t)to;
  c->chunked_in = head->chunked;
  c->paused = false;
  c->taken = 0;
  if (head->chunked) c->framing.chunked = (http1_chunked){0};
  else c->framing.left = head->length;
}

/* ---- heads ---- */

/* Find the route; where there is none, decide on the answer: c->refusal. */
static void find_route(conn *c, const http1_head *head, router_match *match) {
  server *s = c->server;
  *match = (router_match){0};
  c->refusal = 0;
  if (head->method == HTTP1_OTHER) {
    c->refusal = 501;
  } else if (*head->path.at == '*') {
    match->allowed = (1u << HTTP1_METHODS) - 1;
    c->refusal = 204;
  } else if (s->router) {
    router_find(s->router, head->path, head->method, match);
  }
  c->allowed = (uint16_t)match->allowed;
  if (match->route || c->refusal) return;
  int status = !match->allowed ? 404 : head->method == HTTP1_OPTIONS ? 204 : 405;
  match->n_params = 0;
  match->route = status == 204 ? NULL : s->up->fallback(s, status);
  if (!match->route) c->refusal = (uint16_t)status;
}

/* Nothing of ours will read the body: read it away and answer, or answer at once where it may never come. */
static size_t begin_unrouted(conn *c, const http1_head *head, bool has_body) {
  conn_set_out(c, OUT_OWED);
  if (has_body && !head->expect_continue) {
    begin_body(c, head, SINK_DISCARD);
    return 0;
  }
  if (has_body) c->keep_alive = false;
  conn_set_in(c, IN_DONE);
  answer_unrouted(c);
  return 0;
}

static size_t begin_stream(conn *c, const http1_head *head) {
  server *s = c->server;
  if (!s->up->keep(c)) {
    conn_close(c);
    return 0;
  }
  begin_body(c, head, SINK_STREAM);
  c->expect = head->expect_continue;
  s->up->run(c, (span){NULL, 0}, NULL);
  return 0;
}

/* A body to be buffered. When it is here already it is handed up where it lies. */
static size_t begin_buffered(conn *c, const http1_head *head, span rest) {
  server *s = c->server;
  if (head->has_length && head->length <= rest.len) {
    conn_set_in(c, IN_DONE);
    s->up->run(c, (span){rest.at, (size_t)head->length}, NULL);
    return (size_t)head->length;
  }
  if (!s->up->keep(c)) {
    conn_close(c);
    return 0;
  }
  begin_body(c, head, SINK_BUFFER);
  c->expect = head->expect_continue && !rest.len;
  conn_continue(c);
  return 0;
}

/* A head is complete. Returns how many bytes of `rest` were used with it. */
static size_t begin_request(conn *c, const http1_head *head, span rest) {
  server *s = c->server;
  bool has_body = head->chunked || head->length, stream = false;
  router_match match;
  find_route(c, head, &match);
  if (c->refusal) {
    if (head->length > s->limits.max_body) {
      conn_refuse(c, c->refusal == 204 ? 413 : c->refusal, "and the body is longer than max_body");
      return 0;
    }
    return begin_unrouted(c, head, has_body);
  }
  conn_set_out(c, OUT_OWED);
  if (!has_body && s->up->answer && s->up->answer(c, head, &match)) {
    if (c->in == IN_CLOSED) return 0;
    conn_set_in(c, IN_DONE);
    conn_end_answer(c);
    return 0;
  }
  if (!s->up->begin(c, head, &match, &stream)) {
    conn_close(c);
    return 0;
  }
  if (has_body && stream) return begin_stream(c, head);
  if (head->length > s->limits.max_body) {
    conn_refuse(c, 413, "the body is longer than max_body");
    return 0;
  }
  if (has_body) return begin_buffered(c, head, rest);
  conn_set_in(c, IN_DONE);
  s->up->run(c, (span){rest.at, 0}, NULL);
  return 0;
}

/* Let other protocols look at the first bytes. True: it is HTTP, or will be refused as such. */
static bool is_http(conn *c, span first) {
  server *s = c->server;
  if (!s->sniffing || !c->fresh || c->known) return true;
  if (first.len > FIRST_BYTES) first.len = FIRST_BYTES;
  switch (s->up->sniff(c, first)) {
  case SNIFF_TAKEN: return false;
  case SNIFF_MORE:
    c->hungry = first.len < FIRST_BYTES;
    if (c->hungry) return false;
    break;
  case SNIFF_HTTP: break;
  }
  c->known = true;
  return true;
}

static size_t feed_head(conn *c, const char *at, size_t len) {
  server *s = c->server;
  if (!is_http(c, (span){at, len})) return 0;
  http1_head head;
  http1_error error;
  head.fields = s->fields;
  ssize_t n = http1_read_head(at, len, &c->scan, &s->limits.http, &head, &error);
  if (n == HTTP1_MORE) {
    c->hungry = true;
    return 0;
  }
  c->scan = (http1_scan){0};
  if (n == HTTP1_BAD) {
    conn_refuse(c, error.status, error.reason);
    return len;
  }
  c->fresh = c->expect = false;
  c->keep_alive = head.keep_alive;
  c->asked_close = !head.keep_alive;
  c->http10 = head.minor == 0;
  c->is_head = head.method == HTTP1_HEAD;
  s->counters[COUNT_REQUESTS]++;
  return (size_t)n + begin_request(c, &head, (span){at + n, len - (size_t)n});
}

/* ---- receiving ---- */

static size_t feed_raw(conn *c, const char *at, size_t len) {
  c->server->up->data(c, (span){at, len});
  return len;
}

static size_t feed_linger(conn *c, size_t len) {
  c->taken += len;
  if (c->taken > LINGER_BYTES && c->out != OUT_RAW) conn_close(c); /* there LINGER_SECONDS are the bound */
  return len;
}

/* Take what can be taken now; returns how many bytes were used. `at` stays valid whatever the handlers do. */
static size_t feed(conn *c, const char *at, size_t len) {
  size_t used = 0;
  c->feeding = true;
  while (used < len && takes(c) && !c->hungry && !c->ready) {
    switch (c->in) {
    case IN_HEAD: used += feed_head(c, at + used, len - used); break;
    case IN_BODY: used += feed_body(c, at + used, len - used); break;
    case IN_RAW: used += feed_raw(c, at + used, len - used); break;
    default: used += feed_linger(c, len - used); break;
    }
    if (server_over_budget(c->server)) conn_enqueue(c); /* others first; the rest keeps */
  }
  c->feeding = false;
  return used;
}

static void feed_input(conn *c) {
  bytes all = c->input; /* taken out: a handler may close the connection while its request points here */
  c->input = (bytes){0};
  size_t used = feed(c, all.at, all.len);
  if (c->in == IN_CLOSED) {
    bytes_clear(&all);
    return;
  }
  bytes_drop(&all, used);
  c->input = all;
}

static void at_eof(conn *c) {
  c->eof = true;
  c->readable = false;
  switch (c->in) {
  case IN_RAW:
    raw_eof(c);
    if (c->broken && c->in == IN_RAW) conn_close(c); /* nothing can be written either */
    break;
  case IN_BODY:
    if (c->out == OUT_IDLE || c->out == OUT_RAW) conn_close(c);
    else conn_refuse(c, 400, "the body ends before it is complete");
    break;
  case IN_HEAD:
    if (c->output.first) c->closing = true;
    else conn_close(c);
    break;
  default:
    if (!c->output.first) conn_close(c);
  }
}

static void receive(conn *c) {
  server *s = c->server;
  ssize_t n = c->io->recv(c, s->scratch, SCRATCH_BYTES);
  if (n == 0 && c->kind != RAW_DATAGRAM) {
    at_eof(c);
    return;
  }
  if (n == 0) { /* an empty datagram is one */
    if (c->in == IN_RAW) feed_raw(c, s->scratch, 0);
    if (server_over_budget(s)) conn_enqueue(c);
    return;
  }
  if (n < 0) {
    bool empty = errno == EAGAIN || errno == EWOULDBLOCK;
    if (empty) c->readable = false;
    if (empty ? c->broken && c->in == IN_RAW && c->kind == RAW_STREAM : errno != EINTR) conn_close(c);
    return;
  }
  /* A short read has emptied the socket; what comes later is told by a new event. Not so with an end of stream. */
  if (n < SCRATCH_BYTES && !c->hung_up && !c->broken && c->kind == RAW_STREAM) c->readable = false;
  s->counters[COUNT_BYTES_IN] += (uint64_t)n;
  if (c->in == IN_BODY) {
    c->progress = s->now;
    c->moved += (uint64_t)n;
  }
  size_t used = 0;
  if (c->input.len) c->hungry = false; /* read_on feeds the two together */
  else used = feed(c, s->scratch, (size_t)n);
  if (c->in != IN_CLOSED && !bytes_append(&c->input, s->scratch + used, (size_t)n - used)) conn_close(c);
}

static void read_on(conn *c) {
  while (takes(c) && !c->ready) {
    if (c->input.len && !c->hungry) feed_input(c);
    else if (c->readable) receive(c);
    else break;
  }
}

/* The client has ended its sending side while its answer is being made. Where nothing can be sent to find out whether it
 * is gone (a stream that is silent), keep-alive probes tell in the end: a closed socket answers them for a minute only. */
static void probe(conn *c) {
  c->probing = true;
  if (c->peer.family == AF_UNIX) return; /* these tell at once */
  int on = 1, seconds = PROBE_SECONDS, count = PROBE_COUNT;
  setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
#ifdef TCP_KEEPIDLE
  setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
  setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof seconds);
  setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
#endif
  (void)seconds, (void)count;
}

void conn_run(conn *c) {
  server *s = c->server;
  conn_ref(c);
  conn_check(c);
  if (c->broken && c->in != IN_CLOSED && ((c->exchange && c->out != OUT_RAW) || c->in == IN_LINGER)) conn_close(c);
  if (c->out == OUT_RAW || c->greet) raw_begin(c);
  bool more = c->in != IN_CLOSED;
  while (more) {
    conn_flush(c);
    read_on(c);
    conn_flush(c);
    more = takes(c) && !c->ready && ((c->input.len && !c->hungry) || c->readable);
  }
  if (c->in != IN_CLOSED) {
    if (c->hung_up && c->exchange && !c->probing) probe(c);
    if (c->out == OUT_RAW) raw_finish(c);
  }
  if (c->in != IN_CLOSED) {
    if (s->draining && conn_idle(c) && !c->fresh && !c->ready) conn_close(c);
    else conn_arm(c);
  }
  conn_check(c);
  conn_unref(c);
}
