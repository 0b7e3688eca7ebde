/* sys/event.h - as much of FreeBSD's header as poller_kqueue.c needs, for kqueue.c beside it.
 *
 * A TEST DOUBLE: it lets poller_kqueue.c be compiled and its logic be run on Linux. It is not FreeBSD's kernel, and does
 * not show that FreeBSD or macOS agree. */
#ifndef EIGHTIES_SYS_EVENT_H
#define EIGHTIES_SYS_EVENT_H

#include <stdint.h>
#include <time.h>

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_TIMER (-7)

#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_CLEAR 0x0020
#define EV_EOF 0x8000

struct kevent {
  uintptr_t ident;
  short filter;
  unsigned short flags;
  unsigned int fflags;
  int64_t data;
  void *udata;
};

#define EV_SET(event, ident_, filter_, flags_, fflags_, data_, udata_)                                                 \
  (*(event) = (struct kevent){(uintptr_t)(ident_), (filter_), (unsigned short)(flags_), (fflags_), (data_), (udata_)})

int kqueue(void);
int kevent(int kq, const struct kevent *changes, int n_changes, struct kevent *events, int n_events,
           const struct timespec *timeout);

#endif
