/* py_handler.c - from a request to its handler and back: the call, its task, its errors.
 *
 * One way for all: a value is an answer, or something to wait for, or a mistake. `settle_value` decides; an exception
 * anywhere goes to `fail`, which asks the program's `failed` for another value, once; then a plain 500 is sent.
 */
#include "py.h"

#define MAX_ROUNDS 16                        /* coroutines of coroutines: each takes C stack */
#define EAGER (PY_VERSION_HEX >= 0x030C0000) /* tasks can run their first step at once */

static void settle_value(request_object *r, PyObject *value);
static void fail(request_object *r);

PyObject *error_take(void) {
#if PY_VERSION_HEX >= 0x030C0000
  return PyErr_GetRaisedException();
#else
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  if (trace && value) PyException_SetTraceback(value, trace);
  Py_XDECREF(type);
  Py_XDECREF(trace);
  return value;
#endif
}

void error_put(PyObject *error) {
#if PY_VERSION_HEX >= 0x030C0000
  PyErr_SetRaisedException(error);
#else
  PyObject *type = error ? Py_NewRef((PyObject *)Py_TYPE(error)) : NULL;
  PyErr_Restore(type, error, error ? PyException_GetTraceback(error) : NULL);
#endif
}

/* Logged in the next turn of the loop: a log handler is the program's code, and the engine is in the middle of its work. */
void handler_log(engine_object *e, const char *level, const char *message) {
  PyObject *result = PyObject_CallMethod(e->loop, "call_soon", "Oss", e->log, level, message);
  if (!result) PyErr_WriteUnraisable((PyObject *)e);
  Py_XDECREF(result);
}

/* ---- errors ---- */

/* Nothing else worked. */
static void answer_500(request_object *r) {
  if (PyErr_Occurred()) PyErr_WriteUnraisable((PyObject *)r);
  if (!r->conn) return;
  conn *c = r->conn;
  bool begun = c->out != OUT_OWED;
  request_unlink(r);
  if (!begun && answer_text(c, 500, "Internal Server Error\n", "")) conn_end_answer(c);
  else conn_abort(c);
}

/* The current exception is the handler's. */
static void fail(request_object *r) {
  engine_object *e = r->engine;
  PyObject *error = error_take();
  bool again = r->failing;
  r->failing = true;
  Py_CLEAR(r->streamed); /* the next task is not the pump's */
  e->server->counters[COUNT_ERRORS]++;
  PyObject *value = error && !again ? PyObject_CallFunctionObjArgs(e->failed, (PyObject *)r, error, NULL) : NULL;
  if (again && error) PyErr_WriteUnraisable(error);
  Py_XDECREF(error);
  if (value && r->conn && r->conn->out == OUT_OWED) settle_value(r, value);
  else answer_500(r); /* or cut an answer that has begun: it must not look complete */
  Py_XDECREF(value);
}

/* ---- tasks ---- */

static PyMethodDef done_method = {"_done", handler_done, METH_O, NULL};

/* Make a task of a coroutine. From 3.12 on it runs at once, up to where it first waits. The keywords are kept: a task is
 * most of what an async def costs, and a new dict a good part of a task. */
static PyObject *new_task(engine_object *e, PyObject *coroutine, PyObject *context) {
  PyObject *keywords = e->task_keywords, *args = PyTuple_Pack(1, coroutine), *task = NULL;
  e->task_keywords = NULL;
  if (!keywords) {
    keywords = Py_BuildValue("{sO}", "loop", e->loop);
#if PY_VERSION_HEX >= 0x030C0000
    if (keywords && PyDict_SetItemString(keywords, "eager_start", Py_True) < 0) Py_CLEAR(keywords);
#endif
  }
  if (args && keywords && PyDict_SetItem(keywords, e->state->str_context, context) == 0)
    task = PyObject_Call(e->state->task, args, keywords);
  Py_XDECREF(args);
  if (keywords && Py_REFCNT(keywords) == 1 && !e->task_keywords && e->server) {
    if (PyDict_SetItem(keywords, e->state->str_context, Py_None) < 0) Py_CLEAR(keywords);
    e->task_keywords = keywords;
  } else {
    Py_XDECREF(keywords);
  }
  return task;
}

static int follow(request_object *r, PyObject *task) {
  PyObject *callback = PyCFunction_New(&done_method, (PyObject *)r);
  PyObject *result = callback ? PyObject_CallMethodOneArg(task, r->engine->state->add_done_callback, callback) : NULL;
  Py_XDECREF(callback);
  Py_XDECREF(result);
  if (!result) return -1;
  r->engine->tasks++;
  return 0;
}

static bool is_done(engine_object *e, PyObject *task) {
  PyObject *done = PyObject_CallMethodNoArgs(task, e->state->done);
  bool result = done == Py_True;
  Py_XDECREF(done);
  return result;
}

static void value_ended(request_object *r, PyObject *value);

/* The task waits: go on when it has ended. */
static void await_task(request_object *r, PyObject *task) {
  if (follow(r, task) < 0) {
    fail(r);
  } else if (r->conn) {
    Py_XSETREF(r->task, Py_NewRef(task));
  } else if (!r->taken) { /* the client left while the first step ran */
    PyObject *result = PyObject_CallMethodNoArgs(task, r->engine->state->cancel);
    if (!result) PyErr_WriteUnraisable(task);
    Py_XDECREF(result);
  }
}

static void start_task(request_object *r, PyObject *coroutine, PyObject *context) {
  engine_object *e = r->engine;
  if (++r->rounds > MAX_ROUNDS) {
    PyErr_SetString(PyExc_RuntimeError, "the handler's coroutine returns a coroutine, and that another, and so on");
    fail(r);
    return;
  }
  PyObject *own = context ? Py_NewRef(context) : context_take(e);
  PyObject *task = own ? new_task(e, coroutine, own) : NULL;
  if (!task) {
    Py_XDECREF(own);
    fail(r);
    return;
  }
  if (EAGER && is_done(e, task)) {
    PyObject *value = PyObject_CallMethodNoArgs(task, e->state->result);
    Py_DECREF(task);
    context_give(e, own);
    value_ended(r, value);
    Py_XDECREF(value);
    return;
  }
  await_task(r, task);
  Py_DECREF(task);
  Py_DECREF(own);
}

/* A streamed answer has ended, well or not. */
static void stream_ended(request_object *r, bool well) {
  conn *c = r->conn;
  if (!well) {
    fail(r);
  } else if (c->out == OUT_OWED) { /* the pump sent no head: it always does */
    PyErr_SetString(PyExc_RuntimeError, "the stream ended without a head");
    fail(r);
  } else if (c->counted && !c->is_head && c->out_left) {
    PyErr_SetString(PyExc_ValueError, "the stream is shorter than its Content-Length");
    fail(r);
  } else {
    request_unlink(r);
    conn_end_answer(c);
  }
}

/* A task has ended with a value, or with the exception that is set. */
static void value_ended(request_object *r, PyObject *value) {
  if (!r->conn) { /* the client has left, or got a 503: only a mistake is still worth a word */
    if (!value && PyErr_ExceptionMatches(r->engine->state->cancelled_error)) PyErr_Clear();
    else if (!value) fail(r);
  } else if (r->streamed) {
    stream_ended(r, value != NULL);
  } else if (value) {
    settle_value(r, value);
  } else {
    fail(r);
  }
}

static void task_ended(request_object *r, PyObject *task) {
  PyObject *value = PyObject_CallMethodNoArgs(task, r->engine->state->result);
  value_ended(r, value);
  Py_XDECREF(value);
}

PyObject *handler_done(PyObject *self, PyObject *task) {
  request_object *r = (request_object *)self;
  engine_object *e = r->engine;
  if (!e) Py_RETURN_NONE;
  Py_INCREF(e);
  e->tasks--;
  Py_CLEAR(r->task);
  if (e->server) task_ended(r, task);
  Py_DECREF(e);
  Py_RETURN_NONE;
}

void handler_abandon(request_object *r) {
  PyObject *task = Py_XNewRef(r->task);
  if (!task) return;
  PyObject *result = PyObject_CallMethodNoArgs(task, r->engine->state->cancel);
  if (!result) PyErr_WriteUnraisable(task);
  Py_XDECREF(result);
  Py_DECREF(task);
}

/* ---- values ---- */

static void start_stream(request_object *r, PyObject *response) {
  Py_XSETREF(r->streamed, Py_NewRef(response));
  PyObject *coroutine = PyObject_CallFunctionObjArgs(r->engine->pump, (PyObject *)r, response, NULL);
  if (!coroutine) {
    fail(r);
    return;
  }
  start_task(r, coroutine, NULL);
  Py_DECREF(coroutine);
}

static void settle_response(request_object *r, PyObject *response) {
  int result = answer_response(r, (response_object *)response);
  if (result < 0) fail(r);
  else if (result > 0) start_stream(r, response);
}

static void settle_generator(request_object *r, PyObject *generator) {
  PyObject *response = PyObject_CallFunction((PyObject *)r->engine->state->response, "OiOs", generator,
                                             r->route->status, Py_None, "text/plain; charset=utf-8");
  if (response) settle_response(r, response);
  else fail(r);
  Py_XDECREF(response);
}

static void settle_awaitable(request_object *r, PyObject *value) {
  PyObject *coroutine = PyObject_CallOneArg(r->engine->settle, value);
  if (coroutine) start_task(r, coroutine, NULL);
  else fail(r);
  Py_XDECREF(coroutine);
}

/* dict, list, dataclass, and everything that is no answer at all: the program's side knows. */
static void settle_other(request_object *r, PyObject *value) {
  module_state *m = r->engine->state;
  bool handled = false;
  PyObject *answer = PyObject_CallFunctionObjArgs(r->engine->respond, (PyObject *)r, value, NULL);
  if (answer && !r->conn) handled = true;
  else if (answer && PyObject_TypeCheck(answer, m->response)) settle_response(r, answer), handled = true;
  else if (answer && answer_value(r, answer, &handled) < 0) fail(r);
  if (answer && !handled)
    PyErr_Format(PyExc_TypeError, "respond made %.100s of %.100s", Py_TYPE(answer)->tp_name, Py_TYPE(value)->tp_name);
  if (!answer || !handled) fail(r);
  Py_XDECREF(answer);
}

/* Where the request goes on with `value`, whoever made it. */
static void settle_value(request_object *r, PyObject *value) {
  bool handled = false;
  if (!r->conn) return; /* closed meanwhile, perhaps by the handler */
  if (answer_value(r, value, &handled) < 0) fail(r);
  else if (handled) return;
  else if (PyObject_TypeCheck(value, r->engine->state->response)) settle_response(r, value);
  else if (PyCoro_CheckExact(value)) start_task(r, value, NULL);
  else if (PyAsyncGen_CheckExact(value)) settle_generator(r, value);
  else if (Py_TYPE(value)->tp_as_async && Py_TYPE(value)->tp_as_async->am_await) settle_awaitable(r, value);
  else settle_other(r, value);
}

/* ---- the call ---- */

static PyObject *call(request_object *r) {
  PyObject *args[1 + 1 + MAX_PARAMS];
  PyObject *names = r->param_values ? r->route->names : NULL;
  args[1] = (PyObject *)r;
  for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(r->param_values); i++)
    args[2 + i] = PyTuple_GET_ITEM(r->param_values, i);
  return PyObject_Vectorcall(r->route->handler, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, names);
}

/* ---- contexts ---- */

/* The loop's own context: a handler's must be a copy of it and not of whatever context the engine is called in, which may
 * be that of another request. */
int handler_note_context(engine_object *e) {
  if (!e->context) e->context = PyContext_CopyCurrent();
  return e->context ? 0 : -1;
}

/* A context in which no variable is set is as good as a new copy of an empty one. */
PyObject *context_take(engine_object *e) {
  PyObject *context = e->spare_context;
  e->spare_context = NULL;
  if (context) return context;
  return handler_note_context(e) < 0 ? NULL : PyContext_Copy(e->context);
}

void context_give(engine_object *e, PyObject *context) {
  if (Py_REFCNT(context) == 1 && !e->spare_context && e->server && PyObject_Size(context) == 0)
    e->spare_context = context;
  else Py_DECREF(context);
}

/* An async def only makes its coroutine here; the task brings the context. A plain def gets a copy of its own, so that a
 * ContextVar set in one request is not seen by another. */
static void run_async(request_object *r) {
  PyObject *coroutine = call(r);
  if (coroutine) settle_value(r, coroutine);
  else fail(r);
  Py_XDECREF(coroutine);
}

static void run_plain(request_object *r, engine_object *e) {
  PyObject *context = context_take(e);
  if (!context || PyContext_Enter(context) < 0) {
    Py_XDECREF(context);
    fail(r);
    return;
  }
  PyObject *value = call(r);
  if (value && PyCoro_CheckExact(value) && r->conn) {
    PyContext_Exit(context);
    start_task(r, value, context);
  } else {
    if (value) settle_value(r, value);
    else fail(r);
    PyContext_Exit(context);
  }
  Py_XDECREF(value);
  context_give(e, context);
}

void handler_run(request_object *r) {
  engine_object *e = (engine_object *)Py_NewRef(r->engine);
  if (handler_note_context(e) < 0) fail(r);
  else if (r->route->is_async) run_async(r);
  else run_plain(r, e);
  Py_DECREF(e);
}
