/* hello.c - a native module: says hello to every UDP datagram, on the port that the server has for HTTP.
 *
 *     cc -shared -fPIC -O2 -I"$(80s --include)" hello.c -o hello.so
 *     80s app.py -m hello.so
 *     python -c 'from socket import *; s = socket(type=SOCK_DGRAM); s.sendto(b"", ("127.0.0.1", 8080)); print(s.recv(99))'
 *
 * Change GREETING, build it again, reload the program: the answers change, and no connection is lost.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "eighties.h"

#define GREETING "hello"

/* Not for more than one worker in one process: each worker is a process of its own. */
static int fd = -1;

static void answer(void *data, int ready, int events) {
  const serve_params *params = data;
  struct sockaddr_in from;
  socklen_t size = sizeof from;
  char ignored[1], text[128];
  (void)events;
  if (recvfrom(ready, ignored, sizeof ignored, MSG_DONTWAIT, (struct sockaddr *)&from, &size) < 0) return;
  snprintf(text, sizeof text, "%s from worker %d of %d", GREETING, params->workerid, params->workers);
  sendto(ready, text, strlen(text), MSG_DONTWAIT, (struct sockaddr *)&from, size); /* a long greeting is cut */
}

static int open_socket(int port) {
  const struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int on = 1, opened = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (opened < 0) return -1;
  /* Each worker has a socket, and the kernel gives each client to one of them. */
  if (setsockopt(opened, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0 &&
      bind(opened, (const struct sockaddr *)&address, sizeof address) == 0)
    return opened;
  close(opened);
  return -1;
}

int on_load(void *ctx, serve_params *params, int reload) {
  const eighties_functions *engine = params->engine;
  char text[128];
  (void)ctx;
  fd = open_socket(params->port);
  if (fd < 0) {
    engine->log(params, "error", strerror(errno));
    return 1;
  }
  int wrong = engine->add_fd(params, fd, EIGHTIES_READ, answer, params);
  if (wrong) {
    close(fd);
    return wrong;
  }
  snprintf(text, sizeof text, "%s %s on UDP port %d", reload ? "reloaded:" : "loaded:", GREETING, params->port);
  engine->log(params, "info", text);
  return 0;
}

int on_unload(void *ctx, serve_params *params, int reload) {
  (void)ctx;
  params->engine->remove_fd(params, fd);
  close(fd);
  params->engine->log(params, "info", reload ? "unloaded, to be loaded again" : "unloaded");
  return 0;
}
