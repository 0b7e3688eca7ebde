/* test_poller.c - the poller's contract (engine.h) over real sockets. Built once with poller_epoll.c and once with
 * poller_kqueue.c over kqueue/kqueue.c; both must hold to the same.
 *
 * A poller may tell of one descriptor in several events, and of more than has changed: what is checked is what must be
 * told, and that nothing is told where nothing happens. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "engine.h"

static poller *p;
static int pair[2];  /* the first is watched */
static int one, two; /* marks for what is watched */

/* What is told of `data` now; with what else is told in `others`. */
static poller_event told(void *data, int *others) {
  poller_event events[POLL_EVENTS], all = {.data = data};
  int n = poller_wait(p, events, POLL_EVENTS);
  CHECK(n >= 0 && n <= POLL_EVENTS);
  for (int i = 0; i < n; i++) {
    if (events[i].data != data) {
      if (others) ++*others;
      else CHECK(!"told of what is not expected");
      continue;
    }
    all.readable |= events[i].readable;
    all.writable |= events[i].writable;
    all.hung_up |= events[i].hung_up;
    all.broken |= events[i].broken;
  }
  return all;
}

static bool nothing(void) {
  poller_event events[POLL_EVENTS];
  return poller_wait(p, events, POLL_EVENTS) == 0;
}

/* Whether an outer loop would be woken. */
static bool awake(int milliseconds) {
  struct pollfd outer = {.fd = poller_fd(p), .events = POLLIN};
  return poll(&outer, 1, milliseconds) == 1;
}

static void say(int fd, const char *text) { CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text)); }

static void begin(void) {
  p = poller_new();
  CHECK(p && poller_fd(p) >= 0 && (fcntl(poller_fd(p), F_GETFD) & FD_CLOEXEC));
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
}

static void end(void) {
  for (int i = 0; i < 2; i++)
    if (pair[i] >= 0) close(pair[i]);
  poller_free(p);
}

static void begin_watching(void) {
  begin();
  CHECK(nothing() && !awake(0));
  CHECK(poller_add(p, pair[0], &one) && awake(0));
  poller_event e = told(&one, NULL);
  CHECK(e.writable && !e.readable && !e.hung_up && !e.broken);
  CHECK(nothing() && !awake(0)); /* told once */
}

static void test_reading(void) {
  char c[16];
  begin_watching();
  say(pair[1], "a");
  CHECK(awake(0) && told(&one, NULL).readable);
  CHECK(nothing() && !awake(0)); /* not read, not told again... */
  say(pair[1], "b");
  CHECK(told(&one, NULL).readable); /* ...but for new bytes */
  CHECK(read(pair[0], c, sizeof c) == 2 && nothing());
  say(pair[1], "c");
  CHECK(told(&one, NULL).readable);
  end();
}

static void test_bytes_that_were_there(void) {
  begin();
  say(pair[1], "a");
  CHECK(poller_add(p, pair[0], &one));
  poller_event e = told(&one, NULL);
  CHECK(e.readable && e.writable && !e.hung_up && !e.broken && nothing());
  end();
}

static void test_writing(void) {
  char block[4096] = {0};
  begin_watching();
  while (write(pair[0], block, sizeof block) > 0) continue;
  CHECK(errno == EAGAIN && nothing());
  while (read(pair[1], block, sizeof block) > 0) continue;
  CHECK(awake(0) && told(&one, NULL).writable);
  CHECK(nothing());
  end();
}

static void test_half_close(void) {
  begin_watching();
  CHECK(shutdown(pair[1], SHUT_WR) == 0);
  poller_event e = told(&one, NULL);
  CHECK(e.readable && e.hung_up && !e.broken); /* it may still be waiting for its answer */
  CHECK(nothing());
  say(pair[0], "answer");
  end();
}

static void test_bytes_and_half_close(void) {
  begin_watching();
  say(pair[1], "a");
  CHECK(shutdown(pair[1], SHUT_WR) == 0);
  poller_event e = told(&one, NULL);
  CHECK(e.readable && e.hung_up && !e.broken && nothing());
  end();
}

static void test_close(void) {
  begin_watching();
  close(pair[1]);
  pair[1] = -1;
  poller_event e = told(&one, NULL);
  CHECK(e.readable && e.hung_up && e.broken);
  end();
}

static void test_del(void) {
  begin_watching();
  int copy = dup(pair[0]); /* as in a forked child: the socket stays open */
  poller_del(p, pair[0]);
  say(pair[1], "a");
  CHECK(nothing() && !awake(0));
  close(pair[0]);
  say(pair[1], "b");
  CHECK(nothing() && !awake(0));
  pair[0] = copy;
  CHECK(poller_add(p, pair[0], &two)); /* anew */
  poller_event e = told(&two, NULL);
  CHECK(e.readable && e.writable && nothing());
  poller_del(p, pair[0]);
  poller_del(p, pair[0]); /* says nothing */
  end();
}

/* A descriptor's number is used again by the next connection. */
static void test_same_number(void) {
  begin_watching();
  int number = pair[0];
  for (int i = 0; i < 3; i++) {
    if (i < 2) poller_del(p, pair[0]); /* the third time it is only closed */
    close(pair[0]);
    close(pair[1]);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    if (pair[0] != number && CHECK(dup2(pair[0], number) == number)) close(pair[0]), pair[0] = number;
    CHECK(poller_add(p, pair[0], &two));
    poller_event e = told(&two, NULL);
    CHECK(e.writable && !e.readable && !e.hung_up && nothing());
  }
  end();
}

static void test_several(void) {
  int second[2], others = 0;
  begin_watching();
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, second) == 0);
  CHECK(poller_add(p, second[0], &two));
  say(pair[1], "a");
  CHECK(told(&one, &others).readable && others > 0 && nothing());
  close(second[0]);
  close(second[1]);
  end();
}

/* With little room each is told in the end, once. */
static void test_room(void) {
  enum { N = 20 };
  int sockets[N][2], marks[N] = {0};
  begin();
  for (int i = 0; i < N; i++) {
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sockets[i]) == 0);
    CHECK(poller_add(p, sockets[i][0], &marks[i]));
    say(sockets[i][1], "a");
  }
  poller_event events[4];
  for (int n; (n = poller_wait(p, events, 4)) > 0;) {
    CHECK(n <= 4);
    for (int i = 0; i < n; i++)
      if (events[i].readable) ++*(int *)events[i].data;
  }
  for (int i = 0; i < N; i++) {
    CHECK(marks[i] == 1);
    close(sockets[i][0]);
    close(sockets[i][1]);
  }
  end();
}

static void test_listener(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof address;
  begin();
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), client[2];
  CHECK(bind(listener, (struct sockaddr *)&address, len) == 0 && listen(listener, 8) == 0);
  CHECK(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
  CHECK(poller_add_listener(p, listener, &two) && nothing());
  for (int i = 0; i < 2; i++) {
    client[i] = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(client[i], (struct sockaddr *)&address, len) == 0);
  }
  for (int i = 0; i < 2; i++) {
    CHECK(awake(1000) && told(&two, NULL).readable && told(&two, NULL).readable); /* for as long as it is so */
    int fd = accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    close(fd);
  }
  CHECK(nothing() && !awake(0));
  poller_del(p, listener); /* a pause */
  int third = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(connect(third, (struct sockaddr *)&address, len) == 0 && nothing());
  CHECK(poller_add_listener(p, listener, &two) && awake(1000) && told(&two, NULL).readable);
  close(third);
  close(client[0]);
  close(client[1]);
  close(listener);
  end();
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Each end of a pipe is asked only what it can do; the bytes that its writer left are told with its end. */
static void test_pipes(void) {
  begin();
  int fds[2];
  CHECK(pipe2(fds, O_NONBLOCK | O_CLOEXEC) == 0);
  CHECK(poller_add_pipe(p, fds[0], &one, false) && nothing());
  CHECK(poller_add_pipe(p, fds[1], &two, true));
  poller_event e = told(&two, NULL);
  CHECK(e.writable && !e.readable && !e.broken);
  say(fds[1], "a");
  CHECK(told(&one, NULL).readable && nothing());
  poller_del(p, fds[1]);
  close(fds[1]);
  CHECK(told(&one, NULL).readable && nothing());
  close(fds[0]);
  CHECK(pipe2(fds, O_NONBLOCK | O_CLOEXEC) == 0);
  CHECK(poller_add_pipe(p, fds[1], &two, true) && told(&two, NULL).writable);
  close(fds[0]);
  CHECK(told(&two, NULL).broken);
  close(fds[1]);
  end();
}

static void test_tick(void) {
  begin_watching();
  double start = seconds();
  CHECK(!awake(0) && poller_tick(p, true) && poller_tick(p, true));
  CHECK(nothing());
  poller_event events[POLL_EVENTS];
  CHECK(awake(3000) && seconds() - start > 0.9);
  CHECK(poller_wait(p, events, POLL_EVENTS) == 1 && !events[0].data);
  CHECK(nothing() && !awake(0)); /* taken */
  struct timespec longer = {1, 100000000};
  nanosleep(&longer, NULL);
  CHECK(awake(0) && poller_tick(p, false)); /* what has come and was not told goes with it */
  CHECK(nothing() && !awake(1100));
  end();
}

static void test_refused(void) {
  begin();
  close(pair[0]);
  CHECK(!poller_add(p, pair[0], &one) && !poller_add_listener(p, pair[0], &one));
  pair[0] = -1;
  CHECK(nothing());
  end();
}

int main(void) {
  test_reading();
  test_bytes_that_were_there();
  test_writing();
  test_half_close();
  test_bytes_and_half_close();
  test_close();
  test_del();
  test_same_number();
  test_several();
  test_room();
  test_listener();
  test_pipes();
  test_tick();
  test_refused();
  return summary(poller_name);
}
