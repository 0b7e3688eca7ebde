/* py.h - the engine's upper half: what the py_* files share. Only they and module.c know Python.
 *
 * py_engine.c    Engine: the server as an object, and the upcalls
 * py_handler.c   from a request to its handler and back: calls, tasks, errors
 * py_request.c   Request: what a handler sees; attributes are made when asked for
 * py_stream.c    Request's streamed bodies, both ways
 * py_socket.c    Socket: a raw connection, its callbacks, and the functions that know it by its handle
 * py_response.c  Response, FileRegion, and how values become bytes
 * py_promise.c   Resolver: what settles a promise
 * py_route.c     Route
 * py_static.c    StaticFile: small files without Python
 * py_modules.c   NativeModule: shared objects of the user's; include/eighties.h is their side of it
 * py_multidict.c MultiDict, headers and queries
 * py_escape.c    escape: values to HTML
 *
 * Ownership: a linked request is held by its connection (conn->exchange owns a reference) and knows it (request->conn).
 * request_unlink ends both at once.
 */
#ifndef EIGHTIES_PY_H
#define EIGHTIES_PY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "engine.h"

#ifndef EIGHTIES_VERSION
#define EIGHTIES_VERSION "0"
#endif

#define DATAGRAM_BYTES 65507 /* 65535 less the IP and UDP headers (RFC 768) */

typedef struct {
  PyTypeObject *engine, *request, *response, *route, *multidict, *file, *socket, *resolver, *static_file, *native;
  PyObject *task;                                                   /* asyncio.Task */
  PyObject *cancelled_error, *invalid_state_error;                  /* asyncio's */
  PyObject *promise;                                                /* promise.Promise */
  PyObject *add_done_callback, *result, *cancel, *call_soon, *done; /* method names */
  PyObject *str_context, *html;
  PyObject *set_result, *settle_several, *fail, *abandon, *code, *lasti; /* names of a promise */
  unsigned engines, requests, sockets, left_over;                        /* live objects; what engines left behind */
  struct engine_object *newest;                                          /* of all engines, linked by `older` */
} module_state;

typedef struct {
  PyObject_HEAD
  PyObject *pattern, *method, *handler, *name;
  PyObject *names; /* parameter names, a tuple */
  PyObject *file;  /* a StaticFile that may answer instead of the handler, or NULL */
  bool stream, is_async;
  int status;
  uint32_t ints;          /* bit per parameter: it is an int */
  PyObject *content_type; /* of bytes that the handler returns; a str of ASCII */
} route_object;

/* The program's functions for raw connections, as Engine.set_hooks takes them. */
enum { HOOK_DATA, HOOK_CLOSE, HOOK_WRITE, HOOK_ACCEPT, HOOKS };

typedef struct engine_object engine_object;
struct engine_object {
  PyObject_HEAD
  PyObject *module; /* keeps `state`; never given up before the object goes */
  module_state *state;
  engine_object *older;
  server *server;
  PyObject *loop, *request_type, *respond, *failed, *pump, *settle, *log;
  PyObject *routes, *fallback_404, *fallback_405;
  PyObject *poll; /* bound method, for call_soon */
  router *router;
  PyObject *spare;                   /* a request to be used again */
  PyObject *task_keywords;           /* how tasks are made */
  PyObject *context, *spare_context; /* what handlers' contexts are copies of; an empty one to be used again */
  PyObject *elfd, *hooks[HOOKS], *choose, *socket_type, *report;
  bool quiet; /* it is going: no callback any more */
  Py_buffer scoreboard;
  int worker;
  Py_ssize_t tasks;
};

typedef struct {
  PyObject_HEAD
  PyObject *module; /* keeps the state of its counter; never given up before the object goes */
  engine_object *engine;
  conn *conn; /* NULL when the exchange is over */
  route_object *route;
  /* The head: borrowed from the engine while the handler runs, then in `kept`. */
  const char *head;
  size_t head_len;
  http1_field *fields;
  size_t n_fields;
  char *kept;
  span method, target, path, query;
  span body;
  char *body_kept;
  int minor;
  address peer;
  PyObject *param_values;                                                      /* tuple or NULL */
  PyObject *params, *path_text, *queries, *headers, *body_bytes, *method_text; /* made when asked for */
  PyObject *task;
  PyObject *streamed;                   /* the response whose body is being streamed */
  PyObject *chunk_waiter, *send_waiter; /* futures */
  bytes chunks;                         /* streamed body that has not been read */
  bool streaming_in, body_complete, has_body, taken, failing;
  uint8_t rounds; /* coroutines of coroutines so far */
} request_object;

typedef struct {
  PyObject_HEAD
  PyObject *module; /* keeps the state of its counter; never given up before the object goes */
  engine_object *engine;
  conn *conn; /* NULL when it is over */
  PyObject *handle;
  PyObject *on_data, *on_close, *on_write, *on_connect, *on_eof; /* a subclass's own; NULL: none */
  PyObject *inbox;
  address peer; /* when it is over */
  uint8_t kind;
  bytes early;                          /* data that came before it could be handed on */
  bool hooked, ended, connects, paused; /* the engine's hooks are its callbacks; input is over, on_eof is to come;
                                          on_connect is to come; by the program */
} socket_object;

typedef struct {
  PyObject_HEAD
  int status;
  PyObject *fields, *content_type, *body;
} response_object;

typedef struct {
  PyObject_HEAD
  int fd;
  Py_ssize_t offset, length;
} file_object;

module_state *state_of(PyTypeObject *type);
PyObject *module_of(PyTypeObject *type); /* borrowed */

/* py_request.c */
PyObject *request_new(engine_object *e, conn *c, const http1_head *head, const router_match *match);
bool request_keep(request_object *r); /* copy the head; false: no memory */
bool request_keep_body(request_object *r, bool *taken);
void request_unlink(request_object *r);  /* gives up the connection's reference */
void request_recycle(request_object *r); /* gives up the caller's reference */
int request_params(request_object *r, const router_match *match);
/* py_stream.c */
extern PyMethodDef request_stream_methods[];
void request_wake(PyObject **waiter);
int request_send_head(request_object *r, response_object *response, bool streamed);
/* py_handler.c */
void handler_run(request_object *r);
int handler_note_context(engine_object *e); /* remember the loop's context, once */
void handler_abandon(request_object *r);    /* cancel its task */
PyObject *handler_done(PyObject *self, PyObject *task);
PyObject *context_take(engine_object *e); /* for one call into the program, and back */
void context_give(engine_object *e, PyObject *context);
void handler_log(engine_object *e, const char *level, const char *message);
PyObject *error_take(void);      /* the current exception, normalised; clears it */
void error_put(PyObject *error); /* makes it the current one again, or NULL: none; takes the reference over */
/* py_socket.c */
bool socket_accepted(conn *c, int listener);
sniffed socket_sniff(conn *c, span first);
void socket_opened(conn *c);
void socket_data(conn *c, span data);
bool socket_eof(conn *c);
void socket_drained(conn *c);
void socket_closed(conn *c);
PyObject *socket_take_over(request_object *r);
extern PyMethodDef socket_functions[], promise_functions[], escape_functions[]; /* of the module */
engine_object *engine_find(const module_state *m, PyObject *elfd);              /* NULL with OSError */
/* py_static.c: whether it has answered */
typedef struct static_object static_object;
bool static_answer(static_object *f, conn *c, const http1_head *head);
/* py_response.c: 0 done, -1 exception set */
int answer_value(request_object *r, PyObject *value, bool *handled);
int answer_response(request_object *r, response_object *response);
int response_head(request_object *r, response_object *response, int64_t length);
/* py_multidict.c */
PyObject *multidict_of_fields(module_state *m, const char *head, const http1_field *fields, size_t n);
PyObject *multidict_of_query(module_state *m, span text);
PyObject *text_decoded(span raw, bool plus); /* percent-decoded UTF-8, wrong bytes replaced */
PyObject *peer_name(const address *peer);    /* py_request.c: (address, port), or 'unix' */

extern const upcalls engine_upcalls;
extern PyType_Spec engine_spec, request_spec, response_spec, route_spec, multidict_spec, file_spec, socket_spec,
    resolver_spec, static_spec, native_spec;

#endif
