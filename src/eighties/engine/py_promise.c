/* py_promise.c - Resolver and prepare_promise: the part of promise.py that every promise pays for. Interface: _engine.pyi.
 *
 * The Promise type is promise.py's, a subclass of asyncio.Future; it is given once, by use_promise.
 */
#include "py.h"

#include <structmember.h>

typedef struct {
  PyObject_HEAD
  vectorcallfunc call;
  PyObject
      *promise; /* NULL when this resolver has settled it: an error's frames may hold the resolver, and it nothing */
} resolver_object;

/* ---- Resolver ---- */

static PyObject *settle_several(resolver_object *self, module_state *m, PyObject *const *args, Py_ssize_t n) {
  PyObject *values = PyTuple_New(n);
  if (!values) return NULL;
  for (Py_ssize_t i = 0; i < n; i++) PyTuple_SET_ITEM(values, i, Py_NewRef(args[i]));
  PyObject *promise = Py_NewRef(self->promise), *result = PyObject_CallMethodOneArg(promise, m->settle_several, values);
  Py_DECREF(values);
  Py_DECREF(promise);
  if (result == Py_True) Py_CLEAR(self->promise);
  return result;
}

static PyObject *settle(resolver_object *self, module_state *m, PyObject *value) {
  PyObject *promise = Py_NewRef(self->promise), *none = PyObject_CallMethodOneArg(promise, m->set_result, value);
  Py_DECREF(promise);
  if (none) {
    Py_CLEAR(self->promise);
    Py_DECREF(none);
    Py_RETURN_TRUE;
  }
  if (!PyErr_ExceptionMatches(m->invalid_state_error)) return NULL;
  PyErr_Clear();
  Py_RETURN_FALSE;
}

static PyObject *resolver_call(PyObject *object, PyObject *const *args, size_t nargsf, PyObject *names) {
  resolver_object *self = (resolver_object *)object;
  Py_ssize_t n = PyVectorcall_NARGS(nargsf);
  module_state *m = state_of(Py_TYPE(object));
  if (names && PyTuple_GET_SIZE(names)) return PyErr_Format(PyExc_TypeError, "resolve takes no keyword arguments");
  if (!self->promise) Py_RETURN_FALSE;
  return n > 1 ? settle_several(self, m, args, n) : settle(self, m, n ? args[0] : Py_None);
}

static PyObject *resolver_reject(PyObject *object, PyObject *error) {
  resolver_object *self = (resolver_object *)object;
  if (!self->promise) Py_RETURN_FALSE;
  PyObject *promise = Py_NewRef(self->promise);
  PyObject *result = PyObject_CallMethodOneArg(promise, state_of(Py_TYPE(object))->fail, error);
  Py_DECREF(promise);
  if (result == Py_True) Py_CLEAR(self->promise);
  return result;
}

/* Promise.abandon does nothing where the promise is settled or the interpreter ends. */
static void resolver_finalize(PyObject *object) {
  resolver_object *self = (resolver_object *)object;
  if (!self->promise) return;
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyObject *none = PyObject_CallMethodNoArgs(self->promise, state_of(Py_TYPE(object))->abandon);
  if (!none) PyErr_WriteUnraisable(object);
  Py_XDECREF(none);
  PyErr_Restore(type, value, trace);
}

static int resolver_traverse(PyObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(((resolver_object *)self)->promise);
  return 0;
}

static int resolver_clear(PyObject *self) {
  Py_CLEAR(((resolver_object *)self)->promise);
  return 0;
}

static void resolver_dealloc(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  if (PyObject_CallFinalizerFromDealloc(self) < 0) return; /* somebody holds it again */
  PyObject_GC_UnTrack(self);
  resolver_clear(self);
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

static PyObject *resolver_make(PyTypeObject *type, PyObject *promise) {
  resolver_object *self = PyObject_GC_New(resolver_object, type);
  if (!self) return NULL;
  self->call = resolver_call;
  self->promise = Py_NewRef(promise);
  PyObject_GC_Track(self);
  return (PyObject *)self;
}

static PyObject *resolver_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"promise", NULL};
  PyObject *promise;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Resolver", names, &promise)) return NULL;
  return resolver_make(type, promise);
}

static PyObject *resolver_repr(PyObject *self) {
  PyObject *promise = ((resolver_object *)self)->promise;
  return promise ? PyUnicode_FromFormat("<Resolver of %R>", promise) : PyUnicode_FromString("<Resolver, settled>");
}

static PyMethodDef methods[] = {
    {"reject", resolver_reject, METH_O, "Reject the promise with an exception; False: was settled already."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(resolver_object, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Settles one promise, once."},
    {Py_tp_new, resolver_new},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_repr, resolver_repr},
    {Py_tp_finalize, resolver_finalize},
    {Py_tp_dealloc, resolver_dealloc},
    {Py_tp_traverse, resolver_traverse},
    {Py_tp_clear, resolver_clear},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {0, NULL},
};

PyType_Spec resolver_spec = {.name = "eighties._engine.Resolver",
                             .basicsize = sizeof(resolver_object),
                             .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
                                      Py_TPFLAGS_IMMUTABLETYPE,
                             .slots = slots};

/* ---- making both ---- */

/* Where the program makes the promise: cheap to keep, and looked up only when something has gone wrong. */
static int mark_place(module_state *m, PyObject *promise) {
  PyFrameObject *frame = PyEval_GetFrame();
  if (!frame) return 0;
  PyObject *code = (PyObject *)PyFrame_GetCode(frame), *lasti = PyLong_FromLong(PyFrame_GetLasti(frame));
  int result = lasti ? PyObject_SetAttr(promise, m->code, code) : -1;
  if (result == 0) result = PyObject_SetAttr(promise, m->lasti, lasti);
  Py_DECREF(code);
  Py_XDECREF(lasti);
  return result;
}

static PyObject *prepare_promise(PyObject *module, PyObject *Py_UNUSED(none)) {
  module_state *m = PyModule_GetState(module);
  if (!m->promise) return PyErr_Format(PyExc_RuntimeError, "import eighties.promise first");
  PyObject *promise = PyObject_CallNoArgs(m->promise), *resolve = NULL, *pair = NULL;
  if (promise && mark_place(m, promise) == 0) resolve = resolver_make(m->resolver, promise);
  if (resolve) pair = PyTuple_Pack(2, resolve, promise);
  Py_XDECREF(resolve);
  Py_XDECREF(promise);
  return pair;
}

static PyObject *use_promise(PyObject *module, PyObject *type) {
  module_state *m = PyModule_GetState(module);
  Py_XSETREF(m->promise, Py_NewRef(type));
  Py_RETURN_NONE;
}

PyMethodDef promise_functions[] = {
    {"prepare_promise", prepare_promise, METH_NOARGS, "A new promise, and what resolves it."},
    {"use_promise", use_promise, METH_O, "The type of promises; promise.py gives it."},
    {NULL, NULL, 0, NULL},
};
