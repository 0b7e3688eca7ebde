/* poller_kqueue.c - the poller on FreeBSD and macOS. Contract: engine.h; poller_epoll.c is its twin. */
#include <errno.h>
#include <stdlib.h>
#include <sys/event.h>
#include <sys/time.h>
#include <sys/types.h>
#include <unistd.h>

#include "engine.h"

struct poller {
  int fd;
};

const char *const poller_name = "kqueue";

poller *poller_new(void) {
  poller *p = malloc(sizeof *p);
  if (!p) return NULL;
  p->fd = kqueue(); /* not inherited by fork; close-on-exec by nature */
  if (p->fd < 0) {
    poller_free(p);
    return NULL;
  }
  return p;
}

void poller_free(poller *p) {
  if (p->fd >= 0) close(p->fd);
  free(p);
}

int poller_fd(const poller *p) { return p->fd; }

bool poller_add(poller *p, int fd, void *data) {
  struct kevent change[2];
  EV_SET(&change[0], fd, EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, data);
  EV_SET(&change[1], fd, EVFILT_WRITE, EV_ADD | EV_CLEAR, 0, 0, data);
  if (kevent(p->fd, change, 2, NULL, 0, NULL) == 0) return true;
  int error = errno;
  poller_del(p, fd); /* the first may be there */
  errno = error;
  return false;
}

/* The other filter cannot be had of a pipe whose other end is closed. */
bool poller_add_pipe(poller *p, int fd, void *data, bool writing) {
  struct kevent change;
  EV_SET(&change, fd, writing ? EVFILT_WRITE : EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, data);
  return kevent(p->fd, &change, 1, NULL, 0, NULL) == 0;
}

bool poller_add_listener(poller *p, int fd, void *data) {
  struct kevent change;
  EV_SET(&change, fd, EVFILT_READ, EV_ADD, 0, 0, data);
  return kevent(p->fd, &change, 1, NULL, 0, NULL) == 0;
}

void poller_del(poller *p, int fd) {
  struct kevent change;
  EV_SET(&change, fd, EVFILT_READ, EV_DELETE, 0, 0, NULL);
  kevent(p->fd, &change, 1, NULL, 0, NULL);
  EV_SET(&change, fd, EVFILT_WRITE, EV_DELETE, 0, 0, NULL); /* a listener has none: an error says nothing */
  kevent(p->fd, &change, 1, NULL, 0, NULL);
}

bool poller_tick(poller *p, bool on) {
  struct kevent change;
  EV_SET(&change, 0, EVFILT_TIMER, on ? EV_ADD : EV_DELETE, 0, 1000, NULL);
  return kevent(p->fd, &change, 1, NULL, 0, NULL) == 0;
}

int poller_wait(poller *p, poller_event *events, int max) {
  struct kevent found[POLL_EVENTS];
  struct timespec now = {0};
  int n = kevent(p->fd, NULL, 0, found, max < POLL_EVENTS ? max : POLL_EVENTS, &now);
  for (int i = 0; i < n; i++) { /* n is -1 on EINTR: no events */
    bool reading = found[i].filter == EVFILT_READ, eof = found[i].flags & EV_EOF;
    events[i] = (poller_event){.data = found[i].filter == EVFILT_TIMER ? NULL : found[i].udata,
                               .readable = reading,
                               .writable = found[i].filter == EVFILT_WRITE,
                               .hung_up = reading && eof,
                               /* the peer no longer reads, or there is an error: nothing can be answered */
                               .broken = eof && (!reading || found[i].fflags != 0)};
  }
  return n < 0 ? 0 : n;
}
