/* py_static.c - StaticFile: a small file that is answered from memory, without running Python. Interface: _engine.pyi.
 *
 * It belongs to a Route, whose handler serves the same file for whatever is not decided here: a range, a list of entity
 * tags, weighed encodings, a request with a body, or a file that has changed. So what is here is only what browsers ask
 * a thousand times, and the truth about everything is written once, in Python.
 */
#include <sys/stat.h>

#include "py.h"

#define MOST_ENCODINGS 3 /* br, zstd, gzip */

typedef struct {
  PyObject *name, *file; /* content coding, and the StaticFile of the encoded sibling */
} encoding;

struct static_object {
  PyObject_HEAD
  PyObject *path, *content_type, *fields, *etag, *last_modified, *body; /* bytes, all but path */
  encoding encodings[MOST_ENCODINGS];                                   /* in the order of preference */
  int n_encodings;
  int64_t mtime; /* ns */
  uint64_t size, inode;
  uint32_t looked; /* second in which the file was last seen to be unchanged */
};

/* ---- is it still the file? ---- */

static bool unchanged(static_object *f, uint32_t now) {
  if (f->looked == now) return true; /* once a second is enough, and a call for each request would be felt */
  struct stat st;
  if (stat(PyBytes_AS_STRING(f->path), &st) < 0 || !S_ISREG(st.st_mode)) return false;
#ifdef __APPLE__
  struct timespec m = st.st_mtimespec;
#else
  struct timespec m = st.st_mtim;
#endif
  bool same = (int64_t)m.tv_sec * 1000000000 + m.tv_nsec == f->mtime && (uint64_t)st.st_size == f->size &&
              (uint64_t)st.st_ino == f->inode;
  if (same) f->looked = now;
  return same;
}

/* ---- what is asked ---- */

typedef struct {
  span none_match, modified_since, encodings;
  bool other; /* asks for something that is not decided here */
} wishes;

static bool is_value(span value, PyObject *text) {
  size_t len = (size_t)PyBytes_GET_SIZE(text);
  return value.len == len && memcmp(value.at, PyBytes_AS_STRING(text), len) == 0;
}

/* The fields that matter (RFC 9110 sections 12.5.3, 13.1 and 14.2); names of other lengths are not looked at. */
static void note_field(wishes *w, const char *head, const http1_field *field) {
  const span name = {head + field->name, field->name_len}, value = {head + field->value, field->value_len};
  switch (name.len) {
  case 5: w->other |= http1_same(name.at, 5, "range"); break;
  case 8: w->other |= http1_same(name.at, 8, "if-match") || http1_same(name.at, 8, "if-range"); break;
  case 13:
    if (!http1_same(name.at, 13, "if-none-match")) break;
    w->other |= w->none_match.at != NULL;
    w->none_match = value;
    break;
  case 15:
    if (!http1_same(name.at, 15, "accept-encoding")) break;
    w->other |= w->encodings.at != NULL;
    w->encodings = value;
    break;
  case 17:
    if (http1_same(name.at, 17, "if-modified-since")) w->modified_since = value;
    break;
  case 19: w->other |= http1_same(name.at, 19, "if-unmodified-since"); break;
  default: break;
  }
}

static bool has_token(span list, PyObject *token) {
  size_t len = (size_t)PyBytes_GET_SIZE(token);
  for (size_t i = 0; i < list.len;) {
    while (i < list.len && (list.at[i] == ' ' || list.at[i] == '\t' || list.at[i] == ',')) i++;
    size_t start = i;
    while (i < list.len && list.at[i] != ' ' && list.at[i] != '\t' && list.at[i] != ',') i++;
    if (i - start == len && http1_same(list.at + start, len, PyBytes_AS_STRING(token))) return true;
  }
  return false;
}

/* The sibling that is encoded as the client likes it; itself where there is none; NULL: weights have to be read. */
static static_object *encoded(static_object *f, span accepted) {
  if (!f->n_encodings || !accepted.len) return f;
  if (memchr(accepted.at, ';', accepted.len) || memchr(accepted.at, '*', accepted.len)) return NULL;
  for (int i = 0; i < f->n_encodings; i++)
    if (has_token(accepted, f->encodings[i].name)) return (static_object *)f->encodings[i].file;
  return f;
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

bool static_answer(static_object *f, conn *c, const http1_head *head) {
  wishes w = {0};
  for (size_t i = 0; i < head->n_fields; i++) note_field(&w, head->bytes.at, &head->fields[i]);
  if (w.other) return false;
  f = encoded(f, w.encodings);
  if (!f || !unchanged(f, c->server->now)) return false;
  bool modified = true;
  if (w.none_match.at) { /* If-Modified-Since does not count then (RFC 9110 section 13.1.3) */
    modified = !is_value(w.none_match, f->etag);
    if (modified && (memchr(w.none_match.at, ',', w.none_match.len) || memchr(w.none_match.at, '*', w.none_match.len)))
      return false;
  } else if (w.modified_since.at) {
    modified = false;
    if (!is_value(w.modified_since, f->last_modified)) return false;
  }
  if (!put_answer(c, f, modified)) conn_close(c);
  return true;
}

/* ---- the object ---- */

static int take_encodings(static_object *f, PyTypeObject *type, PyObject *pairs) {
  PyObject *all = pairs ? PySequence_Fast(pairs, "encodings are pairs of a content coding and a StaticFile") : NULL;
  if (!pairs) return 0;
  if (!all) return -1;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(all) && !PyErr_Occurred(); i++) {
    PyObject *name, *file;
    encoding *e = &f->encodings[f->n_encodings];
    if (f->n_encodings == MOST_ENCODINGS) {
      PyErr_Format(PyExc_ValueError, "a StaticFile has %d encodings at most", MOST_ENCODINGS);
    } else if (PyArg_ParseTuple(PySequence_Fast_GET_ITEM(all, i), "SO!", &name, type, &file)) {
      *e = (encoding){Py_NewRef(name), Py_NewRef(file)};
      f->n_encodings++;
    }
  }
  Py_DECREF(all);
  return PyErr_Occurred() ? -1 : 0;
}

static PyObject *static_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"path",          "mtime_ns", "size",      "inode", "content_type", "fields", "etag",
                          "last_modified", "body",     "encodings", NULL};
  PyObject *path, *content_type, *fields, *etag, *last_modified, *body, *encodings = NULL;
  long long mtime;
  unsigned long long size, inode;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&|$LKKSSSSSO:StaticFile", names, PyUnicode_FSConverter, &path,
                                   &mtime, &size, &inode, &content_type, &fields, &etag, &last_modified, &body,
                                   &encodings))
    return NULL;
  if (PyTuple_GET_SIZE(args) != 1 || !kwargs || PyDict_GET_SIZE(kwargs) < 8) {
    Py_DECREF(path);
    return PyErr_Format(PyExc_TypeError, "StaticFile takes path and every keyword; only encodings may be left out");
  }
  static_object *f = (static_object *)type->tp_alloc(type, 0);
  if (!f) {
    Py_DECREF(path);
    return NULL;
  }
  f->path = path;
  f->content_type = Py_NewRef(content_type);
  f->fields = Py_NewRef(fields);
  f->etag = Py_NewRef(etag);
  f->last_modified = Py_NewRef(last_modified);
  f->body = Py_NewRef(body);
  f->mtime = mtime;
  f->size = size;
  f->inode = inode;
  if (take_encodings(f, type, encodings) < 0) Py_CLEAR(f);
  return (PyObject *)f;
}

static int static_traverse(PyObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
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
  while (f->n_encodings) {
    encoding *e = &f->encodings[--f->n_encodings];
    Py_CLEAR(e->name);
    Py_CLEAR(e->file);
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
