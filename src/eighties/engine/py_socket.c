/* py_socket.c - Socket: a raw connection, its callbacks, and the functions that know it by its handle. Interface: _engine.pyi.
 *
 * A socket is held by its connection as a request is (conn->exchange owns a reference) and is let go of in socket_closed.
 * The lower half sees to it that callbacks come from Engine.poll only.
 */
#include <errno.h>

#include "py.h"

static const char *const kinds[] = {
    [RAW_STREAM] = "stream", [RAW_DATAGRAM] = "datagram", [RAW_READER] = "reader", [RAW_WRITER] = "writer"};

/* ---- life ---- */

static bool is_open(const socket_object *k) { return k->conn && k->conn->in != IN_CLOSED && k->conn->in != IN_LINGER; }

static socket_object *socket_make(engine_object *e, PyTypeObject *type) {
  socket_object *k = (socket_object *)type->tp_alloc(type, 0);
  if (!k) return NULL;
  k->module = Py_NewRef(e->module);
  e->state->sockets++;
  k->engine = (engine_object *)Py_NewRef(e);
  k->hooked = type == e->state->socket;
  return k;
}

/* The connection's reference is the caller's to give. */
static int socket_link(socket_object *k, conn *c) {
  k->handle = PyLong_FromUnsignedLongLong(c->handle);
  if (!k->handle) return -1;
  k->conn = c;
  k->kind = c->kind;
  c->paused = !k->hooked;
  return 0;
}

static PyObject *socket_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"engine", "kind", NULL};
  module_state *m = state_of(type);
  engine_object *e;
  const char *kind = "stream";
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|s:Socket", names, m->engine, &e, &kind)) return NULL;
  int k = RAW_WRITER;
  while (k >= 0 && strcmp(kind, kinds[k]) != 0) k--;
  if (k < 0)
    return PyErr_Format(PyExc_ValueError, "a Socket is a stream, datagram, reader or writer, not a %.50s", kind);
  if (e->server->shut) return PyErr_Format(PyExc_RuntimeError, "the engine is closed: no socket can be opened");
  socket_object *self = socket_make(e, type);
  if (!self) return NULL;
  self->connects = true;
  conn *c = raw_open(e->server, (raw_kind)k, Py_NewRef(self));
  if (!c) {
    Py_DECREF(self); /* the connection's */
    PyErr_NoMemory();
  } else if (socket_link(self, c) < 0) {
    c->exchange = NULL;
    Py_DECREF(self);
    conn_close(c);
  } else {
    return (PyObject *)self;
  }
  Py_DECREF(self);
  return NULL;
}

static int socket_traverse(PyObject *self, visitproc visit, void *arg) {
  socket_object *k = (socket_object *)self;
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(k->module);
  Py_VISIT(k->engine);
  Py_VISIT(k->on_data);
  Py_VISIT(k->on_close);
  Py_VISIT(k->on_write);
  Py_VISIT(k->on_connect);
  Py_VISIT(k->on_eof);
  Py_VISIT(k->inbox);
  return 0;
}

static void drop_callbacks(socket_object *k) {
  Py_CLEAR(k->on_data);
  Py_CLEAR(k->on_close);
  Py_CLEAR(k->on_write);
  Py_CLEAR(k->on_connect);
  Py_CLEAR(k->on_eof);
  Py_CLEAR(k->inbox);
}

static int socket_clear(PyObject *self) {
  socket_object *k = (socket_object *)self;
  drop_callbacks(k);
  if (!k->conn) Py_CLEAR(k->engine); /* else it is still held by its connection */
  return 0;
}

static void socket_dealloc(PyObject *self) {
  socket_object *k = (socket_object *)self;
  PyTypeObject *type = Py_TYPE(self);
  PyObject *module = k->module;
  PyObject_GC_UnTrack(self);
  if (module) ((module_state *)PyModule_GetState(module))->sockets--;
  drop_callbacks(k);
  Py_CLEAR(k->engine);
  Py_CLEAR(k->handle);
  bytes_clear(&k->early);
  type->tp_free(self);
  Py_DECREF(type);
  Py_XDECREF(module);
}

/* ---- calling the program ---- */

/* The current exception is a callback's: it is reported in the next turn of the loop, as the log is. */
static void failed(socket_object *k, const char *where) {
  engine_object *e = k->engine;
  PyObject *error = error_take();
  PyObject *told =
      error && e->report ? PyObject_CallMethod(e->loop, "call_soon", "OsO", e->report, where, error) : NULL;
  if (PyErr_Occurred()) PyErr_WriteUnraisable((PyObject *)k);
  if (error && !told) {
    PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    PyErr_WriteUnraisable((PyObject *)k);
    error = NULL;
  }
  Py_XDECREF(told);
  Py_XDECREF(error);
  if (k->conn) conn_close(k->conn);
}

static void refuse_coroutine(PyObject *result, const char *where) {
  PyObject *closed = PyObject_CallMethod(result, "close", NULL);
  Py_XDECREF(closed);
  if (!PyErr_Occurred())
    PyErr_Format(PyExc_TypeError, "%s must be a plain function, not async def: start a task in it", where);
}

/* Call `callback` in a context of its own. Returns whether the result is true; an exception closes the connection. */
static bool call(socket_object *k, PyObject *callback, const char *where, PyObject **args, size_t n) {
  engine_object *e = k->engine;
  bool yes = false;
  if (!callback) return false;
  Py_INCREF(callback); /* it may replace itself */
  PyObject *context = context_take(e), *result = NULL;
  if (context && PyContext_Enter(context) == 0) {
    result = PyObject_Vectorcall(callback, args + 1, n | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (result && PyCoro_CheckExact(result)) {
      refuse_coroutine(result, where);
      Py_CLEAR(result);
    }
    yes = result && result != Py_None && PyObject_IsTrue(result) > 0;
    if (!result || PyErr_Occurred()) failed(k, where);
    PyContext_Exit(context);
  } else {
    failed(k, where);
  }
  Py_XDECREF(result);
  Py_DECREF(callback);
  if (context) context_give(e, context);
  return yes;
}

static bool call_plain(socket_object *k, PyObject *callback, const char *where) {
  PyObject *args[] = {NULL, k->engine->elfd, k->handle};
  return call(k, callback, where, args, 2);
}

static PyObject *hook(const socket_object *k, PyObject *own, int which) {
  return k->hooked ? k->engine->hooks[which] : own;
}

static void deliver(socket_object *k, span data) {
  PyObject *callback = hook(k, k->on_data, HOOK_DATA);
  if (!callback && k->hooked) return; /* the program does not care for data */
  if (!callback) {                    /* not now */
    if (!bytes_append(&k->early, data.at, data.len)) conn_close(k->conn);
    else raw_pause(k->conn, true);
    return;
  }
  PyObject *chunk = PyBytes_FromStringAndSize(data.at, (Py_ssize_t)data.len), *length = PyLong_FromSize_t(data.len);
  PyObject *args[] = {NULL, k->engine->elfd, k->handle, chunk, length};
  if (chunk && length) call(k, callback, "on_data", args, 4);
  else failed(k, "on_data");
  Py_XDECREF(chunk);
  Py_XDECREF(length);
}

static void deliver_early(socket_object *k) {
  bytes early = k->early;
  k->early = (bytes){0};
  deliver(k, (span){early.at, early.len});
  bytes_clear(&early);
}

/* ---- upcalls ---- */

void socket_data(conn *c, span data) {
  socket_object *k = (socket_object *)Py_NewRef(c->exchange);
  if (!k->early.len) {
    deliver(k, data);
  } else if (bytes_append(&k->early, data.at, data.len)) {
    deliver_early(k);
  } else {
    conn_close(c);
  }
  Py_DECREF(k);
}

bool socket_eof(conn *c) {
  socket_object *k = (socket_object *)Py_NewRef(c->exchange);
  bool keep = true;
  if (k->early.len || (!k->hooked && !k->on_data))
    k->ended = true; /* not before what came, nor before there is a reader */
  else keep = !k->hooked && call_plain(k, k->on_eof, "on_eof");
  Py_DECREF(k);
  return keep;
}

void socket_opened(conn *c) {
  socket_object *k = (socket_object *)Py_NewRef(c->exchange);
  if (k->connects) {
    k->connects = false;
    if (is_open(k)) call_plain(k, k->on_connect, "on_connect");
    if (is_open(k)) call_plain(k, hook(k, k->on_write, HOOK_WRITE), "on_write");
  }
  if (k->early.len && is_open(k) && !c->paused) deliver_early(k);
  if (k->ended && !k->early.len && is_open(k) && !c->paused) {
    k->ended = false;
    raw_eof(c);
  }
  Py_DECREF(k);
}

void socket_drained(conn *c) {
  socket_object *k = (socket_object *)Py_NewRef(c->exchange);
  call_plain(k, hook(k, k->on_write, HOOK_WRITE), "on_write");
  Py_DECREF(k);
}

void socket_closed(conn *c) {
  socket_object *k = c->exchange; /* the connection's reference goes at the end */
  c->exchange = NULL;
  k->conn = NULL;
  k->peer = c->peer;
  if (!k->engine->quiet) call_plain(k, hook(k, k->on_close, HOOK_CLOSE), "on_close");
  drop_callbacks(k);
  bytes_clear(&k->early);
  Py_DECREF(k);
}

/* A socket for a connection that leaves HTTP. Returns a reference of the caller's; NULL with an exception. */
static socket_object *take(engine_object *e, conn *c, PyTypeObject *type, bool ended) {
  socket_object *k = socket_make(e, type);
  if (!k) return NULL;
  if (!raw_take(c, Py_NewRef(k), ended)) {
    Py_DECREF(k);
    PyErr_NoMemory();
  } else if (socket_link(k, c) < 0) {
    c->exchange = NULL;
    Py_DECREF(k);
    conn_close(c);
  } else {
    return k;
  }
  Py_DECREF(k);
  return NULL;
}

bool socket_accepted(conn *c, int listener) {
  engine_object *e = c->server->owner;
  socket_object *k = take(e, c, e->state->socket, false);
  if (!k) {
    PyErr_WriteUnraisable((PyObject *)e);
    return false;
  }
  PyObject *parent = e->hooks[HOOK_ACCEPT] ? PyLong_FromLong(listener) : NULL;
  PyObject *args[] = {NULL, e->elfd, parent, k->handle};
  if (parent) call(k, e->hooks[HOOK_ACCEPT], "on_accept", args, 3);
  if (PyErr_Occurred()) failed(k, "on_accept");
  Py_XDECREF(parent);
  Py_DECREF(k);
  return true;
}

static void hand_over(engine_object *e, conn *c, PyObject *handle) {
  socket_object *k = take(e, c, (PyTypeObject *)e->socket_type, false);
  if (!k) {
    PyErr_WriteUnraisable((PyObject *)e);
    conn_close(c);
    return;
  }
  PyObject *args[] = {NULL, (PyObject *)k};
  call(k, handle, "the protocol's handle", args, 1);
  Py_DECREF(k);
}

sniffed socket_sniff(conn *c, span first) {
  engine_object *e = c->server->owner;
  PyObject *data = PyBytes_FromStringAndSize(first.at, (Py_ssize_t)first.len), *choose = Py_NewRef(e->choose);
  conn_ref(c); /* the program may close everything in it */
  PyObject *choice = data ? PyObject_CallOneArg(choose, data) : NULL;
  sniffed result = SNIFF_HTTP;
  Py_DECREF(choose);
  Py_XDECREF(data);
  if (!choice) PyErr_WriteUnraisable((PyObject *)e);
  if (c->in == IN_CLOSED) {
    result = SNIFF_TAKEN;
  } else if (choice == Py_None) {
    result = SNIFF_MORE;
  } else if (choice && choice != Py_False) {
    result = SNIFF_TAKEN;
    hand_over(e, c, choice);
  }
  conn_unref(c);
  Py_XDECREF(choice);
  return result;
}

PyObject *socket_take_over(request_object *r) {
  conn *c = r->conn;
  engine_object *e = r->engine;
  bool ended = r->has_body && r->body_complete;
  bytes early = r->chunks; /* of the decoded body: what was not read goes to the socket */
  r->chunks = (bytes){0};
  conn_ref(c);
  r->taken = true;
  request_unlink(r);
  socket_object *k = take(e, c, (PyTypeObject *)e->socket_type, ended);
  if (k && k->conn) {
    k->early = early;
    k->ended = ended;
    c->paused = !k->hooked; /* on_data is None */
    if (k->hooked && (early.len || ended)) raw_greet(c);
  } else {
    bytes_clear(&early);
    if (!k) conn_close(c);
  }
  conn_unref(c);
  return (PyObject *)k;
}

/* ---- methods ---- */

#define SELF socket_object *k = (socket_object *)self

static void set_paused(socket_object *k) {
  if (!is_open(k)) return;
  bool paused = k->paused || (!k->on_data && !k->hooked);
  raw_pause(k->conn, paused);
  if (!paused && (k->early.len || k->ended)) raw_greet(k->conn);
}

static PyObject *attach(PyObject *self, PyObject *number) {
  SELF;
  long fd = PyLong_AsLong(number);
  if (fd == -1 && PyErr_Occurred()) return NULL;
  if (!k->conn || fd < 0 || fd > INT_MAX) errno = EBADF;
  else if (raw_attach(k->conn, (int)fd)) Py_RETURN_NONE;
  return PyErr_SetFromErrno(PyExc_OSError);
}

/* Bytes that are not copied belong to a bytes object, which the queue keeps. */
static PyObject *write_bytes(conn *c, PyObject *data) {
  span all = {PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data)};
  if (c->kind == RAW_DATAGRAM && all.len > DATAGRAM_BYTES)
    return PyErr_Format(PyExc_ValueError, "a datagram holds %d bytes at most, not %zu", DATAGRAM_BYTES, all.len);
  bool copied = all.len <= COPY_BYTES && c->kind != RAW_DATAGRAM;
  return PyBool_FromLong(raw_write(c, all, copied ? NULL : Py_NewRef(data)));
}

/* The data as bytes. An object with __buffer__ runs code of the program's: so before the connection is looked at. */
static PyObject *as_bytes(PyObject *data) {
  if (PyBytes_CheckExact(data)) return Py_NewRef(data);
  if (PyObject_CheckBuffer(data)) return PyBytes_FromObject(data);
  return PyErr_Format(PyExc_TypeError, "write takes bytes, not %.100s", Py_TYPE(data)->tp_name);
}

static PyObject *socket_write(PyObject *self, PyObject *data) {
  SELF;
  PyObject *bytes = as_bytes(data);
  if (!bytes) return NULL;
  PyObject *result = is_open(k) ? write_bytes(k->conn, bytes) : Py_NewRef(Py_False);
  Py_DECREF(bytes);
  return result;
}

static PyObject *socket_close(PyObject *self, PyObject *Py_UNUSED(none)) {
  SELF;
  return PyBool_FromLong(k->conn && raw_close(k->conn));
}

static PyObject *socket_abort(PyObject *self, PyObject *Py_UNUSED(none)) {
  SELF;
  if (k->conn) conn_close(k->conn);
  Py_RETURN_NONE;
}

static PyObject *socket_pause(PyObject *self, PyObject *Py_UNUSED(none)) {
  SELF;
  k->paused = true;
  set_paused(k);
  Py_RETURN_NONE;
}

static PyObject *socket_resume(PyObject *self, PyObject *Py_UNUSED(none)) {
  SELF;
  k->paused = false;
  set_paused(k);
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"attach", attach, METH_O, "Take over a connected descriptor."},
    {"write", socket_write, METH_O, "Send, or queue; False when closed."},
    {"close", socket_close, METH_NOARGS, "Send what is queued, then close; False when that was done before."},
    {"abort", socket_abort, METH_NOARGS, "Close at once."},
    {"pause", socket_pause, METH_NOARGS, "Read no more for now."},
    {"resume", socket_resume, METH_NOARGS, "Read again."},
    {NULL, NULL, 0, NULL},
};

/* ---- attributes ---- */

static PyObject **slot_at(PyObject *self, void *offset) { return (PyObject **)((char *)self + (size_t)offset); }

static PyObject *get_slot(PyObject *self, void *offset) {
  PyObject *value = *slot_at(self, offset);
  return Py_NewRef(value ? value : Py_None);
}

static int set_slot(PyObject *self, PyObject *value, void *offset) {
  SELF;
  if (value == Py_None || !k->conn) value = NULL; /* what is over holds nothing */
  if (value && (size_t)offset != offsetof(socket_object, inbox) && !PyCallable_Check(value)) {
    PyErr_Format(PyExc_TypeError, "a callback is a function, not %.100s", Py_TYPE(value)->tp_name);
    return -1;
  }
  PyObject **slot = slot_at(self, offset);
  Py_XSETREF(*slot, Py_XNewRef(value));
  if ((size_t)offset == offsetof(socket_object, on_data)) set_paused(k);
  return 0;
}

static PyObject *get_fd(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return Py_NewRef(k->handle);
}

static PyObject *get_elfd(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return k->engine ? Py_NewRef(k->engine->elfd) : PyLong_FromLong(-1);
}

static PyObject *get_kind(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return PyUnicode_FromString(kinds[k->kind]);
}

static PyObject *get_closed(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return PyBool_FromLong(!is_open(k));
}

static PyObject *get_writable(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return PyBool_FromLong(k->conn && raw_writes(k->conn));
}

static PyObject *get_connected(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return PyBool_FromLong(is_open(k) && !k->conn->pending);
}

static PyObject *get_buffered(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  return PyLong_FromSize_t(k->conn ? k->conn->output.bytes : 0);
}

static PyObject *get_peername(PyObject *self, void *Py_UNUSED(closure)) {
  SELF;
  const address *peer = k->conn ? &k->conn->peer : &k->peer;
  if (peer->family == AF_UNSPEC) Py_RETURN_NONE;
  return peer_name(peer);
}

#define SLOT(name, doc)                                                                                                \
  { #name, get_slot, set_slot, doc, (void *)offsetof(socket_object, name) }

static PyGetSetDef getset[] = {
    SLOT(on_data, "(elfd, childfd, data, length); nothing is read while it is None."),
    SLOT(on_close, "(elfd, childfd), after the end."),
    SLOT(on_write, "(elfd, childfd): connected, or what had to wait is sent."),
    SLOT(on_connect, "(elfd, childfd), before on_write."),
    SLOT(on_eof, "(elfd, childfd): the peer has ended its sending side; true keeps the connection."),
    SLOT(inbox, "What has come and was not asked for."),
    {"fd", get_fd, NULL, "The handle.", NULL},
    {"elfd", get_elfd, NULL, "The engine's descriptor.", NULL},
    {"kind", get_kind, NULL, "stream, datagram, reader or writer.", NULL},
    {"closed", get_closed, NULL, "Whether it is closed or being closed.", NULL},
    {"writable", get_writable, NULL, "Whether write takes anything.", NULL},
    {"connected", get_connected, NULL, "Whether it is open and has a descriptor.", NULL},
    {"buffered", get_buffered, NULL, "Bytes that wait to be sent.", NULL},
    {"peername", get_peername, NULL, "(address, port), 'unix' or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A raw connection: bytes in and out."},
    {Py_tp_new, socket_new},
    {Py_tp_dealloc, socket_dealloc},
    {Py_tp_traverse, socket_traverse},
    {Py_tp_clear, socket_clear},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {0, NULL},
};

PyType_Spec socket_spec = {.name = "eighties._engine.Socket",
                           .basicsize = sizeof(socket_object),
                           .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
                           .slots = slots};

/* ---- functions of the module ---- */

engine_object *engine_find(const module_state *m, PyObject *elfd) {
  engine_object *e = m->newest;
  if (e && elfd == e->elfd) return e;
  int overflow;
  long fd = PyLong_AsLongAndOverflow(elfd, &overflow);
  if (fd == -1 && PyErr_Occurred()) return NULL;
  e = m->newest; /* the number may have run code of the program's */
  while (e && (overflow || (fd == -1 ? e->server->shut : poller_fd(e->server->poller) != fd))) e = e->older;
  if (e) return e;
  errno = EBADF;
  PyErr_SetFromErrno(PyExc_OSError);
  return NULL;
}

/* The connection of a handle. NULL where there is none; with an exception where the arguments are none. */
static conn *find(PyObject *module, PyObject *elfd, PyObject *childfd) {
  engine_object *e = engine_find(PyModule_GetState(module), elfd);
  if (!e) return NULL;
  if (!PyLong_Check(childfd)) {
    PyErr_Format(PyExc_TypeError, "childfd is an int, not %.100s", Py_TYPE(childfd)->tp_name);
    return NULL;
  }
  unsigned long long handle = PyLong_AsUnsignedLongLong(childfd);
  if (handle == (unsigned long long)-1 && PyErr_Occurred()) PyErr_Clear(); /* negative or too great: nobody's */
  return handle_find(&e->server->handles, handle);
}

static PyObject *net_write(PyObject *module, PyObject *const *args, Py_ssize_t n) {
  if (n != 3) return PyErr_Format(PyExc_TypeError, "write takes elfd, childfd and data");
  PyObject *bytes = as_bytes(args[2]), *result = NULL;
  conn *c = bytes ? find(module, args[0], args[1]) : NULL;
  if (c) result = write_bytes(c, bytes);
  else if (!PyErr_Occurred()) result = Py_NewRef(Py_False);
  Py_XDECREF(bytes);
  return result;
}

static PyObject *net_close(PyObject *module, PyObject *const *args, Py_ssize_t n) {
  if (n != 2) return PyErr_Format(PyExc_TypeError, "close takes elfd and childfd");
  conn *c = find(module, args[0], args[1]);
  return PyErr_Occurred() ? NULL : PyBool_FromLong(c && raw_close(c));
}

static PyObject *find_socket(PyObject *module, PyObject *const *args, Py_ssize_t n) {
  if (n != 2) return PyErr_Format(PyExc_TypeError, "find_socket takes elfd and childfd");
  conn *c = find(module, args[0], args[1]);
  if (PyErr_Occurred()) return NULL;
  return Py_NewRef(c && c->exchange ? (PyObject *)c->exchange : Py_None);
}

static PyObject *engine_of(PyObject *module, PyObject *const *args, Py_ssize_t n) {
  if (n > 1) return PyErr_Format(PyExc_TypeError, "engine_of takes elfd");
  PyObject *elfd = n ? Py_NewRef(args[0]) : PyLong_FromLong(-1);
  engine_object *e = elfd ? engine_find(PyModule_GetState(module), elfd) : NULL;
  Py_XDECREF(elfd);
  return Py_XNewRef((PyObject *)e);
}

PyMethodDef socket_functions[] = {
    {"write", (PyCFunction)(void (*)(void))net_write, METH_FASTCALL, "Socket.write by elfd and handle."},
    {"close", (PyCFunction)(void (*)(void))net_close, METH_FASTCALL, "Socket.close by elfd and handle."},
    {"find_socket", (PyCFunction)(void (*)(void))find_socket, METH_FASTCALL, "The Socket of a handle, or None."},
    {"engine_of", (PyCFunction)(void (*)(void))engine_of, METH_FASTCALL,
     "The engine with that descriptor; -1: the newest."},
    {NULL, NULL, 0, NULL},
};
