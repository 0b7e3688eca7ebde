/* py_response.c - Response and FileRegion, and how what a handler returns becomes bytes. Interface: _engine.pyi. */
#include "py.h"

#include <stddef.h>
#include <structmember.h>
#include <unistd.h>

#define STATUS_MIN 200
#define STATUS_MAX 599

/* ---- header fields of the program ---- */

typedef struct {
  bytes lines;
  bool has_type, has_date, has_server, has_allow, close;
} field_lines;

/* Latin-1 bytes of a str (RFC 9110 section 5.5); NULL with an exception otherwise. */
static PyObject *latin1(PyObject *text, const char *what) {
  if (!PyUnicode_Check(text))
    return PyErr_Format(PyExc_TypeError, "a header field's %s is a str, not %.100s", what, Py_TYPE(text)->tp_name);
  return PyUnicode_AsLatin1String(text);
}

/* Fields that bear on framing are the engine's. Returns 1: leave out, 0: send, -1: refused. */
static int judge_field(field_lines *to, const char *name, size_t len, const char *value, size_t value_len) {
  if (http1_same(name, len, "content-length")) return 1;
  if (http1_same(name, len, "content-type")) to->has_type = true;
  if (http1_same(name, len, "date")) to->has_date = true;
  if (http1_same(name, len, "server")) to->has_server = true;
  if (http1_same(name, len, "allow")) to->has_allow = true;
  if (http1_same(name, len, "connection")) {
    to->close |= http1_same(value, value_len, "close");
    return 1;
  }
  if (http1_same(name, len, "transfer-encoding") || http1_same(name, len, "keep-alive") ||
      http1_same(name, len, "upgrade") || http1_same(name, len, "trailer")) {
    PyErr_Format(PyExc_ValueError, "the header field %s is the engine's to set", name);
    return -1;
  }
  return 0;
}

static int add_field(field_lines *to, PyObject *pair) {
  if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
    PyErr_SetString(PyExc_TypeError, "header fields are tuples of a name and a value");
    return -1;
  }
  PyObject *name = latin1(PyTuple_GET_ITEM(pair, 0), "name"), *value = NULL;
  int result = -1;
  if (name && (value = latin1(PyTuple_GET_ITEM(pair, 1), "value"))) {
    const char *n = PyBytes_AS_STRING(name), *v = PyBytes_AS_STRING(value);
    size_t n_len = (size_t)PyBytes_GET_SIZE(name), v_len = (size_t)PyBytes_GET_SIZE(value);
    if (!http1_is_token(n, n_len))
      PyErr_Format(PyExc_ValueError, "%R is no header field name (RFC 9110 5.1)", PyTuple_GET_ITEM(pair, 0));
    else if (!http1_is_value(v, v_len))
      PyErr_Format(PyExc_ValueError, "the value of header field %s holds a control character (RFC 9110 5.5)", n);
    else if ((result = judge_field(to, n, n_len, v, v_len)) == 0 &&
             !(bytes_append(&to->lines, n, n_len) && bytes_append(&to->lines, ": ", 2) &&
               bytes_append(&to->lines, v, v_len) && bytes_append(&to->lines, "\r\n", 2))) {
      PyErr_NoMemory();
      result = -1;
    }
  }
  Py_XDECREF(name);
  Py_XDECREF(value);
  return result < 0 ? -1 : 0;
}

static int add_allow(field_lines *to, const conn *c, int status) {
  char allow[ALLOW_BYTES];
  if (status != 405 || to->has_allow || !c->allowed) return 0; /* RFC 9110 section 15.5.6: a 405 has Allow */
  if (bytes_append(&to->lines, allow, answer_allow(allow, c->allowed))) return 0;
  PyErr_NoMemory();
  return -1;
}

static int content_type_of(const response_object *response, const field_lines *lines, span *type) {
  *type = (span){"", 0};
  if (lines->has_type || !response->content_type || response->content_type == Py_None) return 0;
  Py_ssize_t len;
  const char *text = PyUnicode_AsUTF8AndSize(response->content_type, &len);
  if (!text) return -1;
  *type = (span){text, (size_t)len};
  if (http1_is_value(text, (size_t)len)) return 0;
  PyErr_SetString(PyExc_ValueError, "the content type holds a control character");
  return -1;
}

int response_head(request_object *r, response_object *response, int64_t length) {
  field_lines lines = {0};
  answer a = {.status = response->status, .length = length};
  int result = -1;
  if (!r->conn) {
    PyErr_SetString(PyExc_ConnectionError, "the client has left");
    return -1;
  }
  if (response->status < STATUS_MIN || response->status > STATUS_MAX) {
    PyErr_Format(PyExc_ValueError, "status %d is not in 200..599", response->status);
    goto done;
  }
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(response->fields); i++)
    if (add_field(&lines, PyList_GET_ITEM(response->fields, i)) < 0) goto done;
  if (add_allow(&lines, r->conn, response->status) < 0) goto done;
  if (content_type_of(response, &lines, &a.content_type) < 0) goto done;
  a.extra = (span){lines.lines.at ? lines.lines.at : "", lines.lines.len};
  a.has_date = lines.has_date;
  a.has_server = lines.has_server;
  a.close = lines.close;
  if (answer_head(r->conn, &a)) result = 0;
  else PyErr_NoMemory();
done:
  bytes_clear(&lines.lines);
  return result;
}

/* ---- bodies ---- */

/* The exchange is over: its answer is complete in the queue. */
static int finish(request_object *r, bool written) {
  conn *c = r->conn;
  request_unlink(r);
  if (written) conn_end_answer(c);
  else conn_abort(c); /* no memory for the rest of an answer that has begun */
  return 0;
}

static bool write_body(conn *c, const char *at, size_t len, PyObject *owner) {
  if (!c->out_left) return true; /* HEAD, 204, 304, or nothing to send */
  if (len <= COPY_BYTES) return conn_write(c, at, len);
  return conn_write_ref(c, at, len, Py_NewRef(owner));
}

/* str and bytes, without a Response in between: the common case. */
static int answer_plain(request_object *r, span type, const char *at, Py_ssize_t len, PyObject *owner) {
  answer a = {.status = r->route->status, .content_type = type, .length = len, .extra = {"", 0}};
  char allow[ALLOW_BYTES];
  if (a.status == 405 && r->conn->allowed) a.extra = (span){allow, answer_allow(allow, r->conn->allowed)};
  if (!answer_head(r->conn, &a)) {
    PyErr_NoMemory();
    return -1;
  }
  return finish(r, write_body(r->conn, at, (size_t)len, owner));
}

static int answer_text_value(request_object *r, PyObject *value) {
  static const char type[] = "text/plain; charset=utf-8";
  Py_ssize_t len;
  const char *at = PyUnicode_AsUTF8AndSize(value, &len);
  return at ? answer_plain(r, (span){type, sizeof type - 1}, at, len, value) : -1;
}

static int answer_file(request_object *r, response_object *response) {
  file_object *file = (file_object *)response->body;
  if (response_head(r, response, file->length) < 0) return -1;
  conn *c = r->conn;
  return finish(r, !c->out_left ||
                       conn_write_file(c, file->fd, (size_t)file->offset, (size_t)file->length, Py_NewRef(file)));
}

static int answer_bytes(request_object *r, response_object *response, PyObject *body) {
  Py_ssize_t len = 0;
  const char *at = "";
  bool none = body == Py_None || response->status == 204 || response->status == 304;
  if (!none && PyUnicode_Check(body)) {
    at = PyUnicode_AsUTF8AndSize(body, &len);
    if (!at) return -1;
  } else if (!none) {
    at = PyBytes_AS_STRING(body);
    len = PyBytes_GET_SIZE(body);
  }
  if (response_head(r, response, len) < 0) return -1;
  return finish(r, write_body(r->conn, at, (size_t)len, body));
}

/* A streamed body needs a task: 1. */
int answer_response(request_object *r, response_object *response) {
  PyObject *body = response->body ? response->body : Py_None;
  if (Py_TYPE(body) == r->engine->state->file) return answer_file(r, response);
  if (body == Py_None || PyUnicode_Check(body) || PyBytes_Check(body)) return answer_bytes(r, response, body);
  if (PyObject_CheckBuffer(body)) {
    PyObject *copy = PyBytes_FromObject(body);
    int result = copy ? answer_bytes(r, response, copy) : -1;
    Py_XDECREF(copy);
    return result;
  }
  if (!Py_TYPE(body)->tp_as_async || !Py_TYPE(body)->tp_as_async->am_aiter) {
    PyErr_Format(PyExc_TypeError, "the body of a Response is str, bytes, None, a file or an async iterable, not %.100s",
                 Py_TYPE(body)->tp_name);
    return -1;
  }
  if (!r->conn->is_head) return 1;
  if (request_send_head(r, response, true) < 0) return -1;
  return finish(r, true);
}

/* Answer with a value that is a body by itself; *handled false: it is something else. */
int answer_value(request_object *r, PyObject *value, bool *handled) {
  *handled = true;
  if (PyUnicode_Check(value)) return answer_text_value(r, value);
  if (PyBytes_Check(value)) {
    PyObject *type = r->route->content_type;
    const span kind = {(const char *)PyUnicode_DATA(type), (size_t)PyUnicode_GET_LENGTH(type)};
    return answer_plain(r, kind, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), value);
  }
  if (value == Py_None) {
    answer a = {.status = r->route->status == 200 ? 204 : r->route->status, .extra = {"", 0}};
    if (answer_head(r->conn, &a)) return finish(r, true);
    PyErr_NoMemory();
    return -1;
  }
  *handled = false;
  return 0;
}

/* ---- Response ---- */

static PyObject *response_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs)) {
  response_object *self = (response_object *)type->tp_alloc(type, 0);
  if (!self) return NULL;
  self->status = 200;
  self->fields = PyList_New(0);
  if (!self->fields) Py_CLEAR(self);
  return (PyObject *)self;
}

static int response_init(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"body", "status", "fields", "content_type", NULL};
  response_object *r = (response_object *)self;
  PyObject *body = Py_None, *fields = Py_None, *content_type = Py_None;
  int status = 200;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OiOO:Response", names, &body, &status, &fields, &content_type))
    return -1;
  if (fields != Py_None && !PyList_Check(fields)) {
    PyErr_SetString(PyExc_TypeError, "fields is a list of (name, value) tuples");
    return -1;
  }
  if (content_type != Py_None && !PyUnicode_Check(content_type)) {
    PyErr_SetString(PyExc_TypeError, "content_type is a str");
    return -1;
  }
  r->status = status;
  Py_XSETREF(r->body, Py_NewRef(body));
  Py_XSETREF(r->content_type, Py_NewRef(content_type));
  if (fields != Py_None) Py_XSETREF(r->fields, Py_NewRef(fields));
  return 0;
}

static int response_traverse(PyObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(((response_object *)self)->fields);
  Py_VISIT(((response_object *)self)->body);
  return 0;
}

static int response_clear(PyObject *self) {
  response_object *r = (response_object *)self;
  Py_CLEAR(r->fields);
  Py_CLEAR(r->body);
  Py_CLEAR(r->content_type);
  return 0;
}

static void response_dealloc(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  response_clear(self);
  type->tp_free(self);
  Py_DECREF(type);
}

static PyObject *get_fields(PyObject *self, void *Py_UNUSED(closure)) {
  response_object *r = (response_object *)self;
  return r->fields ? Py_NewRef(r->fields) : PyList_New(0);
}

static int set_fields(PyObject *self, PyObject *value, void *Py_UNUSED(closure)) {
  if (!value || !PyList_Check(value)) {
    PyErr_SetString(PyExc_TypeError, "fields is a list of (name, value) tuples");
    return -1;
  }
  Py_XSETREF(((response_object *)self)->fields, Py_NewRef(value));
  return 0;
}

static PyObject *get_content_type(PyObject *self, void *Py_UNUSED(closure)) {
  response_object *r = (response_object *)self;
  return Py_NewRef(r->content_type ? r->content_type : Py_None);
}

static int set_content_type(PyObject *self, PyObject *value, void *Py_UNUSED(closure)) {
  if (!value || (value != Py_None && !PyUnicode_Check(value))) {
    PyErr_SetString(PyExc_TypeError, "content_type is a str or None");
    return -1;
  }
  Py_XSETREF(((response_object *)self)->content_type, Py_NewRef(value));
  return 0;
}

static PyGetSetDef response_getset[] = {
    {"fields", get_fields, set_fields, "Header fields: a list of (name, value) tuples.", NULL},
    {"content_type", get_content_type, set_content_type, "Content-Type, unless the fields hold one.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef response_members[] = {
    {"status", T_INT, offsetof(response_object, status), 0, NULL},
    {"body", T_OBJECT, offsetof(response_object, body), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot response_slots[] = {
    {Py_tp_doc, "Status, header fields and body, as the engine serialises them."},
    {Py_tp_new, response_new},
    {Py_tp_init, response_init},
    {Py_tp_dealloc, response_dealloc},
    {Py_tp_traverse, response_traverse},
    {Py_tp_clear, response_clear},
    {Py_tp_getset, response_getset},
    {Py_tp_members, response_members},
    {0, NULL},
};

PyType_Spec response_spec = {.name = "eighties._engine.Response",
                             .basicsize = sizeof(response_object),
                             .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
                             .slots = response_slots};

/* ---- FileRegion ---- */

static PyObject *file_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"fd", "offset", "length", NULL};
  int fd;
  Py_ssize_t offset, length;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "inn:FileRegion", names, &fd, &offset, &length)) return NULL;
  if (fd < 0 || offset < 0 || length < 0 || offset > PY_SSIZE_T_MAX - length)
    return PyErr_Format(PyExc_ValueError, "FileRegion takes a descriptor, an offset and a length, none negative");
  file_object *self = (file_object *)type->tp_alloc(type, 0);
  if (!self) return NULL;
  self->fd = fd;
  self->offset = offset;
  self->length = length;
  return (PyObject *)self;
}

static void file_dealloc(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  close(((file_object *)self)->fd);
  type->tp_free(self);
  Py_DECREF(type);
}

static PyMemberDef file_members[] = {
    {"fd", T_INT, offsetof(file_object, fd), READONLY, NULL},
    {"offset", T_PYSSIZET, offsetof(file_object, offset), READONLY, NULL},
    {"length", T_PYSSIZET, offsetof(file_object, length), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot file_slots[] = {
    {Py_tp_doc, "Part of an open file as a response body; owns the descriptor."},
    {Py_tp_new, file_new},
    {Py_tp_dealloc, file_dealloc},
    {Py_tp_members, file_members},
    {0, NULL},
};

PyType_Spec file_spec = {.name = "eighties._engine.FileRegion",
                         .basicsize = sizeof(file_object),
                         .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                         .slots = file_slots};
