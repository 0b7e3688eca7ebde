/* py_escape.c - escape: a value as the text of an HTML page or of a quoted attribute. Interface: _engine.pyi.
 *
 * What is escaped is what html.escape escapes. Pages call this for each value in them, so a text without any of the five
 * characters is only read, eight bytes at a time, and given back as it is; others are read, then written to their place. */
#include "py.h"

#define BLOCK 8 /* bytes at a time */
#define EACH(byte) (0x0101010101010101u * (byte))

/* How much longer each character becomes. */
static const uint8_t growths[256] = {['&'] = 4, ['<'] = 3, ['>'] = 3, ['"'] = 5, ['\''] = 5};

static inline uint8_t growth(Py_UCS4 c) { return c <= '>' ? growths[c] : 0; }

/* Not 0 where a byte of `word` is 0. */
static inline uint64_t zero_byte(uint64_t word) { return (word - EACH(1)) & ~word & EACH(0x80); }

/* Whether one of the five is in a block. & and ' differ in one bit, < and > in another: three looks are enough. */
static inline bool has_any(const Py_UCS1 *at) {
  uint64_t word;
  memcpy(&word, at, BLOCK);
  return zero_byte(word ^ EACH('"')) | zero_byte((word | EACH('&' ^ '\'')) ^ EACH('&' | '\'')) |
         zero_byte((word | EACH('<' ^ '>')) ^ EACH('<' | '>'));
}

static uint64_t bytes_growth(const Py_UCS1 *at, Py_ssize_t len) {
  uint64_t sum = 0;
  for (; len >= BLOCK; at += BLOCK, len -= BLOCK) {
    if (!has_any(at)) continue;
    for (int i = 0; i < BLOCK; i++) sum += growths[at[i]];
  }
  for (Py_ssize_t i = 0; i < len; i++) sum += growths[at[i]];
  return sum;
}

static uint64_t text_growth(PyObject *text) {
  const int kind = PyUnicode_KIND(text);
  const void *at = PyUnicode_DATA(text);
  const Py_ssize_t len = PyUnicode_GET_LENGTH(text);
  uint64_t sum = 0;
  if (kind == PyUnicode_1BYTE_KIND) return bytes_growth(at, len);
  for (Py_ssize_t i = 0; i < len; i++) sum += growth(PyUnicode_READ(kind, at, i));
  return sum;
}

/* The reference that stands for one of the five characters. */
static const char *reference(Py_UCS4 c) {
  switch (c) {
  case '&': return "&amp;";
  case '<': return "&lt;";
  case '>': return "&gt;";
  case '"': return "&quot;";
  default: return "&#x27;";
  }
}

static Py_UCS1 *write_bytes(Py_UCS1 *out, const Py_UCS1 *at, Py_ssize_t len) {
  for (Py_ssize_t i = 0; i < len; i++) {
    const uint8_t more = growths[at[i]];
    const char *r = more ? reference(at[i]) : NULL;
    if (!r) {
      *out++ = at[i];
      continue;
    }
    memcpy(out, r, 4); /* the shortest, then the last two: sizes that compilers know */
    memcpy(out + more - 1, r + more - 1, 2);
    out += more + 1;
  }
  return out;
}

static void escape_bytes(Py_UCS1 *out, const Py_UCS1 *at, Py_ssize_t len) {
  for (; len >= BLOCK; at += BLOCK, len -= BLOCK) {
    if (has_any(at)) {
      out = write_bytes(out, at, BLOCK);
    } else {
      memcpy(out, at, BLOCK);
      out += BLOCK;
    }
  }
  write_bytes(out, at, len);
}

static void escape_wide(int kind, void *out, const void *at, Py_ssize_t len) {
  Py_ssize_t to = 0;
  for (Py_ssize_t i = 0; i < len; i++) {
    const Py_UCS4 c = PyUnicode_READ(kind, at, i);
    if (growth(c)) {
      for (const char *r = reference(c); *r; r++, to++) PyUnicode_WRITE(kind, out, to, (Py_UCS1)*r);
    } else {
      PyUnicode_WRITE(kind, out, to, c);
      to++;
    }
  }
}

/* A str of any type to an exact str. What replaces the characters is ASCII: the kind of the text stays. */
static PyObject *escape_text(PyObject *text) {
  const uint64_t more = text_growth(text);
  const Py_ssize_t len = PyUnicode_GET_LENGTH(text);
  if (!more) return PyUnicode_FromObject(text);
  if (more > (uint64_t)(PY_SSIZE_T_MAX - len)) return PyErr_NoMemory();
  PyObject *out = PyUnicode_New(len + (Py_ssize_t)more, PyUnicode_MAX_CHAR_VALUE(text));
  if (!out) return NULL;
  if (PyUnicode_KIND(text) == PyUnicode_1BYTE_KIND)
    escape_bytes(PyUnicode_1BYTE_DATA(out), PyUnicode_1BYTE_DATA(text), len);
  else escape_wide(PyUnicode_KIND(text), PyUnicode_DATA(out), PyUnicode_DATA(text), len);
  return out;
}

/* What the value itself makes of it: `method` is its type's, not yet bound. */
static PyObject *own_html(PyObject *value, PyObject *method) {
  PyTypeObject *type = Py_TYPE(method);
  PyObject *html;
  Py_INCREF(method);
  if (PyType_HasFeature(type, Py_TPFLAGS_METHOD_DESCRIPTOR)) {
    html = PyObject_CallOneArg(method, value);
  } else {
    PyObject *bound = type->tp_descr_get ? type->tp_descr_get(method, value, (PyObject *)Py_TYPE(value)) : NULL;
    if (!bound && !PyErr_Occurred()) bound = Py_NewRef(method);
    html = bound ? PyObject_CallNoArgs(bound) : NULL;
    Py_XDECREF(bound);
  }
  Py_DECREF(method);
  if (html && !PyUnicode_Check(html)) {
    PyErr_Format(PyExc_TypeError, "__html__ of %.100s returned %.100s, not str", Py_TYPE(value)->tp_name,
                 Py_TYPE(html)->tp_name);
    Py_CLEAR(html);
  }
  return html;
}

static PyObject *escape(PyObject *module, PyObject *value) {
  PyTypeObject *type = Py_TYPE(value);
  if (type == &PyUnicode_Type) return escape_text(value);
  if (type == &PyLong_Type || type == &PyFloat_Type || type == &PyBool_Type || value == Py_None)
    return PyObject_Str(value); /* none of the five is in these */
  const module_state *m = PyModule_GetState(module);
  PyObject *method = _PyType_Lookup(type, m->html); /* borrowed */
  if (method) return own_html(value, method);
  PyObject *text = PyObject_Str(value);
  PyObject *out = text ? escape_text(text) : NULL;
  Py_XDECREF(text);
  return out;
}

PyMethodDef escape_functions[] = {
    {"escape", escape, METH_O, "A value as the text of an HTML page or of a quoted attribute."},
    {NULL, NULL, 0, NULL},
};
