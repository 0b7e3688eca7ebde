/* raw_program.c - a program with raw connections, of which it writes down what it is told. Interface: raw_program.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "check.h"
#include "raw_program.h"

#define SHOWN_BYTES 20  /* longer data is told without its bytes */
#define MOST_POLLS 1000 /* until nothing is left to do */

const char *const event_words[EVENTS] = {"accepted", "opened", "data", "eof", "drained", "closed"};

server *s;
sock socks[SOCKETS];
int n_socks, n_released, n_owned, n_sniffs;
bool may_call, woken, accepts, waiting_ended;
char logged[200], big[BIG];
conn *waiting;
sniffed sniffs[SNIFFS];
size_t most_sniffed;
handler handling;

static bool silent; /* within a function that makes no upcall */
static struct sockaddr_un address_here;

/* ---- calls down ---- */

static sock *sock_new(void) {
  if (n_socks == SOCKETS) abort();
  return &socks[n_socks++];
}

bool take(conn *c, bool ended) {
  sock *k = sock_new();
  silent = true;
  bool taken = raw_take(c, k, ended);
  silent = false;
  k->conn = c;
  k->handle = c->handle;
  return taken;
}

sock *open_sock(raw_kind kind) {
  sock *k = sock_new();
  silent = true;
  k->conn = raw_open(s, kind, k);
  silent = false;
  if (k->conn) k->handle = k->conn->handle;
  return k;
}

bool attach(sock *k, int fd) {
  silent = true;
  bool done = raw_attach(k->conn, fd);
  silent = false;
  return done;
}

bool write_at(sock *k, const char *at, size_t len, void *owner) {
  n_owned += owner != NULL;
  silent = true;
  bool fine = raw_write(k->conn, (span){at, len}, owner);
  silent = false;
  return fine;
}

bool write_text(sock *k, const char *text) { return write_at(k, text, strlen(text), NULL); }

/* Not copied: the owner is what `release` counts. */
bool write_owned(sock *k, const char *at, size_t len) { return write_at(k, at, len, &n_owned); }

bool close_sock(sock *k) {
  silent = true;
  bool done = raw_close(k->conn);
  silent = false;
  return done;
}

void pause_sock(sock *k, bool paused) {
  silent = true;
  raw_pause(k->conn, paused);
  silent = false;
}

void abort_sock(sock *k) {
  silent = true;
  conn_close(k->conn);
  silent = false;
}

void close_server(void) {
  bool before = may_call;
  may_call = true;
  server_close(s);
  may_call = before;
}

/* ---- upcalls ---- */

/* The word; of data that is shown its bytes; of longer data one word for all of it. */
static void tell(sock *k, event what, span data) {
  size_t n = strlen(k->told), w = strlen(event_words[what]);
  bool shown = what == DATA && data.len <= SHOWN_BYTES;
  if (what == DATA && !shown && n >= 5 && strcmp(k->told + n - 5, "data ") == 0) return;
  snprintf(k->told + n, TOLD_BYTES - n, "%s%s%.*s ", event_words[what], shown ? ":" : "", shown ? (int)data.len : 0,
           data.at);
  CHECK(n + w + data.len * shown + 3 < TOLD_BYTES);
}

static sock *called(conn *c, event what, span data) {
  sock *k = c->exchange;
  if (!CHECK(k && k->conn == c) || !CHECK(!silent) || !CHECK(may_call)) abort();
  tell(k, what, data);
  return k;
}

static void go_on(sock *k, event what) {
  if (k->then[what]) k->then[what](k);
}

static bool up_accepted(conn *c, int listener) {
  CHECK(!silent && may_call && listener == s->listeners->fd);
  if (!accepts || !take(c, false)) return false;
  go_on(called(c, ACCEPTED, (span){0}), ACCEPTED);
  return true;
}

static sniffed up_sniff(conn *c, span first) {
  sniffed how = sniffs[n_sniffs++];
  if (first.len > most_sniffed) most_sniffed = first.len;
  if (how == SNIFF_TAKEN) CHECK(take(c, false));
  return how;
}

static void up_opened(conn *c) { go_on(called(c, OPENED, (span){0}), OPENED); }

static void up_data(conn *c, span data) {
  sock *k = called(c, DATA, data);
  CHECK(!c->paused);
  if (!bytes_append(&k->got, data.at, data.len)) abort();
  go_on(k, DATA);
}

static bool up_eof(conn *c) {
  sock *k = called(c, EOF_TOLD, (span){0});
  go_on(k, EOF_TOLD);
  return k->keep;
}

static void up_drained(conn *c) {
  CHECK(!c->output.first);
  go_on(called(c, DRAINED, (span){0}), DRAINED);
}

static void up_closed(conn *c) {
  sock *k = called(c, CLOSED, (span){0});
  CHECK(c->in == IN_CLOSED && c->fd < 0 && !handle_find(&s->handles, k->handle));
  c->exchange = NULL;
  go_on(k, CLOSED);
  k->conn = NULL;
}

static bool up_begin(conn *c, const http1_head *head, const router_match *match, bool *stream) {
  (void)head;
  c->exchange = &waiting; /* something: a request */
  *stream = match->route == &socks;
  return true;
}

static bool up_keep(conn *c) { return c->exchange; }

static void up_run(conn *c, span body, bool *taken) {
  (void)body, (void)taken;
  bool ended = c->in == IN_DONE && c->sink == SINK_BUFFER && c->taken;
  if (handling == TAKE_NOT) {
    if (answer_text(c, 200, "hello", "")) c->out_left = 0, conn_end_answer(c);
  } else if (handling == TAKE_LATER) {
    waiting = c;
    waiting_ended = ended;
  } else {
    c->exchange = NULL;
    CHECK(take(c, ended));
  }
}

static void up_chunk(conn *c, span data) { (void)c, (void)data; }
static void up_body_end(conn *c) { waiting_ended = waiting == c; }
static void up_abandon(conn *c) { (void)c; }

static void *up_fallback(server *server, int status) {
  (void)server, (void)status;
  return NULL;
}

static void up_wake(server *server) {
  (void)server;
  woken = true;
}

static void up_log(server *server, bool error, const char *message) {
  (void)server, (void)error;
  snprintf(logged, sizeof logged, "%s", message);
}

static const upcalls calls = {.begin = up_begin,
                              .keep = up_keep,
                              .run = up_run,
                              .chunk = up_chunk,
                              .body_end = up_body_end,
                              .abandon = up_abandon,
                              .timed_out = up_abandon,
                              .send_ready = up_abandon,
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

static void release(void *owner) {
  CHECK(owner == &n_owned);
  n_released++;
}

/* ---- a test's beginning and end ---- */

static router *routes;

static void make_things(void) {
  signal(SIGPIPE, SIG_IGN); /* as Python does */
  for (int i = 0; i < BIG; i++) big[i] = (char)(i % 251);
  routes = router_new();
  if (!routes) abort();
  router_add(routes, "/stream", HTTP1_GET, &socks);
  router_add(routes, "/stream", HTTP1_POST, &socks);
  router_add(routes, "/buffered", HTTP1_GET, &big);
  router_add(routes, "/buffered", HTTP1_POST, &big);
}

void begin(void) {
  static const limits l = {.http = {.max_line = 1024, .max_head = 4096, .max_fields = 8},
                           .max_body = BIG,
                           .header_timeout = 60,
                           .body_timeout = 60,
                           .keep_alive_timeout = 60,
                           .handler_timeout = 60,
                           .write_timeout = 60,
                           .max_connections = 100,
                           .max_buffered = 65536};
  if (!routes) make_things();
  memset(socks, 0, sizeof socks);
  memset(sniffs, 0, sizeof sniffs);
  n_socks = n_owned = n_released = n_sniffs = 0;
  most_sniffed = 0;
  woken = false;
  accepts = true;
  handling = TAKE;
  waiting = NULL;
  *logged = 0;
  s = server_new(&l, &calls, NULL, "");
  if (!s) abort();
  s->pool.release = release;
  s->router = routes;
}

/* Each connection that was is told once that it is over, and all that it had is given back. */
void end(void) {
  close_server();
  if (*address_here.sun_path) unlink(address_here.sun_path);
  for (sock *k = socks; k < socks + n_socks; k++) {
    const char *last = strstr(k->told, "closed ");
    CHECK(!k->conn && (!k->handle || (last && !last[7])));
    bytes_clear(&k->got);
  }
  CHECK(n_released == n_owned);
  may_call = true;
  CHECK(server_free(s) == 0);
  may_call = false;
}

static void poll_once(void) {
  woken = false;
  may_call = true;
  server_poll(s);
  may_call = false;
}

static bool at_rest(void) {
  struct pollfd outer = {.fd = poller_fd(s->poller), .events = POLLIN};
  return !woken && poll(&outer, 1, 0) == 0;
}

/* As the loop does it: until there is no event, and no word that there is work. */
void settle(void) {
  for (int polls = 0; polls == 0 || !at_rest(); polls++) {
    poll_once();
    if (!CHECK(polls < MOST_POLLS)) return;
  }
}

bool told(const sock *k, const char *expected) {
  if (strcmp(k->told, expected) == 0) return true;
  fprintf(stderr, "told: %s\nexpected: %s\n", k->told, expected);
  return false;
}

bool got(const sock *k, const char *text) {
  return k->got.len == strlen(text) && memcmp(k->got.at ? k->got.at : "", text, k->got.len) == 0;
}

/* ---- peers ---- */

void send_text(int peer, const char *text) {
  size_t len = strlen(text);
  CHECK(write(peer, text, len) == (ssize_t)len);
}

/* All that has come, as text; "" for nothing, and for the end. */
const char *heard(int peer) {
  static char text[4096];
  ssize_t n = read(peer, text, sizeof text - 1);
  text[n > 0 ? n : 0] = 0;
  return text;
}

/* Whether something had come. */
bool read_away(int peer) {
  static char some[BIG];
  return read(peer, some, sizeof some) > 0;
}

bool at_end(int peer) {
  char byte;
  return read(peer, &byte, 1) == 0;
}

/* Reads what there is, and says how much: it must be `big` from `from` on. */
size_t read_big(int peer, size_t from) {
  static char some[BIG];
  ssize_t n = read(peer, some, sizeof some);
  if (n <= 0) return 0;
  CHECK(from + (size_t)n <= BIG && memcmp(some, big + from, (size_t)n) == 0);
  return (size_t)n;
}

static int unblock(int fd) {
  if (fd < 0 || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) abort();
  return fd;
}

/* A descriptor to attach; the peer's goes to `peer`. */
int make_pair(raw_kind kind, int *peer) {
  int ends[2], type = kind == RAW_DATAGRAM ? SOCK_DGRAM : SOCK_STREAM;
  bool pipes = kind == RAW_READER || kind == RAW_WRITER;
  if (pipes ? pipe(ends) : socketpair(AF_UNIX, type, 0, ends)) abort();
  int own = kind == RAW_WRITER;
  *peer = unblock(ends[!own]);
  return unblock(ends[own]);
}

/* A connection of a kind that is open, with its peer. */
sock *connected(raw_kind kind, int *peer) {
  sock *k = open_sock(kind);
  if (!CHECK(k->conn) || !CHECK(attach(k, make_pair(kind, peer)))) abort();
  settle();
  CHECK(told(k, "opened "));
  *k->told = 0;
  return k;
}

void listen_here(void) {
  int fd = unblock(socket(AF_UNIX, SOCK_STREAM, 0));
  address_here = (struct sockaddr_un){.sun_family = AF_UNIX};
  snprintf(address_here.sun_path, sizeof address_here.sun_path, "/tmp/test_raw.%ld", (long)getpid());
  unlink(address_here.sun_path);
  if (bind(fd, (struct sockaddr *)&address_here, sizeof address_here) < 0 || listen(fd, 16) < 0) abort();
  if (!server_listen(s, fd)) abort();
}

/* A client of the server, which may be raw, sniff or speak HTTP. */
int client(void) {
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (connect(fd, (struct sockaddr *)&address_here, sizeof address_here) < 0) abort();
  return unblock(fd);
}

int client_that_sends(const char *text) {
  int fd = client();
  send_text(fd, text);
  settle();
  return fd;
}

int program_failures(void) { return failures; }
