/* fuzz_router.c - patterns and paths from the fuzzer: no pattern and no path breaks the router, and what it finds is true.
 *
 * Input: lines. Those that begin with "+" and a byte that stands for a method are patterns, the others are paths to be
 * found. Then query_next and query_decode read the whole input. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

#define MOST_BYTES 8192

static int number; /* of a pattern, as its route */

static void add(router *r, const char *line, size_t len) {
  char *pattern = malloc(len + 1);
  if (!pattern) abort();
  memcpy(pattern, line, len);
  pattern[len] = 0;
  if (len > 1)
    router_add(r, pattern + 1, (http1_method)((uint8_t)pattern[0] % HTTP1_METHODS), (void *)(intptr_t)++number);
  free(pattern);
}

static void check_match(const router_match *m, span path) {
  assert(m->n_params >= 0 && m->n_params <= MAX_PARAMS);
  assert(!m->route || (intptr_t)m->route <= number);
  assert(!m->route || m->allowed);
  assert(m->allowed < 1u << HTTP1_METHODS);
  for (int i = 0; i < m->n_params; i++) {
    assert(m->params[i].at >= path.at && m->params[i].at + m->params[i].len <= path.at + path.len);
    assert(m->route || !m->n_params);
  }
}

static void find(const router *r, const char *line, size_t len) {
  char *copy = malloc(len ? len : 1);
  if (!copy) abort();
  memcpy(copy, line, len);
  router_match all, m;
  if (len) router_find(r, (span){copy, len}, HTTP1_OTHER, &all); /* no route has it: every pattern that fits is seen */
  for (int method = 0; len && method < HTTP1_METHODS; method++) {
    router_find(r, (span){copy, len}, (http1_method)method, &m);
    check_match(&m, (span){copy, len});
    assert(m.route ? !(m.allowed & ~all.allowed) : m.allowed == all.allowed);
    assert(!m.route == !(all.allowed & 1u << method || (method == HTTP1_HEAD && all.allowed & 1u << HTTP1_GET)));
  }
  free(copy);
}

static void read_query(const uint8_t *data, size_t size) {
  char *out = malloc(size ? size : 1);
  if (!out) abort();
  span rest = {(const char *)data, size}, name, value;
  while (query_next(&rest, &name, &value)) {
    assert(query_decode(name, out, true) <= name.len);
    assert(query_decode(value, out, false) <= value.len);
  }
  assert(!rest.len);
  free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size > MOST_BYTES) return 0;
  router *r = router_new();
  if (!r) abort();
  number = 0;
  for (size_t at = 0; at < size;) {
    const uint8_t *end = memchr(data + at, '\n', size - at);
    size_t len = end ? (size_t)(end - data) - at : size - at;
    const char *line = (const char *)data + at;
    if (len && *line == '+') add(r, line + 1, len - 1);
    else find(r, line, len);
    at += len + 1;
  }
  router_free(r);
  read_query(data, size);
  return 0;
}
