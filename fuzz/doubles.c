/* doubles.c - what stands in for time, memory, accept and send around a server that is fuzzed. Interface: doubles.h. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "doubles.h"

uint64_t now_ns, step_ns;
int memory_left = -1, accept_error, send_error;
bool short_sends, small_buffers;

static int tick_fd = -1;
static bool ticking;

int fuzz_clock_gettime(clockid_t clock, struct timespec *t);
int fuzz_timerfd_create(int clock, int flags);
int fuzz_timerfd_settime(int fd, int flags, const void *new, void *old);
void *fuzz_malloc(size_t n);
void *fuzz_calloc(size_t n, size_t size);
void *fuzz_realloc(void *at, size_t n);
int fuzz_accept4(int fd, struct sockaddr *peer, socklen_t *len, int flags);
ssize_t fuzz_send(int fd, const void *at, size_t len, int flags);

void doubles_begin(void) {
  now_ns = 1000000000ull * 1000;
  memory_left = -1;
  accept_error = send_error = 0;
  short_sends = small_buffers = ticking = false;
}

void pass_seconds(unsigned n) {
  uint64_t one = 1;
  now_ns += n * 1000000000ull;
  if (ticking && write(tick_fd, &one, sizeof one) < 0) assert(errno == EAGAIN);
}

int fuzz_clock_gettime(clockid_t clock, struct timespec *t) {
  (void)clock;
  now_ns += step_ns;
  *t = (struct timespec){(time_t)(now_ns / 1000000000u), (long)(now_ns % 1000000000u)};
  return 0;
}

int fuzz_timerfd_create(int clock, int flags) {
  (void)clock, (void)flags;
  return tick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

int fuzz_timerfd_settime(int fd, int flags, const void *new, void *old) {
  uint64_t times;
  (void)flags, (void)old;
  ticking = ((const struct itimerspec *)new)->it_value.tv_sec;
  if (!ticking && read(fd, &times, sizeof times) < 0) assert(errno == EAGAIN);
  return 0;
}

static bool out_of_memory(void) { return memory_left >= 0 && memory_left-- == 0; }

void *fuzz_malloc(size_t n) { return out_of_memory() ? NULL : malloc(n); }
void *fuzz_calloc(size_t n, size_t size) { return out_of_memory() ? NULL : calloc(n, size); }
void *fuzz_realloc(void *at, size_t n) { return out_of_memory() ? NULL : realloc(at, n); }

/* With small buffers output has to wait, and is taken in pieces. */
void make_small(int fd) {
  if (!small_buffers) return;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){4096}, sizeof(int));
  fcntl(fd, F_SETPIPE_SZ, 4096);
}

int fuzz_accept4(int fd, struct sockaddr *peer, socklen_t *len, int flags) {
  if (accept_error) {
    errno = accept_error;
    return -1;
  }
  int made = accept4(fd, peer, len, flags);
  if (made >= 0) make_small(made);
  return made;
}

static bool is_datagram(int fd) {
  int type = 0;
  socklen_t len = sizeof type;
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_DGRAM;
}

ssize_t fuzz_send(int fd, const void *at, size_t len, int flags) {
  if (send_error) {
    errno = send_error;
    send_error = 0;
    return -1;
  }
  if (short_sends && len > 1 && !is_datagram(fd)) len = (len + 1) / 2;
  return send(fd, at, len, flags);
}
