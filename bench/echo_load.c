/*
 * echo_load: what wrk is for HTTP: so many connections to an echo server, each sending a message, waiting for all of it
 * to come back, and sending the next.
 *
 * Usage: echo_load PORT CONNECTIONS BYTES SECONDS     (to 127.0.0.1; ends by itself)
 * Prints the messages that came back and the seconds that took. Exit code 1: an answer was wrong or a connection ended.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 4096, MOST_BYTES = 65536, EVENTS = 512, LAST_WAIT = 2000 /* ms for the last answers */ };

struct load {
  int epoll_fd;
  size_t bytes;
  uint64_t answers;
  char message[MOST_BYTES], received[MOST_BYTES];
  size_t come[MOST_CONNECTIONS]; /* bytes of the present answer, by connection */
  int fds[MOST_CONNECTIONS];
};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool say(struct load *load, int fd) {
  return send(fd, load->message, load->bytes, MSG_NOSIGNAL) == (ssize_t)load->bytes;
}

static bool join(struct load *load, uint32_t index, uint16_t port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
  load->fds[index] = fd;
  return fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0 &&
         connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
         epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* Takes what has come. False: the connection ended, or it was not what was sent. */
static bool hear(struct load *load, uint32_t index, bool go_on) {
  ssize_t n = recv(load->fds[index], load->received, load->bytes - load->come[index], 0);
  if (n <= 0 || memcmp(load->received, load->message + load->come[index], (size_t)n) != 0) { return false; }
  load->come[index] += (size_t)n;
  if (load->come[index] < load->bytes) { return true; }
  load->come[index] = 0;
  load->answers++;
  return !go_on || say(load, load->fds[index]);
}

static bool turn(struct load *load, double end) {
  struct epoll_event events[EVENTS];
  int count = epoll_wait(load->epoll_fd, events, EVENTS, LAST_WAIT);
  for (int i = 0; i < count; i++) {
    if (!hear(load, events[i].data.u32, now() < end)) { return false; }
  }
  return count > 0;
}

int main(int argc, char **argv) {
  static struct load load;
  long port = argc == 5 ? strtol(argv[1], NULL, 10) : 0, connections = argc == 5 ? strtol(argv[2], NULL, 10) : 0;
  long bytes = argc == 5 ? strtol(argv[3], NULL, 10) : 0;
  double seconds = argc == 5 ? strtod(argv[4], NULL) : 0;
  if (port < 1 || port > UINT16_MAX || connections < 1 || connections > MOST_CONNECTIONS || bytes < 1 ||
      bytes > MOST_BYTES || seconds <= 0) {
    fprintf(stderr, "usage: %s PORT CONNECTIONS BYTES SECONDS\n", argv[0]);
    return 2;
  }
  load.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  load.bytes = (size_t)bytes;
  for (long i = 0; i < bytes; i++) { load.message[i] = (char)('a' + i % 26); }
  for (long i = 0; i < connections; i++) {
    if (!join(&load, (uint32_t)i, (uint16_t)port)) {
      perror("echo_load");
      return 1;
    }
  }
  double begin = now(), end = begin + seconds;
  for (long i = 0; i < connections; i++) {
    if (!say(&load, load.fds[i])) { return 1; }
  }
  while (now() < end) {
    if (!turn(&load, end)) {
      fprintf(stderr, "echo_load: a wrong answer, or none\n");
      return 1;
    }
  }
  printf("%llu %.6f\n", (unsigned long long)load.answers, now() - begin);
  return 0;
}
