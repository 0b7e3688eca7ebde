/* py_engine.c - Engine: the server as an object on an asyncio loop, and what the lower half calls. Interface: _engine.pyi. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "py.h"

/* ---- upcalls ---- */

static engine_object *engine_of(const conn *c) { return c->server->owner; }

static bool up_begin(conn *c, const http1_head *head, const router_match *match, bool *stream) {
  PyObject *r = request_new(engine_of(c), c, head, match);
  if (!r) {
    PyErr_WriteUnraisable(NULL);
    return false;
  }
  c->exchange = r; /* the connection's reference */
  *stream = ((request_object *)r)->route->stream;
  if (*stream) {
    ((request_object *)r)->streaming_in = true;
    ((request_object *)r)->has_body = head->chunked || head->length;
    ((request_object *)r)->body_complete = !((request_object *)r)->has_body;
  }
  return true;
}

static bool up_answer(conn *c, const http1_head *head, const router_match *match) {
  const engine_object *e = engine_of(c);
  route_object *route = match->route;
  if (!route->file || route->status != 200) return false;
  if (match->route == e->fallback_404 || match->route == e->fallback_405) return false; /* these answer no 200 */
  return static_answer((static_object *)route->file, c, head);
}

static bool up_keep(conn *c) { return request_keep(c->exchange); }

static void up_run(conn *c, span body, bool *taken) {
  request_object *r = (request_object *)Py_NewRef(c->exchange);
  r->body = body;
  handler_run(r);
  bool kept = Py_REFCNT(r) == 1 || (request_keep(r) && request_keep_body(r, taken));
  if (!kept) { /* no memory: whoever holds the request must not see what is gone */
    r->head_len = r->n_fields = 0;
    r->method = r->target = r->path = r->query = r->body = (span){"", 0};
    if (r->conn) conn_close(r->conn);
  }
  request_recycle(r);
}

static void up_chunk(conn *c, span data) {
  request_object *r = c->exchange;
  if (!r) return;
  if (!bytes_append(&r->chunks, data.at, data.len)) {
    conn_close(c);
    return;
  }
  if (r->chunks.len >= STREAM_IN_BYTES) conn_resume_body(c, true);
  request_wake(&r->chunk_waiter);
}

static void up_body_end(conn *c) {
  request_object *r = c->exchange;
  if (!r) return;
  r->body_complete = true;
  request_wake(&r->chunk_waiter);
}

static void up_abandon(conn *c) {
  request_object *r = (request_object *)Py_NewRef(c->exchange);
  request_unlink(r);
  handler_abandon(r);
  Py_DECREF(r);
}

static void up_timed_out(conn *c) {
  request_object *r = c->exchange;
  const char *name = PyUnicode_AsUTF8(r->route->name);
  char message[256];
  snprintf(message, sizeof message, "handler %.150s took longer than handler_timeout: 503", name ? name : "?");
  PyErr_Clear();
  handler_log(engine_of(c), "error", message);
  up_abandon(c);
}

static void up_send_ready(conn *c) { request_wake(&((request_object *)c->exchange)->send_waiter); }

static void *up_fallback(server *s, int status) {
  engine_object *e = s->owner;
  return status == 404 ? e->fallback_404 : e->fallback_405;
}

static void up_wake(server *s) {
  engine_object *e = s->owner;
  PyObject *handle = PyObject_CallMethodOneArg(e->loop, e->state->call_soon, e->poll);
  if (!handle) PyErr_WriteUnraisable((PyObject *)e);
  Py_XDECREF(handle);
}

static void up_log(server *s, bool error, const char *message) {
  handler_log(s->owner, error ? "error" : "info", message);
}

const upcalls engine_upcalls = {
    .answer = up_answer,
    .begin = up_begin,
    .keep = up_keep,
    .run = up_run,
    .chunk = up_chunk,
    .body_end = up_body_end,
    .abandon = up_abandon,
    .timed_out = up_timed_out,
    .send_ready = up_send_ready,
    .fallback = up_fallback,
    .wake = up_wake,
    .log = up_log,
    .accepted = socket_accepted,
    .sniff = socket_sniff,
    .opened = socket_opened,
    .data = socket_data,
    .eof = socket_eof,
    .drained = socket_drained,
    .closed = socket_closed,
};

static void release_owner(void *owner) { Py_XDECREF((PyObject *)owner); }

/* ---- making ---- */

static uint64_t limit(PyObject *mapping, const char *name, uint64_t most) {
  if (PyErr_Occurred()) return 0;
  PyObject *value = PyMapping_GetItemString(mapping, name);
  unsigned long long n = value ? PyLong_AsUnsignedLongLong(value) : 0;
  Py_XDECREF(value);
  if (!PyErr_Occurred() && n > most)
    PyErr_Format(PyExc_ValueError, "%s is %llu; the engine takes %llu at most", name, n, (unsigned long long)most);
  return n;
}

static int read_limits(PyObject *mapping, limits *l) {
  const uint64_t size = 1u << 30, seconds = 1u << 30, count = 1u << 30;
  l->http.max_line = limit(mapping, "max_request_line", size);
  l->http.max_head = limit(mapping, "max_header_bytes", size);
  l->http.max_fields = limit(mapping, "max_headers", 10000);
  l->max_body = limit(mapping, "max_body", size);
  l->header_timeout = (uint32_t)limit(mapping, "header_timeout", seconds);
  l->body_timeout = (uint32_t)limit(mapping, "body_timeout", seconds);
  l->min_rate = (uint32_t)limit(mapping, "min_rate", size);
  l->keep_alive_timeout = (uint32_t)limit(mapping, "keep_alive_timeout", seconds);
  l->handler_timeout = (uint32_t)limit(mapping, "handler_timeout", seconds);
  l->write_timeout = (uint32_t)limit(mapping, "write_timeout", seconds);
  l->max_connections = (uint32_t)limit(mapping, "max_connections", count);
  l->max_buffered = (uint32_t)limit(mapping, "max_buffered", size);
  if (!PyErr_Occurred() && (l->http.max_line < 16 || l->http.max_head < 64 || l->max_buffered < 1024))
    PyErr_SetString(PyExc_ValueError,
                    "max_request_line is at least 16, max_header_bytes at least 64, max_buffered at least 1024 bytes");
  return PyErr_Occurred() ? -1 : 0;
}

static int use_scoreboard(engine_object *e, PyObject *buffer) {
  if (buffer == Py_None) return 0;
  if (PyObject_GetBuffer(buffer, &e->scoreboard, PyBUF_WRITABLE) < 0) return -1;
  if (e->scoreboard.len < (Py_ssize_t)(COUNTERS * sizeof(uint64_t)) || (uintptr_t)e->scoreboard.buf % 8) {
    PyErr_SetString(PyExc_ValueError, "the scoreboard slot is 64 aligned bytes");
    return -1;
  }
  e->server->counters = e->scoreboard.buf;
  memset(e->scoreboard.buf, 0, COUNTERS * sizeof(uint64_t));
  return 0;
}

typedef struct {
  PyObject *loop, *limits, *request_type, *respond, *failed, *pump, *settle, *log, *scoreboard, *socket_type, *report;
  const char *server_header;
  int worker, accept_batch;
} options;

static int read_options(PyObject *args, PyObject *kwargs, options *o) {
  static char *names[] = {"loop",         "limits",     "request_type", "respond",       "failed",
                          "pump",         "settle",     "log",          "server_header", "worker",
                          "accept_batch", "scoreboard", "socket_type",  "report",        NULL};
  *o = (options){.server_header = "80s", .accept_batch = 1, .scoreboard = Py_None};
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$OOOOOOziiOOO:Engine", names, &o->loop, &o->limits,
                                   &o->request_type, &o->respond, &o->failed, &o->pump, &o->settle, &o->log,
                                   &o->server_header, &o->worker, &o->accept_batch, &o->scoreboard, &o->socket_type,
                                   &o->report))
    return -1;
  if (!o->request_type || !o->respond || !o->failed || !o->pump || !o->settle || !o->log) {
    PyErr_SetString(PyExc_TypeError, "Engine needs request_type, respond, failed, pump, settle and log");
    return -1;
  }
  if (o->server_header &&
      (!http1_is_token(o->server_header, strlen(o->server_header)) || strlen(o->server_header) > 31)) {
    PyErr_SetString(PyExc_ValueError, "server_header is a token of at most 31 characters (RFC 9110 10.2.4)");
    return -1;
  }
  return 0;
}

static int check_type(PyObject *type, PyTypeObject *base, const char *name) {
  if (PyType_Check(type) && PyType_IsSubtype((PyTypeObject *)type, base)) return 0;
  PyErr_Format(PyExc_TypeError, "%s is a subclass of %s", name, base->tp_name);
  return -1;
}

static PyObject *engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  module_state *m = state_of(type);
  options o;
  limits l;
  if (read_options(args, kwargs, &o) < 0) return NULL;
  if (!o.socket_type) o.socket_type = (PyObject *)m->socket;
  if (check_type(o.request_type, m->request, "request_type") < 0) return NULL;
  if (check_type(o.socket_type, m->socket, "socket_type") < 0 || read_limits(o.limits, &l) < 0) return NULL;
  engine_object *e = (engine_object *)type->tp_alloc(type, 0);
  if (!e) return NULL;
  m->engines++;
  e->module = Py_NewRef(module_of(type));
  e->state = m;
  e->worker = o.worker;
  e->loop = Py_NewRef(o.loop);
  e->request_type = Py_NewRef(o.request_type);
  e->respond = Py_NewRef(o.respond);
  e->failed = Py_NewRef(o.failed);
  e->pump = Py_NewRef(o.pump);
  e->settle = Py_NewRef(o.settle);
  e->log = Py_NewRef(o.log);
  e->socket_type = Py_NewRef(o.socket_type);
  e->report = Py_XNewRef(o.report == Py_None ? NULL : o.report);
  e->server = server_new(&l, &engine_upcalls, e, o.server_header);
  if (!e->server) {
    PyErr_SetFromErrno(PyExc_OSError);
    goto fail;
  }
  e->server->pool.release = release_owner;
  e->server->accept_batch = o.accept_batch > 0 ? o.accept_batch : 1;
  if (use_scoreboard(e, o.scoreboard) < 0) goto fail;
  e->server->counters[COUNT_STARTED] = (uint64_t)e->server->date;
  e->elfd = PyLong_FromLong(poller_fd(e->server->poller));
  e->poll = e->elfd ? PyObject_GetAttrString((PyObject *)e, "poll") : NULL;
  if (!e->poll) goto fail;
  e->older = m->newest;
  m->newest = e;
  return (PyObject *)e;
fail:
  Py_DECREF(e);
  return NULL;
}

/* ---- unmaking ---- */

static int engine_traverse(PyObject *self, visitproc visit, void *arg) {
  engine_object *e = (engine_object *)self;
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(e->module);
  Py_VISIT(e->loop);
  Py_VISIT(e->request_type);
  Py_VISIT(e->respond);
  Py_VISIT(e->failed);
  Py_VISIT(e->pump);
  Py_VISIT(e->settle);
  Py_VISIT(e->log);
  Py_VISIT(e->routes);
  Py_VISIT(e->fallback_404);
  Py_VISIT(e->fallback_405);
  Py_VISIT(e->poll);
  Py_VISIT(e->spare);
  Py_VISIT(e->context);
  Py_VISIT(e->task_keywords);
  Py_VISIT(e->spare_context);
  Py_VISIT(e->choose);
  Py_VISIT(e->socket_type);
  Py_VISIT(e->report);
  for (int i = 0; i < HOOKS; i++) Py_VISIT(e->hooks[i]);
  for (conn *c = e->server ? e->server->conns : NULL; c; c = c->next) Py_VISIT((PyObject *)c->exchange);
  for (conn *c = e->server ? e->server->ready : NULL; c; c = c->ready_next)
    if (c->in == IN_CLOSED) Py_VISIT((PyObject *)c->exchange); /* its end is still to be told */
  return 0;
}

static int engine_clear(PyObject *self) {
  engine_object *e = (engine_object *)self;
  e->quiet = true;
  if (e->server && e->loop) server_close(e->server);
  Py_CLEAR(e->spare);
  Py_CLEAR(e->context);
  Py_CLEAR(e->task_keywords);
  Py_CLEAR(e->spare_context);
  Py_CLEAR(e->choose);
  Py_CLEAR(e->socket_type);
  Py_CLEAR(e->report);
  for (int i = 0; i < HOOKS; i++) Py_CLEAR(e->hooks[i]);
  Py_CLEAR(e->poll);
  Py_CLEAR(e->loop);
  Py_CLEAR(e->request_type);
  Py_CLEAR(e->respond);
  Py_CLEAR(e->failed);
  Py_CLEAR(e->pump);
  Py_CLEAR(e->settle);
  Py_CLEAR(e->log);
  Py_CLEAR(e->routes);
  Py_CLEAR(e->fallback_404);
  Py_CLEAR(e->fallback_405);
  return 0;
}

static void forget(engine_object *e) {
  engine_object **at = &e->state->newest;
  while (*at && *at != e) at = &(*at)->older;
  if (*at) *at = e->older;
}

static void engine_dealloc(PyObject *self) {
  engine_object *e = (engine_object *)self;
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  forget(e);
  engine_clear(self);
  Py_CLEAR(e->elfd);
  if (e->server) {
    e->state->left_over += server_free(e->server);
    e->server = NULL;
  }
  router_free(e->router);
  if (e->scoreboard.obj) PyBuffer_Release(&e->scoreboard);
  e->state->engines--;
  PyObject *module = e->module;
  type->tp_free(self);
  Py_DECREF(type);
  Py_DECREF(module);
}

/* ---- methods ---- */

static PyObject *engine_fileno(PyObject *self, PyObject *Py_UNUSED(none)) {
  return PyLong_FromLong(poller_fd(((engine_object *)self)->server->poller));
}

static PyObject *engine_poll(PyObject *self, PyObject *Py_UNUSED(none)) {
  if (handler_note_context((engine_object *)self) < 0) return NULL;
  Py_INCREF(self);
  server_poll(((engine_object *)self)->server);
  Py_DECREF(self);
  Py_RETURN_NONE;
}

static int add_route(engine_object *e, router *r, PyObject *item) {
  if (Py_TYPE(item) != e->state->route) {
    PyErr_SetString(PyExc_TypeError, "routes are Route objects");
    return -1;
  }
  route_object *route = (route_object *)item;
  const char *pattern = PyUnicode_AsUTF8(route->pattern), *method = PyUnicode_AsUTF8(route->method);
  if (!pattern || !method) return -1;
  int m = 0;
  while (m < HTTP1_METHODS && strcmp(method, http1_method_names[m]) != 0) m++;
  const char *wrong = m == HTTP1_METHODS ? "the method is not served" : router_add(r, pattern, (http1_method)m, route);
  if (!wrong) return 0;
  PyErr_Format(PyExc_ValueError, "route %s %s of %U: %s", method, pattern, route->name, wrong);
  return -1;
}

static PyObject *fallback_of(engine_object *e, PyObject *fallbacks, int status) {
  PyObject *key = PyLong_FromLong(status), *route = NULL;
  if (fallbacks && key && PyMapping_Check(fallbacks)) {
    route = PyObject_GetItem(fallbacks, key);
    if (!route && PyErr_ExceptionMatches(PyExc_KeyError)) PyErr_Clear();
  }
  if (route && Py_TYPE(route) != e->state->route) {
    PyErr_SetString(PyExc_TypeError, "fallbacks are Route objects");
    Py_CLEAR(route);
  }
  Py_XDECREF(key);
  return route;
}

static PyObject *engine_set_routes(PyObject *self, PyObject *const *args, Py_ssize_t n) {
  engine_object *e = (engine_object *)self;
  if (n < 1 || n > 2) return PyErr_Format(PyExc_TypeError, "set_routes takes routes and fallbacks");
  PyObject *routes = PySequence_Tuple(args[0]);
  router *made = routes ? router_new() : NULL;
  PyObject *none_known = NULL, *no_method = NULL;
  if (!made) goto fail;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(routes); i++)
    if (add_route(e, made, PyTuple_GET_ITEM(routes, i)) < 0) goto fail;
  none_known = fallback_of(e, n == 2 ? args[1] : NULL, 404);
  no_method = PyErr_Occurred() ? NULL : fallback_of(e, n == 2 ? args[1] : NULL, 405);
  if (PyErr_Occurred()) goto fail;
  router *old = e->router;
  e->server->router = e->router = made;
  router_free(old);
  Py_XSETREF(e->routes, routes);
  Py_XSETREF(e->fallback_404, none_known);
  Py_XSETREF(e->fallback_405, no_method);
  Py_RETURN_NONE;
fail:
  if (!PyErr_Occurred()) PyErr_NoMemory();
  router_free(made);
  Py_XDECREF(routes);
  Py_XDECREF(none_known);
  Py_XDECREF(no_method);
  return NULL;
}

static PyObject *engine_set_hooks(PyObject *self, PyObject *const *args, Py_ssize_t n) {
  static const char *const names[HOOKS] = {"on_data", "on_close", "on_write", "on_accept"};
  engine_object *e = (engine_object *)self;
  PyObject *found[HOOKS] = {0};
  if (n != 2 || !PyMapping_Check(args[0])) return PyErr_Format(PyExc_TypeError, "set_hooks takes a mapping and raw");
  int raw = PyObject_IsTrue(args[1]);
  for (int i = 0; i < HOOKS && !PyErr_Occurred(); i++) {
    found[i] = PyMapping_HasKeyString(args[0], names[i]) ? PyMapping_GetItemString(args[0], names[i]) : NULL;
    if (found[i] && !PyCallable_Check(found[i])) PyErr_Format(PyExc_TypeError, "%s cannot be called", names[i]);
  }
  bool fine = !PyErr_Occurred();
  for (int i = 0; i < HOOKS; i++) {
    if (fine) Py_XSETREF(e->hooks[i], found[i]);
    else Py_XDECREF(found[i]);
  }
  if (!fine) return NULL;
  e->server->raw = raw > 0;
  /* Called where the program's on_start hooks have run: handlers see the variables that these have set. */
  Py_XSETREF(e->context, PyContext_CopyCurrent());
  Py_CLEAR(e->spare_context);
  if (!e->context) return NULL;
  Py_RETURN_NONE;
}

static PyObject *engine_set_protocols(PyObject *self, PyObject *choose) {
  engine_object *e = (engine_object *)self;
  if (choose != Py_None && !PyCallable_Check(choose)) return PyErr_Format(PyExc_TypeError, "choose cannot be called");
  Py_XSETREF(e->choose, choose == Py_None ? NULL : Py_NewRef(choose));
  e->server->sniffing = e->choose != NULL;
  Py_RETURN_NONE;
}

static PyObject *engine_listen(PyObject *self, PyObject *number) {
  engine_object *e = (engine_object *)self;
  long fd = PyLong_AsLong(number);
  if (fd == -1 && PyErr_Occurred()) return NULL;
  int own = fcntl((int)fd, F_DUPFD_CLOEXEC, 0), on = 1;
  if (own < 0) return PyErr_SetFromErrno(PyExc_OSError);
  setsockopt(own, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted sockets inherit it; fails on unix sockets */
  transport_keep_alive(own);
  Py_CLEAR(e->context); /* noted again at the next poll: hooks that ran before may have set variables */
  if (fcntl(own, F_SETFL, O_NONBLOCK) < 0 || !server_listen(e->server, own)) {
    PyErr_SetFromErrno(PyExc_OSError);
    close(own);
    return NULL;
  }
#ifdef __GLIBC__
  malloc_trim(0); /* the program is loaded: what that took and gave back goes to the system */
#endif
  return PyLong_FromLong(own);
}

static PyObject *engine_drain(PyObject *self, PyObject *Py_UNUSED(none)) {
  server_drain(((engine_object *)self)->server);
  Py_RETURN_NONE;
}

static PyObject *engine_close(PyObject *self, PyObject *Py_UNUSED(none)) {
  server_close(((engine_object *)self)->server);
  Py_RETURN_NONE;
}

static PyObject *engine_close_listeners(PyObject *self, PyObject *Py_UNUSED(none)) {
  server_close_listeners(((engine_object *)self)->server);
  Py_RETURN_NONE;
}

/* A tuple of it, into the list; the descriptor goes back, or is closed, where that fails. */
static int add_passed(server *s, PyObject *list, passed *p) {
  PyObject *item = Py_BuildValue("iy#I", p->fd, p->input.at ? p->input.at : "", (Py_ssize_t)p->input.len, p->flags);
  int result = item ? PyList_Append(list, item) : -1;
  if (result < 0) {
    PyObject *error = error_take(); /* adopting calls the loop */
    if (!server_adopt(s, p->fd, (span){p->input.at, p->input.len}, p->flags)) close(p->fd);
    error_put(error);
  }
  bytes_clear(&p->input);
  Py_XDECREF(item);
  return result;
}

static PyObject *engine_give_away(PyObject *self, PyObject *args) {
  server *s = ((engine_object *)self)->server;
  Py_ssize_t max_bytes, most;
  if (!PyArg_ParseTuple(args, "nn:give_away", &max_bytes, &most)) return NULL;
  if (max_bytes < 0 || most < 0) return PyErr_Format(PyExc_ValueError, "max_bytes and most are not negative");
  if (s->polling) return PyErr_Format(PyExc_RuntimeError, "give_away: the engine is at work; call it from the loop");
  PyObject *list = PyList_New(0);
  passed p;
  while (list && PyList_GET_SIZE(list) < most && server_give_away(s, (size_t)max_bytes, &p)) {
    if (add_passed(s, list, &p) == 0) continue;
    if (PyList_GET_SIZE(list)) PyErr_Clear(); /* those in the list must not be lost */
    else Py_CLEAR(list);
    break;
  }
  return list;
}

static PyObject *engine_adopt(PyObject *self, PyObject *args) {
  server *s = ((engine_object *)self)->server;
  int fd;
  unsigned flags;
  Py_buffer data;
  if (!PyArg_ParseTuple(args, "iy*I:adopt", &fd, &data, &flags)) return NULL;
  PyObject *result = NULL;
  if (s->shut) PyErr_SetString(PyExc_RuntimeError, "the engine is closed");
  else if (flags & ~(unsigned)PASSED_FLAGS)
    PyErr_Format(PyExc_ValueError, "flags %u are not those of give_away", flags);
  else if (data.len > PASSED_BYTES) PyErr_Format(PyExc_ValueError, "more than %d unread bytes", PASSED_BYTES);
  else if (!server_adopt(s, fd, (span){data.buf, (size_t)data.len}, flags)) PyErr_SetFromErrno(PyExc_OSError);
  else result = Py_NewRef(Py_None);
  PyBuffer_Release(&data);
  return result;
}

static PyObject *engine_stats(PyObject *self, PyObject *Py_UNUSED(none)) {
  const server *s = ((engine_object *)self)->server;
  const uint64_t *n = s->counters;
  return Py_BuildValue("{sKsKsKsKsKsKsKsKsIsIsIsI}", "accepted", n[COUNT_ACCEPTED], "connections", n[COUNT_CONNECTIONS],
                       "requests", n[COUNT_REQUESTS], "errors", n[COUNT_ERRORS], "bytes_in", n[COUNT_BYTES_IN],
                       "bytes_out", n[COUNT_BYTES_OUT], "timeouts", n[COUNT_TIMEOUTS], "started", n[COUNT_STARTED],
                       "live_connections", s->conns_alive, "live_chunks", s->pool.live, "live_timers", s->wheel.live,
                       "live_handles", s->handles.live);
}

static PyObject *get_connections(PyObject *self, void *Py_UNUSED(closure)) {
  return PyLong_FromUnsignedLong(((engine_object *)self)->server->n_conns);
}

static PyObject *get_tasks(PyObject *self, void *Py_UNUSED(closure)) {
  return PyLong_FromSsize_t(((engine_object *)self)->tasks);
}

static PyMethodDef methods[] = {
    {"fileno", engine_fileno, METH_NOARGS, "The descriptor to watch for reading."},
    {"poll", engine_poll, METH_NOARGS, "Do what can be done now; never blocks."},
    {"set_routes", (PyCFunction)(void (*)(void))engine_set_routes, METH_FASTCALL, "Replace the route table."},
    {"listen", engine_listen, METH_O, "Accept from a bound, listening socket; the descriptor is duplicated."},
    {"set_hooks", (PyCFunction)(void (*)(void))engine_set_hooks, METH_FASTCALL, "The program's raw callbacks."},
    {"set_protocols", engine_set_protocols, METH_O, "What tells protocols apart by their first bytes."},
    {"drain", engine_drain, METH_NOARGS, "Stop accepting, close idle connections, end the others with their answers."},
    {"close_listeners", engine_close_listeners, METH_NOARGS, "Accept no more; connections go on."},
    {"give_away", engine_give_away, METH_VARARGS, "Take away connections that are between two requests."},
    {"adopt", engine_adopt, METH_VARARGS, "Make a connection of one that another process has given away."},
    {"close", engine_close, METH_NOARGS, "Close everything at once."},
    {"stats", engine_stats, METH_NOARGS, "Counters."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"connections", get_connections, NULL, "Open connections.", NULL},
    {"tasks", get_tasks, NULL, "Handlers' tasks that have not ended.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "The server: one pollable descriptor on an asyncio loop."},
    {Py_tp_new, engine_new},
    {Py_tp_dealloc, engine_dealloc},
    {Py_tp_traverse, engine_traverse},
    {Py_tp_clear, engine_clear},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {0, NULL},
};

PyType_Spec engine_spec = {.name = "eighties._engine.Engine",
                           .basicsize = sizeof(engine_object),
                           .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                           .slots = slots};
