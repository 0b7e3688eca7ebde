/* test_handle.c - handle.c: no two connections have one handle, an old one reaches nobody, the numbers keep their bounds.
 *
 * handle.c is compiled in here, so that its memory can fail. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "engine.h"

static bool no_memory;

static void *scarce_realloc(void *at, size_t n) { return no_memory ? NULL : realloc(at, n); }

#define realloc scarce_realloc
#include "handle.c"
#undef realloc

#define MANY 1000
#define LAST_GENERATION (GENERATIONS - 1)

static conn conns[MANY]; /* only their addresses count */
static handle_table t;

static void begin(uint64_t seed) {
  handle_init(&t, seed);
  no_memory = false;
}

static void end(void) {
  CHECK(t.live == 0);
  handle_clear(&t);
  CHECK(!t.slots && !t.n && !t.free);
}

static uint64_t generation_of(uint64_t handle) { return handle >> HANDLE_SLOT_BITS; }

static int by_value(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static bool all_differ(uint64_t *handles, size_t n) {
  qsort(handles, n, sizeof *handles, by_value);
  for (size_t i = 1; i < n; i++)
    if (handles[i] == handles[i - 1]) return false;
  return true;
}

static void test_find(void) {
  begin(1);
  uint64_t a = handle_new(&t, &conns[0]), b = handle_new(&t, &conns[1]);
  CHECK(a && b && a != b && t.live == 2);
  CHECK(handle_find(&t, a) == &conns[0] && handle_find(&t, b) == &conns[1]);
  handle_end(&t, a);
  CHECK(!handle_find(&t, a) && handle_find(&t, b) == &conns[1] && t.live == 1);
  handle_end(&t, b);
  end();
}

/* One slot, used again and again: each time another handle, and none of the former finds anything. */
static void test_reuse(void) {
  uint64_t seen[MANY];
  begin(2);
  for (int i = 0; i < MANY; i++) {
    seen[i] = handle_new(&t, &conns[i]);
    for (int k = 0; k < i; k++)
      if (handle_find(&t, seen[k])) CHECK(!"a stale handle finds nobody");
    CHECK(handle_find(&t, seen[i]) == &conns[i]);
    handle_end(&t, seen[i]);
  }
  CHECK(t.n == FIRST_SLOTS); /* a freed slot is used before a new one */
  CHECK(all_differ(seen, MANY));
  end();
}

static void test_growth(void) {
  uint64_t handles[MANY];
  begin(3);
  for (int i = 0; i < MANY; i++) {
    handles[i] = handle_new(&t, &conns[i]);
    CHECK(handles[i] && t.live == (unsigned)i + 1 && t.live <= t.n);
  }
  for (int i = 0; i < MANY; i++) CHECK(handle_find(&t, handles[i]) == &conns[i]); /* through each move of the table */
  for (int i = 0; i < MANY; i += 2) handle_end(&t, handles[i]);
  for (int i = 0; i < MANY; i++) CHECK(handle_find(&t, handles[i]) == (i % 2 ? &conns[i] : NULL));
  uint32_t n = t.n;
  for (int i = 0; i < MANY; i += 2) handles[i] = handle_new(&t, &conns[i]);
  CHECK(t.n == n); /* into the holes */
  for (int i = 0; i < MANY; i++) handle_end(&t, handles[i]);
  CHECK(all_differ(handles, MANY));
  end();
}

/* What nobody was given, or what was given by another process, is a number like any other: it finds nobody. */
static void test_foreign(void) {
  static const uint64_t numbers[] = {
      0, 1, 5, 1u << 20, SLOT_MASK, (uint64_t)INT32_MAX, UINT32_MAX, INT64_MAX, (uint64_t)INT64_MIN, UINT64_MAX};
  begin(4);
  uint64_t own = handle_new(&t, &conns[0]);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    CHECK(!handle_find(&t, numbers[i]));
    handle_end(&t, numbers[i]);
  }
  for (int bit = 0; bit < 64; bit++) {
    CHECK(!handle_find(&t, own ^ 1ull << bit));
    handle_end(&t, own ^ 1ull << bit);
  }
  CHECK(handle_find(&t, own) == &conns[0] && t.live == 1);
  handle_table other;
  handle_init(&other, 5);
  uint64_t foreign = handle_new(&other, &conns[1]);
  CHECK((foreign & SLOT_MASK) == (own & SLOT_MASK) && !handle_find(&t, foreign) && !handle_find(&other, own));
  handle_clear(&other);
  handle_end(&t, own);
  end();
}

static void test_end_twice(void) {
  begin(6);
  uint64_t a = handle_new(&t, &conns[0]);
  handle_end(&t, a);
  handle_end(&t, a);
  CHECK(t.live == 0);
  uint64_t b = handle_new(&t, &conns[1]), c = handle_new(&t, &conns[2]);
  handle_end(&t, a); /* its slot is another's now */
  CHECK(handle_find(&t, b) == &conns[1] && handle_find(&t, c) == &conns[2] && t.live == 2);
  handle_end(&t, b);
  handle_end(&t, c);
  end();
}

/* Whatever the process begins with: positive as a signed number, greater than any descriptor, never 0. */
static void test_bounds(void) {
  static const uint64_t seeds[] = {0, 1, 2, 1u << 31, 1ull << 63, UINT64_MAX, 0x9E3779B97F4A7C15ull};
  for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++) {
    begin(seeds[i]);
    for (int k = 0; k < 100; k++) {
      uint64_t handle = handle_new(&t, &conns[k]);
      CHECK(handle > (uint64_t)INT32_MAX && handle <= INT64_MAX);
      handle_end(&t, handle);
    }
    end();
  }
}

/* Seeds of processes that began one after another are near each other; their handles are not. */
static void test_seeds(void) {
  uint64_t first[MANY];
  for (uint64_t seed = 0; seed < MANY; seed++) {
    begin(seed);
    first[seed] = handle_new(&t, &conns[0]);
    handle_end(&t, first[seed]);
    end();
  }
  CHECK(all_differ(first, MANY));
  uint64_t nearest = UINT64_MAX;
  for (int i = 1; i < MANY; i++) {
    uint64_t gap = generation_of(first[i]) - generation_of(first[i - 1]);
    if (gap < nearest) nearest = gap;
  }
  CHECK(nearest > 1000000); /* that many connections before one comes to where another began */
}

static void test_wrap(void) {
  begin(7);
  t.generation = LAST_GENERATION - 1;
  uint64_t last = handle_new(&t, &conns[0]), next = handle_new(&t, &conns[1]);
  CHECK(generation_of(last) == LAST_GENERATION && last <= INT64_MAX);
  CHECK(generation_of(next) == LEAST_GENERATION && next > (uint64_t)INT32_MAX);
  CHECK(handle_find(&t, last) == &conns[0] && handle_find(&t, next) == &conns[1]);
  handle_end(&t, last);
  handle_end(&t, next);
  end();
}

static void test_no_memory(void) {
  uint64_t handles[FIRST_SLOTS];
  begin(8);
  no_memory = true;
  CHECK(handle_new(&t, &conns[0]) == 0 && t.live == 0 && t.n == 0);
  no_memory = false;
  for (int i = 0; i < FIRST_SLOTS; i++) handles[i] = handle_new(&t, &conns[i]);
  no_memory = true;
  CHECK(handle_new(&t, &conns[FIRST_SLOTS]) == 0 && t.live == FIRST_SLOTS);
  for (int i = 0; i < FIRST_SLOTS; i++) CHECK(handle_find(&t, handles[i]) == &conns[i]);
  handle_end(&t, handles[3]);
  handles[3] = handle_new(&t, &conns[3]); /* a slot is free: no memory is needed */
  CHECK(handles[3] && handle_find(&t, handles[3]) == &conns[3]);
  for (int i = 0; i < FIRST_SLOTS; i++) handle_end(&t, handles[i]);
  end();
}

/* More slots than HANDLE_SLOT_BITS can tell apart: refused, not wrapped. The table of 400 MB is only claimed to be there. */
static void test_full(void) {
  begin(9);
  t.n = SLOT_MASK + 1;
  CHECK(handle_new(&t, &conns[0]) == 0 && t.live == 0 && !t.slots);
  t.n = 0;
  end();
}

static void test_clear(void) {
  begin(10);
  uint64_t a = handle_new(&t, &conns[0]);
  handle_clear(&t);
  CHECK(!handle_find(&t, a)); /* and asks no memory that is gone */
  handle_end(&t, a);
  handle_clear(&t);
  t.live = 0; /* the one that was cleared away, which server_free tells of */
  uint64_t b = handle_new(&t, &conns[1]);
  CHECK(b && b != a && !handle_find(&t, a));
  handle_end(&t, b);
  end();
}

/* Random beginnings and ends against plain arrays. */
static void test_against_model(void) {
  static uint64_t handles[MANY], stale[MANY];
  unsigned seed = 7, live = 0;
  begin(11);
  for (int step = 0; step < 100000; step++) {
    seed = seed * 1103515245u + 12345u;
    unsigned pick = (seed >> 12) % MANY;
    if (handles[pick]) {
      handle_end(&t, handles[pick]);
      stale[pick] = handles[pick];
      handles[pick] = 0;
      live--;
    } else if (seed >> 31 || step % 5000 < 2500) {
      handles[pick] = handle_new(&t, &conns[pick]);
      live++;
    }
    conn *found = handles[pick] ? handle_find(&t, handles[pick]) : NULL;
    if (found != (handles[pick] ? &conns[pick] : NULL) || handle_find(&t, stale[pick]) || t.live != live)
      CHECK(!"each handle finds its own connection, from its beginning to its end");
  }
  for (int i = 0; i < MANY; i++) handle_end(&t, handles[i]);
  end();
}

int main(void) {
  test_find();
  test_reuse();
  test_growth();
  test_foreign();
  test_end_twice();
  test_bounds();
  test_seeds();
  test_wrap();
  test_no_memory();
  test_full();
  test_clear();
  test_against_model();
  return summary("handle");
}
