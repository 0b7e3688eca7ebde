/* py_modules.c - NativeModule: a shared object of the user's, its on_load and on_unload, and the functions it may call.
 * Interface: _engine.pyi for serve/modules.py, include/eighties.h for modules.
 *
 * The object owns what the module watches: an entry for each descriptor, while the loop has `ready` of this object as
 * the reader or writer of it. `depth` counts calls into the module that have not returned, during which it is neither
 * loaded, unloaded nor closed. The module's side, `face`, outlives the object where the code does: a thread that was
 * left running may call with its params at any time, and is refused.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>

#include "../include/eighties.h"
#include "py.h"

typedef int (*load_function)(void *ctx, serve_params *params, int reload);

typedef struct {
  int events; /* 0: not watched */
  eighties_fd_callback callback;
  void *data;
} watch;

typedef struct native_object native_object;

typedef struct {
  serve_params params;
  native_object *owner; /* NULL: it is gone */
  unsigned long thread; /* the loop's */
  char text[];          /* of the params */
} face;

struct native_object {
  PyObject_HEAD
  PyObject *module; /* keeps the state of its type; never given up before the object goes */
  engine_object *engine;
  PyObject *mail, *log;
  PyObject *ctx; /* while it is loaded */
  void *library; /* of dlopen; NULL: closed */
  load_function on_load, on_unload;
  face *face;
  watch *watches; /* by descriptor */
  int n_watches;
  int depth;
  bool loaded;
};

/* ---- what the table's functions share ---- */

/* The module that calls, if it may: 0, or a negative errno. Destructors of a module run when Python has ended. */
static int caller(const serve_params *params, native_object **out) {
  if (!params || !params->reserved) return -EINVAL;
  const face *f = params->reserved;
  if (PyThread_get_thread_ident() != f->thread || !Py_IsInitialized()) return -EPERM;
  if (!PyGILState_Check() || PyErr_Occurred()) return -EPERM;
  *out = f->owner;
  return f->owner && f->owner->loaded && f->owner->engine->loop ? 0 : -EINVAL;
}

/* The current exception as a negative errno; clears it. */
static int error_number(void) {
  long number = EIO;
  PyObject *error = error_take(), *attribute = NULL;
  if (error && PyErr_GivenExceptionMatches(error, PyExc_OSError)) attribute = PyObject_GetAttrString(error, "errno");
  else if (error && PyErr_GivenExceptionMatches(error, PyExc_MemoryError)) number = ENOMEM;
  else if (error && PyErr_GivenExceptionMatches(error, PyExc_RuntimeError)) number = EBUSY; /* a transport has it */
  if (attribute) number = PyLong_AsLong(attribute);
  PyErr_Clear();
  Py_XDECREF(attribute);
  Py_XDECREF(error);
  return number > 0 && number < INT_MAX ? (int)-number : -EIO;
}

/* What a function of serve/modules.py says, which is meant for the module; takes the result over. */
static int said(PyObject *result) {
  long number = result ? PyLong_AsLong(result) : -1;
  Py_XDECREF(result);
  return PyErr_Occurred() ? error_number() : (int)number;
}

/* ---- connections ---- */

static int table_write(const serve_params *params, uint64_t handle, const void *data, size_t length) {
  native_object *m;
  int wrong = caller(params, &m);
  if (wrong || (!data && length)) return wrong ? wrong : -EINVAL;
  conn *c = handle_find(&m->engine->server->handles, handle);
  if (!c || !raw_writes(c)) return -EBADF;
  if (length > PY_SSIZE_T_MAX || (c->kind == RAW_DATAGRAM && length > DATAGRAM_BYTES)) return -EMSGSIZE;
  PyObject *owner = NULL;
  if (length > COPY_BYTES || c->kind == RAW_DATAGRAM) { /* the queue keeps it */
    owner = PyBytes_FromStringAndSize(data, (Py_ssize_t)length);
    if (!owner) return error_number();
    data = PyBytes_AS_STRING(owner);
  }
  return raw_write(c, (span){length ? data : "", length}, owner) ? 0 : -EBADF;
}

static int table_close(const serve_params *params, uint64_t handle) {
  native_object *m;
  int wrong = caller(params, &m);
  if (wrong) return wrong;
  conn *c = handle_find(&m->engine->server->handles, handle);
  return c && raw_close(c) ? 0 : -EBADF;
}

/* ---- descriptors ---- */

static watch *find_watch(native_object *m, int fd) {
  return fd >= 0 && fd < m->n_watches && m->watches[fd].events ? &m->watches[fd] : NULL;
}

static bool make_room(native_object *m, int fd) {
  if (fd < m->n_watches) return true;
  size_t n = (size_t)fd + 16;
  watch *grown = n < INT_MAX ? realloc(m->watches, n * sizeof *grown) : NULL;
  if (!grown) return false;
  memset(grown + m->n_watches, 0, (n - (size_t)m->n_watches) * sizeof *grown);
  m->watches = grown;
  m->n_watches = (int)n;
  return true;
}

/* Have the loop watch for one event. */
static int watch_one(native_object *m, int fd, int event) {
  PyObject *loop = m->engine->loop, *ready = PyObject_GetAttrString((PyObject *)m, "ready"), *result = NULL;
  const char *method = event == EIGHTIES_READ ? "add_reader" : "add_writer";
  if (ready) result = PyObject_CallMethod(loop, method, "iOii", fd, ready, fd, event);
  Py_XDECREF(ready);
  if (!result) return error_number();
  Py_DECREF(result);
  return 0;
}

/* Where the loop fails, as it may when it is closed, it watches no more either. */
static void drop_watch(native_object *m, int fd) {
  int events = m->watches[fd].events;
  m->watches[fd].events = 0;
  for (int event = EIGHTIES_READ; event <= EIGHTIES_WRITE; event++) {
    if (!(events & event) || !m->engine->loop) continue;
    const char *method = event == EIGHTIES_READ ? "remove_reader" : "remove_writer";
    PyObject *result = PyObject_CallMethod(m->engine->loop, method, "i", fd);
    if (!result) PyErr_Clear();
    Py_XDECREF(result);
  }
}

static void drop_watches(native_object *m) {
  for (int fd = 0; fd < m->n_watches; fd++)
    if (m->watches[fd].events) drop_watch(m, fd);
}

static int table_add_fd(const serve_params *params, int fd, int events, eighties_fd_callback callback, void *data) {
  native_object *m;
  int wrong = caller(params, &m);
  if (wrong || !callback || !events || (events & ~(EIGHTIES_READ | EIGHTIES_WRITE))) return wrong ? wrong : -EINVAL;
  if (fd < 0 || fcntl(fd, F_GETFD) < 0) return -EBADF;
  if (fd == poller_fd(m->engine->server->poller)) return -EBUSY;
  if (!make_room(m, fd)) return -ENOMEM;
  /* Not changed in place: the number may be another descriptor's by now, of which the loop knows nothing. */
  if (find_watch(m, fd)) drop_watch(m, fd);
  for (int event = EIGHTIES_READ; !wrong && event <= EIGHTIES_WRITE; event++) {
    if (!(events & event)) continue;
    wrong = watch_one(m, fd, event);
    if (!wrong) m->watches[fd].events |= event;
  }
  if (wrong) drop_watch(m, fd);
  m->watches[fd].callback = callback;
  m->watches[fd].data = data;
  return wrong;
}

static int table_remove_fd(const serve_params *params, int fd) {
  native_object *m;
  int wrong = caller(params, &m);
  if (wrong) return wrong;
  if (!find_watch(m, fd)) return -ENOENT;
  drop_watch(m, fd);
  return 0;
}

/* ---- what Python does ---- */

static int table_mail(const serve_params *params, int worker, const void *data, size_t length) {
  native_object *m;
  int wrong = caller(params, &m);
  if (wrong || (!data && length)) return wrong ? wrong : -EINVAL;
  if (length > PY_SSIZE_T_MAX) return -EMSGSIZE;
  return said(PyObject_CallFunction(m->mail, "iy#", worker, length ? data : "", (Py_ssize_t)length));
}

static int table_log(const serve_params *params, const char *level, const char *text) {
  native_object *m;
  int wrong = caller(params, &m);
  if (wrong || !level || !text) return wrong ? wrong : -EINVAL;
  return said(PyObject_CallFunction(m->log, "yy", level, text));
}

static const eighties_functions table = {.write = table_write,
                                         .close = table_close,
                                         .add_fd = table_add_fd,
                                         .remove_fd = table_remove_fd,
                                         .mail = table_mail,
                                         .log = table_log};

/* ---- opening ---- */

static void *symbol(native_object *m, const char *name, const char *hint) {
  void *found = dlsym(m->library, name);
  if (!found && !PyErr_Occurred()) PyErr_Format(PyExc_ImportError, "it has no %s%s", name, hint);
  return found;
}

/* Its destructors run here. They may run Python code, which must not find it open; what they raise is nobody's. */
static void close_library(native_object *m) {
  void *library = m->library;
  PyObject *error = error_take();
  m->library = NULL;
  dlclose(library);
  if (PyErr_Occurred()) PyErr_WriteUnraisable((PyObject *)m);
  error_put(error);
}

/* Open the file and look at it, without calling it. The caller makes sure that no such path was opened before. */
static int open_library(native_object *m, const char *path) {
  m->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!m->library) {
    PyErr_SetString(PyExc_ImportError, dlerror());
    return -1;
  }
  m->on_load = (load_function)symbol(m, "on_load", ": it must define that function");
  m->on_unload = (load_function)symbol(m, "on_unload", ": it must define that function");
  const uint32_t *abi = symbol(m, "eighties_abi", ": it must include eighties.h");
  if (abi && *abi != EIGHTIES_ABI && !PyErr_Occurred())
    PyErr_Format(PyExc_ImportError,
                 "it was built for version %u of the interface, this server has version %d: build it again with this "
                 "server's eighties.h",
                 (unsigned)*abi, EIGHTIES_ABI);
  if (!PyErr_Occurred()) return 0;
  close_library(m);
  return -1;
}

static int make_face(native_object *m, const char *name, const char *node, int workers, int port) {
  size_t name_size = strlen(name) + 1, node_size = strlen(node) + 1;
  face *f = m->face = malloc(sizeof *f + name_size + node_size);
  if (!f) {
    PyErr_NoMemory();
    return -1;
  }
  f->owner = m;
  f->thread = PyThread_get_thread_ident();
  f->params = (serve_params){.abi = EIGHTIES_ABI,
                             .workerid = m->engine->worker,
                             .workers = workers,
                             .node = memcpy(f->text + name_size, node, node_size),
                             .port = port,
                             .loop_fd = poller_fd(m->engine->server->poller),
                             .module = memcpy(f->text, name, name_size),
                             .engine = &table,
                             .reserved = f};
  return 0;
}

static PyObject *native_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"engine", "path", "name", "node", "workers", "port", "mail", "log", NULL};
  module_state *state = state_of(type);
  PyObject *engine, *path, *mail, *log;
  const char *name, *node;
  int workers, port;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O&$ssiiOO:NativeModule", names, state->engine, &engine,
                                   PyUnicode_FSConverter, &path, &name, &node, &workers, &port, &mail, &log))
    return NULL;
  native_object *m = (native_object *)type->tp_alloc(type, 0);
  if (m) {
    m->module = Py_NewRef(module_of(type));
    m->engine = (engine_object *)Py_NewRef(engine);
    m->mail = Py_NewRef(mail);
    m->log = Py_NewRef(log);
    if (make_face(m, name, node, workers, port) < 0 || open_library(m, PyBytes_AS_STRING(path)) < 0) Py_CLEAR(m);
  }
  Py_DECREF(path);
  return (PyObject *)m;
}

static int native_traverse(PyObject *self, visitproc visit, void *arg) {
  native_object *m = (native_object *)self;
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(m->module);
  Py_VISIT(m->engine);
  Py_VISIT(m->mail);
  Py_VISIT(m->log);
  Py_VISIT(m->ctx);
  return 0;
}

/* The engine stays: the table's functions look at it. */
static int native_clear(PyObject *self) {
  native_object *m = (native_object *)self;
  m->loaded = false;
  Py_CLEAR(m->ctx);
  Py_CLEAR(m->mail);
  Py_CLEAR(m->log);
  return 0;
}

/* A library that was not closed stays in memory: nobody has said that its code is not used. */
static void native_dealloc(PyObject *self) {
  native_object *m = (native_object *)self;
  PyTypeObject *type = Py_TYPE(self);
  PyObject *module = m->module;
  PyObject_GC_UnTrack(self);
  native_clear(self);
  Py_CLEAR(m->engine);
  if (m->library) m->face->owner = NULL;
  else free(m->face);
  free(m->watches);
  type->tp_free(self);
  Py_DECREF(type);
  Py_XDECREF(module);
}

/* ---- methods ---- */

/* Whether the module may be entered. */
static bool at_rest(native_object *m) {
  if (m->depth) PyErr_SetString(PyExc_RuntimeError, "the module cannot be changed from within a call into itself");
  else if (!m->library) PyErr_SetString(PyExc_RuntimeError, "the module is closed");
  return !PyErr_Occurred();
}

/* Call on_load or on_unload. False: it has left an exception. */
static bool enter(native_object *m, load_function function, int reload, int *result) {
  m->face->params.reload = reload;
  m->depth++;
  *result = function(m->ctx, &m->face->params, reload);
  m->depth--;
  return !PyErr_Occurred();
}

static void leave(native_object *m) {
  PyObject *error = error_take();
  drop_watches(m);
  m->loaded = false;
  Py_CLEAR(m->ctx);
  error_put(error);
}

static PyObject *native_load(PyObject *self, PyObject *args) {
  native_object *m = (native_object *)self;
  PyObject *ctx;
  int reload, result;
  if (!PyArg_ParseTuple(args, "Op:load", &ctx, &reload) || !at_rest(m)) return NULL;
  if (m->loaded) return PyErr_Format(PyExc_RuntimeError, "the module is loaded");
  m->ctx = Py_NewRef(ctx);
  m->loaded = true;
  bool fine = enter(m, m->on_load, reload, &result);
  if (!fine || result) leave(m);
  return fine ? PyLong_FromLong(result) : NULL;
}

static PyObject *native_unload(PyObject *self, PyObject *args) {
  native_object *m = (native_object *)self;
  int reload, result;
  if (!PyArg_ParseTuple(args, "p:unload", &reload) || !at_rest(m)) return NULL;
  if (!m->loaded) return PyErr_Format(PyExc_RuntimeError, "the module is not loaded");
  bool fine = enter(m, m->on_unload, reload, &result);
  leave(m);
  return fine ? PyLong_FromLong(result) : NULL;
}

static PyObject *native_close(PyObject *self, PyObject *Py_UNUSED(none)) {
  native_object *m = (native_object *)self;
  if (!at_rest(m)) return NULL;
  if (m->loaded) return PyErr_Format(PyExc_RuntimeError, "the module is loaded");
  close_library(m);
  Py_RETURN_NONE;
}

/* The loop's callback. The entry may go, or move, while the module's callback runs. */
static PyObject *native_ready(PyObject *self, PyObject *args) {
  native_object *m = (native_object *)self;
  int fd, events;
  if (!PyArg_ParseTuple(args, "ii:ready", &fd, &events)) return NULL;
  const watch *found = find_watch(m, fd);
  if (!found || !(found->events & events) || !m->loaded) Py_RETURN_NONE;
  const watch called = *found;
  Py_INCREF(self);
  m->depth++;
  called.callback(called.data, fd, events);
  m->depth--;
  Py_DECREF(self);
  if (PyErr_Occurred()) return NULL;
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"load", native_load, METH_VARARGS, "Call on_load with the program's module, and whether it is a reload."},
    {"unload", native_unload, METH_VARARGS, "Call on_unload with what load had, and watch for it no more."},
    {"close", native_close, METH_NOARGS, "Take the code out of memory."},
    {"ready", native_ready, METH_VARARGS, "For the loop: a watched descriptor is ready."},
    {NULL, NULL, 0, NULL},
};

static PyObject *get_busy(PyObject *self, void *Py_UNUSED(closure)) {
  return PyBool_FromLong(((native_object *)self)->depth > 0);
}

static PyObject *get_loaded(PyObject *self, void *Py_UNUSED(closure)) {
  return PyBool_FromLong(((native_object *)self)->loaded);
}

static PyObject *get_watched(PyObject *self, void *Py_UNUSED(closure)) {
  const native_object *m = (native_object *)self;
  long n = 0;
  for (int fd = 0; fd < m->n_watches; fd++) n += m->watches[fd].events != 0;
  return PyLong_FromLong(n);
}

static PyGetSetDef getset[] = {
    {"busy", get_busy, NULL, "Whether a call into it has not returned.", NULL},
    {"loaded", get_loaded, NULL, "Whether it is loaded.", NULL},
    {"watched", get_watched, NULL, "How many descriptors it watches.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A shared object with on_load and on_unload."},
    {Py_tp_new, native_new},
    {Py_tp_dealloc, native_dealloc},
    {Py_tp_traverse, native_traverse},
    {Py_tp_clear, native_clear},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {0, NULL},
};

PyType_Spec native_spec = {.name = "eighties._engine.NativeModule",
                           .basicsize = sizeof(native_object),
                           .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                           .slots = slots};
