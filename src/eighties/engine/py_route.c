/* py_route.c - Route: one handler under one pattern and method. Interface: _engine.pyi. */
#include "py.h"

#include <stddef.h>
#include <structmember.h>

#define CODE_COROUTINE 0x80 /* CO_COROUTINE of a code object's co_flags */

/* The names in {name} and {name:kind}, in order; the router judges the pattern itself. */
static int read_names(route_object *r) {
  const char *pattern = PyUnicode_AsUTF8(r->pattern);
  PyObject *list = pattern ? PyList_New(0) : NULL;
  if (!list) return -1;
  int n = 0, result = 0;
  for (const char *at = strchr(pattern, '{'); at && result == 0; at = strchr(at, '{')) {
    size_t len = strcspn(++at, ":}");
    PyObject *name = PyUnicode_FromStringAndSize(at, (Py_ssize_t)len);
    if (name) PyUnicode_InternInPlace(&name);
    if (n < MAX_PARAMS && strncmp(at + len, ":int}", 5) == 0) r->ints |= 1u << n;
    n++;
    result = name ? PyList_Append(list, name) : -1;
    Py_XDECREF(name);
  }
  if (result == 0) r->names = PyList_AsTuple(list);
  Py_DECREF(list);
  return r->names ? 0 : -1;
}

/* A handler written as async def needs no context of its own: its task has one. */
static int read_handler(route_object *r) {
  PyObject *code = PyObject_GetAttrString(r->handler, "__code__");
  PyObject *flags = code ? PyObject_GetAttrString(code, "co_flags") : NULL;
  Py_XDECREF(code);
  if (!flags) {
    PyErr_Clear(); /* some other callable */
    return 0;
  }
  r->is_async = PyLong_AsLong(flags) & CODE_COROUTINE;
  Py_DECREF(flags);
  return PyErr_Occurred() ? -1 : 0;
}

static bool is_file(PyTypeObject *route_type, PyObject *file) {
  if (Py_TYPE(file) == state_of(route_type)->static_file) return true;
  PyErr_SetString(PyExc_TypeError, "file is a StaticFile or None");
  return false;
}

static PyObject *get_file(PyObject *self, void *Py_UNUSED(closure)) {
  PyObject *file = ((route_object *)self)->file;
  return Py_NewRef(file ? file : Py_None);
}

/* The file has changed: from now on this is it. */
static int set_file(PyObject *self, PyObject *file, void *Py_UNUSED(closure)) {
  route_object *r = (route_object *)self;
  if (file == Py_None) file = NULL;
  if (file && !is_file(Py_TYPE(self), file)) return -1;
  Py_XSETREF(r->file, Py_XNewRef(file));
  return 0;
}

static PyGetSetDef getset[] = {
    {"file", get_file, set_file, "The StaticFile that may answer instead of the handler.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyObject *route_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"pattern", "method", "handler", "name", "stream", "status", "file", NULL};
  PyObject *pattern, *method, *handler, *name = NULL, *file = NULL;
  int stream = 0, status = 200;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "UUO|$UpiO:Route", names, &pattern, &method, &handler, &name, &stream,
                                   &status, &file))
    return NULL;
  if (!name) return PyErr_Format(PyExc_TypeError, "Route needs the keyword name");
  if (!PyCallable_Check(handler)) return PyErr_Format(PyExc_TypeError, "the handler %R cannot be called", handler);
  if (status < 200 || status > 599) return PyErr_Format(PyExc_ValueError, "status %d is not in 200..599", status);
  if (file == Py_None) file = NULL;
  if (file && !is_file(type, file)) return NULL;
  route_object *r = (route_object *)type->tp_alloc(type, 0);
  if (!r) return NULL;
  r->pattern = Py_NewRef(pattern);
  r->method = Py_NewRef(method);
  r->handler = Py_NewRef(handler);
  r->name = Py_NewRef(name);
  r->stream = stream;
  r->status = status;
  r->file = Py_XNewRef(file);
  if (read_names(r) < 0 || read_handler(r) < 0) Py_CLEAR(r);
  return (PyObject *)r;
}

static int route_traverse(PyObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(((route_object *)self)->handler);
  Py_VISIT(((route_object *)self)->file);
  return 0;
}

static int route_clear(PyObject *self) {
  route_object *r = (route_object *)self;
  Py_CLEAR(r->pattern);
  Py_CLEAR(r->method);
  Py_CLEAR(r->handler);
  Py_CLEAR(r->name);
  Py_CLEAR(r->names);
  Py_CLEAR(r->file);
  return 0;
}

static void route_dealloc(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  route_clear(self);
  type->tp_free(self);
  Py_DECREF(type);
}

static PyMemberDef members[] = {
    {"pattern", T_OBJECT, offsetof(route_object, pattern), READONLY, NULL},
    {"method", T_OBJECT, offsetof(route_object, method), READONLY, NULL},
    {"handler", T_OBJECT, offsetof(route_object, handler), READONLY, NULL},
    {"name", T_OBJECT, offsetof(route_object, name), READONLY, NULL},
    {"stream", T_BOOL, offsetof(route_object, stream), READONLY, NULL},
    {"status", T_INT, offsetof(route_object, status), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "One handler under one pattern and method."},
    {Py_tp_new, route_new},
    {Py_tp_dealloc, route_dealloc},
    {Py_tp_traverse, route_traverse},
    {Py_tp_clear, route_clear},
    {Py_tp_members, members},
    {Py_tp_getset, getset},
    {0, NULL},
};

PyType_Spec route_spec = {.name = "eighties._engine.Route",
                          .basicsize = sizeof(route_object),
                          .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                          .slots = slots};
