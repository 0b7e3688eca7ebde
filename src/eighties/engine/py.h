/* py.h - the engine's upper half: what the py_* files share. Only they and module.c know Python.
 *
 * py_engine.c    Engine: the server as an object, and the upcalls
 * py_handler.c   from a request to its handler and back: calls, tasks, errors
 * py_request.c   Request: what a handler sees; attributes are made when asked for
 * py_stream.c    Request's streamed bodies, both ways
 * py_response.c  Response, FileRegion, and how values become bytes
 * py_route.c     Route
 * py_multidict.c MultiDict, headers and queries
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

typedef struct {
  PyTypeObject *engine, *request, *response, *route, *multidict, *file;
  PyObject *task;                                                   /* asyncio.Task */
  PyObject *cancelled_error;                                        /* asyncio.CancelledError */
  PyObject *add_done_callback, *result, *cancel, *call_soon, *done; /* method names */
  PyObject *str_context;
  unsigned engines, requests, left_over; /* live objects; what engines left behind */
} module_state;

typedef struct {
  PyObject_HEAD
  PyObject *pattern, *method, *handler, *name;
  PyObject *names; /* parameter names, a tuple */
  bool stream, is_async;
  int status;
  uint32_t ints; /* bit per parameter: it is an int */
} route_object;

typedef struct {
  PyObject_HEAD
  PyObject *module; /* keeps `state`; never given up before the object goes */
  module_state *state;
  server *server;
  PyObject *loop, *request_type, *respond, *failed, *pump, *settle, *log;
  PyObject *routes, *fallback_404, *fallback_405;
  PyObject *poll; /* bound method, for call_soon */
  router *router;
  PyObject *spare;                   /* a request to be used again */
  PyObject *task_keywords;           /* how tasks are made */
  PyObject *context, *spare_context; /* what handlers' contexts are copies of; an empty one to be used again */
  Py_buffer scoreboard;
  int worker;
  Py_ssize_t tasks;
} engine_object;

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
  bool streaming_in, body_complete, failing;
  uint8_t rounds; /* coroutines of coroutines so far */
} request_object;

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
void handler_log(engine_object *e, const char *level, const char *message);
PyObject *error_take(void); /* the current exception, normalised; clears it */
/* py_response.c: 0 done, -1 exception set */
int answer_value(request_object *r, PyObject *value, bool *handled);
int answer_response(request_object *r, response_object *response);
int response_head(request_object *r, response_object *response, int64_t length);
/* py_multidict.c */
PyObject *multidict_of_fields(module_state *m, const char *head, const http1_field *fields, size_t n);
PyObject *multidict_of_query(module_state *m, span text);
PyObject *text_decoded(span raw, bool plus); /* percent-decoded UTF-8, wrong bytes replaced */

extern const upcalls engine_upcalls;
extern PyType_Spec engine_spec, request_spec, response_spec, route_spec, multidict_spec, file_spec;

#endif
