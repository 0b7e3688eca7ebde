/* server.c - listeners, the ready list, the tick, stopping. Contract: engine.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"

uint64_t clock_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Read once a turn: the budget's end, the wheel's second, the date. */
void server_touch_clock(server *s) {
  struct timespec real;
#ifdef CLOCK_REALTIME_COARSE
  clock_gettime(CLOCK_REALTIME_COARSE, &real);
#else
  clock_gettime(CLOCK_REALTIME, &real);
#endif
  answer_touch_date(s, real.tv_sec);
  uint64_t now = clock_ns();
  s->now = (uint32_t)(now / 1000000000u);
  if (!s->ticking && !s->wheel.live) s->wheel.now = s->now; /* without timers no tick comes: nothing is left behind */
  s->budget_end = now + POLL_BUDGET_NS;
  s->work = 0;
  s->spent = false;
}

bool server_over_budget(server *s) {
  if (s->spent) return true;
  if (++s->work % BUDGET_STRIDE) return false;
  s->spent = clock_ns() >= s->budget_end;
  return s->spent;
}

server *server_new(const limits *l, const upcalls *up, void *owner, const char *server_name) {
  server *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->limits = *l;
  if (s->limits.http.max_line + 2 > s->limits.http.max_head) s->limits.http.max_line = s->limits.http.max_head - 2;
  s->up = up;
  s->owner = owner;
  s->accept_batch = 1;
  s->counters = s->own_counters;
  s->date = -1;
  snprintf(s->server_name, sizeof s->server_name, "%s", server_name ? server_name : "");
  s->poller = poller_new();
  s->fields = malloc((l->http.max_fields + 1) * sizeof *s->fields);
  s->scratch = malloc(SCRATCH_BYTES);
  wheel_init(&s->wheel, (uint32_t)(clock_ns() / 1000000000u));
  handle_init(&s->handles, clock_ns() ^ (uint64_t)getpid() << 20);
  s->now = s->wheel.now;
  if (!s->poller || !s->fields || !s->scratch) {
    server_free(s);
    return NULL;
  }
  server_touch_clock(s);
  return s;
}

unsigned server_free(server *s) {
  if (s->poller) {
    server_close(s);
    poller_free(s->poller);
  }
  unsigned left = s->conns_alive + s->pool.live + s->wheel.live + s->handles.live;
  pool_clear(&s->pool);
  handle_clear(&s->handles);
  free(s->fields);
  free(s->scratch);
  free(s);
  return left;
}

/* ---- listeners ---- */

static void listener_watch(server *s, listener *l, bool on) {
  if (l->watched == on) return;
  if (on) l->watched = poller_add_listener(s->poller, l->fd, l);
  else poller_del(s->poller, l->fd), l->watched = false;
}

bool server_listen(server *s, int fd) {
  listener *l = calloc(1, sizeof *l);
  if (!l) return false;
  l->watch = WATCH_LISTENER;
  l->fd = fd;
  listener_watch(s, l, true);
  if (!l->watched) {
    free(l);
    return false;
  }
  l->next = s->listeners;
  s->listeners = l;
  return true;
}

/* Out of descriptors or memory: accept would fail for as long as the queue is not empty. Wait, do not spin; the tick tries
 * again. It is told once, until a connection has been accepted. */
static void pause_accepting(server *s) {
  if (!s->pause_told) {
    char message[128];
    snprintf(message, sizeof message, "accepting is paused, %u connections are open: %s", s->n_conns, strerror(errno));
    s->up->log(s, true, message);
  }
  s->accept_paused = s->pause_told = true;
  for (listener *l = s->listeners; l; l = l->next) listener_watch(s, l, false);
  server_tick_on(s);
}

static void resume_accepting(server *s) {
  if (!s->accept_paused) return;
  s->accept_paused = false;
  for (listener *l = s->listeners; l; l = l->next) {
    listener_watch(s, l, true);
    if (!l->watched) s->accept_paused = true;
  }
}

static int accept_fd(int fd, struct sockaddr_storage *peer) {
  socklen_t len = sizeof *peer;
  peer->ss_family = AF_UNIX; /* what an empty address means */
#ifdef __linux__
  return accept4(fd, (struct sockaddr *)peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
  int made = accept(fd, (struct sockaddr *)peer, &len);
  if (made < 0) return -1;
  fcntl(made, F_SETFD, FD_CLOEXEC);
  fcntl(made, F_SETFL, O_NONBLOCK);
  return made;
#endif
}

static void welcome(server *s, const listener *l, int fd, const struct sockaddr *peer) {
  s->counters[COUNT_ACCEPTED]++;
  bool over = s->n_conns - s->n_refused >= s->limits.max_connections;
  bool room = !over || (s->n_refused < REFUSED_CONNECTIONS && !s->raw);
  conn *c = room ? conn_new(s, fd, peer) : NULL;
  if (!c) {
    close(fd);
    return;
  }
  if (over) {
    c->over_limit = true;
    s->n_refused++;
    conn_ref(c); /* without memory for the answer it is closed */
    conn_refuse(c, 503, "more connections than max_connections");
    conn_enqueue(c);
    conn_unref(c);
  } else if (s->raw) { /* told when it runs: no callback while events are noted */
    c->greet = true;
    c->framing.left = (uint64_t)l->fd;
    conn_enqueue(c);
  }
}

/* Errors that concern one connection, which has gone again (accept(2)), and not the listener. */
static bool of_one_connection(int error) {
  switch (error) {
  case EINTR:
  case ECONNABORTED:
  case EPROTO:
  case ENETDOWN:
  case ENETUNREACH:
  case EHOSTDOWN:
  case EHOSTUNREACH:
  case ENOPROTOOPT: return true;
  default: return false;
  }
}

/* Returns false when the queue is empty or accepting has to wait. */
static bool accept_one(server *s, listener *l) {
  struct sockaddr_storage peer;
  int fd = accept_fd(l->fd, &peer);
  if (fd >= 0) {
    s->pause_told = false;
    welcome(s, l, fd, (struct sockaddr *)&peer);
    return true;
  }
  if (errno == EAGAIN || errno == EWOULDBLOCK) return false;
  if (of_one_connection(errno)) return true;
  pause_accepting(s);
  return false;
}

void server_conn_gone(server *s) {
  if (s->accept_paused) resume_accepting(s);
}

/* ---- the tick ---- */

/* The tick goes on while there is a timer, and is switched off by the tick itself: not by each connection that ends. */
void server_tick_on(server *s) {
  if (!s->ticking && poller_tick(s->poller, true)) s->ticking = true;
}

static void tick(server *s) {
  wheel_advance(&s->wheel, s->now, conn_due);
  if (s->accept_paused) resume_accepting(s);
  if (!s->wheel.live && !s->accept_paused && poller_tick(s->poller, false)) s->ticking = false;
}

/* ---- work ---- */

/* Run the ready connections, each once at a time, within the budget. */
static void run_ready(server *s) {
  while (s->ready) {
    conn *c = s->ready;
    s->ready = c->ready_next;
    if (!s->ready) s->ready_last = NULL;
    c->ready = false;
    if (c->in != IN_CLOSED) conn_run(c);
    else if (c->exchange) s->up->closed(c);
    conn_unref(c); /* the list's */
    if (server_over_budget(s)) return;
  }
}

static void leave(server *s) {
  s->polling = false;
  if (s->wheel.live) server_tick_on(s);
  if (s->ready) server_wake(s);
}

void server_wake(server *s) {
  if (s->woken || s->polling || s->shut) return;
  s->woken = true;
  s->up->wake(s);
}

void server_run(server *s, conn *c) {
  s->polling = s->alone = true;
  server_touch_clock(s);
  conn_ref(c);
  if (c->in != IN_CLOSED) conn_run(c);
  conn_unref(c);
  s->alone = false;
  leave(s);
}

/* Note what has happened, call nobody: the connections stay valid until all events are noted. */
static bool note(server *s, const poller_event *events, int n, bool accept_now) {
  bool ticked = false;
  for (int i = 0; i < n; i++) {
    const poller_event *e = &events[i];
    if (!e->data) {
      ticked = true;
    } else if (*(watch_kind *)e->data == WATCH_CONN) {
      conn *c = e->data;
      c->readable |= e->readable;
      c->writable |= e->writable;
      c->hung_up |= e->hung_up;
      c->broken |= e->broken;
      if (c->in != IN_CLOSED) conn_enqueue(c);
    } else if (accept_now) {
      listener *l = e->data;
      for (int k = 0; k < s->accept_batch && l->watched && accept_one(s, l); k++) continue;
    }
  }
  return ticked;
}

void server_poll(server *s) {
  s->woken = false;
  if (s->polling) return; /* a handler runs the loop: what is ready waits until it returns */
  s->polling = true;
  server_touch_clock(s);
  poller_event events[POLL_EVENTS];
  for (int round = 0; round < POLL_ROUNDS; round++) {
    int n = poller_wait(s->poller, events, POLL_EVENTS);
    if (n <= 0 && !s->ready) break;
    /* One turn accepts once: an idle worker wins over a busy one. */
    bool ticked = note(s, events, n, round == 0);
    run_ready(s);
    if (ticked) { /* after what has arrived in time */
      tick(s);
      run_ready(s);
    }
    if (s->ready || n < POLL_EVENTS / 64) break; /* over budget, or little to do: the loop waits better than we do */
  }
  leave(s);
}

/* ---- stopping ---- */

void server_close_listeners(server *s) {
  while (s->listeners) {
    listener *l = s->listeners;
    s->listeners = l->next;
    listener_watch(s, l, false);
    close(l->fd);
    free(l);
  }
  s->accept_paused = false;
}

void server_drain(server *s) {
  if (s->draining) return;
  s->draining = true;
  server_keep(s);
  for (listener *l = s->listeners; l; l = l->next)
    for (int i = 0; i < DRAIN_ACCEPTS && accept_one(s, l); i++) continue;
  server_close_listeners(s);
  for (conn *c = s->conns; c; c = c->next) {
    conn_drain(c);
    conn_arm(c);
  }
  if (s->ready) server_wake(s);
}

void server_close(server *s) {
  s->draining = s->shut = true;
  server_close_listeners(s);
  while (s->conns) conn_close(s->conns);
  while (s->ready) { /* only the list's references are left, and the word to raw connections that they are over */
    conn *c = s->ready;
    s->ready = c->ready_next;
    if (!s->ready) s->ready_last = NULL;
    c->ready = false;
    if (c->exchange) s->up->closed(c);
    conn_unref(c);
  }
}
