/* test_raw_http.c - how connections of a server become raw: at accept, by a handler that takes over, by their first bytes. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "raw_program.h"

/* ---- at accept ---- */

static void greet_back(sock *k) { CHECK(write_text(k, "welcome")); }

static void test_accepted(void) {
  begin();
  s->raw = true;
  listen_here();
  socks[0].then[ACCEPTED] = greet_back;
  int fd = client_that_sends("GET / HTTP/1.1\r\n");
  CHECK(told(&socks[0], "accepted data:GET / HTTP/1.1\r\n ") && strcmp(heard(fd), "welcome") == 0);
  CHECK(s->n_conns == 1 && s->counters[COUNT_REQUESTS] == 0);
  accepts = false;
  int other = client_that_sends("hello");
  CHECK(n_socks == 1 && s->n_conns == 1 && s->handles.live == 1);
  char byte;
  CHECK(read(other, &byte, 1) <= 0 && errno != EAGAIN);
  close(fd), close(other);
  settle();
  CHECK(s->n_conns == 0);
  end();
}

/* ---- by a handler ---- */

/* What a client sends, what of it is the socket's when the handler takes over, and what it is told of "again" after it. */
static const struct {
  const char *sent, *told, *again;
  bool later; /* taken over after the handler */
} takes_over[] = {
    {"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n", "", "data:again ", false},
    {"GET /stream HTTP/1.1\r\nHost: a\r\n\r\nmore", "data:more ", "data:again ", false},
    {"GET /stream HTTP/1.1\r\nHost: a\r\n\r\nmore", "data:more ", "data:again ", true},
    {"GET /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nmore", "data:more ", "data:again ", false},
    {"POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhell", "data:hell ", "data:again eof ", false},
    {"POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nhellmore", "data:hell eof ", "", false},
    {"POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r\n", "data:hell ", "closed ",
     false}, /* "again" is no chunk */
    {"POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r\n1\r\no\r\n0\r\n\r\nmore",
     "data:hell data:o eof ", "", false},
    /* What came before it is taken over is the handler's. */
    {"POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nhellmore", "", "", true},
    {"POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhell", "", "data:again eof ", true},
};

static void take_waiting(void) {
  conn *c = waiting;
  waiting = NULL;
  c->exchange = NULL;
  CHECK(take(c, waiting_ended));
}

static void test_taken_over(size_t i) {
  begin();
  listen_here();
  socks[0].keep = true;
  handling = takes_over[i].later ? TAKE_LATER : TAKE;
  int fd = client_that_sends(takes_over[i].sent);
  if (takes_over[i].later) {
    CHECK(waiting && !n_socks);
    take_waiting();
    CHECK(woken && told(&socks[0], ""));
    settle();
  }
  CHECK(n_socks == 1 && told(&socks[0], takes_over[i].told) && strcmp(heard(fd), "") == 0);
  CHECK(write_text(&socks[0], "bytes"));
  CHECK(strcmp(heard(fd), "bytes") == 0); /* and no head before them */
  *socks[0].told = 0;
  send_text(fd, "again");
  settle();
  CHECK(told(&socks[0], takes_over[i].again));
  close(fd);
  end();
}

static void test_taken_over_with_expect(void) {
  begin();
  listen_here();
  int fd = client_that_sends("POST /stream HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
  CHECK(strcmp(heard(fd), "HTTP/1.1 100 Continue\r\n\r\n") == 0);
  send_text(fd, "hell");
  settle();
  CHECK(told(&socks[0], "data:hell eof ")); /* which closes it, when the client is done */
  CHECK(at_end(fd));
  close(fd);
  settle();
  CHECK(told(&socks[0], "data:hell eof closed "));
  end();
}

/* A body that is cut short has no end: the connection is closed without one. */
static void test_taken_over_body_cut(void) {
  static const char *const cut[] = {
      "POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhell",
      "POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r\n",
      "POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r\nbad",
  };
  for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
    begin();
    listen_here();
    int fd = client_that_sends(cut[i]);
    close(fd);
    settle();
    CHECK(told(&socks[0], "data:hell closed "));
    end();
  }
}

static void test_taken_over_buffered(void) {
  begin();
  listen_here();
  int fd = client();
  send_text(fd, "POST /buffered HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhell");
  settle();
  send_text(fd, "fire");
  settle();
  CHECK(n_socks == 1 && told(&socks[0], "") && socks[0].conn->in == IN_DONE);
  CHECK(write_text(&socks[0], "bytes") && strcmp(heard(fd), "bytes") == 0);
  close(fd); /* nothing is read from it any more: only a peer that is gone altogether ends it */
  settle();
  CHECK(told(&socks[0], "closed "));
  end();
}

/* Output of an answer stands in the queue: what the new socket writes behind it waits, and that it is sent is told. */
static void test_taken_over_behind_output(void) {
  begin();
  listen_here();
  handling = TAKE_LATER;
  int fd = client_that_sends("GET /buffered HTTP/1.1\r\nHost: a\r\n\r\nGET /buffered HTTP/1.1\r\nHost: a\r\n\r\n");
  conn *c = waiting;
  answer a = {.status = 200, .length = 3 * MUCH, .extra = {"", 0}}; /* a socket takes more than half of it */
  s->limits.max_buffered = 2 * BIG;                                 /* the next request is read all the same */
  n_owned++;
  may_call = true;
  CHECK(answer_head(c, &a) && conn_write_ref(c, big, 3 * MUCH, &n_owned));
  conn_end_answer(c);
  may_call = false;
  settle();
  take_waiting();
  CHECK(write_text(&socks[0], "bytes") && socks[0].conn->output.bytes > 5);
  while (read_away(fd)) settle();
  CHECK(told(&socks[0], "drained ") && !socks[0].conn->output.first);
  close(fd);
  end();
}

/* A second request, which the client had sent ahead of the first one's answer, takes over. */
static void test_taken_over_pipelined(void) {
  static const char get[] = "GET /buffered HTTP/1.1\r\nHost: a\r\n\r\n";
  begin();
  listen_here();
  handling = TAKE_LATER;
  int fd = client();
  send_text(fd, get);
  send_text(fd, get);
  send_text(fd, "more");
  settle();
  conn *c = waiting;
  handling = TAKE;
  may_call = true; /* the end of an answer runs what was waiting */
  if (CHECK(c) && answer_text(c, 200, "hello", "")) c->out_left = 0, conn_end_answer(c);
  may_call = false;
  settle();
  CHECK(told(&socks[0], "data:more ") && strncmp(heard(fd), "HTTP/1.1 200 OK\r\n", 17) == 0);
  close(fd);
  end();
}

static void pause_it(sock *k) { pause_sock(k, true); }

/* The same with a body in progress, of which the rest can never come. */
static void test_body_cut_while_paused(void) {
  begin();
  listen_here();
  socks[0].then[DATA] = pause_it;
  int fd = client_that_sends("POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhell");
  CHECK(told(&socks[0], "data:hell "));
  close(fd);
  settle();
  CHECK(told(&socks[0], "data:hell closed "));
  end();
}

/* ---- by its first bytes ---- */

static void test_sniff(void) {
  static const struct {
    sniffed says[3];
    const char *pieces[3], *told;
    bool answered;
  } cases[] = {
      {{SNIFF_TAKEN}, {"\x16\x03"}, "data:\x16\x03 ", false},
      {{SNIFF_MORE, SNIFF_TAKEN}, {"a", "b"}, "data:ab ", false},
      {{SNIFF_MORE, SNIFF_MORE, SNIFF_TAKEN}, {"a", "b", "c"}, "data:abc ", false},
      {{SNIFF_HTTP}, {"GET /buffered HTTP/1.1\r\nHost: a\r\n\r\n"}, "", true},
      {{SNIFF_MORE, SNIFF_HTTP}, {"G", "ET /buffered HTTP/1.1\r\nHost: a\r\n\r\n"}, "", true},
      {{SNIFF_HTTP}, {"GET /buff", "ered HTTP/1.1\r\nHo", "st: a\r\n\r\n"}, "", true}, /* not asked again */
      {{SNIFF_HTTP}, {"\x16\x03\r\n\r\n"}, "", true},                                  /* refused, as HTTP is */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    begin();
    listen_here();
    s->sniffing = true;
    handling = TAKE_NOT;
    memcpy(sniffs, cases[i].says, sizeof cases[i].says);
    int fd = client();
    for (int k = 0; k < 3 && cases[i].pieces[k]; k++) {
      send_text(fd, cases[i].pieces[k]);
      settle();
    }
    CHECK(told(&socks[0], cases[i].told));
    CHECK((strncmp(heard(fd), "HTTP/1.1 ", 9) == 0) == cases[i].answered);
    close(fd);
    end();
  }
}

/* Who cannot tell within FIRST_BYTES does not get the connection. */
static void test_sniff_bound(void) {
  begin();
  listen_here();
  s->sniffing = true;
  handling = TAKE_NOT;
  for (int i = 0; i < 4; i++) sniffs[i] = SNIFF_MORE;
  int fd = client();
  char line[FIRST_BYTES + 1];
  snprintf(line, sizeof line, "GET /buffered?%0*d", FIRST_BYTES - 20, 0); /* six bytes less */
  send_text(fd, line);
  settle();
  CHECK(n_sniffs == 1 && most_sniffed == FIRST_BYTES - 6 && strcmp(heard(fd), "") == 0);
  send_text(fd, "000000000 HTTP/1.1\r\nHost: a\r\n\r\n");
  settle();
  CHECK(n_sniffs == 2 && most_sniffed == FIRST_BYTES && strncmp(heard(fd), "HTTP/1.1 200", 12) == 0);
  send_text(fd, "GET /buffered HTTP/1.1\r\nHost: a\r\n\r\n");
  settle();
  CHECK(n_sniffs == 2 && strncmp(heard(fd), "HTTP/1.1 200", 12) == 0); /* a later request is HTTP */
  close(fd);
  end();
}

int main(void) {
  test_accepted();
  for (size_t i = 0; i < sizeof takes_over / sizeof *takes_over; i++) test_taken_over(i);
  test_taken_over_with_expect();
  test_taken_over_body_cut();
  test_taken_over_buffered();
  test_body_cut_while_paused();
  test_taken_over_pipelined();
  test_taken_over_behind_output();
  test_sniff();
  test_sniff_bound();
  CHECK(program_failures() == 0);
  return summary("raw_http");
}
