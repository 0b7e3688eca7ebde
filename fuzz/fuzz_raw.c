/* fuzz_raw.c - raw connections of all kinds, with peers and a program that do what the fuzzer says.
 *
 * The server is real, as in fuzz_connection.c, with the same doubles around it: time, memory, accept and send are ours. Its
 * connections become raw at accept, by their first bytes, by a handler that takes them over at once or later, or because the
 * program opens them: over socket pairs, pairs of datagram sockets, and pipes. Both the program, within each of its upcalls
 * and without, and the peers write, stop reading, end a direction or everything.
 *
 * Input: 2 bytes of settings; then steps from the front, and what the upcalls do from the back, until the two meet.
 *
 * Checked: conn_check; that bytes arrive in order, whole and once, in both directions (datagrams with their bounds); that
 * no upcall comes from within a raw_* function, before a connection is open, or after `closed`, which comes once; that when
 * all is quiet no byte lies unread or unsent in vain, and no end is overlooked; that everything ends, and nothing is left. */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "doubles.h"
#include "engine.h"
#include "peers.h"

#define MOST_BYTES 8192
#define MOST_SOCKETS 16 /* that the program opens */
#define MOST_WAITING (1 << 20)
#define HOLD_BYTES 65536 /* more than that, and the program may wait until it is sent */
#define MOST_POLLS 20000 /* until all is quiet */
#define MOST_SECONDS 100 /* until every connection has ended */

/* ---- the input ---- */

static const uint8_t *front, *back;

static unsigned step(void) { return front < back ? *front++ : 0; }

static unsigned choice(void) { return front < back ? *--back : 0; }

/* ---- the program's side ---- */

typedef struct sock sock;

/* A raw connection, as the layer above holds it. */
struct sock {
  sock *prev, *next; /* those that are not over */
  conn *conn;        /* NULL: over */
  peer *to;          /* where that is known: see peer_at */
  unsigned number;
  int refs;
  raw_kind kind;
  uint64_t handle;
  unsigned greets; /* asked for and not yet come */
  bool own, opened, ended, eof;
  bool waits; /* much of what it wrote was not sent at once: `drained` is owed */
  flow got, wrote;
};

/* A request of which the answer is still owed. */
typedef struct exchange exchange;
struct exchange {
  exchange *prev, *next;
  conn *conn;
  bool ran, has_body, complete;
};

static server *s;
static sock *socks;
static exchange *exchanges;
static unsigned n_socks, n_opened, n_exchanges, n_owners; /* alive, but n_opened */
static bool wake_wanted;
static unsigned silent, may_call; /* within a raw_* function; within one that may make upcalls */
static int listening_fd, file_fd = -1;

static void act(sock *k, unsigned how);

static void touch(span data) {
  volatile char sum = 0;
  for (size_t i = 0; i < data.len; i++) sum = (char)(sum + data.at[i]);
}

static void release(void *owner) {
  free(owner);
  n_owners--;
}

static sock *sock_new(raw_kind kind, bool own) {
  sock *k = calloc(1, sizeof *k);
  if (!k) abort();
  k->refs = 1;
  k->kind = kind;
  k->own = own;
  n_socks++;
  return k;
}

static void sock_unref(sock *k) {
  if (--k->refs) return;
  n_socks--;
  free(k);
}

static void know_peer(sock *k, peer *p) {
  k->to = p;
  if (p) k->number = p->number;
}

/* The peer, as long as it has this connection. */
static const peer *peer_at(const sock *k) {
  return k->to && k->to->fd >= 0 && k->to->number == k->number ? k->to : NULL;
}

static void sock_link(sock *k, conn *c) {
  bool closed = c->in == IN_CLOSED; /* without memory for the 100 that is owed; `closed` follows */
  assert(c->exchange == k && c->handle && handle_find(&s->handles, c->handle) == (closed ? NULL : c));
  k->conn = c;
  k->handle = c->handle;
  k->next = socks;
  if (socks) socks->prev = k;
  socks = k;
  if (!k->own && !closed) know_peer(k, peer_of(c->fd));
}

static sock *some_sock(unsigned n) {
  sock *k = socks;
  while (k && n--) k = k->next ? k->next : socks;
  return k;
}

static bool take(conn *c, bool ended) {
  sock *k = sock_new(RAW_STREAM, false);
  k->ended = ended;
  silent++;
  bool taken = raw_take(c, k, ended);
  silent--;
  if (taken) sock_link(k, c);
  else sock_unref(k);
  return taken;
}

/* ---- what the program does with a connection ---- */

static void write_some(sock *k, unsigned how) {
  size_t len = size_of(how, k->kind);
  if (!k->conn || k->conn->output.bytes > MOST_WAITING) return;
  bool owned = how & 8 || k->kind == RAW_DATAGRAM, writes = raw_writes(k->conn);
  char *at = malloc(len ? len : 1);
  if (!at) abort();
  flow_fill(&k->wrote, k->kind, at, len);
  n_owners += owned;
  silent++;
  bool fine = raw_write(k->conn, (span){at, len}, owned ? at : NULL);
  silent--;
  if (!owned) free(at);
  assert(writes || !fine);
  assert(fine || !raw_writes(k->conn)); /* it is closed, or was no writer */
  if (!fine) return;
  flow_advance(&k->wrote, k->kind, len);
  k->waits |= k->conn->output.bytes > HOLD_BYTES;
}

/* What is queued goes out first. */
static void close_sock(sock *k) {
  const conn *c = k->conn;
  bool was_open = c->in != IN_CLOSED && c->in != IN_LINGER, waits = c->output.bytes;
  silent++;
  bool done = raw_close(k->conn);
  silent--;
  assert(done == was_open && (c->in == IN_CLOSED || c->in == IN_LINGER));
  assert(!was_open || !waits || c->in == IN_LINGER);
}

static void abort_sock(sock *k) {
  silent++;
  conn_close(k->conn);
  silent--;
}

static void pause_sock(sock *k, bool paused) {
  if (k->conn->in == IN_CLOSED || k->conn->in == IN_LINGER) return; /* py_socket.c: set_paused */
  silent++;
  raw_pause(k->conn, paused);
  silent--;
}

static void greet_sock(sock *k) {
  if (k->conn->pending || k->conn->in == IN_CLOSED || k->conn->in == IN_LINGER) return;
  silent++;
  raw_greet(k->conn);
  silent--;
  k->greets++;
}

static void open_sock(raw_kind kind) {
  if (n_opened == MOST_SOCKETS) return;
  sock *k = sock_new(kind, true);
  silent++;
  conn *c = raw_open(s, kind, k);
  silent--;
  assert(!c || !s->shut);
  if (c) sock_link(k, c), n_opened++;
  else sock_unref(k);
}

static bool attach(sock *k, int fd) {
  bool pending = k->conn->pending && k->conn->in != IN_CLOSED;
  silent++;
  bool done = raw_attach(k->conn, fd);
  silent--;
  assert(pending || !done);
  k->greets += done;
  return done;
}

/* Connect it to the peer, where that has no connection; or to what cannot be polled. */
static void attach_sock(sock *k, unsigned how) {
  peer *p = &peers[how % PEERS];
  int ours, theirs;
  if (how > 0xf0) {
    assert(!attach(k, how & 1 ? -1 : file_fd));
    return;
  }
  if (p->fd >= 0) return;
  make_pair(k->kind, &ours, &theirs);
  if (attach(k, ours)) {
    peer_begin(p, theirs, k->kind);
    p->raw = true;
    know_peer(k, p);
    assert(!attach(k, listening_fd)); /* it has one */
  } else {
    close(ours);
    close(theirs);
  }
}

/* ---- HTTP, as little as there must be ---- */

static void unlink_exchange(exchange *e) {
  assert(e->conn->exchange == e);
  e->conn->exchange = NULL;
  e->conn = NULL;
  if (e->prev) e->prev->next = e->next;
  else exchanges = e->next;
  if (e->next) e->next->prev = e->prev;
}

static void exchange_free(exchange *e) {
  free(e);
  n_exchanges--;
}

static exchange *some_exchange(unsigned n) {
  exchange *e = exchanges;
  while (e && n--) e = e->next ? e->next : exchanges;
  return e && e->ran ? e : NULL;
}

/* Answer, take over, cut; or leave it for later. But for that the exchange is gone then. */
static void exchange_act(exchange *e, unsigned how) {
  conn *c = e->conn;
  bool ended = e->has_body && e->complete, fine = false;
  if (how % 4 == 3 || c->out != OUT_OWED) return;
  unlink_exchange(e);
  exchange_free(e);
  conn_ref(c);
  may_call++; /* where nothing else runs, what is ready is run at once */
  if (how % 4 == 0) {
    fine = answer_text(c, 200, how & 4 ? "hello" : "", "");
    c->out_left = 0;
    if (fine) conn_end_answer(c);
  } else if (how % 4 == 1) {
    fine = take(c, ended);
  }
  if (!fine) conn_close(c);
  may_call--;
  conn_unref(c);
}

static bool up_begin(conn *c, const http1_head *head, const router_match *match, bool *stream) {
  assert(!c->exchange && match->route && c->out == OUT_OWED);
  if (choice() == 0xff) return false;
  exchange *e = calloc(1, sizeof *e);
  if (!e) abort();
  n_exchanges++;
  e->conn = c;
  e->next = exchanges;
  if (exchanges) exchanges->prev = e;
  exchanges = e;
  e->has_body = head->chunked || head->length;
  c->exchange = e;
  *stream = (intptr_t)match->route == 2;
  return true;
}

static bool up_keep(conn *c) { return c->exchange; }

static void up_run(conn *c, span body, bool *taken) {
  exchange *e = c->exchange;
  (void)taken;
  e->ran = true;
  e->complete = c->in == IN_DONE;
  exchange_act(e, choice());
  touch(body);
}

static void up_chunk(conn *c, span data) {
  touch(data);
  if (c->exchange && choice() % 4 == 1) exchange_act(c->exchange, choice());
}

static void up_body_end(conn *c) {
  exchange *e = c->exchange;
  if (!e) return;
  e->complete = true;
  exchange_act(e, choice());
}

static void up_abandon(conn *c) {
  exchange *e = c->exchange;
  unlink_exchange(e);
  exchange_free(e);
}

static void up_send_ready(conn *c) { assert(c->exchange && c->out != OUT_RAW); }

static void *up_fallback(server *server, int status) {
  (void)server, (void)status;
  return NULL;
}

static void up_wake(server *server) {
  (void)server;
  wake_wanted = true;
}

static void up_log(server *server, bool error, const char *message) {
  (void)server, (void)error;
  touch((span){message, strlen(message)});
}

/* ---- raw upcalls ---- */

/* What holds at the beginning of each: then the program has its say. */
static sock *called(conn *c) {
  sock *k = c->exchange;
  assert(!silent && may_call && k && k->conn == c && c->out == OUT_RAW);
  k->refs++;
  return k;
}

static bool up_accepted(conn *c, int listener) {
  assert(!silent && may_call && s->raw && c->in == IN_HEAD && !c->exchange);
  assert(listener == listening_fd || (listener == -1 && !s->listeners)); /* it came when these were closed */
  unsigned how = choice();
  if (how == 0xff || !take(c, false)) return false;
  sock *k = called(c);
  act(k, how);
  sock_unref(k);
  return true;
}

static sniffed up_sniff(conn *c, span first) {
  unsigned how = choice();
  assert(!silent && s->sniffing && c->in == IN_HEAD && first.len && first.len <= FIRST_BYTES);
  touch(first);
  if (how % 4 == 1) return SNIFF_MORE;
  if (how % 4 != 2) return SNIFF_HTTP;
  if (how & 4 || !take(c, false)) {
    conn_close(c);
  } else {
    sock *k = called(c);
    act(k, choice());
    sock_unref(k);
  }
  return SNIFF_TAKEN;
}

static void up_opened(conn *c) {
  sock *k = called(c);
  assert(k->greets && c->fd >= 0);
  k->greets = 0;
  k->opened = true;
  act(k, choice());
  sock_unref(k);
}

static void up_data(conn *c, span data) {
  sock *k = called(c);
  assert(!c->paused && !k->eof && (k->opened || !k->own) && k->kind != RAW_WRITER &&
         (c->in == IN_RAW || c->in == IN_BODY));
  flow_check(&k->got, k->kind, data);
  act(k, choice());
  touch(data); /* valid during the call, whatever was closed */
  sock_unref(k);
}

static bool up_eof(conn *c) {
  sock *k = called(c);
  assert(!k->eof && !k->ended && (k->opened || !k->own) && k->kind != RAW_DATAGRAM);
  k->eof = true;
  unsigned how = choice();
  act(k, how);
  sock_unref(k);
  return how & 128;
}

static void up_drained(conn *c) {
  sock *k = called(c);
  k->waits = false;
  assert(!c->output.first && (k->opened || !k->own) && c->in != IN_CLOSED && c->in != IN_LINGER);
  act(k, choice());
  sock_unref(k);
}

static void up_closed(conn *c) {
  sock *k = called(c);
  assert(c->in == IN_CLOSED && c->fd < 0 && !c->output.first && !handle_find(&s->handles, k->handle));
  if (k->prev) k->prev->next = k->next;
  else socks = k->next;
  if (k->next) k->next->prev = k->prev;
  unsigned how = choice();
  if (how & 1) assert(!raw_close(c));
  if (how & 2) write_some(k, how >> 2);
  c->exchange = NULL;
  k->conn = NULL;
  sock_unref(k); /* the connection's */
  act(k, how);
  sock_unref(k);
}

static const upcalls calls = {.begin = up_begin,
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
                              .accepted = up_accepted,
                              .sniff = up_sniff,
                              .opened = up_opened,
                              .data = up_data,
                              .eof = up_eof,
                              .drained = up_drained,
                              .closed = up_closed};

/* ---- what the program does ---- */

static void server_wide(unsigned how) {
  may_call++;
  switch (how % 8) {
  case 0: server_drain(s); break;
  case 1:
    if (how > 0xd0) server_close(s);
    break;
  case 2: {
    exchange *e = some_exchange(how >> 3);
    if (e) exchange_act(e, choice());
    break;
  }
  default: server_poll(s); break;
  }
  may_call--;
}

/* One thing, mostly with this connection; with another where this one is over. */
static void act(sock *k, unsigned how) {
  unsigned what = how % 16;
  if (how & 16 || !k || !k->conn) k = some_sock(choice() % 8);
  if (what >= 13) {
    if (what == 13) open_sock((raw_kind)(choice() % 4));
    else if (what == 14) server_wide(choice());
    return;
  }
  if (!k) return;
  switch (what) {
  case 0:
  case 1:
  case 2: write_some(k, choice()); break;
  case 3: pause_sock(k, true); break;
  case 4:
  case 5: pause_sock(k, false); break;
  case 6: close_sock(k); break;
  case 7: abort_sock(k); break;
  case 8: greet_sock(k); break;
  case 9: attach_sock(k, choice()); break;
  default: break;
  }
}

/* ---- what peers do ---- */

static const char *const requests[] = {
    "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /s HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nhello",
    "POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
    "POST /s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "POST /s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4000\r\n",
    "POST /s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nhello",
    "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "hello",
    "!",
    "GET /none HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
};

/* Bytes of the input, as text. */
static void peer_own_text(peer *p, size_t len) {
  char text[256];
  if (len > (size_t)(back - front)) len = (size_t)(back - front);
  for (size_t i = 0; i < len; i++) text[i] = (char)(front[i] & 0x7f);
  front += len;
  peer_text(p, text, len);
}

static void peer_step(peer *p, unsigned how) {
  unsigned arg = step();
  switch (how % 8) {
  case 0: {
    const char *request = requests[arg % (sizeof requests / sizeof *requests)];
    peer_text(p, request, strlen(request));
    break;
  }
  case 1:
  case 2: peer_send(p, arg); break;
  case 3: peer_own_text(p, arg); break;
  case 4: peer_read(p, 1 + arg * 64u); break;
  case 5:
    while (peer_read(p, SIZE_MAX)) continue;
    break;
  case 6:
    if (p->fd < 0 || p->kind == RAW_DATAGRAM) break;
    if (shutdown(p->fd, arg & 1 ? SHUT_RD : SHUT_WR) == 0) p->deaf |= arg & 1;
    break;
  default: peer_close(p); break;
  }
}

/* ---- what must hold ---- */

static void check_all(void) {
  unsigned raw = 0;
  for (const conn *c = s->conns; c; c = c->next) {
    raw += c->out == OUT_RAW;
    if (!c->ready) conn_check(c);
    assert(c->input.len <= 2 * SCRATCH_BYTES);
  }
  assert(s->handles.live == raw);
  for (const sock *k = socks; k; k = k->next) assert(k->conn->exchange == k);
}

static bool quiet(void) {
  struct pollfd outer = {.fd = poller_fd(s->poller), .events = POLLIN};
  return !wake_wanted && poll(&outer, 1, 0) == 0;
}

/* With nothing more to do, nothing that could be done is left. */
static void check_quiet(const sock *k) {
  const conn *c = k->conn;
  assert(c->in != IN_CLOSED && !c->ready && !k->greets);
  if (c->pending) return;
  assert(!k->waits || c->output.first || c->in == IN_LINGER);
  struct pollfd state = {.fd = c->fd, .events = POLLIN | POLLOUT | POLLRDHUP};
  int unread = 0;
  poll(&state, 1, 0);
  ioctl(c->fd, FIONREAD, &unread);
  if (c->output.first) assert(!(state.revents & POLLOUT));
  if (c->kind == RAW_WRITER) {
    assert(!(state.revents & POLLERR));
  } else if (c->in == IN_RAW && !c->eof) {
    if (!c->paused) assert(!unread && !c->input.len && !(state.revents & (POLLIN | POLLRDHUP)));
  }
  if (c->kind == RAW_STREAM && (c->in == IN_RAW || c->in == IN_BODY) && !c->eof && !unread && !c->input.len)
    assert(!(state.revents & POLLRDHUP) && !c->broken); /* its end is told, also where it is paused */
  if (c->kind == RAW_STREAM && c->eof) assert(!(state.revents & POLLHUP)); /* nobody is there */
  const peer *p = peer_at(k);
  if (!p || c->in != IN_RAW || c->paused || c->eof || c->kind == RAW_WRITER || !k->got.begun) return;
  assert(k->own ? p->sent.at == k->got.at : (p->sent.at - k->got.at) % PERIOD == 0); /* all has come */
}

static void poll_once(void) {
  wake_wanted = false;
  may_call++;
  server_poll(s);
  may_call--;
  check_all();
}

/* It must come to rest: an outer loop would spin else. */
static void poll_until_quiet(void) {
  int polls = 0;
  while (!quiet()) {
    poll_once();
    assert(++polls < MOST_POLLS);
  }
  for (sock *k = socks; k; k = k->next) {
    check_quiet(k);
    k->waits |= k->conn->output.first && !k->conn->pending;
  }
}

/* ---- steps ---- */

static void make_fail(unsigned how) {
  switch (how % 4) {
  case 0: memory_left = how & 4 ? (int)(how >> 3) : -1; break;
  case 1: accept_error = how & 4 ? EMFILE : 0; break;
  case 2: short_sends = how & 4; break;
  default: send_error = how & 4 ? ECONNRESET : EINTR; break;
  }
}

/* What has not become raw yet, or speaks HTTP and waits, leaves for another process, which is this one. */
static void pass_on(void) {
  passed p;
  if (!server_give_away(s, PASSED_BYTES, &p)) return;
  int left = memory_left, fd = dup(p.fd);
  if (fd < 0) abort();
  close(p.fd);
  memory_left = -1;
  if (!server_adopt(s, fd, (span){p.input.at, p.input.len}, p.flags)) abort();
  memory_left = left;
  bytes_clear(&p.input);
}

static void server_step(unsigned how) {
  exchange *e;
  switch (how % 8) {
  case 0: poll_once(); break;
  case 1: poll_until_quiet(); break;
  case 2: pass_on(); break;
  case 3:
    open_sock((raw_kind)(how >> 3 & 3));
    if (socks) attach_sock(socks, step());
    break;
  case 4: pass_seconds(1 + (how >> 6)); break;
  case 5: make_fail(step()); break;
  case 6:
    e = some_exchange(how >> 3 & 7);
    if (e) exchange_act(e, step());
    break;
  default: act(some_sock(how >> 3 & 7), step()); break;
  }
}

static void one_step(void) {
  unsigned how = step();
  if (how & 1) server_step(how >> 1);
  else peer_step(&peers[(how >> 1) % PEERS], how >> 4);
}

/* ---- a run ---- */

static router *routes;

static void make_routes(void) {
  signal(SIGPIPE, SIG_IGN); /* as Python does: writev to a pipe knows no MSG_NOSIGNAL */
  routes = router_new();
  file_fd = memfd_create("file", MFD_CLOEXEC);
  if (!routes || file_fd < 0) abort();
  router_add(routes, "/a", HTTP1_GET, (void *)1);
  router_add(routes, "/a", HTTP1_POST, (void *)1);
  router_add(routes, "/s", HTTP1_GET, (void *)2);
  router_add(routes, "/s", HTTP1_POST, (void *)2);
}

static void listen_here(void) {
  listening_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  listening = (struct sockaddr_un){.sun_family = AF_UNIX};
  listening_len = sizeof listening;
  if (bind(listening_fd, (struct sockaddr *)&listening, sizeof listening.sun_family) < 0) abort();
  if (listen(listening_fd, 16) < 0) abort();
  if (getsockname(listening_fd, (struct sockaddr *)&listening, &listening_len) < 0) abort();
  if (!server_listen(s, listening_fd)) abort();
}

static void begin(unsigned a, unsigned b) {
  limits l = {.http = {.max_line = 256, .max_head = 1024, .max_fields = 8},
              .max_body = 100000,
              .header_timeout = a & 2 ? 1 : 5,
              .body_timeout = 5,
              .keep_alive_timeout = 5,
              .handler_timeout = a & 16 ? 1 : 5,
              .write_timeout = a & 32 ? 1 : 5,
              .max_connections = a & 128 ? 1 : 10,
              .max_buffered = b & 1 ? 1024 : 65536};
  doubles_begin();
  step_ns = b & 2 ? 300000 : b & 4 ? 3000000 : 0;
  wake_wanted = false;
  small_buffers = b & 32;
  n_opened = 0;
  for (int i = 0; i < PEERS; i++) peers[i].fd = -1;
  s = server_new(&l, &calls, NULL, "");
  if (!s) abort();
  s->pool.release = release;
  s->router = routes;
  s->accept_batch = b & 16 ? 4 : 1;
  s->raw = a & 1;
  s->sniffing = a & 4;
  listen_here();
}

static void read_all(void) {
  poll_until_quiet();
  for (bool more = true; more;) {
    more = false;
    for (int i = 0; i < PEERS; i++) more |= peer_read(&peers[i], SIZE_MAX);
    poll_until_quiet();
  }
}

/* All that was written to peers who listen has come. */
static void check_heard(void) {
  for (const sock *k = socks; k; k = k->next) {
    const peer *p = peer_at(k);
    if (!p || p->deaf || k->conn->pending || k->kind == RAW_READER) continue;
    assert(!k->conn->output.first);
    if (k->kind == RAW_DATAGRAM) assert((uint8_t)p->heard.at == (uint8_t)k->wrote.at);
    else assert(p->heard.at == k->wrote.at);
  }
}

/* Everyone does what he owes: handlers answer, peers and the program read, time passes. Then everything ends. */
static void settle(void) {
  memory_left = -1;
  accept_error = send_error = 0;
  read_all();
  for (sock *k = socks; k; k = k->next) pause_sock(k, false);
  read_all();
  check_heard();
  for (unsigned second = 0; s->conns; second++) {
    assert(second < MOST_SECONDS);
    for (exchange *e = exchanges, *next; e; e = next) {
      next = e->next;
      exchange_act(e, 2);
      next = exchanges; /* that runs other connections */
    }
    for (sock *k = socks; k; k = k->next) {
      if (k->conn->pending) abort_sock(k); /* it waits for a descriptor that will not come */
      else if (k->conn->in != IN_LINGER && k->conn->in != IN_CLOSED) close_sock(k);
    }
    read_all();
    pass_seconds(1);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2 || size > MOST_BYTES) return 0;
  if (!routes) make_routes();
  front = data + 2;
  back = data + size;
  begin(data[0], data[1]);
  while (front < back) {
    one_step();
    check_all();
  }
  settle();
  for (int i = 0; i < PEERS; i++) peer_close(&peers[i]);
  poll_until_quiet();
  assert(!s->conns && !socks && !exchanges && !s->n_conns && !s->counters[COUNT_CONNECTIONS] && !s->handles.live);
  may_call++;
  unsigned left = server_free(s);
  may_call--;
  assert(left == 0 && n_socks == 0 && n_exchanges == 0 && n_owners == 0);
  return 0;
}
