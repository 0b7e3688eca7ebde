/* kqueue.c - the part of kqueue() and kevent() that poller_kqueue.c uses, over epoll and a timerfd.
 *
 * A TEST DOUBLE. It shows that poller_kqueue.c compiles and that its logic holds: which filters it adds and deletes, how
 * it reads events. It does not show that FreeBSD's or macOS's kernel agrees: what they tell, and when, is known from their
 * manuals only. Limits: sockets and one timer; no waiting; both filters of a socket with the same flags; an event list has
 * room for two at least. A queue that is closed is noticed when its number is used again.
 */
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/event.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define MOST_EVENTS 256

/* What is watched of a descriptor. */
typedef struct note note;
struct note {
  note *next;
  int fd;
  bool timer, reading, writing, clear;
  void *read_data, *write_data;
};

typedef struct queue queue;
struct queue {
  queue *next;
  int fd, timerfd;
  note *notes;
};

static queue *queues; /* kqueue() hands out numbers, and close() does not tell */

static void forget(queue *q) {
  if (q->timerfd >= 0) close(q->timerfd);
  for (note *n = q->notes, *next; n; n = next) {
    next = n->next;
    free(n);
  }
  free(q);
}

static queue *find_queue(int fd) {
  for (queue *q = queues; q; q = q->next)
    if (q->fd == fd) return q;
  errno = EBADF;
  return NULL;
}

int kqueue(void) {
  queue *q = calloc(1, sizeof *q);
  if (!q) return -1;
  q->timerfd = -1;
  q->fd = epoll_create1(EPOLL_CLOEXEC);
  if (q->fd < 0) {
    free(q);
    return -1;
  }
  for (queue **at = &queues; *at;) {
    queue *old = *at;
    if (old->fd == q->fd) *at = old->next, forget(old);
    else at = &old->next;
  }
  q->next = queues;
  queues = q;
  return q->fd;
}

/* ---- changes ---- */

static note *find_note(queue *q, int fd) {
  for (note *n = q->notes; n; n = n->next)
    if (n->fd == fd && !n->timer) return n;
  return NULL;
}

static note *new_note(queue *q, int fd) {
  note *n = calloc(1, sizeof *n);
  if (!n) return NULL;
  n->fd = fd;
  n->next = q->notes;
  q->notes = n;
  return n;
}

static int tell_epoll(queue *q, note *n, int operation) {
  struct epoll_event e = {.data.ptr = n};
  if (n->reading) e.events |= EPOLLIN | EPOLLRDHUP;
  if (n->writing) e.events |= EPOLLOUT;
  if (n->clear) e.events |= EPOLLET;
  return epoll_ctl(q->fd, operation, n->fd, &e);
}

static void set_filter(note *n, const struct kevent *change, bool on) {
  if (change->filter == EVFILT_READ) n->reading = on, n->read_data = change->udata;
  else n->writing = on, n->write_data = change->udata;
}

static int add(queue *q, const struct kevent *change) {
  note *n = find_note(q, (int)change->ident);
  if (!n && !(n = new_note(q, (int)change->ident))) return -1;
  set_filter(n, change, true);
  n->clear = change->flags & EV_CLEAR;
  if (tell_epoll(q, n, EPOLL_CTL_MOD) == 0) return 0;
  if (errno == ENOENT) { /* a new descriptor, or one of an old number: the old one's filters went when it was closed */
    n->reading = n->writing = false;
    set_filter(n, change, true);
    if (tell_epoll(q, n, EPOLL_CTL_ADD) == 0) return 0;
  }
  n->reading = n->writing = false;
  return -1;
}

static int drop(queue *q, const struct kevent *change) {
  note *n = find_note(q, (int)change->ident);
  if (!n || !(change->filter == EVFILT_READ ? n->reading : n->writing)) {
    errno = ENOENT;
    return -1;
  }
  set_filter(n, change, false);
  return tell_epoll(q, n, n->reading || n->writing ? EPOLL_CTL_MOD : EPOLL_CTL_DEL);
}

static int make_timer(queue *q) {
  note *n = new_note(q, timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  if (!n || n->fd < 0) return -1;
  n->timer = n->reading = true;
  q->timerfd = n->fd;
  return tell_epoll(q, n, EPOLL_CTL_ADD);
}

static int change_timer(queue *q, const struct kevent *change) {
  struct itimerspec each = {0}, before;
  if (q->timerfd < 0 && make_timer(q) < 0) return -1;
  if (change->flags & EV_ADD) {
    each.it_interval.tv_sec = each.it_value.tv_sec = change->data / 1000;
    each.it_interval.tv_nsec = each.it_value.tv_nsec = change->data % 1000 * 1000000;
  }
  if (timerfd_settime(q->timerfd, 0, &each, &before) < 0) return -1;
  if (change->flags & EV_ADD || before.it_interval.tv_sec || before.it_interval.tv_nsec) return 0;
  errno = ENOENT;
  return -1;
}

static int apply(queue *q, const struct kevent *change) {
  assert(change->flags == EV_ADD || change->flags == EV_DELETE || change->flags == (EV_ADD | EV_CLEAR));
  if (change->filter == EVFILT_TIMER) return change_timer(q, change);
  assert(change->filter == EVFILT_READ || change->filter == EVFILT_WRITE);
  return change->flags & EV_ADD ? add(q, change) : drop(q, change);
}

/* ---- events ---- */

static int put(struct kevent *to, const note *n, short filter, uint32_t e) {
  bool eof = e & (EPOLLHUP | EPOLLERR) || (filter == EVFILT_READ && e & EPOLLRDHUP);
  *to = (struct kevent){.ident = (uintptr_t)n->fd,
                        .filter = filter,
                        .flags = (unsigned short)((n->clear ? EV_CLEAR : 0) | (eof ? EV_EOF : 0)),
                        .fflags = e & EPOLLERR ? ECONNRESET : 0, /* which error it is stays with the socket */
                        .udata = filter == EVFILT_READ ? n->read_data : n->write_data};
  return 1;
}

static int put_timer(struct kevent *to, const note *n) {
  uint64_t times;
  if (read(n->fd, &times, sizeof times) != sizeof times) return 0;
  *to = (struct kevent){.filter = EVFILT_TIMER, .data = (int64_t)times};
  return 1;
}

/* One of epoll's is two of ours at most. */
static int collect(queue *q, struct kevent *events, int room) {
  struct epoll_event found[MOST_EVENTS];
  assert(room >= 2);
  int n = epoll_wait(q->fd, found, room / 2 < MOST_EVENTS ? room / 2 : MOST_EVENTS, 0), out = 0;
  for (int i = 0; i < n; i++) {
    const note *mine = found[i].data.ptr;
    uint32_t e = found[i].events;
    if (mine->timer) {
      out += put_timer(&events[out], mine);
      continue;
    }
    if (mine->reading && e & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
      out += put(&events[out], mine, EVFILT_READ, e);
    if (mine->writing && e & (EPOLLOUT | EPOLLHUP | EPOLLERR)) out += put(&events[out], mine, EVFILT_WRITE, e);
  }
  return n < 0 ? -1 : out;
}

int kevent(int kq, const struct kevent *changes, int n_changes, struct kevent *events, int n_events,
           const struct timespec *timeout) {
  queue *q = find_queue(kq);
  if (!q) return -1;
  for (int i = 0; i < n_changes; i++)
    if (apply(q, &changes[i]) < 0) return -1;
  assert(!n_events || (timeout && !timeout->tv_sec && !timeout->tv_nsec));
  return n_events ? collect(q, events, n_events) : 0;
}
