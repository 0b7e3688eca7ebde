/* eighties.h - what a native module of 80s for Python includes, and its manual. `80s --include` prints its folder.
 *
 * A module is a shared object with the two functions at the end of this file. `80s app.py -m hello.so` has every worker
 * load it, in the order of the command line, before it accepts connections:
 *
 *     cc -shared -fPIC -O2 -I"$(80s --include)" hello.c -o hello.so
 *
 * When on_load is called      the program has run, so have its on_start hooks; the loop runs, no connection is accepted.
 * When the program reloads    on_unload(ctx, params, 1), then on_load(ctx, params, 1) with the new program. If the file
 *                             has changed, that on_load is the new one's, with fresh static variables; else they stay.
 * When the worker ends        on_unload(ctx, params, 0), after the last answer and before the on_stop hooks.
 *
 * Threads. Everything here is called by the thread of the loop, which holds Python's lock (the GIL): the module may use
 * Python's C API, and must not block. Functions of the table refuse other threads with -EPERM; a thread of the module's
 * own writes to an eventfd or a pipe that add_fd watches.
 *
 * Python exceptions. What on_load, on_unload or a callback leaves set is logged; of on_load it is a failure.
 */
#ifndef EIGHTIES_H
#define EIGHTIES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define EIGHTIES_EXPORT __attribute__((visibility("default")))
#define EIGHTIES_WEAK __attribute__((weak, visibility("default")))
#else
#error "a compiler with GNU attributes is needed"
#endif

/* Goes up whenever anything below changes. A module that was built with another one is refused: build it again. */
#define EIGHTIES_ABI 1

/* What is waited for, and what has come: bits. */
#define EIGHTIES_READ 1
#define EIGHTIES_WRITE 2

/* Worker number of a mail that is for all workers, the sender too. */
#define EIGHTIES_ALL (-1)

typedef struct serve_params serve_params;
typedef struct eighties_functions eighties_functions;

/* Called from the loop. `events`: EIGHTIES_READ or EIGHTIES_WRITE, one at a time; an error counts as what was waited
 * for. Level-triggered: called again for as long as it is so. */
typedef void (*eighties_fd_callback)(void *data, int fd, int events);

/* Functions of the engine. Each gets the params of on_load, returns 0 when it is done, and else a negative errno:
 *
 *   -EINVAL  a NULL that must not be, params that are not loaded (any more), an argument that makes no sense
 *   -EPERM   another thread than the loop's, or without the GIL, or with a Python exception set; Python has ended
 *   -ENOMEM  no memory
 *
 * and what stands with each function. */
struct eighties_functions {
  /* Send bytes to a raw connection, or queue what the kernel does not take. They are copied. `handle`: the `childfd` of
   * the program's hooks, `fd` of its sockets; not a descriptor. -EBADF: nobody has it, or it is closed. -EMSGSIZE: a
   * datagram of more than 65507 bytes. */
  int (*write)(const serve_params *params, uint64_t handle, const void *data, size_t length);

  /* Close a raw connection when what is queued has been sent. -EBADF: nobody has it, or that was done before. */
  int (*close)(const serve_params *params, uint64_t handle);

  /* Have `callback` called when a descriptor (a socket, pipe, eventfd, timerfd...) is ready. It stays the module's: call
   * remove_fd before it is closed. Again with the same fd: replaces events, callback and data; if that fails, the fd is
   * not watched. What is left at unload is removed. A callback may add and remove any fd.
   * -EBADF: not open. -EBUSY: the server's own. Others, such as -EPERM for a plain file: the loop cannot watch it. */
  int (*add_fd)(const serve_params *params, int fd, int events, eighties_fd_callback callback, void *data);

  /* -ENOENT: this module does not watch it. */
  int (*remove_fd)(const serve_params *params, int fd);

  /* Send a message of at most 65536 bytes to a worker's on_message hook, or to EIGHTIES_ALL. -ESRCH: there is no such
   * worker. -EMSGSIZE: too long. -EAGAIN: a queue is full, nobody gets it. */
  int (*mail)(const serve_params *params, int worker, const void *data, size_t length);

  /* Write a line to the server's log; UTF-8. `level`: "debug", "info", "warning" or "error". */
  int (*log)(const serve_params *params, const char *level, const char *text);
};

/* The worker that a module is loaded in. The engine owns it; it stays as long as the module's code does. */
struct serve_params {
  uint32_t abi;                     /* EIGHTIES_ABI of the server; always the first field */
  int workerid;                     /* this worker's number, from 0 */
  int workers;                      /* how many there are */
  const char *node;                 /* name of this server among others */
  int port;                         /* it listens on; 0: a unix socket only */
  int loop_fd;                      /* the `elfd` of the program's hooks */
  int reload;                       /* as the argument of the function that is being called */
  const char *module;               /* as the command line calls this file */
  const eighties_functions *engine; /* the table */
  void *reserved;                   /* the engine's own */
};

/* How the server knows what a module was built with. Including this file is enough. */
extern EIGHTIES_WEAK const uint32_t eighties_abi;
const uint32_t eighties_abi = EIGHTIES_ABI;

/* To be defined by the module. `ctx`: the running program's module object (a PyObject *, borrowed) for Python's C API.
 *
 * on_load returns 0; anything else is a failure: at the start of the server exit code 3, at a reload the old module is
 * loaded again, and the old program serves on. It is not followed by on_unload: what it had begun is its own to undo.
 *
 * on_unload returns 0 when nothing uses the module's code any more: after a reload with a changed file it is unmapped.
 * Anything else keeps it in memory; that is for who has given Python objects with C functions to the program (requests
 * under way may still hold them) or has threads that run on. */
EIGHTIES_EXPORT int on_load(void *ctx, serve_params *params, int reload);
EIGHTIES_EXPORT int on_unload(void *ctx, serve_params *params, int reload);

#ifdef __cplusplus
}
#endif

#endif
