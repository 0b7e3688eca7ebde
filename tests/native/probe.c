/* probe.c - a native module that has every function of the table called from Python, and says what it returned.
 *
 * on_load puts them on the program's module. LOADS and UNLOADS are what on_load and on_unload return; WORD tells builds
 * apart.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>

#include "eighties.h"

#ifndef LOADS
#define LOADS 0
#endif
#ifndef UNLOADS
#define UNLOADS 1 /* the program keeps our functions */
#endif
#ifndef WORD
#define WORD "probe"
#endif

static serve_params *params;

#define CODE(code) PyLong_FromLong(code)

static PyObject *do_write(PyObject *self, PyObject *args) {
  unsigned long long handle;
  const char *data;
  Py_ssize_t length, claimed = -1;
  (void)self;
  if (!PyArg_ParseTuple(args, "Kz#|n", &handle, &data, &length, &claimed)) return NULL;
  return CODE(params->engine->write(params, handle, data, (size_t)(claimed < 0 ? length : claimed)));
}

static PyObject *do_close(PyObject *self, PyObject *handle) {
  (void)self;
  return CODE(params->engine->close(params, PyLong_AsUnsignedLongLong(handle)));
}

static void called(void *data, int fd, int events) {
  PyObject *result = PyObject_CallFunction(data, "ii", fd, events);
  Py_XDECREF(result); /* an exception is left for the loop */
}

/* The callback is never given up: what is watched holds it. */
static PyObject *do_add_fd(PyObject *self, PyObject *args) {
  int fd, events;
  PyObject *callback;
  (void)self;
  if (!PyArg_ParseTuple(args, "iiO", &fd, &events, &callback)) return NULL;
  if (callback != Py_None) Py_INCREF(callback);
  return CODE(params->engine->add_fd(params, fd, events, callback == Py_None ? NULL : called, callback));
}

static PyObject *do_remove_fd(PyObject *self, PyObject *fd) {
  (void)self;
  return CODE(params->engine->remove_fd(params, (int)PyLong_AsLong(fd)));
}

static PyObject *do_mail(PyObject *self, PyObject *args) {
  int worker;
  const char *data;
  Py_ssize_t length, claimed = -1;
  (void)self;
  if (!PyArg_ParseTuple(args, "iz#|n", &worker, &data, &length, &claimed)) return NULL;
  return CODE(params->engine->mail(params, worker, data, (size_t)(claimed < 0 ? length : claimed)));
}

static PyObject *do_log(PyObject *self, PyObject *args) {
  const char *level, *text;
  (void)self;
  if (!PyArg_ParseTuple(args, "zz", &level, &text)) return NULL;
  return CODE(params->engine->log(params, level, text));
}

static void *from_thread(void *code) {
  *(int *)code = params->engine->log(params, "info", "from another thread");
  return NULL;
}

/* From where they must not be called: another thread, without the GIL, with an exception set; then without params. */
static PyObject *misuse(PyObject *self, PyObject *none) {
  const eighties_functions *engine = params->engine;
  const serve_params wrong = {.abi = EIGHTIES_ABI};
  pthread_t thread;
  int thread_code = 0;
  (void)self;
  (void)none;
  if (pthread_create(&thread, NULL, from_thread, &thread_code) == 0) pthread_join(thread, NULL);
  PyThreadState *state = PyEval_SaveThread();
  int bare = engine->log(params, "info", "without the GIL");
  PyEval_RestoreThread(state);
  PyErr_SetString(PyExc_ValueError, "pending");
  int pending = engine->log(params, "info", "with an exception");
  PyErr_Clear();
  return Py_BuildValue("[iiiiiiiiii]", thread_code, bare, pending, engine->write(NULL, 1, "x", 1),
                       engine->close(NULL, 1), engine->add_fd(NULL, 0, EIGHTIES_READ, called, NULL),
                       engine->remove_fd(NULL, 0), engine->mail(NULL, 0, "x", 1), engine->log(NULL, "info", "x"),
                       engine->log(&wrong, "info", "x"));
}

static PyObject *facts(PyObject *self, PyObject *none) {
  (void)self;
  (void)none;
  return Py_BuildValue("{sIsisisssisisiss}", "abi", (unsigned)params->abi, "workerid", params->workerid, "workers",
                       params->workers, "node", params->node, "port", params->port, "loop_fd", params->loop_fd,
                       "reload", params->reload, "module", params->module);
}

static PyMethodDef functions[] = {
    {"write", do_write, METH_VARARGS, NULL},
    {"close", do_close, METH_O, NULL},
    {"add_fd", do_add_fd, METH_VARARGS, NULL},
    {"remove_fd", do_remove_fd, METH_O, NULL},
    {"mail", do_mail, METH_VARARGS, NULL},
    {"log", do_log, METH_VARARGS, NULL},
    {"misuse", misuse, METH_NOARGS, NULL},
    {"facts", facts, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

/* Each call is noted in the program's list `calls`. */
static int note(void *ctx, const char *what, int reload) {
  PyObject *calls = PyObject_GetAttrString(ctx, "calls"), *done = NULL;
  if (calls) done = PyObject_CallMethod(calls, "append", "((ssi))", what, WORD, reload);
  Py_XDECREF(calls);
  Py_XDECREF(done);
  return done ? 0 : -1;
}

int on_load(void *ctx, serve_params *given, int reload) {
  params = given;
#ifdef RAISES
  PyErr_SetString(PyExc_ValueError, "no luck");
  return 0;
#endif
  if (note(ctx, "load", reload) < 0 || PyModule_AddFunctions(ctx, functions) < 0) return -1;
  return LOADS;
}

int on_unload(void *ctx, serve_params *given, int reload) {
  (void)given;
#ifdef RAISES_LATE
  PyErr_SetString(PyExc_ValueError, "no luck at the end");
  return 0;
#endif
  return note(ctx, "unload", reload) < 0 ? -1 : UNLOADS;
}
