/* test_http1.c - runs case files (README.md) through the HTTP/1 readers: whole, byte by byte, in two parts split at every
 * place, and with a next request behind. All must give the same events.
 *
 * Each step is given a fresh copy of its bytes that ends, or begins, at a page which may not be touched: a reader that
 * looks beyond them faults. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cases.h"
#include "check.h"
#include "events.h"

static const char next_request[] = "GET /next HTTP/1.1\r\nHost: next\r\n\r\n";
static const char next_events[] = "head GET /next keep-alive\nend\n";
static const char next_fields[] = "head GET /next keep-alive\nfield Host: next\nend\n";

/* ---- memory between two forbidden pages ---- */

typedef struct {
  char *at;
  size_t room;
} guarded;

static guarded guarded_new(size_t room) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  room = (room + page) / page * page;
  char *all = mmap(NULL, room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED || mprotect(all + page, room, PROT_READ | PROT_WRITE) < 0) {
    perror("mmap");
    exit(2);
  }
  return (guarded){all + page, room};
}

static void guarded_free(guarded g) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  munmap(g.at - page, g.room + 2 * page);
}

static const char *place_at(guarded g, const char *bytes, size_t len, bool at_end) {
  char *to = at_end ? g.at + g.room - len : g.at;
  memcpy(to, bytes, len);
  return to;
}

/* ---- runs ---- */

typedef struct {
  const test_case *c;
  guarded memory;
  reader reader;
  size_t used;
  bool at_end;
} run;

static void run_begin(run *r, const test_case *c, guarded memory, bool at_end) {
  *r = (run){.c = c, .memory = memory, .at_end = at_end};
  reader_init(&r->reader, &c->limits, c->fields);
}

/* The first `len` bytes have arrived. */
static void run_to(run *r, const text *all, size_t len) {
  const char *at = place_at(r->memory, all->at + r->used, len - r->used, r->at_end);
  r->used += reader_feed(&r->reader, at, len - r->used);
}

/* Events against what is expected; of a reason a part is enough. */
static bool agree(const char *expected, const char *events) {
  while (*expected && *events) {
    size_t n = strcspn(expected, "\n"), m = strcspn(events, "\n");
    if (strncmp(expected, "bad ", 4) == 0) {
      if (strncmp(expected, events, 7) != 0 || n < 9) return false;
      if (!memmem(events, m, expected + 8, n - 8)) return false;
    } else if (n != m || memcmp(expected, events, n) != 0) {
      return false;
    }
    expected += n + 1;
    events += m + 1;
  }
  return !*expected && !*events;
}

static void run_end(run *r, const text *all, const char *expected, const char *path, const char *way) {
  reader_end(&r->reader, all->len - r->used);
  checks++;
  if (!agree(expected, r->reader.events.at)) {
    failures++;
    fprintf(stderr, "%s:%d: %s, %s:\n--- expected\n%s--- read\n%s", path, r->c->line, r->c->name, way, expected,
            r->reader.events.at);
  }
  reader_clear(&r->reader);
}

static void run_whole(const test_case *c, guarded memory, const char *path) {
  run r;
  for (int at_end = 0; at_end < 2; at_end++) {
    run_begin(&r, c, memory, at_end);
    run_to(&r, &c->bytes, c->bytes.len);
    run_end(&r, &c->bytes, c->expected.at, path, "whole");
  }
}

static void run_bytes(const test_case *c, guarded memory, const char *path) {
  run r;
  run_begin(&r, c, memory, true);
  for (size_t i = 0; i <= c->bytes.len; i++) run_to(&r, &c->bytes, i);
  run_end(&r, &c->bytes, c->expected.at, path, "byte by byte");
}

static void run_splits(const test_case *c, guarded memory, const char *path) {
  int before = failures;
  for (size_t i = 1; i < c->bytes.len && failures == before; i++) { /* the first that fails is enough */
    run r;
    char way[64];
    run_begin(&r, c, memory, i % 2);
    run_to(&r, &c->bytes, i);
    run_to(&r, &c->bytes, c->bytes.len);
    snprintf(way, sizeof way, "split at %zu", i);
    run_end(&r, &c->bytes, c->expected.at, path, way);
  }
}

static bool ends_with(const text *t, const char *end) {
  size_t n = strlen(end);
  return t->len >= n && memcmp(t->at + t->len - n, end, n) == 0;
}

/* What follows a request changes nothing in it, and is read as the next one; after bad input nothing is. */
static void run_with_next(const test_case *c, guarded memory, const char *path) {
  if (ends_with(&c->expected, "more\n")) return;
  text all = {0}, expected = {0};
  text_put(&all, c->bytes.at, c->bytes.len);
  text_put(&all, next_request, sizeof next_request - 1);
  text_put(&expected, c->expected.at, c->expected.len);
  if (ends_with(&c->expected, "end\n") || !c->expected.len)
    text_print(&expected, "%s", c->fields ? next_fields : next_events);
  run r;
  run_begin(&r, c, memory, true);
  run_to(&r, &all, all.len);
  run_end(&r, &all, expected.at, path, "with a next request");
  text_clear(&all);
  text_clear(&expected);
}

static void run_file(const char *path) {
  test_case *first = cases_load(path);
  int n = 0;
  for (const test_case *c = first; c; c = c->next, n++) {
    guarded memory = guarded_new(c->bytes.len + sizeof next_request);
    int before = failures;
    run_whole(c, memory, path);
    if (failures == before) run_bytes(c, memory, path);
    if (failures == before) run_splits(c, memory, path);
    if (failures == before) run_with_next(c, memory, path);
    guarded_free(memory);
  }
  if (!n) failures++, fprintf(stderr, "%s: no cases\n", path);
  printf("%s: %d cases\n", path, n);
  cases_free(first);
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) run_file(argv[i]);
  CHECK(argc > 1);
  return summary("http1");
}
