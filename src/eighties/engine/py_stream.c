/* py_stream.c - streamed bodies of a request and of its answer. Interface: _engine.pyi.
 *
 * Both directions are the same: take or give what is possible now, and await a future when it is not. What the engine
 * holds is bounded both ways: STREAM_IN_BYTES of a request, max_buffered of an answer.
 */
#include "py.h"

void request_wake(PyObject **waiter) {
  PyObject *future = *waiter;
  if (!future) return;
  *waiter = NULL;
  PyObject *done = PyObject_CallMethod(future, "done", NULL);
  PyObject *result = done == Py_False ? PyObject_CallMethod(future, "set_result", "O", Py_None) : NULL;
  if (PyErr_Occurred()) PyErr_WriteUnraisable(future);
  Py_XDECREF(done);
  Py_XDECREF(result);
  Py_DECREF(future);
}

static PyObject *gone(void) {
  PyErr_SetString(PyExc_ConnectionError, "the client has left");
  return NULL;
}

/* A future that request_wake will end, or one that has ended when there is nothing to wait for. */
static PyObject *wait_on(request_object *r, PyObject **waiter, bool ready) {
  if (!ready && *waiter) return Py_NewRef(*waiter);
  PyObject *future = PyObject_CallMethod(r->engine->loop, "create_future", NULL);
  if (!future) return NULL;
  PyObject *mine = Py_NewRef(future);
  if (ready) request_wake(&mine);
  else *waiter = mine;
  return future;
}

/* ---- the request's body ---- */

static PyObject *read_chunk(PyObject *self, PyObject *Py_UNUSED(none)) {
  request_object *r = (request_object *)self;
  if (!r->streaming_in) { /* a buffered body is one chunk */
    PyObject *all = PyBytes_FromStringAndSize(r->body.at, (Py_ssize_t)r->body.len);
    r->streaming_in = true;
    r->body_complete = true;
    return all;
  }
  if (r->chunks.len) {
    PyObject *chunk = PyBytes_FromStringAndSize(r->chunks.at, r->chunks.len);
    if (!chunk) return NULL;
    bytes_clear(&r->chunks);
    if (r->conn && !r->body_complete) conn_resume_body(r->conn, false);
    return chunk;
  }
  if (r->body_complete) return PyBytes_FromStringAndSize(NULL, 0);
  if (!r->conn || r->conn->sink != SINK_STREAM) return gone();
  conn_continue(r->conn);
  Py_RETURN_NONE;
}

static PyObject *chunk_ready(PyObject *self, PyObject *Py_UNUSED(none)) {
  request_object *r = (request_object *)self;
  return wait_on(r, &r->chunk_waiter, !r->conn || r->body_complete || !r->streaming_in || r->chunks.len);
}

/* ---- the answer's body ---- */

/* The declared Content-Length of a streamed response, or -1. */
static int declared_length(const response_object *response, int64_t *length) {
  *length = -1;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(response->fields); i++) {
    PyObject *pair = PyList_GET_ITEM(response->fields, i);
    const char *name = PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2 && PyUnicode_Check(PyTuple_GET_ITEM(pair, 0))
                           ? PyUnicode_AsUTF8(PyTuple_GET_ITEM(pair, 0))
                           : NULL;
    if (!name || !http1_same(name, strlen(name), "content-length")) continue;
    PyObject *number = PyNumber_Long(PyTuple_GET_ITEM(pair, 1));
    *length = number ? PyLong_AsLongLong(number) : -1;
    Py_XDECREF(number);
    if (!PyErr_Occurred() && *length < 0) PyErr_SetString(PyExc_ValueError, "Content-Length is negative");
    return PyErr_Occurred() ? -1 : 0;
  }
  return 0;
}

int request_send_head(request_object *r, response_object *response, bool streamed) {
  int64_t length = 0;
  if (streamed && declared_length(response, &length) < 0) return -1;
  return response_head(r, response, length);
}

static PyObject *send_chunk(PyObject *self, PyObject *const *args, Py_ssize_t n) {
  request_object *r = (request_object *)self;
  module_state *m = state_of(Py_TYPE(self));
  if (n != 2 || !PyObject_TypeCheck(args[0], m->response) || !PyBytes_Check(args[1]))
    return PyErr_Format(PyExc_TypeError, "send_chunk takes a Response and bytes; a stream yields str or bytes");
  if (!r->conn) return gone();
  if (r->conn->out == OUT_OWED && request_send_head(r, (response_object *)args[0], true) < 0) return NULL;
  if (!r->conn) return gone();
  conn *c = r->conn;
  size_t len = (size_t)PyBytes_GET_SIZE(args[1]);
  if (c->counted && !c->is_head && len > c->out_left)
    return PyErr_Format(PyExc_ValueError, "the stream is longer than its Content-Length");
  if (!conn_write_chunk(c, PyBytes_AS_STRING(args[1]), len, Py_NewRef(args[1]))) {
    request_unlink(r);
    conn_close(c);
    return PyErr_NoMemory();
  }
  conn_ref(c);
  if (!c->feeding) { /* else what follows goes out with it */
    conn_flush(c);
    if (c->in != IN_CLOSED) conn_arm(c);
  }
  bool ready = c->in == IN_CLOSED || conn_send_ready(c);
  conn_unref(c);
  return PyBool_FromLong(ready);
}

static PyObject *send_ready(PyObject *self, PyObject *Py_UNUSED(none)) {
  request_object *r = (request_object *)self;
  bool ready = !r->conn || conn_send_ready(r->conn);
  if (!ready) r->conn->wants_send = true;
  return wait_on(r, &r->send_waiter, ready);
}

static PyObject *take_over(PyObject *self, PyObject *Py_UNUSED(none)) {
  request_object *r = (request_object *)self;
  if (!r->conn) return gone();
  if (r->conn->out == OUT_OWED) return socket_take_over(r);
  return PyErr_Format(PyExc_RuntimeError, "take_over: the answer has begun");
}

PyMethodDef request_stream_methods[] = {
    {"read_chunk", read_chunk, METH_NOARGS, "Next piece of the body, b'' at its end, None: await chunk_ready()."},
    {"chunk_ready", chunk_ready, METH_NOARGS, "A future that ends when read_chunk has something to say."},
    {"send_chunk", (PyCFunction)(void (*)(void))send_chunk, METH_FASTCALL,
     "Queue a piece of a streamed answer; False: await send_ready() before the next."},
    {"send_ready", send_ready, METH_NOARGS, "A future that ends when more output is welcome."},
    {"take_over", take_over, METH_NOARGS, "Make the connection a raw one: a Socket of the engine's socket_type."},
    {NULL, NULL, 0, NULL},
};
