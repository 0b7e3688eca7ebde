/* module.c - the extension module eighties._engine: its state, types and functions. */
#include "py.h"

static struct PyModuleDef engine_module;

PyObject *module_of(PyTypeObject *type) { return PyType_GetModuleByDef(type, &engine_module); }

/* A subclass's state is its base's. */
module_state *state_of(PyTypeObject *type) { return PyModule_GetState(module_of(type)); }

static PyObject *live(PyObject *module, PyObject *Py_UNUSED(none)) {
  const module_state *m = PyModule_GetState(module);
  return Py_BuildValue("{sIsIsIsI}", "engines", m->engines, "requests", m->requests, "sockets", m->sockets, "left_over",
                       m->left_over);
}

static PyObject *parse_query(PyObject *module, PyObject *text) {
  Py_ssize_t len;
  const char *at = NULL;
  PyObject *encoded = NULL;
  if (PyBytes_Check(text)) {
    at = PyBytes_AS_STRING(text);
    len = PyBytes_GET_SIZE(text);
  } else if (PyUnicode_Check(text)) { /* lone surrogates come from undecodable bytes: never raise on them */
    encoded = PyUnicode_AsEncodedString(text, "utf-8", "replace");
    if (!encoded) return NULL;
    at = PyBytes_AS_STRING(encoded);
    len = PyBytes_GET_SIZE(encoded);
  } else {
    return PyErr_Format(PyExc_TypeError, "parse_query takes str or bytes, not %.100s", Py_TYPE(text)->tp_name);
  }
  PyObject *result = multidict_of_query(PyModule_GetState(module), (span){at, (size_t)len});
  Py_XDECREF(encoded);
  return result;
}

static PyMethodDef functions[] = {
    {"live", live, METH_NOARGS, "Counters of what the engine has allocated in this process."},
    {"parse_query", parse_query, METH_O, "Decode a form-encoded text to a MultiDict; never raises on bad input."},
    {NULL, NULL, 0, NULL},
};

/* ---- making the module ---- */

static int add_type(PyObject *module, PyTypeObject **slot, PyType_Spec *spec) {
  *slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
  return *slot ? PyModule_AddType(module, *slot) : -1;
}

static int add_names(PyObject *module, const char *attribute, const char *const *names, Py_ssize_t n) {
  PyObject *tuple = PyTuple_New(n);
  for (Py_ssize_t i = 0; tuple && i < n; i++) {
    PyObject *name = PyUnicode_FromString(names[i]);
    if (!name) Py_CLEAR(tuple);
    else PyTuple_SET_ITEM(tuple, i, name);
  }
  int result = tuple ? PyModule_AddObjectRef(module, attribute, tuple) : -1;
  Py_XDECREF(tuple);
  return result;
}

static int add_constants(PyObject *module) {
  static const char *const counters[] = {"accepted", "connections", "requests", "errors",
                                         "bytes_in", "bytes_out",   "timeouts", "started"};
  static const char *const limit_names[] = {
      "max_request_line", "max_header_bytes",   "max_headers",     "max_body",      "header_timeout",  "body_timeout",
      "min_rate",         "keep_alive_timeout", "handler_timeout", "write_timeout", "max_connections", "max_buffered"};
  if (PyModule_AddStringConstant(module, "VERSION", EIGHTIES_VERSION) < 0) return -1;
#ifdef EIGHTIES_CHECK
  if (PyModule_AddStringConstant(module, "BUILD", "check") < 0) return -1;
#else
  if (PyModule_AddStringConstant(module, "BUILD", "release") < 0) return -1;
#endif
  if (PyModule_AddStringConstant(module, "POLLER", poller_name) < 0) return -1;
  if (PyModule_AddIntConstant(module, "CONNECTION_SIZE", sizeof(conn)) < 0) return -1;
  if (add_names(module, "SCOREBOARD", counters, COUNTERS) < 0) return -1;
  return add_names(module, "LIMITS", limit_names, sizeof limit_names / sizeof *limit_names);
}

static int import_asyncio(module_state *m) {
  PyObject *tasks = PyImport_ImportModule("asyncio.tasks"), *exceptions = PyImport_ImportModule("asyncio.exceptions");
  if (tasks) m->task = PyObject_GetAttrString(tasks, "Task");
  if (exceptions) m->cancelled_error = PyObject_GetAttrString(exceptions, "CancelledError");
  if (exceptions) m->invalid_state_error = PyObject_GetAttrString(exceptions, "InvalidStateError");
  Py_XDECREF(tasks);
  Py_XDECREF(exceptions);
  return m->task && m->cancelled_error && m->invalid_state_error ? 0 : -1;
}

/* The names that are looked up again and again, and where they are kept. */
static const struct {
  const char *text;
  size_t offset;
} names[] = {
    {"context", offsetof(module_state, str_context)},
    {"add_done_callback", offsetof(module_state, add_done_callback)},
    {"result", offsetof(module_state, result)},
    {"cancel", offsetof(module_state, cancel)},
    {"call_soon", offsetof(module_state, call_soon)},
    {"done", offsetof(module_state, done)},
    {"set_result", offsetof(module_state, set_result)},
    {"settle_several", offsetof(module_state, settle_several)},
    {"fail", offsetof(module_state, fail)},
    {"abandon", offsetof(module_state, abandon)},
    {"_code", offsetof(module_state, code)},
    {"_lasti", offsetof(module_state, lasti)},
    {"__html__", offsetof(module_state, html)},
};
#define NAMES (sizeof names / sizeof *names)

static PyObject **name_at(module_state *m, size_t i) { return (PyObject **)((char *)m + names[i].offset); }

static int intern_names(module_state *m) {
  for (size_t i = 0; i < NAMES; i++)
    if (!(*name_at(m, i) = PyUnicode_InternFromString(names[i].text))) return -1;
  return 0;
}

static int module_exec(PyObject *module) {
  module_state *m = PyModule_GetState(module);
  if (import_asyncio(m) < 0 || intern_names(m) < 0 || add_constants(module) < 0) return -1;
  if (add_type(module, &m->engine, &engine_spec) < 0) return -1;
  if (add_type(module, &m->request, &request_spec) < 0) return -1;
  if (add_type(module, &m->response, &response_spec) < 0) return -1;
  if (add_type(module, &m->route, &route_spec) < 0) return -1;
  if (add_type(module, &m->multidict, &multidict_spec) < 0) return -1;
  if (add_type(module, &m->file, &file_spec) < 0 || add_type(module, &m->socket, &socket_spec) < 0) return -1;
  if (add_type(module, &m->static_file, &static_spec) < 0) return -1;
  if (add_type(module, &m->resolver, &resolver_spec) < 0 || PyModule_AddFunctions(module, socket_functions) < 0)
    return -1;
  if (PyModule_AddFunctions(module, promise_functions) < 0) return -1;
  return PyModule_AddFunctions(module, escape_functions);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
  module_state *m = PyModule_GetState(module);
  Py_VISIT(m->engine);
  Py_VISIT(m->request);
  Py_VISIT(m->response);
  Py_VISIT(m->route);
  Py_VISIT(m->multidict);
  Py_VISIT(m->file);
  Py_VISIT(m->socket);
  Py_VISIT(m->resolver);
  Py_VISIT(m->static_file);
  Py_VISIT(m->promise);
  Py_VISIT(m->task);
  Py_VISIT(m->cancelled_error);
  Py_VISIT(m->invalid_state_error);
  return 0;
}

static int module_clear(PyObject *module) {
  module_state *m = PyModule_GetState(module);
  Py_CLEAR(m->engine);
  Py_CLEAR(m->request);
  Py_CLEAR(m->response);
  Py_CLEAR(m->route);
  Py_CLEAR(m->multidict);
  Py_CLEAR(m->file);
  Py_CLEAR(m->socket);
  Py_CLEAR(m->resolver);
  Py_CLEAR(m->static_file);
  Py_CLEAR(m->promise);
  Py_CLEAR(m->task);
  Py_CLEAR(m->cancelled_error);
  Py_CLEAR(m->invalid_state_error);
  return 0;
}

/* Names are needed as long as there are engines, which hold the module. */
static void module_free(void *module) {
  module_state *m = PyModule_GetState(module);
  module_clear(module);
  for (size_t i = 0; i < NAMES; i++) Py_CLEAR(*name_at(m, i));
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef engine_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_engine",
    .m_doc = "The engine of 80s for Python; engine/engine.h is its manual.",
    .m_size = sizeof(module_state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__engine(void) { return PyModuleDef_Init(&engine_module); }
