/* py_request.c - Request: what a handler sees. Interface: _engine.pyi; ownership: py.h.
 *
 * The head lies in the engine's memory while the handler runs. Whoever keeps the request longer makes request_keep copy
 * it: so a handler that just answers copies nothing.
 */
#include <arpa/inet.h>

#include "py.h"

/* ---- life ---- */

static bool within(const request_object *r, const char *at) { return at >= r->head && at <= r->head + r->head_len; }

static void rebase(const request_object *r, span *s, const char *to) {
  if (within(r, s->at)) s->at = to + (s->at - r->head); /* else a constant, as "/" for an empty path */
}

bool request_keep(request_object *r) {
  if (r->kept) return true;
  size_t fields = r->n_fields * sizeof *r->fields;
  char *kept = PyMem_Malloc(fields + r->head_len + 1);
  if (!kept) return false;
  if (fields) memcpy(kept, r->fields, fields);
  char *head = kept + fields;
  memcpy(head, r->head, r->head_len);
  rebase(r, &r->method, head);
  rebase(r, &r->target, head);
  rebase(r, &r->path, head);
  rebase(r, &r->query, head);
  r->fields = (http1_field *)kept;
  r->head = head;
  r->kept = kept;
  return true;
}

bool request_keep_body(request_object *r, bool *taken) {
  if (r->body_kept || !r->body.len) return true;
  if (taken) {
    r->body_kept = (char *)r->body.at;
    *taken = true;
    return true;
  }
  r->body_kept = malloc(r->body.len);
  if (!r->body_kept) return false;
  memcpy(r->body_kept, r->body.at, r->body.len);
  r->body.at = r->body_kept;
  return true;
}

int request_params(request_object *r, const router_match *match) {
  if (!match->n_params) return 0;
  r->param_values = PyTuple_New(match->n_params);
  for (int i = 0; r->param_values && i < match->n_params; i++) {
    span raw = match->params[i];
    PyObject *value;
    if (r->route->ints & 1u << i) { /* the router has seen that these are at most 18 digits */
      long long n = 0;
      for (size_t k = 0; k < raw.len; k++) n = n * 10 + (raw.at[k] - '0');
      value = PyLong_FromLongLong(n);
    } else {
      value = text_decoded(raw, false);
    }
    if (!value) Py_CLEAR(r->param_values);
    else PyTuple_SET_ITEM(r->param_values, i, value);
  }
  return r->param_values ? 0 : -1;
}

static request_object *request_take(engine_object *e) {
  request_object *r = (request_object *)e->spare;
  e->spare = NULL;
  if (r) return r;
  PyTypeObject *type = (PyTypeObject *)e->request_type;
  r = (request_object *)type->tp_alloc(type, 0);
  if (!r) return NULL;
  r->module = Py_NewRef(e->module);
  e->state->requests++;
  return r;
}

PyObject *request_new(engine_object *e, conn *c, const http1_head *head, const router_match *match) {
  request_object *r = request_take(e);
  if (!r) return NULL;
  r->engine = (engine_object *)Py_NewRef(e);
  r->conn = c;
  r->route = (route_object *)Py_NewRef(match->route);
  r->head = head->bytes.at;
  r->head_len = head->bytes.len;
  r->fields = head->fields;
  r->n_fields = head->n_fields;
  r->method = head->method_name;
  r->target = head->target;
  r->path = head->path;
  r->query = head->query;
  r->minor = head->minor;
  r->peer = c->peer;
  if (request_params(r, match) == 0) return (PyObject *)r;
  r->conn = NULL;
  Py_DECREF(r);
  return NULL;
}

void request_unlink(request_object *r) {
  if (!r->conn) return;
  r->conn->exchange = NULL;
  r->conn = NULL;
  request_wake(&r->chunk_waiter);
  request_wake(&r->send_waiter);
  Py_DECREF(r);
}

/* Everything the request owns; the object can be used again. */
static int request_clear(PyObject *self) {
  request_object *r = (request_object *)self;
  Py_CLEAR(r->engine);
  Py_CLEAR(r->route);
  Py_CLEAR(r->param_values);
  Py_CLEAR(r->params);
  Py_CLEAR(r->path_text);
  Py_CLEAR(r->queries);
  Py_CLEAR(r->headers);
  Py_CLEAR(r->body_bytes);
  Py_CLEAR(r->method_text);
  Py_CLEAR(r->task);
  Py_CLEAR(r->streamed);
  Py_CLEAR(r->chunk_waiter);
  Py_CLEAR(r->send_waiter);
  return 0;
}

static void free_memory(request_object *r) {
  PyMem_Free(r->kept);
  free(r->body_kept);
  bytes_clear(&r->chunks);
  r->kept = r->body_kept = NULL;
  r->head = NULL;
  r->head_len = r->n_fields = 0;
  r->method = r->target = r->path = r->query = r->body = (span){NULL, 0};
  r->streaming_in = r->body_complete = r->has_body = r->taken = r->failing = false;
  r->rounds = 0;
}

/* Weak references and a __dict__ of a subclass would go on to the next client's request. */
static bool has_more(const PyTypeObject *type) {
#ifdef Py_TPFLAGS_MANAGED_WEAKREF
  if (type->tp_flags & Py_TPFLAGS_MANAGED_WEAKREF) return true;
#endif
  return type->tp_weaklistoffset || type->tp_dictoffset;
}

void request_recycle(request_object *r) {
  engine_object *e = r->engine;
  PyTypeObject *type = Py_TYPE(r);
  if (Py_REFCNT(r) > 1 || has_more(type) || !e || e->spare || (PyObject *)type != e->request_type) {
    Py_DECREF(r);
    return;
  }
  Py_INCREF(e);
  type->tp_clear((PyObject *)r); /* a subclass's slots too */
  free_memory(r);
  if (Py_REFCNT(r) == 1 && !e->spare && e->server) e->spare = (PyObject *)r;
  else Py_DECREF(r);
  Py_DECREF(e);
}

static int request_traverse(PyObject *self, visitproc visit, void *arg) {
  request_object *r = (request_object *)self;
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(r->module);
  Py_VISIT(r->engine);
  Py_VISIT(r->route);
  Py_VISIT(r->param_values);
  Py_VISIT(r->params);
  Py_VISIT(r->queries);
  Py_VISIT(r->headers);
  Py_VISIT(r->task);
  Py_VISIT(r->streamed);
  Py_VISIT(r->chunk_waiter);
  Py_VISIT(r->send_waiter);
  return 0;
}

static void request_dealloc(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  PyObject *module = ((request_object *)self)->module; /* the type may have been cleared */
  if (module) ((module_state *)PyModule_GetState(module))->requests--;
  request_clear(self);
  free_memory((request_object *)self);
  type->tp_free(self);
  Py_DECREF(type);
  Py_XDECREF(module);
}

/* ---- attributes ---- */

#define SELF request_object *r = (request_object *)self

/* Return what `slot` holds, made by `value` at the first time. */
static PyObject *cached(PyObject **slot, PyObject *value) {
  *slot = value;
  return Py_XNewRef(value);
}

static PyObject *text_of(span s) { return PyUnicode_DecodeLatin1(s.at, (Py_ssize_t)s.len, NULL); }

static PyObject *get_method(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return r->method_text ? Py_NewRef(r->method_text) : cached(&r->method_text, text_of(r->method));
}

static PyObject *get_path(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return r->path_text ? Py_NewRef(r->path_text) : cached(&r->path_text, text_decoded(r->path, false));
}

static PyObject *get_target(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return text_of(r->target);
}

static PyObject *get_query_string(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return text_of(r->query);
}

static PyObject *get_query(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  if (r->queries) return Py_NewRef(r->queries);
  return cached(&r->queries, multidict_of_query(state_of(Py_TYPE(self)), r->query));
}

static PyObject *get_headers(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  if (r->headers) return Py_NewRef(r->headers);
  return cached(&r->headers, multidict_of_fields(state_of(Py_TYPE(self)), r->head, r->fields, r->n_fields));
}

static PyObject *get_params(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  if (r->params) return Py_NewRef(r->params);
  PyObject *params = PyDict_New();
  for (Py_ssize_t i = 0; params && r->param_values && i < PyTuple_GET_SIZE(r->param_values); i++)
    if (PyDict_SetItem(params, PyTuple_GET_ITEM(r->route->names, i), PyTuple_GET_ITEM(r->param_values, i)) < 0)
      Py_CLEAR(params);
  return cached(&r->params, params);
}

static PyObject *get_body(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  if (r->streaming_in)
    return PyErr_Format(PyExc_RuntimeError, "the body is streamed (stream=True): read request.stream()");
  if (r->body_bytes) return Py_NewRef(r->body_bytes);
  return cached(&r->body_bytes, PyBytes_FromStringAndSize(r->body.at, (Py_ssize_t)r->body.len));
}

PyObject *peer_name(const address *peer) {
  char text[INET6_ADDRSTRLEN];
  if (peer->family != AF_INET && peer->family != AF_INET6) return PyUnicode_FromString("unix");
  if (!inet_ntop(peer->family, peer->ip, text, sizeof text)) return PyErr_SetFromErrno(PyExc_OSError);
  return Py_BuildValue("(si)", text, (int)ntohs(peer->port));
}

static PyObject *get_peername(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return peer_name(&r->peer);
}

static PyObject *get_http_version(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return PyUnicode_FromString(r->minor ? "1.1" : "1.0");
}

static PyObject *get_scheme(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure)) {
  return PyUnicode_FromString("http");
}

static PyObject *get_worker(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return PyLong_FromLong(r->engine ? r->engine->worker : 0);
}

static PyObject *get_handler_name(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return r->route ? Py_NewRef(r->route->name) : PyUnicode_FromString("");
}

static PyObject *get_route(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return Py_NewRef(r->route ? (PyObject *)r->route : Py_None);
}

static PyObject *get_connected(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return PyBool_FromLong(r->conn != NULL);
}

static PyGetSetDef getset[] = {
    {"method", get_method, NULL, "GET, POST, ...", NULL},
    {"path", get_path, NULL, "The path, percent-decoded; bytes that are no UTF-8 are replaced.", NULL},
    {"target", get_target, NULL, "The request target as it was sent.", NULL},
    {"query_string", get_query_string, NULL, "What follows the ?, as it was sent.", NULL},
    {"query", get_query, NULL, "The decoded query, a MultiDict.", NULL},
    {"headers", get_headers, NULL, "The header fields, a MultiDict whose names ignore case.", NULL},
    {"params", get_params, NULL, "The path's parameters by name.", NULL},
    {"body", get_body, NULL, "The whole body, bytes.", NULL},
    {"peername", get_peername, NULL, "(address, port) of the client, or 'unix'.", NULL},
    {"http_version", get_http_version, NULL, "'1.1' or '1.0'.", NULL},
    {"scheme", get_scheme, NULL, "'http'.", NULL},
    {"worker", get_worker, NULL, "The number of this worker.", NULL},
    {"handler_name", get_handler_name, NULL, "What messages call the handler.", NULL},
    {"route", get_route, NULL, "The Route whose handler it is for.", NULL},
    {"connected", get_connected, NULL, "Whether an answer can still be given.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "What a handler gets. Every attribute is made when first asked for."},
    {Py_tp_dealloc, request_dealloc},
    {Py_tp_traverse, request_traverse},
    {Py_tp_clear, request_clear},
    {Py_tp_getset, getset},
    {Py_tp_methods, request_stream_methods},
    {0, NULL},
};

PyType_Spec request_spec = {.name = "eighties._engine.Request",
                            .basicsize = sizeof(request_object),
                            .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
                                     Py_TPFLAGS_DISALLOW_INSTANTIATION,
                            .slots = slots};
