/* fuzz_connection.c - a whole server with clients and handlers that do what the fuzzer says.
 *
 * The server is real: a listener, epoll, the ready list, deadlines. Around it stand doubles of what would make a run slow
 * or different from the last (doubles.c): the clock and the tick are ours, memory and accept fail and send is short when
 * told so. The handlers (`upcalls`) answer at once, later,
 * as a stream, refuse, close their own or another connection, stop the server; each keeps to what py_handler.c and py_stream.c do.
 *
 * Input: 2 bytes of settings; then steps from the front, and what the handlers do from the back, until the two meet.
 *
 * Checked: conn_check (EIGHTIES_CHECK) before and after everything; that polling comes to rest; that when the handlers have
 * answered and time goes on every connection ends; that nothing is left over; that of a client which sends nothing but
 * numbered requests each runs once and in order, and all have run when all is quiet. */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "doubles.h"
#include "engine.h"

#define MOST_BYTES 8192
#define CLIENTS 4
#define CLOSERS 64
#define HEARD_BYTES (1 << 20) /* of answers that a client keeps to be checked */
#define FILE_BYTES 5000
#define BIG_BYTES 20000
#define MOST_POLLS 20000 /* until all is quiet */
#define MOST_SECONDS 100 /* until every connection has ended */

/* ---- the input ---- */

static const uint8_t *front, *back;
static bool drains; /* the server is told to stop at the end */
static bool passes; /* until then all that is idle leaves and comes back again and again */

static unsigned step(void) { return front < back ? *front++ : 0; }

static unsigned choice(void) { return front < back ? *--back : 0; }

/* ---- handlers ---- */

enum { ROUTE_BUFFERED = 1, ROUTE_STREAMED };

/* One request, as the layer above holds it. */
typedef struct exchange exchange;
struct exchange {
  exchange *prev, *next; /* those that are linked to a connection */
  conn *conn;
  int refs;
  char *body; /* kept, to be freed */
  bool ran, ended, counted;
  uint64_t length, taken; /* of the request's body */
};

static server *s;
static exchange *exchanges;
static unsigned n_exchanges, n_owners; /* alive */
static bool wake_wanted;
static const conn *closers[CLOSERS]; /* connections that have sent Connection: close */
static int n_closers;
static int file_fd = -1;

static void exchange_unref(exchange *e) {
  if (--e->refs) return;
  free(e->body);
  free(e);
  n_exchanges--;
}

static void unlink_exchange(exchange *e) {
  if (!e->conn) return;
  assert(e->conn->exchange == e);
  e->conn->exchange = NULL;
  e->conn = NULL;
  if (e->prev) e->prev->next = e->next;
  else exchanges = e->next;
  if (e->next) e->next->prev = e->prev;
  exchange_unref(e);
}

static void *new_owner(size_t len) {
  char *owner = malloc(len ? len : 1);
  if (!owner) abort();
  memset(owner, 'o', len);
  n_owners++;
  return owner;
}

static void release(void *owner) {
  free(owner);
  n_owners--;
}

static void touch(span data) {
  volatile char sum = 0;
  for (size_t i = 0; i < data.len; i++) sum = (char)(sum + data.at[i]);
}

/* py_handler.c: answer_500. */
static void fail(exchange *e) {
  conn *c = e->conn;
  if (!c) return;
  bool begun = c->out != OUT_OWED;
  unlink_exchange(e);
  if (!begun && answer_text(c, 500, "Internal Server Error\n", "")) conn_end_answer(c);
  else conn_close(c);
}

static void finish(exchange *e) {
  conn *c = e->conn;
  if (c->counted && !c->is_head && c->out_left) {
    fail(e);
    return;
  }
  unlink_exchange(e);
  conn_end_answer(c);
}

static bool write_owned(conn *c, size_t len) {
  char *owner = new_owner(len);
  return conn_write_ref(c, owner, len, owner);
}

static void answer_at_once(exchange *e, unsigned how) {
  conn *c = e->conn;
  size_t len = how & 1 ? BIG_BYTES : 5;
  answer a = {.status = how & 2 ? 404 : 200, .length = (int64_t)len, .extra = {"", 0}, .close = (how & 12) == 12};
  bool fine = answer_head(c, &a);
  if (fine && !c->is_head) {
    if (how & 16)
      fine = conn_write_file(c, file_fd, 7, len, new_owner(1)); /* a file that is too short, if len is big */
    else fine = write_owned(c, len);
  }
  c->out_left = 0;
  if (fine) finish(e);
  else fail(e);
}

/* py_stream.c: send_chunk. */
static void send_chunk(exchange *e, size_t len) {
  conn *c = e->conn;
  if (c->counted && !c->is_head && len > c->out_left) {
    fail(e);
    return;
  }
  char *owner = new_owner(len);
  if (!conn_write_chunk(c, owner, len, owner)) {
    unlink_exchange(e);
    conn_close(c);
    return;
  }
  conn_ref(c);
  if (!c->feeding) {
    conn_flush(c);
    if (c->in != IN_CLOSED) conn_arm(c);
  }
  if (c->in != IN_CLOSED && !conn_send_ready(c)) c->wants_send = true;
  conn_unref(c);
}

static void stream_on(exchange *e, unsigned how) {
  static const size_t sizes[] = {0, 1, 100, COPY_BYTES, BIG_BYTES};
  conn *c = e->conn;
  if (c->out == OUT_OWED) {
    answer a = {.status = 200, .length = how & 1 ? -1 : BIG_BYTES, .extra = {"", 0}};
    if (!answer_head(c, &a)) {
      fail(e);
      return;
    }
  }
  e->refs++;
  send_chunk(e, sizes[how / 2 % 5]);
  if (e->conn && how & 16) finish(e);
  exchange_unref(e);
}

static exchange *some_exchange(unsigned n) {
  exchange *e = exchanges;
  while (e && n--) e = e->next ? e->next : exchanges;
  return e;
}

static conn *some_conn(unsigned n) {
  conn *c = s->conns;
  while (c && n--) c = c->next ? c->next : s->conns;
  return c;
}

/* A connection leaves for another process, which is this one, and comes back when the fuzzer says so. The descriptor is
 * another one then, as SCM_RIGHTS makes it. */
static passed away = {.fd = -1};

static void come_back(void) {
  if (away.fd < 0) return;
  int fd = dup(away.fd), left = memory_left;
  span unread = {away.input.at, away.input.len};
  if (fd < 0) abort();
  close(away.fd);
  bool done = server_adopt(s, fd, unread, away.flags);
  memory_left = -1;
  if (!done) done = server_adopt(s, fd, unread, away.flags); /* a failure for want of memory has changed nothing */
  memory_left = left;
  assert(done || s->shut);
  if (!done) close(fd);
  bytes_clear(&away.input);
  away.fd = -1;
}

static void pass_on(size_t most) {
  unsigned before = s->n_conns;
  if (away.fd >= 0) {
    come_back();
  } else if (server_give_away(s, most, &away)) {
    assert(!s->polling && away.fd >= 0 && away.input.len <= most && s->n_conns == before - 1);
    touch((span){away.input.at, away.input.len});
  }
}

static void pass_all(void) {
  if (!passes) return;
  come_back();
  for (unsigned n = s->n_conns; n; n--) {
    pass_on(PASSED_BYTES);
    come_back();
  }
}

/* What a handler may do besides its answer. */
static void meddle(unsigned how) {
  conn *c = some_conn(how >> 4);
  exchange *other = some_exchange(how >> 4);
  switch (how % 8) {
  case 0: server_drain(s); break;
  case 1: server_poll(s); break;
  case 2:
    if (c) conn_close(c);
    break;
  case 4:
    if (other && other->conn->in == IN_BODY && other->conn->sink == SINK_STREAM) conn_resume_body(other->conn, how & 8);
    break;
  case 5:
    if (other) conn_continue(other->conn);
    break;
  case 6:
    if (how > 0xe0) server_close(s);
    else if (how > 0xd0) server_close_listeners(s);
    break;
  case 7: pass_on(PASSED_BYTES); break; /* within a handler one may come back, and none is given away */
  default: break;
  }
}

static void act(exchange *e) {
  unsigned how = choice();
  conn *c = e->conn;
  if (c->out == OUT_BODY && (how % 8 == 0 || how % 8 == 2)) how++; /* an answer has begun: there is no other */
  switch (how % 8) {
  case 0:
    if (answer_text(c, 200, "hello", how & 8 ? "X: y\r\n" : "")) c->out_left = 0, finish(e);
    else fail(e);
    break;
  case 1: break; /* later */
  case 2: answer_at_once(e, how >> 3); break;
  case 3: stream_on(e, how >> 3); break;
  case 4: fail(e); break;
  case 5:
    if (how & 8) {
      unlink_exchange(e);
      conn_abort(c);
    } else {
      conn_close(c);
    }
    break;
  default: meddle(choice()); break;
  }
}

/* ---- clients ---- */

typedef struct {
  int fd;      /* -1: not connected */
  bool head;   /* it may have sent a HEAD request: where its answers end is not known then */
  bool counts; /* it has sent nothing but the requests of client_count */
  unsigned name;
  unsigned n_sent, n_ran; /* of those: whole, and how many of them have reached the server's upper half */
  char text[64];          /* the last of them, */
  size_t text_at, n_text; /* and what is left of it to be sent */
  char *heard;
  size_t n_heard;
} client;

static client clients[CLIENTS];
static unsigned n_names; /* of clients' sockets, in the whole process */

/* By the name of its peer, which it keeps wherever it goes; NULL: the client has left it. */
static client *client_of(const conn *c) {
  struct sockaddr_un peer = {0};
  socklen_t len = sizeof peer;
  if (getpeername(c->fd, (struct sockaddr *)&peer, &len) < 0 || len <= sizeof peer.sun_family + 1) return NULL;
  unsigned name = (unsigned)strtoul(peer.sun_path + 1, NULL, 16);
  for (int i = 0; i < CLIENTS; i++)
    if (clients[i].fd >= 0 && clients[i].name == name) return &clients[i];
  return NULL;
}

/* Requests run in the order in which they were sent, each once, and none is left out. */
static void check_order(const conn *c, const http1_head *head) {
  client *k = client_of(c);
  if (!k || !k->counts) return;
  assert(head->query.len && strtoul(head->query.at, NULL, 10) == k->n_ran);
  k->n_ran++;
  assert(k->n_ran <= k->n_sent);
}

/* When all is quiet, what was sent to a connection that waits for requests has run, unless it is held to be given away. */
static void check_all_ran(void) {
  for (const conn *c = s->conns; c; c = c->next) {
    bool waits = c->in == IN_HEAD && c->out == OUT_IDLE && !c->held && !c->closing && !c->output.first;
    const client *k = waits ? client_of(c) : NULL;
    if (k && k->counts) assert(k->n_ran == k->n_sent);
  }
}

/* ---- upcalls ---- */

/* Nothing runs on a connection whose client has asked to close it. */
static void check_runs(const conn *c, bool keep_alive) {
  for (int i = 0; i < n_closers; i++) assert(closers[i] != c);
  if (!keep_alive && n_closers < CLOSERS) closers[n_closers++] = c;
}

/* py_static.c: an answer without an exchange. */
static bool up_answer(conn *c, const http1_head *head, const router_match *match) {
  unsigned how = choice();
  touch(head->bytes);
  assert(!c->exchange && match->route && c->out == OUT_OWED && !head->chunked && !head->length);
  if (how % 4 != 3) return false;
  check_order(c, head);
  check_runs(c, head->keep_alive);
  size_t len = how & 4 ? BIG_BYTES : 5;
  answer a = {.status = how & 8 ? 304 : 200, .length = (int64_t)(how & 8 ? 0 : len), .extra = {"X: y\r\n", 6}};
  if (!answer_head(c, &a) || (!c->is_head && !(how & 8) && !write_owned(c, len))) conn_close(c);
  return true;
}

static bool up_begin(conn *c, const http1_head *head, const router_match *match, bool *stream) {
  unsigned how = choice();
  touch(head->bytes);
  assert(!c->exchange && match->route);
  check_order(c, head);
  check_runs(c, head->keep_alive);
  if (how == 0xff) return false;
  exchange *e = calloc(1, sizeof *e);
  if (!e) abort();
  n_exchanges++;
  e->refs = 1;
  e->conn = c;
  e->next = exchanges;
  if (exchanges) exchanges->prev = e;
  exchanges = e;
  e->counted = !head->chunked;
  e->length = head->length;
  c->exchange = e;
  *stream = (intptr_t)match->route == ROUTE_STREAMED;
  return true;
}

static bool up_keep(conn *c) { return c->exchange && choice() != 0xff; }

static void up_run(conn *c, span body, bool *taken) {
  exchange *e = c->exchange;
  e->refs++;
  touch(body);
  assert(!e->ran && (c->sink == SINK_STREAM || !e->counted || body.len == e->length)); /* no body that was cut short */
  e->ran = true;
  act(e);
  touch(body); /* valid during the call, whatever was closed */
  if (e->refs > 1 && taken && body.len && choice() % 2) {
    e->body = (char *)body.at;
    *taken = true;
  }
  exchange_unref(e);
}

static void up_chunk(conn *c, span data) {
  exchange *e = c->exchange;
  touch(data);
  if (!e) return;
  e->taken += data.len;
  assert(e->ran && !e->ended && (!e->counted || e->taken <= e->length));
  unsigned how = choice();
  if (how % 4 == 1) conn_resume_body(c, true);
  else if (how % 4 == 2) act(e);
  touch(data);
}

static void up_body_end(conn *c) {
  exchange *e = c->exchange;
  if (!e) return;
  assert(!e->ended && (!e->counted || e->taken == e->length));
  e->ended = true;
  if (choice() % 2) act(e);
}

static void up_abandon(conn *c) {
  exchange *e = c->exchange;
  assert(e);
  unlink_exchange(e);
}

static void up_send_ready(conn *c) { assert(c->exchange); }

static void *up_fallback(server *server, int status) {
  (void)server;
  assert(status == 404 || status == 405);
  return choice() % 4 == 1 ? (void *)(intptr_t)ROUTE_BUFFERED : NULL;
}

static void up_wake(server *server) {
  (void)server;
  wake_wanted = true;
}

static void up_log(server *server, bool error, const char *message) {
  (void)server, (void)error;
  touch((span){message, strlen(message)});
}

static const upcalls calls = {
    .answer = up_answer,
    .begin = up_begin,
    .keep = up_keep,
    .run = up_run,
    .chunk = up_chunk,
    .body_end = up_body_end,
    .abandon = up_abandon,
    .timed_out = up_abandon,
    .send_ready = up_send_ready,
    .fallback = up_fallback,
    .wake = up_wake,
    .log = up_log,
};

/* ---- what clients do ---- */

static struct sockaddr_un listening;
static socklen_t listening_len;

static void client_connect(client *k) {
  struct sockaddr_un own = {.sun_family = AF_UNIX};
  k->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  k->name = ++n_names;
  int len = snprintf(own.sun_path + 1, sizeof own.sun_path - 1, "%x fuzz %d", k->name, getpid()); /* no file's */
  len += (int)offsetof(struct sockaddr_un, sun_path) + 1;
  if (k->fd < 0 || bind(k->fd, (struct sockaddr *)&own, (socklen_t)len) < 0) abort();
  k->head = false;
  k->counts = true;
  k->n_sent = k->n_ran = 0, k->n_heard = k->n_text = 0;
  if (connect(k->fd, (struct sockaddr *)&listening, listening_len) == 0) return;
  close(k->fd); /* the server has stopped, or its queue is full */
  k->fd = -1;
}

/* A field of an answer's head, which ends with a NUL byte; NULL: it has none. It must not stand twice. */
static const char *field(const char *head, const char *name) {
  const char *at = strstr(head, name);
  if (!at) return NULL;
  assert(!strstr(at + 1, name));
  return at + strlen(name);
}

/* The length of a chunked body, or SIZE_MAX where it is not complete. */
static size_t chunked_length(const char *at, size_t len) {
  for (size_t used = 0;;) {
    const char *end = memchr(at + used, '\n', len - used);
    if (!end) return SIZE_MAX;
    char *behind;
    size_t size = strtoul(at + used, &behind, 16);
    assert(behind > at + used && behind[0] == '\r' && behind + 1 == end);
    used = (size_t)(end + 1 - at);
    if (len - used < size + 2) return SIZE_MAX;
    used += size;
    assert(memcmp(at + used, "\r\n", 2) == 0);
    used += 2;
    if (!size) return used;
  }
}

/* The length of the body behind `head`; SIZE_MAX: to the end, or not complete. */
static size_t body_length(const char *head, const char *at, size_t len) {
  const char *length = field(head, "\r\nContent-Length: "), *coding = field(head, "\r\nTransfer-Encoding: ");
  int status = atoi(head + 9);
  assert(status >= 100 && status < 600 && !(length && coding));
  assert(status < 200 || field(head, "\r\nDate: "));
  if (status < 200 || status == 204 || status == 304) {
    assert(!length && !coding);
    return 0;
  }
  if (coding) return chunked_length(at, len);
  size_t n = length ? strtoul(length, NULL, 10) : SIZE_MAX;
  return n > len ? SIZE_MAX : n;
}

/* What a client has heard is a row of well-formed answers; but the last may be cut short. */
static void check_answers(const client *k) {
  const char *at = k->heard, *end = at + k->n_heard;
  if (k->n_heard) assert(memcmp(at, "HTTP/1.1 ", k->n_heard < 9 ? k->n_heard : 9) == 0);
  for (bool closed = false; at < end && !k->head;) {
    char *behind = memmem(at, (size_t)(end - at), "\r\n\r\n", 4);
    assert(!closed);
    if (!behind) return;
    assert(memcmp(at, "HTTP/1.1 ", 9) == 0);
    behind[2] = 0;
    size_t n = body_length(at, behind + 4, (size_t)(end - behind) - 4);
    closed = field(at, "\r\nConnection: close");
    if (n == SIZE_MAX) return;
    at = behind + 4 + n;
  }
}

static void client_close(client *k) {
  if (k->fd < 0) return;
  close(k->fd);
  k->fd = -1;
  if (k->heard) check_answers(k);
}

static void client_write(client *k, const void *at, size_t len) {
  if (k->fd < 0) client_connect(k);
  if (k->fd < 0 || !len || send(k->fd, at, len, MSG_NOSIGNAL) < 0) return;
  k->counts = false;
  if (memchr(at, 'D', len)) k->head = true;
}

/* Send the next `len` bytes of a row of requests that are numbered; a whole one at most. */
static void client_count(client *k, size_t len) {
  if (k->fd < 0) client_connect(k);
  if (k->fd < 0 || !k->counts) return;
  if (!k->n_text) {
    k->n_text = (size_t)snprintf(k->text, sizeof k->text, "GET /a?%u HTTP/1.1\r\nHost: a\r\n\r\n", k->n_sent);
    k->text_at = 0;
  }
  ssize_t n = send(k->fd, k->text + k->text_at, len < k->n_text ? len : k->n_text, MSG_NOSIGNAL);
  if (n <= 0) return;
  k->text_at += (size_t)n;
  k->n_text -= (size_t)n;
  if (!k->n_text) k->n_sent++;
}

/* Whether something has come. */
static bool client_read(client *k, size_t len) {
  char spare[4096];
  if (k->fd < 0) return false;
  if (!k->heard && !(k->heard = malloc(HEARD_BYTES + 1))) abort();
  size_t room = HEARD_BYTES - k->n_heard;
  char *to = room ? k->heard + k->n_heard : spare;
  if (!room) room = sizeof spare;
  ssize_t n = recv(k->fd, to, len < room ? len : room, 0);
  if (n > 0 && to != spare) k->n_heard += (size_t)n;
  k->heard[k->n_heard] = 0;
  return n > 0;
}

/* ---- steps ---- */

static void check_all(void) {
  for (const conn *c = s->conns; c; c = c->next) {
    if (!c->ready) conn_check(c);              /* else it is not at rest: it ran out of budget */
    assert(c->input.len <= 2 * SCRATCH_BYTES); /* what a client may send ahead is bounded */
  }
}

static bool quiet(void) {
  struct pollfd outer = {.fd = poller_fd(s->poller), .events = POLLIN};
  return !wake_wanted && poll(&outer, 1, 0) == 0;
}

static void poll_once(void) {
  wake_wanted = false;
  server_poll(s);
  check_all();
}

/* It must come to rest: an outer loop would spin else. */
static void poll_until_quiet(void) {
  int polls = 0;
  pass_all();
  while (!quiet()) {
    poll_once();
    assert(++polls < MOST_POLLS);
  }
  check_all_ran();
}

static const char *const requests[] = {
    "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a HTTP/1.0\r\n\r\n",
    "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nhello",
    "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "POST /u/5 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n",
    "POST /u/5 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "POST /u/5 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
    "POST /u/5 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    "POST /none HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    "POST /none/x HTTP/1.1\r\nHost: a\r\nContent-Length: 400\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n",
    "POST /u/5 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nhello",
    "POST /u/5 HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nhello",
    "!",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "DELETE /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "BREW /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a HTTP/1.1\r\n\r\n",
    "hello",
    "\r\n",
};

/* `how` has 5 bits. */
static void client_step(client *k, unsigned how) {
  static char body[65536];
  switch (how % 8) {
  case 0:
  case 1: {
    size_t len = step();
    if (len > (size_t)(back - front)) len = (size_t)(back - front);
    client_write(k, front, len);
    front += len;
    break;
  }
  case 2:
    if (how & 24) {
      size_t len = how & 8 ? sizeof k->text : 1 + step() % 32;
      for (unsigned n = (how & 24) == 24 ? step() % 16 : 0; n; n--) client_count(k, len);
      client_count(k, len);
      break;
    }
    /* fall through */
  case 3: {
    const char *request = requests[step() % (sizeof requests / sizeof *requests)];
    client_write(k, request, strlen(request));
    break;
  }
  case 4:
    memset(body, 'b', sizeof body);
    client_write(k, body, how & 16 ? sizeof body : 200);
    break;
  case 5: client_read(k, (how >> 3) * 1000u + 1); break;
  case 6:
    if (k->fd >= 0) shutdown(k->fd, how & 8 ? SHUT_WR : SHUT_RD);
    break;
  default: client_close(k); break;
  }
}

static void server_step(unsigned how) {
  exchange *e = some_exchange(how >> 4);
  switch (how % 8) {
  case 0: poll_once(); break;
  case 1: poll_until_quiet(); break;
  case 2:
    if (e) act(e);
    break;
  case 3:
    if (e) stream_on(e, choice());
    break;
  case 4: pass_seconds(1 + (how >> 5)); break;
  case 5: meddle(choice()); break;
  case 6:
    if (how & 64) memory_left = how >> 7 ? (int)(step() % 16) : -1;
    else accept_error = how >> 7 ? EMFILE : 0;
    break;
  default:
    if (how & 16) pass_on(how & 32 ? 0 : how & 64 ? 20 : PASSED_BYTES);
    else short_sends = how & 8;
    break;
  }
}

static void one_step(void) {
  unsigned how = step();
  if (how & 1) server_step(how >> 1 | (step() << 7 & 0x80));
  else client_step(&clients[how >> 1 & 3], how >> 3);
}

/* ---- a run ---- */

static router *routes;

static void make_routes(void) {
  signal(SIGPIPE, SIG_IGN); /* as Python does: sendfile to a socket knows no MSG_NOSIGNAL */
  routes = router_new();
  file_fd = memfd_create("file", MFD_CLOEXEC);
  if (!routes || file_fd < 0 || ftruncate(file_fd, FILE_BYTES) < 0) abort();
  router_add(routes, "/a", HTTP1_GET, (void *)(intptr_t)ROUTE_BUFFERED);
  router_add(routes, "/a", HTTP1_POST, (void *)(intptr_t)ROUTE_BUFFERED);
  router_add(routes, "/u/{n:int}", HTTP1_POST, (void *)(intptr_t)ROUTE_STREAMED);
  router_add(routes, "/{name}", HTTP1_GET, (void *)(intptr_t)ROUTE_BUFFERED);
}

static bool begin(unsigned a, unsigned b) {
  limits l = {.http = {.max_line = 256, .max_head = 512, .max_fields = 8},
              .max_body = a & 1 ? 100 : 100000,
              .header_timeout = a & 2 ? 1 : 5,
              .body_timeout = a & 4 ? 1 : 5,
              .keep_alive_timeout = a & 8 ? 1 : 5,
              .handler_timeout = a & 16 ? 1 : 5,
              .write_timeout = a & 32 ? 1 : 5,
              .min_rate = a & 64 ? 100 : 0,
              .max_connections = a & 128 ? 1 : 10,
              .max_buffered = b & 1 ? 1024 : 65536};
  doubles_begin();
  step_ns = b & 2 ? 300000 : b & 4 ? 3000000 : 0;
  wake_wanted = false;
  small_buffers = b & 32;
  drains = b & 64;
  passes = b & 128;
  n_closers = 0;
  for (int i = 0; i < CLIENTS; i++) clients[i].fd = -1;
  s = server_new(&l, &calls, NULL, b & 8 ? "80s" : "");
  if (!s) abort();
  s->pool.release = release;
  s->router = routes;
  s->accept_batch = b & 16 ? 4 : 1;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  listening = (struct sockaddr_un){.sun_family = AF_UNIX};
  listening_len = sizeof listening;
  if (bind(fd, (struct sockaddr *)&listening, sizeof listening.sun_family) < 0 || listen(fd, 16) < 0) abort();
  if (getsockname(fd, (struct sockaddr *)&listening, &listening_len) < 0) abort();
  return server_listen(s, fd);
}

static void read_all(void) {
  for (bool more = true; more;) {
    more = false;
    for (int i = 0; i < CLIENTS; i++) more |= client_read(&clients[i], SIZE_MAX);
    poll_until_quiet();
  }
}

/* Everyone does what he owes: handlers answer, clients read, time passes. Then every connection ends. */
static void settle(void) {
  memory_left = -1;
  accept_error = 0;
  passes = false; /* with each move deadlines begin anew */
  come_back();
  server_keep(s); /* nobody looks for any more to be given away */
  for (unsigned second = 0; s->n_conns; second++) {
    assert(second < MOST_SECONDS);
    poll_until_quiet();
    for (exchange *e = exchanges, *next; e; e = next) {
      next = e->next;
      if (e->conn->out == OUT_OWED) {
        if (!answer_text(e->conn, 200, "late", "")) abort();
        e->conn->out_left = 0;
      }
      finish(e);
      next = exchanges; /* finish runs other connections */
    }
    read_all();
    pass_seconds(1);
    if (drains && second == 1) server_drain(s); /* else each has a deadline */
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2 || size > MOST_BYTES) return 0;
  if (!routes) make_routes();
  front = data + 2;
  back = data + size;
  if (!begin(data[0], data[1])) abort();
  while (front < back) {
    one_step();
    check_all();
  }
  settle();
  for (int i = 0; i < CLIENTS; i++) client_close(&clients[i]);
  poll_until_quiet();
  assert(!s->n_conns && !exchanges);
  unsigned left = server_free(s);
  assert(left == 0 && n_exchanges == 0 && n_owners == 0);
  return 0;
}
