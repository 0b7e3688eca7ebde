/* test_raw.c - raw connections: raw.c and transport.c with the whole lower half around them, over socket pairs and pipes. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "raw_program.h"

/* ---- opening ---- */

static void test_open(void) {
  begin();
  sock *k = open_sock(RAW_STREAM);
  int peer, fd = make_pair(RAW_STREAM, &peer);
  CHECK(k->conn->pending && handle_find(&s->handles, k->handle) == k->conn && s->n_conns == 0);
  CHECK(write_text(k, "early ") && write_owned(k, "bird", 4));
  settle();
  CHECK(told(k, "") && !woken);
  CHECK(attach(k, fd) && !k->conn->pending && woken);
  CHECK(strcmp(heard(peer), "") == 0 && told(k, ""));
  settle();
  CHECK(told(k, "opened ") && strcmp(heard(peer), "early bird") == 0 && n_released == 1);
  send_text(peer, "hello");
  settle();
  CHECK(told(k, "opened data:hello "));
  CHECK(k->conn->peer.family == AF_UNIX && s->n_conns == 0); /* it is no client */
  close(peer);
  end();
}

static void test_attach_fails(void) {
  begin();
  sock *k = open_sock(RAW_STREAM);
  int peer, fd = make_pair(RAW_STREAM, &peer), other, file = open("/dev/null", O_RDWR);
  CHECK(!attach(k, -1) && errno == EBADF && k->conn->pending);
#ifdef __linux__
  int plain = open("/proc/self/exe", O_RDONLY); /* what epoll does not take */
  CHECK(!attach(k, plain) && errno == EPERM && k->conn->pending);
  close(plain);
#endif
  settle();
  CHECK(told(k, ""));
  CHECK(attach(k, fd)); /* another try may succeed */
  CHECK(!attach(k, file) && errno == EISCONN);
  settle();
  CHECK(told(k, "opened "));
  abort_sock(k);
  CHECK(!attach(k, file) && errno == EBADF);
  settle();
  CHECK(told(k, "opened closed "));
  k = open_sock(RAW_STREAM);
  fd = make_pair(RAW_STREAM, &other);
  CHECK(close_sock(k)); /* while it is pending */
  CHECK(!attach(k, fd) && errno == EBADF && told(k, ""));
  settle();
  CHECK(told(k, "closed "));
  close(fd), close(peer), close(other), close(file);
  end();
}

static void test_open_in_a_closed_server(void) {
  begin();
  close_server();
  sock *k = open_sock(RAW_STREAM);
  CHECK(!k->conn);
  end();
}

/* ---- output ---- */

static void test_write(void) {
  begin();
  int peer;
  sock *k = connected(RAW_STREAM, &peer);
  CHECK(write_text(k, "a") && write_text(k, "") && write_owned(k, "", 0) && write_owned(k, "b", 1));
  CHECK(strcmp(heard(peer), "ab") == 0 && n_released == 2); /* at once: nobody is being run */
  CHECK(k->conn->output.bytes == 0);
  settle();
  CHECK(told(k, "")); /* nothing had to wait */
  close(peer);
  end();
}

static void write_thrice(sock *k) {
  CHECK(write_text(k, "a") && write_owned(k, "b", 1) && write_text(k, "c") && k->conn->output.bytes == 3);
}

static void write_much(sock *k) { CHECK(write_owned(k, big, MUCH)); }

/* So much is queued that the program may wait for it: it hears of it, though the kernel takes it all at once. */
static void test_write_much_in_upcall(void) {
  begin();
  int peer;
  sock *k = connected(RAW_STREAM, &peer);
  k->then[DATA] = write_much;
  send_text(peer, "x");
  settle();
  CHECK(told(k, "data:x drained ") && read_away(peer));
  close(peer);
  k = open_sock(RAW_STREAM);
  write_much(k); /* or before there is a connection */
  CHECK(attach(k, make_pair(RAW_STREAM, &peer)));
  settle();
  CHECK(told(k, "opened drained ") && read_away(peer));
  close(peer);
  end();
}

static sock *other_sock;

static void write_to_other(sock *k) {
  (void)k;
  write_thrice(other_sock);
}

static void test_write_in_upcall(void) {
  begin();
  int peer, other_peer;
  sock *k = connected(RAW_STREAM, &peer);
  other_sock = connected(RAW_STREAM, &other_peer);
  k->then[DATA] = write_thrice;
  send_text(peer, "x");
  settle();
  CHECK(strcmp(heard(peer), "abc") == 0 && told(k, "data:x "));
  k->then[DATA] = write_to_other;
  send_text(peer, "y");
  settle();
  CHECK(strcmp(heard(other_peer), "abc") == 0 && told(other_sock, ""));
  close(peer), close(other_peer);
  end();
}

static void test_write_to_closed(void) {
  begin();
  int peers[3];
  sock *aborted = connected(RAW_STREAM, &peers[0]), *closed = connected(RAW_STREAM, &peers[1]);
  sock *reader = connected(RAW_READER, &peers[2]);
  abort_sock(aborted);
  CHECK(close_sock(closed));
  CHECK(!write_text(aborted, "x") && !write_owned(aborted, "x", 1));
  CHECK(!write_text(closed, "x") && !write_owned(closed, "x", 1));
  CHECK(!write_text(reader, "x") && !write_owned(reader, "x", 1) && reader->conn->in == IN_RAW);
  CHECK(n_released == 3); /* none is kept */
  for (int i = 0; i < 3; i++) close(peers[i]);
  settle();
  CHECK(told(aborted, "closed ") && told(closed, "closed ") && told(reader, "eof closed "));
  end();
}

/* Output that the kernel does not take is sent in pieces as the peer reads, and `drained` comes once, at the end. */
static void test_partial_sends(raw_kind kind) {
  begin();
  int peer;
  sock *k = connected(kind, &peer);
  setsockopt(k->conn->fd, SOL_SOCKET, SO_SNDBUF, &(int){8192}, sizeof(int));
  CHECK(write_owned(k, big, BIG / 2) && write_at(k, big + BIG / 2, 100, NULL));
  CHECK(write_owned(k, big + BIG / 2 + 100, BIG / 2 - 100));
  CHECK(k->conn->output.bytes > BIG / 2);
  size_t n = 0, reads = 0;
  for (size_t some; n < BIG && (some = read_big(peer, n)); reads++) {
    CHECK(told(k, k->conn->output.first ? "" : "drained "));
    n += some;
    settle();
  }
  CHECK(n == BIG && reads > 2);
  CHECK(told(k, "drained ") && n_released == 2 && k->conn->output.bytes == 0);
  settle();
  if (kind == RAW_STREAM) send_text(peer, "x");
  settle();
  CHECK(told(k, kind == RAW_STREAM ? "drained data:x " : "drained "));
  close(peer);
  end();
}

static void test_peer_gone_while_writing(raw_kind kind) {
  begin();
  int peer;
  sock *k = connected(kind, &peer);
  CHECK(write_owned(k, big, BIG) && k->conn->output.bytes);
  close(peer);
  settle();
  CHECK(!k->conn && strstr(k->told, "closed ") && !strstr(k->told, "drained") && n_released == 1);
  end();
}

/* The program does not read on until its output is sent, which it never can be: it is told that nothing waits any more. */
static void test_peer_gone_while_paused(void) {
  begin();
  int peer;
  sock *k = connected(RAW_STREAM, &peer);
  pause_sock(k, true);
  send_text(peer, "unread");
  CHECK(write_owned(k, big, BIG));
  close(peer);
  settle();
  CHECK(told(k, "drained ") && !write_text(k, "x") && k->conn->output.bytes == 0);
  pause_sock(k, false);
  settle();
  CHECK(strncmp(k->told, "drained data:unread ", 20) == 0 && !k->conn);
  end();
}

/* A broken pipe at the write itself: an error, no signal; what had come is handed on, and `closed` comes later. */
static void test_write_to_gone(raw_kind kind) {
  begin();
  int peer;
  sock *k = connected(kind, &peer);
  if (kind == RAW_STREAM) send_text(peer, "bye");
  close(peer);
  write_text(k, "x");
  CHECK(told(k, "") && k->conn && woken);
  CHECK(!write_text(k, "y") && !write_owned(k, "z", 1) && n_released == 1);
  settle();
  CHECK(told(k, kind == RAW_STREAM ? "data:bye eof closed " : "closed "));
  end();
}

static void test_queue_bound(void) {
  begin();
  int peer;
  sock *k = connected(RAW_STREAM, &peer);
  int writes = 0;
  while (k->conn->output.bytes <= RAW_QUEUE_BYTES && CHECK(writes < 100)) {
    CHECK(write_owned(k, big, BIG));
    writes++;
  }
  CHECK(writes > RAW_QUEUE_BYTES / BIG && !*logged && told(k, ""));
  CHECK(!write_text(k, "x") && strstr(logged, "bytes wait for a peer that does not read"));
  CHECK(n_released == n_owned && k->conn->in == IN_CLOSED);
  settle();
  CHECK(told(k, "closed "));
  close(peer);
  end();
}

/* ---- input ---- */

static void pause_it(sock *k) { pause_sock(k, true); }

/* Each change is told once by the poller: what came while nobody wanted it must not be forgotten. */
static void test_pause(raw_kind kind) {
  begin();
  int peer;
  sock *k = connected(kind, &peer);
  pause_sock(k, true);
  send_text(peer, "one");
  settle();
  send_text(peer, "two");
  settle();
  CHECK(told(k, ""));
  pause_sock(k, false);
  CHECK(told(k, "") && woken);
  settle();
  CHECK(got(k, "onetwo"));
  k->then[DATA] = pause_it;
  for (int i = 0; i < 3; i++) {
    k->got.len = 0;
    *k->told = 0;
    send_text(peer, "three");
    settle();
    pause_sock(k, true); /* again: nothing changes */
    CHECK(told(k, i ? "" : "data:three "));
    pause_sock(k, false);
    settle();
    CHECK(told(k, "data:three "));
    if (i == 0) pause_sock(k, true);
  }
  close(peer);
  end();
}

/* Much more than one recv takes, with a pause after each. */
static void test_pause_with_much(void) {
  begin();
  int peer;
  sock *k = connected(RAW_STREAM, &peer);
  size_t sent = 0;
  k->then[DATA] = pause_it;
  for (int turns = 0; k->got.len < BIG && turns < 10000; turns++) {
    ssize_t n = sent < BIG ? write(peer, big + sent, BIG - sent) : 0;
    if (n > 0) sent += (size_t)n;
    settle();
    pause_sock(k, false);
  }
  CHECK(k->got.len == BIG && memcmp(k->got.at, big, BIG) == 0 && told(k, "data "));
  close(peer);
  end();
}

static void test_end_closes(void) {
  begin();
  int peer;
  sock *k = connected(RAW_STREAM, &peer);
  send_text(peer, "bye");
  shutdown(peer, SHUT_WR);
  settle();
  CHECK(told(k, "data:bye eof closed ") && at_end(peer));
  close(peer);
  end();
}

static void test_end_closes_after_output(void) {
  begin();
  int peer;
  sock *k = connected(RAW_STREAM, &peer);
  CHECK(write_owned(k, big, BIG));
  shutdown(peer, SHUT_WR);
  settle();
  CHECK(told(k, "eof ") && !write_text(k, "x"));
  size_t n = 0;
  for (size_t some; (some = read_big(peer, n)); settle()) n += some;
  CHECK(n == BIG && at_end(peer) && told(k, "eof closed "));
  close(peer);
  end();
}

static void test_half_close(void) {
  begin();
  int peer;
  sock *k = connected(RAW_STREAM, &peer);
  k->keep = true;
  shutdown(peer, SHUT_WR);
  settle();
  CHECK(told(k, "eof "));
  for (int i = 0; i < 3; i++) {
    CHECK(write_text(k, "still") && strcmp(heard(peer), "still") == 0);
    pause_sock(k, i % 2 == 0); /* of no consequence */
    settle();
  }
  CHECK(told(k, "eof ") && close_sock(k));
  settle();
  CHECK(told(k, "eof closed ") && at_end(peer));
  close(peer);
  end();
}

/* Its end is kept, but then the peer goes altogether: in one event with the end, or in another. */
static void test_kept_and_gone(bool in_one) {
  begin();
  int peer;
  sock *k = connected(RAW_STREAM, &peer);
  k->keep = true;
  if (!in_one) {
    shutdown(peer, SHUT_WR);
    settle();
    CHECK(told(k, "eof "));
  }
  close(peer);
  settle();
  CHECK(told(k, "eof closed "));
  end();
}

/* A connection that is not read is told of its end; of what came before it when it is read again. */
static void test_end_while_paused(void) {
  begin();
  int peer;
  sock *k = connected(RAW_STREAM, &peer);
  pause_sock(k, true);
  shutdown(peer, SHUT_WR);
  settle();
  CHECK(told(k, "eof closed "));
  close(peer);
  k = connected(RAW_STREAM, &peer);
  pause_sock(k, true);
  send_text(peer, "last words");
  close(peer);
  settle();
  CHECK(told(k, ""));
  pause_sock(k, false);
  settle();
  CHECK(told(k, "data:last words eof closed "));
  end();
}

static void test_reset_while_paused(void) {
  begin();
  int peer;
  sock *k = connected(RAW_STREAM, &peer);
  pause_sock(k, true);
  CHECK(write_text(k, "unread")); /* so that the peer's close is a reset */
  close(peer);
  settle();
  CHECK(told(k, "closed "));
  end();
}

/* It is paused by what came with the end, in one event: no other will tell of that. */
static void test_paused_with_the_end(void) {
  begin();
  int peer;
  sock *k = connected(RAW_STREAM, &peer);
  k->then[DATA] = pause_it;
  send_text(peer, "bye");
  close(peer);
  settle();
  CHECK(told(k, "data:bye closed "));
  end();
}

/* ---- datagrams, pipes ---- */

static void test_datagrams(void) {
  begin();
  int peer;
  sock *k = connected(RAW_DATAGRAM, &peer);
  CHECK(write_owned(k, "one", 3) && write_owned(k, "three", 5));
  CHECK(strcmp(heard(peer), "one") == 0 && strcmp(heard(peer), "three") == 0 && n_released == 2);
  send_text(peer, "a");
  send_text(peer, "bc");
  CHECK(send(peer, "", 0, 0) == 0); /* an empty one ends nothing */
  send_text(peer, "def");
  settle();
  CHECK(told(k, "data:a data:bc data: data:def ") && k->conn->in == IN_RAW);
  *k->told = 0;
  pause_sock(k, true);
  send_text(peer, "g");
  send_text(peer, "h");
  settle();
  k->then[DATA] = pause_it;
  pause_sock(k, false);
  settle();
  CHECK(told(k, "data:g "));
  pause_sock(k, false);
  settle();
  CHECK(told(k, "data:g data:h "));
  CHECK(close_sock(k) && k->conn->in == IN_CLOSED); /* at once: there is nothing to wait for */
  settle();
  CHECK(told(k, "data:g data:h closed "));
  close(peer);
  end();
}

static void write_datagrams(sock *k) {
  static const char *const all[] = {"", "a", "", "", "b", ""};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) CHECK(write_owned(k, all[i], strlen(all[i])));
}

/* Queued together, they are sent one by one, the empty ones too. */
static void test_datagrams_queued(void) {
  begin();
  int peer;
  char all[16] = "", byte;
  sock *k = connected(RAW_DATAGRAM, &peer);
  k->then[DATA] = write_datagrams;
  send_text(peer, "x");
  settle();
  for (ssize_t n; (n = read(peer, &byte, 1)) >= 0 && strlen(all) < 10;) strncat(all, n ? &byte : "-", 1);
  CHECK(strcmp(all, "-a--b-") == 0 && n_released == n_owned);
  close(peer);
  end();
}

static int read_datagrams(int peer, int from) {
  for (char byte[2]; read(peer, byte, 2) == 1; from++) CHECK(byte[0] == big[from]);
  return from;
}

/* More than the peer's queue takes: each still is one, in order; and close waits for them. */
static void test_datagrams_wait(void) {
  begin();
  int peer, n = 0;
  sock *k = connected(RAW_DATAGRAM, &peer);
  for (int i = 0; i < 2000; i++) CHECK(write_owned(k, big + i, 1));
  CHECK(k->conn->output.first);
  for (int before = -1; n > before && n < 2000; settle()) {
    before = n;
    n = read_datagrams(peer, n);
  }
  n = read_datagrams(peer, n);
  CHECK(n == 2000 && told(k, "drained ") && n_released == 2000);
  for (int i = 0; i < 2000; i++) CHECK(write_owned(k, big + i, 1));
  CHECK(close_sock(k) && k->conn->in == IN_LINGER);
  n = 0;
  for (int before = -1; n > before; settle()) {
    before = n;
    n = read_datagrams(peer, n);
  }
  CHECK(n == 2000 && told(k, "drained closed "));
  close(peer);
  end();
}

static void test_reader(void) {
  begin();
  int peer;
  sock *k = connected(RAW_READER, &peer);
  send_text(peer, "output");
  settle();
  CHECK(told(k, "data:output "));
  send_text(peer, " of a child");
  close(peer);
  settle();
  CHECK(got(k, "output of a child") && told(k, "data:output data: of a child eof closed "));
  k = connected(RAW_READER, &peer);
  CHECK(close_sock(k) && k->conn->in == IN_CLOSED);
  settle();
  CHECK(told(k, "closed ") && write(peer, "x", 1) < 0 && errno == EPIPE);
  close(peer);
  end();
}

static void test_writer(void) {
  begin();
  int peer;
  sock *k = connected(RAW_WRITER, &peer);
  CHECK(write_text(k, "input") && write_owned(k, " of a child", 11));
  CHECK(strcmp(heard(peer), "input of a child") == 0);
  CHECK(close_sock(k));
  settle();
  CHECK(told(k, "closed ") && at_end(peer));
  close(peer);
  k = connected(RAW_WRITER, &peer);
  close(peer); /* it is told without a write */
  settle();
  CHECK(told(k, "closed "));
  end();
}

/* ---- closing ---- */

static void test_close_with_output(raw_kind kind) {
  begin();
  int peer;
  sock *k = connected(kind, &peer);
  CHECK(write_owned(k, big, BIG) && close_sock(k));
  settle();
  CHECK(told(k, "") && k->conn->in == IN_LINGER);
  size_t n = 0;
  for (size_t some; (some = read_big(peer, n)); settle()) n += some;
  CHECK(n == BIG && at_end(peer)); /* and only then the end */
  if (kind == RAW_STREAM) CHECK(told(k, ""));
  close(peer);
  settle();
  CHECK(told(k, "closed "));
  end();
}

static void test_close_twice(void) {
  begin();
  int peer;
  sock *k = connected(RAW_STREAM, &peer);
  CHECK(close_sock(k) && !close_sock(k));
  send_text(peer, "not wanted any more");
  settle();
  CHECK(!close_sock(k) && told(k, ""));
  close(peer);
  settle();
  CHECK(told(k, "closed "));
  k = connected(RAW_STREAM, &peer);
  conn *c = k->conn;
  conn_ref(c);
  abort_sock(k);
  abort_sock(k);
  CHECK(!close_sock(k) && told(k, "") && woken);
  settle();
  CHECK(told(k, "closed ") && !raw_close(c) && !raw_write(c, (span){"x", 1}, NULL));
  conn_unref(c);
  close(peer);
  end();
}

static void end_by_abort(sock *k) { abort_sock(k); }
static void end_by_close(sock *k) { close_sock(k); }
static void end_by_server(sock *k) {
  (void)k;
  close_server();
}
static void end_by_last_words(sock *k) {
  write_text(k, "x");
  close_sock(k);
}

/* A life in which each upcall comes; `how` ends it within one of them. */
static void live_through(void (*how)(sock *k), event at) {
  begin();
  s->raw = true;
  listen_here();
  sock *k = &socks[0];
  k->then[at] = how;
  int fd = client_that_sends("hello");
  if (k->conn && raw_writes(k->conn)) raw_greet(k->conn), settle();
  if (k->conn) write_owned(k, big, BIG);
  while (read_away(fd)) settle();
  close(fd);
  settle();
  const char *last = strstr(k->told, event_words[at]);
  if (CHECK(last)) CHECK(!k->conn && strcmp(strchr(last, ' '), at == CLOSED ? " " : " closed ") == 0);
  CHECK(s->handles.live == 0 && s->n_conns == 0);
  end();
}

static void test_end_in_each_upcall(void) {
  static void (*const ways[])(sock *) = {end_by_abort, end_by_close, end_by_server, end_by_last_words};
  for (event at = ACCEPTED; at < EVENTS; at++)
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) live_through(ways[i], at);
}

static void abort_other(sock *k) {
  (void)k;
  if (other_sock->conn) abort_sock(other_sock);
}

/* Two are ready in one turn, and each ends the other: the first that runs wins. */
static void test_end_each_other(void) {
  begin();
  int peers[2];
  sock *a = connected(RAW_STREAM, &peers[0]);
  sock *b = connected(RAW_STREAM, &peers[1]);
  other_sock = b;
  a->then[DATA] = abort_other;
  send_text(peers[0], "x");
  send_text(peers[1], "y");
  settle();
  CHECK(told(a, "data:x ") && strstr(b->told, "closed "));
  close(peers[0]), close(peers[1]);
  end();
}

static void open_another(sock *k) {
  (void)k;
  sock *other = open_sock(RAW_STREAM);
  int peer;
  if (CHECK(other->conn)) CHECK(attach(other, make_pair(RAW_STREAM, &peer)));
  CHECK(told(other, ""));
  close(peer);
}

static void test_open_in_closed(void) {
  begin();
  int peer;
  sock *k = connected(RAW_STREAM, &peer);
  k->then[CLOSED] = open_another;
  close(peer);
  settle();
  CHECK(told(k, "eof closed ") && told(&socks[1], "opened eof closed ") && socks[1].handle != k->handle);
  end();
}

static void test_server_close(void) {
  begin();
  int peers[5];
  sock *all[7];
  for (int i = 0; i < 4; i++) all[i] = connected((raw_kind)i, &peers[i]);
  all[4] = open_sock(RAW_STREAM); /* pending, with output */
  CHECK(write_owned(all[4], "x", 1));
  all[5] = connected(RAW_STREAM, &peers[4]);
  CHECK(write_owned(all[5], big, BIG) && close_sock(all[5])); /* being closed */
  all[6] = open_sock(RAW_READER);
  abort_sock(all[6]); /* and not told yet */
  CHECK(s->handles.live == 6);
  close_server();
  for (int i = 0; i < 7; i++) CHECK(told(all[i], "closed ") && !all[i]->conn);
  CHECK(!s->conns && !s->ready && s->handles.live == 0 && n_released == n_owned);
  settle();
  for (int i = 0; i < 5; i++) close(peers[i]);
  end();
}

/* ---- all ---- */

int main(void) {
  static const raw_kind writers[] = {RAW_STREAM, RAW_WRITER};
  test_open();
  test_attach_fails();
  test_open_in_a_closed_server();
  test_write();
  test_write_in_upcall();
  test_write_much_in_upcall();
  test_write_to_closed();
  for (int i = 0; i < 2; i++) {
    test_partial_sends(writers[i]);
    test_peer_gone_while_writing(writers[i]);
    test_write_to_gone(writers[i]);
    test_close_with_output(writers[i]);
  }
  test_peer_gone_while_paused();
  test_queue_bound();
  test_pause(RAW_STREAM);
  test_pause(RAW_READER);
  test_pause_with_much();
  test_end_closes();
  test_end_closes_after_output();
  test_half_close();
  test_kept_and_gone(false);
  test_kept_and_gone(true);
  test_end_while_paused();
  test_reset_while_paused();
  test_paused_with_the_end();
  test_datagrams();
  test_datagrams_queued();
  test_datagrams_wait();
  test_reader();
  test_writer();
  test_close_twice();
  test_end_in_each_upcall();
  test_end_each_other();
  test_open_in_closed();
  test_server_close();
  CHECK(program_failures() == 0);
  return summary("raw");
}
