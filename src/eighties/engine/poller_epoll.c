/* poller_epoll.c - the poller on Linux. Contract: engine.h; poller_kqueue.c is its twin. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "engine.h"

struct poller {
  int fd, tick;
};

const char *const poller_name = "epoll";

poller *poller_new(void) {
  poller *p = malloc(sizeof *p);
  if (!p) return NULL;
  p->tick = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  p->fd = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
  if (p->fd < 0 || p->tick < 0 || epoll_ctl(p->fd, EPOLL_CTL_ADD, p->tick, &e) < 0) {
    poller_free(p);
    return NULL;
  }
  return p;
}

void poller_free(poller *p) {
  if (p->fd >= 0) close(p->fd);
  if (p->tick >= 0) close(p->tick);
  free(p);
}

int poller_fd(const poller *p) { return p->fd; }

static bool add(poller *p, int fd, void *data, uint32_t events) {
  struct epoll_event e = {.events = events, .data.ptr = data};
  return epoll_ctl(p->fd, EPOLL_CTL_ADD, fd, &e) == 0;
}

bool poller_add(poller *p, int fd, void *data) { return add(p, fd, data, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET); }

/* The kernel tells of a pipe's end only what it can do. */
bool poller_add_pipe(poller *p, int fd, void *data, bool writing) {
  return add(p, fd, data, (writing ? EPOLLOUT : EPOLLIN) | EPOLLET);
}

bool poller_add_listener(poller *p, int fd, void *data) { return add(p, fd, data, EPOLLIN); }

/* Not left to close(): a forked child may hold a copy of the descriptor, and the set would go on telling of it. */
void poller_del(poller *p, int fd) { epoll_ctl(p->fd, EPOLL_CTL_DEL, fd, NULL); }

bool poller_tick(poller *p, bool on) {
  struct itimerspec each = {0};
  if (on) each.it_interval.tv_sec = each.it_value.tv_sec = 1;
  return timerfd_settime(p->tick, 0, &each, NULL) == 0;
}

static bool take_tick(poller *p) {
  uint64_t times;
  return read(p->tick, &times, sizeof times) == sizeof times;
}

int poller_wait(poller *p, poller_event *events, int max) {
  struct epoll_event found[POLL_EVENTS];
  int n = epoll_wait(p->fd, found, max < POLL_EVENTS ? max : POLL_EVENTS, 0), out = 0;
  for (int i = 0; i < n; i++) { /* n is -1 on EINTR: no events */
    uint32_t e = found[i].events;
    if (!found[i].data.ptr && !take_tick(p)) continue;
    events[out++] = (poller_event){.data = found[i].data.ptr,
                                   .readable = e & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR),
                                   .writable = e & (EPOLLOUT | EPOLLHUP | EPOLLERR),
                                   .hung_up = e & EPOLLRDHUP,
                                   .broken = e & (EPOLLHUP | EPOLLERR)};
  }
  return out;
}
