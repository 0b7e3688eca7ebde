/* test_passing.c - connections that are given away and adopted: which, with what, and that nothing is lost on the way.
 *
 * They come back to the server that gave them away, by a copy of their descriptor: SCM_RIGHTS makes one, too. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"
#include "raw_program.h"

#define GET "GET /buffered HTTP/1.1\r\nHost: a\r\n\r\n"
#define ANSWER "HTTP/1.1 200 OK\r\n"

static void begin_http(void) {
  begin();
  listen_here();
  handling = TAKE_NOT;
}

static bool next(passed *p) {
  *p = (passed){.fd = -1};
  return server_give_away(s, PASSED_BYTES, p);
}

/* Wherever the round is. */
static bool give(passed *p) { return next(p) || next(p); }

static bool adopt(passed *p) {
  int copy = fcntl(p->fd, F_DUPFD, 0);
  close(p->fd);
  bool done = server_adopt(s, copy, (span){p->input.at, p->input.len}, p->flags);
  if (!done) close(copy);
  bytes_clear(&p->input);
  return done;
}

static bool answered(int fd) { return strncmp(heard(fd), ANSWER, sizeof ANSWER - 1) == 0; }

static int answers_in(const char *text) {
  int n = 0;
  for (const char *at = text; (at = strstr(at, ANSWER)); at++) n++;
  return n;
}

static bool holds(const passed *p, const char *text) {
  return p->input.len == strlen(text) && memcmp(p->input.at ? p->input.at : "", text, p->input.len) == 0;
}

/* ---- what goes along ---- */

static void test_idle(void) {
  begin_http();
  passed p;
  int fd = client_that_sends(GET);
  CHECK(answered(fd) && s->n_conns == 1);
  CHECK(give(&p) && p.fd >= 0 && holds(&p, "") && p.flags == 0);
  CHECK(!s->n_conns && !s->conns_alive && !s->wheel.live && !s->counters[COUNT_CONNECTIONS]);
  CHECK(!server_give_away(s, PASSED_BYTES, &p)); /* p is as it was */
  send_text(fd, GET);                            /* while nobody has it */
  settle();
  CHECK(!answered(fd));
  CHECK(adopt(&p) && woken && s->n_conns == 1 && !answered(fd)); /* not from within */
  settle();
  CHECK(answered(fd));
  CHECK(s->counters[COUNT_ACCEPTED] == 1 && s->counters[COUNT_CONNECTIONS] == 1 && s->counters[COUNT_REQUESTS] == 2);
  CHECK(s->conns->peer.family == AF_UNIX && s->wheel.live == 1);
  CHECK((fcntl(s->conns->fd, F_GETFD) & FD_CLOEXEC) && (fcntl(s->conns->fd, F_GETFL) & O_NONBLOCK));
  send_text(fd, GET);
  settle();
  CHECK(answered(fd));
  close(fd);
  settle();
  CHECK(!s->n_conns);
  end();
}

/* Each is cut at every place: what was read goes along, the rest comes behind it. */
static void test_part_of_a_head(void) {
  for (size_t cut = 0; cut < sizeof GET - 1; cut++) {
    begin_http();
    passed p;
    char part[sizeof GET];
    memcpy(part, GET, cut);
    part[cut] = 0;
    int fd = client_that_sends(part);
    CHECK(give(&p) && holds(&p, part) && p.flags == PASSED_FRESH);
    CHECK(adopt(&p));
    settle();
    CHECK(strcmp(heard(fd), "") == 0);
    send_text(fd, &GET[cut]);
    settle();
    CHECK(answered(fd) && s->counters[COUNT_REQUESTS] == 1);
    close(fd);
    end();
  }
}

/* Requests sent ahead while the first one's handler was at work. */
static void test_pipelined(void) {
  begin_http();
  passed p;
  handling = TAKE_LATER;
  int fd = client_that_sends(GET GET GET "GET /buff");
  CHECK(!give(&p) && waiting); /* it is busy */
  conn *c = waiting;
  handling = TAKE_NOT;
  s->budget_end = 0, s->spent = true; /* the others wait for their turn */
  may_call = c->feeding = true;       /* as if it were answered by its handler */
  if (answer_text(c, 200, "hello", "")) c->out_left = 0, conn_end_answer(c);
  may_call = c->feeding = false;
  CHECK(!give(&p)); /* its answer is not sent */
  conn_flush(c);
  CHECK(give(&p) && holds(&p, GET GET "GET /buff") && p.flags == 0);
  CHECK(answers_in(heard(fd)) == 1 && adopt(&p));
  settle();
  CHECK(answers_in(heard(fd)) == 2);
  send_text(fd, "ered HTTP/1.1\r\nHost: a\r\n\r\n");
  settle();
  CHECK(answers_in(heard(fd)) == 1);
  close(fd);
  end();
}

/* ---- which are given ---- */

static void test_not_given(void) {
  begin_http();
  passed p;
  int half = client_that_sends(GET "GET /b");
  CHECK(answered(half));
  CHECK(!server_give_away(s, 5, &p) && server_give_away(s, 6, &p) && adopt(&p)); /* too many bytes */
  settle();
  int ended = client_that_sends(GET);
  shutdown(ended, SHUT_WR); /* it closes here */
  settle();
  CHECK(s->n_conns == 1 && answered(ended) && at_end(ended));
  int refused = client_that_sends("nonsense\r\n\r\n"); /* it lingers */
  CHECK(s->n_conns == 2);
  int body = client_that_sends("POST /buffered HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
  int closing = client_that_sends("GET /buffered HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  int fds[2];
  CHECK(make_pair(RAW_STREAM, fds) >= 0); /* not the server's at all */
  int peer;
  connected(RAW_STREAM, &peer);
  while (next(&p)) CHECK(holds(&p, "GET /b") && adopt(&p));
  CHECK(next(&p) && holds(&p, "GET /b") && adopt(&p) && !next(&p)); /* that one only */
  close(half), close(ended), close(refused), close(body), close(closing), close(peer), close(fds[0]);
  end();
}

/* Who is answered in a server that gives away begins no other request there, unless it cannot be given after all. */
static void test_held(void) {
  begin_http();
  passed p;
  CHECK(!give(&p)); /* it has begun */
  int fd = client_that_sends(GET GET GET);
  CHECK(answers_in(heard(fd)) == 1 && s->counters[COUNT_REQUESTS] == 1);
  CHECK(give(&p) && p.input.len == 2 * strlen(GET) && adopt(&p)); /* which ends it */
  settle();
  CHECK(answers_in(heard(fd)) == 2);
  CHECK(give(&p) && adopt(&p) && !next(&p));
  send_text(fd, GET GET);
  settle();
  CHECK(answers_in(heard(fd)) == 1);
  CHECK(!server_give_away(s, 5, &p)); /* too much to go along */
  settle();
  CHECK(answers_in(heard(fd)) == 1);
  CHECK(s->conns->held && s->giving);
  server_keep(s);
  CHECK(!s->conns->held && !s->giving);
  close(fd);
  end();
}

/* A round looks at each once: those that come or are adopted meanwhile are for the next. */
static void test_rounds(void) {
  begin_http();
  enum { MANY = 40 };
  int fds[MANY];
  passed p;
  for (int i = 0; i < MANY; i++) fds[i] = client_that_sends(i % 2 ? GET : "POST /buffered HTTP/1.1\r\n");
  for (int round = 0; round < 3; round++) {
    int n = 0;
    for (; n <= MANY && next(&p); n++) CHECK(adopt(&p));
    CHECK(n == MANY && s->n_conns == MANY);
    settle();
  }
  CHECK(next(&p) && adopt(&p) && s->passing);
  int closed = s->passing->fd;
  conn_close(s->passing); /* the round goes on behind it */
  CHECK(next(&p) && p.fd != closed && adopt(&p));
  while (s->passing) conn_close(s->passing);
  CHECK(!next(&p) && next(&p) && adopt(&p)); /* a new one */
  for (int i = 0; i < MANY; i++) close(fds[i]);
  settle();
  CHECK(!s->n_conns && !s->passing && !give(&p));
  end();
}

/* One that is on the ready list may be given away: the list has a reference of its own. */
static void test_ready(void) {
  begin_http();
  passed p;
  int fd = client_that_sends(GET);
  CHECK(answered(fd));
  conn_enqueue(s->conns);
  CHECK(give(&p) && s->conns_alive == 1);
  settle();
  CHECK(!s->conns_alive && adopt(&p));
  send_text(fd, GET);
  settle();
  CHECK(answered(fd));
  close(fd);
  end();
}

static void give_within(sock *k) {
  passed p;
  (void)k;
  CHECK(s->polling && !give(&p));
}

static void test_not_under_poll(void) {
  begin_http();
  int fd = client_that_sends(GET), peer;
  sock *k = connected(RAW_STREAM, &peer);
  k->then[DATA] = give_within;
  send_text(peer, "x");
  settle();
  CHECK(told(k, "data:x ") && s->n_conns == 1);
  close(fd), close(peer);
  settle();
  end();
}

/* ---- fresh ones ---- */

static void test_raw(void) {
  begin();
  s->raw = true;
  passed p = {.flags = PASSED_FRESH};
  int fd, other;
  p.fd = make_pair(RAW_STREAM, &fd);
  listen_here();
  CHECK(bytes_append(&p.input, "early", 5) && adopt(&p));
  settle();
  CHECK(n_socks == 1 && told(&socks[0], "accepted data:early ") && s->counters[COUNT_ACCEPTED] == 0);
  CHECK(!give(&p));
  p = (passed){0}; /* it has spoken HTTP: a raw program has no answer to it but this */
  p.fd = make_pair(RAW_STREAM, &other);
  CHECK(adopt(&p));
  send_text(other, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  settle();
  CHECK(n_socks == 1 && strncmp(heard(other), "HTTP/1.1 404 ", 13) == 0);
  p = (passed){.flags = PASSED_FRESH}; /* not even greeted: as it came */
  int third;
  p.fd = make_pair(RAW_STREAM, &third);
  CHECK(adopt(&p) && s->conns->greet && give(&p) && p.flags == PASSED_FRESH && adopt(&p));
  settle();
  CHECK(n_socks == 2 && told(&socks[1], "accepted "));
  close(fd), close(other), close(third);
  settle();
  end();
}

static void test_sniff(void) {
  begin_http();
  passed p;
  s->sniffing = true;
  sniffs[0] = sniffs[1] = SNIFF_MORE;
  sniffs[2] = SNIFF_TAKEN;
  int fd = client_that_sends("a");
  CHECK(n_sniffs == 1 && give(&p) && holds(&p, "a") && p.flags == PASSED_FRESH && adopt(&p));
  settle();
  CHECK(n_sniffs == 2 && n_socks == 0);
  send_text(fd, "b");
  settle();
  CHECK(n_sniffs == 3 && n_socks == 1 && told(&socks[0], "data:ab "));
  close(fd);
  sniffs[3] = SNIFF_HTTP;
  fd = client_that_sends("GET /buff");
  CHECK(n_sniffs == 4 && give(&p) && p.flags == (PASSED_FRESH | PASSED_KNOWN) && adopt(&p));
  send_text(fd, "ered HTTP/1.1\r\nHost: a\r\n\r\n");
  settle();
  CHECK(n_sniffs == 4 && answered(fd)); /* not asked again */
  close(fd);
  settle();
  end();
}

/* ---- what cannot be adopted ---- */

static void test_bad_descriptors(void) {
  begin_http();
  int peer, fd = make_pair(RAW_DATAGRAM, &peer);
  CHECK(!server_adopt(s, fd, (span){0}, 0) && errno == EPROTOTYPE && fcntl(fd, F_GETFD) >= 0);
  close(fd), close(peer);
  CHECK(!server_adopt(s, fd, (span){0}, 0) && errno == EBADF);
  fd = make_pair(RAW_READER, &peer);
  CHECK(!server_adopt(s, fd, (span){0}, 0) && errno == ENOTSOCK);
  close(fd), close(peer);
  CHECK(!server_adopt(s, s->listeners->fd, (span){0}, 0) && errno == ENOTCONN);
  fd = make_pair(RAW_STREAM, &peer);
  CHECK(!server_adopt(s, fd, (span){big, PASSED_BYTES + 1}, 0) && errno == EMSGSIZE);
  CHECK(server_adopt(s, fd, (span){0}, 0));
  if (strcmp(poller_name, "epoll") == 0) /* kqueue does not tell of such a mistake */
    CHECK(!server_adopt(s, fd, (span){"x", 1}, 0) && errno == EEXIST);
  CHECK(s->n_conns == 1 && s->conns_alive == 1);
  close_server();
  CHECK(!server_adopt(s, peer, (span){0}, 0) && errno == ESHUTDOWN);
  close(peer);
  end();
}

/* One that went on nowhere comes back to a server that is draining: what was asked is answered, then it closes. */
static void test_draining(void) {
  begin_http();
  passed one, two;
  int asks = client_that_sends(GET), silent = client_that_sends(GET);
  CHECK(answered(asks) && answered(silent) && give(&one) && give(&two) && !s->n_conns);
  send_text(asks, GET);
  server_drain(s);
  CHECK(adopt(&one) && adopt(&two));
  settle();
  CHECK(answered(asks) && at_end(asks) && at_end(silent));
  close(asks), close(silent);
  settle();
  CHECK(!s->n_conns);
  end();
}

static void test_over_limit(void) {
  begin_http();
  passed p;
  s->limits.max_connections = 1;
  int fd = client_that_sends(GET), more = 0;
  CHECK(answered(fd) && give(&p));
  int second = client_that_sends(GET);
  CHECK(answered(second) && adopt(&p)); /* two now */
  send_text(fd, GET);
  settle();
  CHECK(answered(fd) && s->n_conns == 2 && !s->n_refused);
  more = client_that_sends(GET);
  CHECK(strncmp(heard(more), "HTTP/1.1 503 ", 13) == 0);
  close(fd), close(second), close(more);
  settle();
  CHECK(!s->n_conns && !s->n_refused && !s->counters[COUNT_CONNECTIONS]);
  end();
}

/* ---- listeners ---- */

static void test_close_listeners(void) {
  begin();
  handling = TAKE_NOT;
  listen_here();
  int fd = client_that_sends(GET), others = fcntl(s->listeners->fd, F_DUPFD_CLOEXEC, 0);
  CHECK(answered(fd));
  int queued = client();
  server_close_listeners(s);
  server_close_listeners(s);
  send_text(fd, GET);
  settle();
  CHECK(answered(fd) && s->n_conns == 1 && !s->draining); /* and it is kept alive */
  send_text(queued, GET);
  settle();
  CHECK(s->n_conns == 1 && strcmp(heard(queued), "") == 0);
  CHECK(server_listen(s, others)); /* another takes it: here the same */
  settle();
  CHECK(answered(queued) && s->n_conns == 2);
  close(fd), close(queued);
  settle();
  end();
}

/* Out of descriptors: accepting is paused, and the tick goes on for as long as that is so. */
static void test_close_listeners_while_paused(void) {
  struct rlimit before, none;
  begin_http();
  int fd = client();
  if (getrlimit(RLIMIT_NOFILE, &before) < 0) return;
  none = before;
  none.rlim_cur = 3;
  CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
  settle();
  CHECK(s->accept_paused && strstr(logged, "paused"));
  server_close_listeners(s);
  CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(!s->accept_paused && !s->listeners && !s->n_conns);
  close(fd);
  end();
}

int main(void) {
  test_idle();
  test_part_of_a_head();
  test_pipelined();
  test_not_given();
  test_held();
  test_rounds();
  test_ready();
  test_not_under_poll();
  test_raw();
  test_sniff();
  test_bad_descriptors();
  test_draining();
  test_over_limit();
  test_close_listeners();
  test_close_listeners_while_paused();
  CHECK(program_failures() == 0);
  return summary("passing");
}
