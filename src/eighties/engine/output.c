/* output.c - answers to bytes: queue, frame, send, end. Contract: engine.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine.h"

#define SENDFILE_BYTES (1024 * 1024) /* one call; others get their turn after it */

/* ---- sending ---- */

static ssize_t send_some(conn *c) {
  const chunk *k = c->output.first;
  if (k->kind == CHUNK_FILE && k->end > k->start) {
    size_t len = k->end - k->start;
    ssize_t n = c->io->sendfile(c, k->fd, k->start, len < SENDFILE_BYTES ? len : SENDFILE_BYTES);
    if (n == 0) errno = EIO; /* the file has become shorter: the promised length cannot be kept */
    return n == 0 ? -1 : n;
  }
  if (c->kind == RAW_DATAGRAM) { /* one piece is one datagram, an empty one too */
    struct iovec one = {(void *)(k->bytes + k->start), k->end - k->start};
    return c->io->send(c, &one, 1);
  }
  struct iovec iov[IOV_MAX_SEND];
  int n = queue_iov(&c->output, iov, IOV_MAX_SEND);
  return n ? c->io->send(c, iov, n) : 0;
}

/* All output is sent. */
static void output_done(conn *c) {
  if (!c->closing || c->in == IN_CLOSED) return;
  if (!c->linger || c->eof) {
    conn_close(c);
  } else if (!c->was_shut) { /* RFC 9112 section 9.6: close in stages, or a reset takes the answer away */
    c->was_shut = true;
    c->io->shutdown(c);
  }
}

void conn_flush(conn *c) {
  server *s = c->server;
  while (c->output.first && c->writable) {
    ssize_t n = send_some(c);
    if (n >= 0) {
      s->counters[COUNT_BYTES_OUT] += (uint64_t)n;
      c->sent += (uint64_t)n;
      c->progress = s->now;
      c->moved += (uint64_t)n;
      if (c->kind == RAW_DATAGRAM) queue_pop(&c->output, &s->pool);
      else queue_sent(&c->output, &s->pool, (size_t)n);
      if (s->polling && c->output.first && server_over_budget(s)) { /* a peer that reads as fast as we write */
        conn_enqueue(c);
        break;
      }
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      c->writable = false;
      c->wants_send |= c->out == OUT_RAW;
    } else if (errno != EINTR) {
      if (!raw_send_failed(c)) conn_close(c);
      return;
    }
  }
  if (c->wants_send && c->out != OUT_RAW && c->output.bytes <= s->limits.max_buffered / 2) {
    c->wants_send = false;
    if (c->exchange) s->up->send_ready(c);
  }
  if (!c->output.first) output_done(c);
}

/* ---- writing ---- */

bool conn_write(conn *c, const char *at, size_t len) { return queue_write(&c->output, &c->server->pool, at, len); }

bool conn_write_ref(conn *c, const char *at, size_t len, void *owner) {
  return queue_ref(&c->output, &c->server->pool, at, len, owner);
}

bool conn_write_file(conn *c, int fd, size_t offset, size_t len, void *owner) {
  return queue_file(&c->output, &c->server->pool, fd, offset, len, owner);
}

static bool write_body(conn *c, const char *at, size_t len, void *owner) {
  if (len > COPY_BYTES) return conn_write_ref(c, at, len, owner);
  bool fine = conn_write(c, at, len);
  c->server->pool.release(owner);
  return fine;
}

bool conn_write_chunk(conn *c, const char *at, size_t len, void *owner) {
  char size[20];
  if (!len || c->is_head) { /* an empty chunk would end the body */
    c->server->pool.release(owner);
    return true;
  }
  if (c->counted) c->out_left -= len;
  if (!c->chunked_out) return write_body(c, at, len, owner);
  bool fine = conn_write(c, size, (size_t)snprintf(size, sizeof size, "%zx\r\n", len));
  return write_body(c, at, len, owner) && fine && conn_write(c, "\r\n", 2);
}

bool conn_send_ready(const conn *c) { return c->output.bytes < c->server->limits.max_buffered; }

/* Whether an unread body keeps the connection from going on: too long, or perhaps never sent. */
bool conn_body_in_the_way(const conn *c) {
  return c->in == IN_BODY && (c->expect || (!c->chunked_in && c->framing.left > DISCARD_BYTES));
}

void conn_end_answer(conn *c) {
  server *s = c->server;
  c->exchange = NULL;
  if (c->chunked_out && !conn_write(c, "0\r\n\r\n", 5)) {
    conn_close(c);
    return;
  }
  c->chunked_out = c->is_head = c->http10 = false;
  conn_set_out(c, OUT_IDLE);
  c->wait = 0; /* what is waited for now begins now */
  if (!c->keep_alive || s->draining || conn_body_in_the_way(c)) {
    c->closing = true;
    c->linger = !c->asked_close || c->in == IN_BODY || c->input.len || c->readable;
    c->taken = 0;
    conn_set_in(c, IN_LINGER);
  } else if (c->in == IN_DONE) {
    conn_set_in(c, IN_HEAD);
    c->held = s->giving;
  } else {
    bytes_clear(&c->body); /* what came of a body that was being kept is no part of the next one */
    c->sink = SINK_DISCARD;
    c->taken = 0;
    c->paused = false;
  }
  if (!c->feeding) conn_kick(c);
}

/* Answers ahead of the one that is cut are whole: they go out. */
void conn_abort(conn *c) {
  c->exchange = NULL;
  conn_ref(c);
  if (c->in != IN_CLOSED) conn_flush(c);
  conn_close(c);
  conn_unref(c);
}

bool conn_write_continue(conn *c) {
  c->expect = false;
  return conn_write(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
}

void conn_continue(conn *c) {
  if (!c->expect || c->out != OUT_OWED) return;
  if (!conn_write_continue(c)) conn_close(c);
  else if (!c->feeding) conn_kick(c);
}

void conn_resume_body(conn *c, bool paused) {
  if (c->paused == paused) return;
  c->paused = paused;
  if (!c->feeding) conn_kick(c);
}
