/* py_multidict.c - MultiDict: names to values, a name may stand several times. Interface: _engine.pyi.
 *
 * Most have a few pairs of which one is looked up: up to FEW stand in an array. When more come, or anything else is asked,
 * they move to `first`, a dict of each name's first value. Only when a name repeats are there also `pairs`, all in order,
 * and `more`, from repeated names to lists of their values: so every operation is linear in what it returns.
 */
#include "py.h"

#define FEW 4

typedef struct {
  PyObject_HEAD
  PyObject *first, *pairs, *more;
  PyObject *few[2 * FEW]; /* name, value, ... until `first` is made */
  int n_few;
  bool ignore_case;
} multidict;

static multidict *make(module_state *m, bool ignore_case) {
  multidict *d = (multidict *)m->multidict->tp_alloc(m->multidict, 0);
  if (!d) return NULL;
  d->ignore_case = ignore_case;
  return d;
}

/* The pairs so far, in order: until now no name was repeated. */
static int begin_pairs(multidict *d) {
  d->pairs = PyMapping_Items(d->first);
  d->more = PyDict_New();
  return d->pairs && d->more ? 0 : -1;
}

static int add_more(multidict *d, PyObject *name, PyObject *value) {
  PyObject *list = PyDict_GetItemWithError(d->more, name);
  if (list) return PyList_Append(list, value);
  if (PyErr_Occurred()) return -1;
  list = PyList_New(0);
  int result = -1;
  if (list && PyList_Append(list, PyDict_GetItem(d->first, name)) == 0 && PyList_Append(list, value) == 0)
    result = PyDict_SetItem(d->more, name, list);
  Py_XDECREF(list);
  return result;
}

static int add_indexed(multidict *d, PyObject *name, PyObject *value) {
  int known = PyDict_Contains(d->first, name);
  if (known < 0) return -1;
  if (known) {
    if (!d->pairs && begin_pairs(d) < 0) return -1;
    if (add_more(d, name, value) < 0) return -1;
  } else if (PyDict_SetItem(d->first, name, value) < 0) {
    return -1;
  }
  if (!d->pairs) return 0;
  PyObject *pair = PyTuple_Pack(2, name, value);
  int result = pair ? PyList_Append(d->pairs, pair) : -1;
  Py_XDECREF(pair);
  return result;
}

static void clear_few(multidict *d) {
  while (d->n_few > 0) Py_CLEAR(d->few[--d->n_few]);
}

/* Move the few to the dict; everything but the commonest look-up works on that. */
static int make_index(multidict *d) {
  if (d->first) return 0;
  d->first = PyDict_New();
  int result = d->first ? 0 : -1;
  for (int i = 0; result == 0 && i < d->n_few; i += 2) result = add_indexed(d, d->few[i], d->few[i + 1]);
  clear_few(d);
  return result;
}

/* Takes over both references. */
static int add_owned(multidict *d, PyObject *name, PyObject *value) {
  if (name && value && !d->first && d->n_few < 2 * FEW) {
    d->few[d->n_few++] = name;
    d->few[d->n_few++] = value;
    return 0;
  }
  int result = name && value && make_index(d) == 0 ? add_indexed(d, name, value) : -1;
  Py_XDECREF(name);
  Py_XDECREF(value);
  return result;
}

/* ---- from the engine ---- */

PyObject *text_decoded(span raw, bool plus) {
  if (!memchr(raw.at, '%', raw.len) && !(plus && memchr(raw.at, '+', raw.len)))
    return PyUnicode_DecodeUTF8(raw.at, (Py_ssize_t)raw.len, "replace");
  char *plain = PyMem_Malloc(raw.len);
  if (!plain) return PyErr_NoMemory();
  size_t len = query_decode(raw, plain, plus);
  PyObject *text = PyUnicode_DecodeUTF8(plain, (Py_ssize_t)len, "replace");
  PyMem_Free(plain);
  return text;
}

PyObject *multidict_of_query(module_state *m, span text) {
  multidict *d = make(m, false);
  span name, value;
  while (d && query_next(&text, &name, &value))
    if (add_owned(d, text_decoded(name, true), text_decoded(value, true)) < 0) Py_CLEAR(d);
  return (PyObject *)d;
}

static PyObject *lower_name(const char *at, size_t len) {
  PyObject *name = PyUnicode_New((Py_ssize_t)len, 127); /* a token: ASCII */
  if (!name) return NULL;
  Py_UCS1 *to = PyUnicode_1BYTE_DATA(name);
  for (size_t i = 0; i < len; i++) to[i] = (Py_UCS1)(at[i] >= 'A' && at[i] <= 'Z' ? at[i] | 0x20 : at[i]);
  return name;
}

PyObject *multidict_of_fields(module_state *m, const char *head, const http1_field *fields, size_t n) {
  multidict *d = make(m, true);
  for (size_t i = 0; d && i < n; i++) {
    PyObject *name = lower_name(head + fields[i].name, fields[i].name_len);
    PyObject *value = PyUnicode_DecodeLatin1(head + fields[i].value, fields[i].value_len, NULL);
    if (add_owned(d, name, value) < 0) Py_CLEAR(d);
  }
  return (PyObject *)d;
}

/* ---- from Python ---- */

static PyObject *folded(const multidict *d, PyObject *name) {
  if (!d->ignore_case || !PyUnicode_Check(name)) return Py_NewRef(name);
  return PyObject_CallMethod(name, "lower", NULL);
}

static int add_pair(multidict *d, PyObject *pair) {
  PyObject *two = PySequence_Fast(pair, "MultiDict takes pairs of name and value");
  int result = -1;
  if (!two) return -1;
  if (PySequence_Fast_GET_SIZE(two) != 2 || !PyUnicode_Check(PySequence_Fast_GET_ITEM(two, 0)))
    PyErr_SetString(PyExc_TypeError, "MultiDict takes pairs of a str name and a value");
  else result = add_owned(d, folded(d, PySequence_Fast_GET_ITEM(two, 0)), Py_NewRef(PySequence_Fast_GET_ITEM(two, 1)));
  Py_DECREF(two);
  return result;
}

static PyObject *multidict_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"pairs", "ignore_case", NULL};
  PyObject *pairs = NULL, *item;
  int ignore_case = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|Op:MultiDict", names, &pairs, &ignore_case)) return NULL;
  multidict *d = make(state_of(type), ignore_case);
  if (!d || !pairs) return (PyObject *)d;
  PyObject *iterator = PyObject_GetIter(pairs);
  while (d && iterator && (item = PyIter_Next(iterator))) {
    if (add_pair(d, item) < 0) Py_CLEAR(d);
    Py_DECREF(item);
  }
  Py_XDECREF(iterator);
  if (PyErr_Occurred()) Py_CLEAR(d);
  return (PyObject *)d;
}

static int multidict_traverse(PyObject *self, visitproc visit, void *arg) {
  multidict *d = (multidict *)self;
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(d->first);
  Py_VISIT(d->pairs);
  Py_VISIT(d->more);
  for (int i = 0; i < d->n_few; i++) Py_VISIT(d->few[i]);
  return 0;
}

static int multidict_clear(PyObject *self) {
  multidict *d = (multidict *)self;
  Py_CLEAR(d->first);
  Py_CLEAR(d->pairs);
  Py_CLEAR(d->more);
  clear_few(d);
  return 0;
}

static void multidict_dealloc(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  multidict_clear(self);
  type->tp_free(self);
  Py_DECREF(type);
}

/* A borrowed value, or NULL with no exception when the name is not there. */
static PyObject *find(multidict *d, PyObject *name) {
  PyObject *key = folded(d, name), *value = NULL;
  if (key && !d->first && PyUnicode_Check(key)) {
    for (int i = 0; !value && i < d->n_few; i += 2)
      if (PyUnicode_Compare(d->few[i], key) == 0) value = d->few[i + 1];
  } else if (key && make_index(d) == 0) {
    value = PyDict_GetItemWithError(d->first, key);
  }
  Py_XDECREF(key);
  return value;
}

static PyObject *multidict_subscript(PyObject *self, PyObject *name) {
  PyObject *value = find((multidict *)self, name);
  if (!value && !PyErr_Occurred()) PyErr_SetObject(PyExc_KeyError, name);
  return Py_XNewRef(value);
}

static int multidict_contains(PyObject *self, PyObject *name) {
  if (!PyUnicode_Check(name)) return 0;
  PyObject *value = find((multidict *)self, name);
  return value ? 1 : PyErr_Occurred() ? -1 : 0;
}

static Py_ssize_t multidict_len(PyObject *self) {
  multidict *d = (multidict *)self;
  return make_index(d) < 0 ? -1 : PyDict_GET_SIZE(d->first);
}

static PyObject *multidict_iter(PyObject *self) {
  multidict *d = (multidict *)self;
  return make_index(d) < 0 ? NULL : PyObject_GetIter(d->first);
}

static PyObject *multidict_get(PyObject *self, PyObject *const *args, Py_ssize_t n) {
  if (n < 1 || n > 2) return PyErr_Format(PyExc_TypeError, "get takes a name and a default, not %zd arguments", n);
  PyObject *value = find((multidict *)self, args[0]);
  if (!value && PyErr_Occurred()) return NULL;
  return Py_NewRef(value ? value : n == 2 ? args[1] : Py_None);
}

static PyObject *multidict_getall(PyObject *self, PyObject *name) {
  multidict *d = (multidict *)self;
  PyObject *key = make_index(d) < 0 ? NULL : folded(d, name), *result = NULL;
  if (!key) return NULL;
  PyObject *many = d->more ? PyDict_GetItemWithError(d->more, key) : NULL;
  if (many) {
    result = PyList_GetSlice(many, 0, PyList_GET_SIZE(many));
  } else if (!PyErr_Occurred()) {
    PyObject *one = PyDict_GetItemWithError(d->first, key);
    result = one || !PyErr_Occurred() ? PyList_New(one ? 1 : 0) : NULL;
    if (result && one) PyList_SET_ITEM(result, 0, Py_NewRef(one));
  }
  Py_DECREF(key);
  return result;
}

static PyObject *multidict_keys(PyObject *self, PyObject *Py_UNUSED(none)) {
  multidict *d = (multidict *)self;
  return make_index(d) < 0 ? NULL : PyDict_Keys(d->first);
}

static PyObject *multidict_values(PyObject *self, PyObject *Py_UNUSED(none)) {
  multidict *d = (multidict *)self;
  return make_index(d) < 0 ? NULL : PyDict_Values(d->first);
}

static PyObject *multidict_items(PyObject *self, PyObject *Py_UNUSED(none)) {
  multidict *d = (multidict *)self;
  return make_index(d) < 0 ? NULL : PyDict_Items(d->first);
}

static PyObject *multidict_pairs(PyObject *self, PyObject *Py_UNUSED(none)) {
  multidict *d = (multidict *)self;
  if (make_index(d) < 0) return NULL;
  return d->pairs ? PyList_GetSlice(d->pairs, 0, PyList_GET_SIZE(d->pairs)) : PyDict_Items(d->first);
}

static PyObject *multidict_repr(PyObject *self) {
  PyObject *pairs = multidict_pairs(self, NULL);
  PyObject *text = pairs ? PyUnicode_FromFormat("MultiDict(%R)", pairs) : NULL;
  Py_XDECREF(pairs);
  return text;
}

static PyObject *multidict_compare(PyObject *self, PyObject *other, int op) {
  if ((op != Py_EQ && op != Py_NE) || Py_TYPE(self) != Py_TYPE(other)) Py_RETURN_NOTIMPLEMENTED;
  PyObject *a = multidict_pairs(self, NULL), *b = multidict_pairs(other, NULL), *result = NULL;
  if (a && b) result = PyObject_RichCompare(a, b, op);
  Py_XDECREF(a);
  Py_XDECREF(b);
  return result;
}

static PyMethodDef methods[] = {
    {"get", (PyCFunction)(void (*)(void))multidict_get, METH_FASTCALL, "First value of a name, or the default."},
    {"getall", multidict_getall, METH_O, "All values of a name, in order."},
    {"keys", multidict_keys, METH_NOARGS, "Each name once."},
    {"values", multidict_values, METH_NOARGS, "The first value of each name."},
    {"items", multidict_items, METH_NOARGS, "Each name with its first value."},
    {"pairs", multidict_pairs, METH_NOARGS, "All pairs, in order."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "An immutable mapping of text to text in which a name may stand several times."},
    {Py_tp_new, multidict_new},
    {Py_tp_dealloc, multidict_dealloc},
    {Py_tp_traverse, multidict_traverse},
    {Py_tp_clear, multidict_clear},
    {Py_tp_repr, multidict_repr},
    {Py_tp_iter, multidict_iter},
    {Py_tp_richcompare, multidict_compare},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_tp_methods, methods},
    {Py_mp_subscript, multidict_subscript},
    {Py_mp_length, multidict_len},
    {Py_sq_contains, multidict_contains},
    {0, NULL},
};

PyType_Spec multidict_spec = {.name = "eighties._engine.MultiDict",
                              .basicsize = sizeof(multidict),
                              .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                              .slots = slots};
