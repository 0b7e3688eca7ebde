/* py_static.c - StaticFile: a small file that is answered from memory, without running Python. Interface: _engine.pyi.
 *
 * It belongs to a Route, whose handler serves the same file for whatever is not decided here: a range, a list of entity
 * tags, weighed encodings, a request with a body, or a file that has changed. So what is here is only what browsers ask
 * a thousand times, and the truth about everything is written once, in Python.
 */
#include <sys/stat.h>

#include "py.h"

struct static_object {
  PyObject_HEAD
  PyObject *path, *content_type, *fields, *etag, *last_modified, *body; /* bytes */
  /* Encoded siblings, the preferred first. They have none themselves, so nothing here leads back to here. */
  PyObject *names[STATIC_ENCODINGS]; /* of their content codings, bytes */
  span codings[STATIC_ENCODINGS];    /* the same */
  static_object *siblings[STATIC_ENCODINGS];
  int n;
  uint64_t mtime, size, inode; /* ns, modulo 2^64 */
  bool seen;                   /* `looked` counts */
  uint32_t looked;             /* second in which the file was last seen to be unchanged */
};

/* ---- is it still the file? ---- */

static bool look(const static_object *f) {
  struct stat st;
  if (stat(PyBytes_AS_STRING(f->path), &st) < 0 || !S_ISREG(st.st_mode)) return false;
#ifdef __APPLE__
  const struct timespec m = st.st_mtimespec;
#else
  const struct timespec m = st.st_mtim;
#endif
  return (uint64_t)m.tv_sec * 1000000000u + (uint64_t)m.tv_nsec == f->mtime && (uint64_t)st.st_size == f->size &&
         (uint64_t)st.st_ino == f->inode;
}

/* Once a second is enough, and a call for each request would be felt; `now` is such a second. */
static bool unchanged(static_object *f, uint32_t now, bool always) {
  if (f->seen && f->looked == now && !always) return true;
  f->seen = look(f);
  f->looked = now;
  return f->seen;
}

/* ---- answering ---- */

static span text_of(PyObject *bytes) { return (span){PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)}; }

static bool put_body(conn *c, static_object *f) {
  span body = text_of(f->body);
  if (c->is_head) return true;
  if (body.len <= COPY_BYTES) return conn_write(c, body.at, body.len);
  return conn_write_ref(c, body.at, body.len, Py_NewRef(f->body));
}

static bool put_answer(conn *c, static_object *f, bool modified) {
  answer a = {.status = modified ? 200 : 304, .extra = text_of(f->fields)};
  if (modified) a.content_type = text_of(f->content_type), a.length = (int64_t)PyBytes_GET_SIZE(f->body);
  return answer_head(c, &a) && (!modified || put_body(c, f));
}

/* No Python runs in here: the file stays what it is, its route's. An encoded sibling is only as true as the file itself:
 * both are looked at. */
bool static_answer(static_object *f, conn *c, const http1_head *head) {
  static_wishes w;
  static_read(head, &w);
  const int chosen = w.other ? -1 : static_choose(&w, f->codings, f->n);
  if (chosen < 0) return false;
  static_object *version = chosen < f->n ? f->siblings[chosen] : f;
  const static_verdict verdict = static_judge(&w, text_of(version->etag), text_of(version->last_modified));
  if (verdict == STATIC_OTHER || !unchanged(f, c->server->now, w.version)) return false;
  if (version != f && !unchanged(version, c->server->now, w.version)) return false;
  if (!put_answer(c, version, verdict == STATIC_WHOLE)) conn_close(c);
  return true;
}

/* ---- the object ---- */

static bool refused(const char *why) {
  PyErr_Format(PyExc_ValueError, "StaticFile: %s", why);
  return false;
}

/* A copy, where it is no bytes object exactly: those refer to nothing else, so that no circle goes through here. */
static PyObject *exact(PyObject *bytes) {
  if (PyBytes_CheckExact(bytes)) return Py_NewRef(bytes);
  return PyBytes_FromStringAndSize(PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
}

/* What goes into a head must not split it. */
static bool check(const static_object *f) {
  const span type = text_of(f->content_type), date = text_of(f->last_modified);
  if (!http1_is_value(type.at, type.len)) return refused("content_type holds a control character");
  if (!http1_is_value(date.at, date.len)) return refused("last_modified holds a control character");
  if (!static_is_etag(text_of(f->etag))) return refused("etag is no entity tag (RFC 9110 8.8.3)");
  const char *why = static_refuses(text_of(f->fields));
  return !why || refused(why);
}

static bool take_encoding(static_object *f, PyObject *pair) {
  PyObject *name, *file;
  if (!PyTuple_Check(pair)) {
    PyErr_SetString(PyExc_TypeError, "encodings are tuples of a content coding and a StaticFile");
    return false;
  }
  if (!PyArg_ParseTuple(pair, "SO!:encodings", &name, Py_TYPE(f), &file)) return false;
  if (f->n == STATIC_ENCODINGS) return refused("it has three encodings at most");
  if (!static_is_coding(text_of(name))) return refused("a content coding is a token in small letters");
  if (((static_object *)file)->n) return refused("an encoded sibling has no encodings of its own");
  if (!(f->names[f->n] = exact(name))) return false;
  f->siblings[f->n] = (static_object *)Py_NewRef(file);
  f->codings[f->n] = text_of(f->names[f->n]);
  f->n++;
  return true;
}

static bool take_encodings(static_object *f, PyObject *pairs) {
  PyObject *all = PySequence_Tuple(pairs);
  bool fine = all != NULL;
  for (Py_ssize_t i = 0; fine && i < PyTuple_GET_SIZE(all); i++) fine = take_encoding(f, PyTuple_GET_ITEM(all, i));
  Py_XDECREF(all);
  return fine;
}

typedef struct {
  PyObject *path, *content_type, *fields, *etag, *last_modified, *body, *encodings;
  unsigned long long mtime, size, inode;
} description;

/* With a reference to the path; the others are borrowed. */
static bool read_description(PyObject *args, PyObject *kwargs, description *d) {
  static char *names[] = {"path",          "mtime_ns", "size",      "inode", "content_type", "fields", "etag",
                          "last_modified", "body",     "encodings", NULL};
  *d = (description){0};
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&|$KKKSSSSSO:StaticFile", names, PyUnicode_FSConverter, &d->path,
                                   &d->mtime, &d->size, &d->inode, &d->content_type, &d->fields, &d->etag,
                                   &d->last_modified, &d->body, &d->encodings))
    return false;
  const Py_ssize_t given = PyTuple_GET_SIZE(args) + (kwargs ? PyDict_GET_SIZE(kwargs) : 0);
  if (given - (d->encodings != NULL) == 9) return true;
  PyErr_SetString(PyExc_TypeError, "StaticFile takes path and every keyword; only encodings may be left out");
  Py_CLEAR(d->path);
  return false;
}

static PyObject *static_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  description d;
  if (!read_description(args, kwargs, &d)) return NULL;
  static_object *f = (static_object *)type->tp_alloc(type, 0);
  bool fine = f && (f->path = exact(d.path)) && (f->content_type = exact(d.content_type)) &&
              (f->fields = exact(d.fields)) && (f->etag = exact(d.etag)) &&
              (f->last_modified = exact(d.last_modified)) && (f->body = exact(d.body));
  Py_DECREF(d.path);
  if (fine) {
    f->mtime = d.mtime;
    f->size = d.size;
    f->inode = d.inode;
    fine = check(f) && (!d.encodings || take_encodings(f, d.encodings));
  }
  if (!fine) Py_CLEAR(f);
  return (PyObject *)f;
}

static int static_traverse(PyObject *self, visitproc visit, void *arg) {
  static_object *f = (static_object *)self;
  Py_VISIT(Py_TYPE(self));
  for (int i = 0; i < f->n; i++) Py_VISIT(f->siblings[i]);
  return 0;
}

static void static_dealloc(PyObject *self) {
  static_object *f = (static_object *)self;
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  Py_CLEAR(f->path);
  Py_CLEAR(f->content_type);
  Py_CLEAR(f->fields);
  Py_CLEAR(f->etag);
  Py_CLEAR(f->last_modified);
  Py_CLEAR(f->body);
  for (int i = 0; i < f->n; i++) {
    Py_CLEAR(f->names[i]);
    Py_CLEAR(f->siblings[i]);
  }
  type->tp_free(self);
  Py_DECREF(type);
}

static PyType_Slot slots[] = {
    {Py_tp_doc, "A small file that is answered from memory."},
    {Py_tp_new, static_new},
    {Py_tp_dealloc, static_dealloc},
    {Py_tp_traverse, static_traverse},
    {0, NULL},
};

PyType_Spec static_spec = {.name = "eighties._engine.StaticFile",
                           .basicsize = sizeof(static_object),
                           .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                           .slots = slots};
