/* test_timer.c - timer.c: the wheel of seconds: never early, never forgotten, whatever is set and stopped meanwhile. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "engine.h"

#define MANY 500

typedef struct {
  timer timer;
  uint32_t due_at, fired, fired_at;
} probe; /* the timer stands first */

static wheel w;
static void (*then)(probe *p); /* what a timer does when it is due */

static void due(timer *t) {
  probe *p = (probe *)t;
  CHECK(!t->next && !t->prev); /* it is stopped first */
  CHECK(p->due_at <= w.now);   /* never early */
  p->fired++;
  p->fired_at = w.now;
  if (then) then(p);
}

static void set(probe *p, uint32_t deadline) {
  p->due_at = deadline;
  wheel_set(&w, &p->timer, deadline);
}

static void begin(uint32_t now) {
  wheel_init(&w, now);
  then = NULL;
}

static void end(void) {
  CHECK(w.live == 0);
  for (int i = 0; i < WHEEL_SLOTS; i++) CHECK(w.slots[i].next == &w.slots[i] && w.slots[i].prev == &w.slots[i]);
}

static void run_to(uint32_t now) { wheel_advance(&w, now, due); }

/* Each distance, up to several rounds: due in its very second. */
static void test_distances(void) {
  for (uint32_t distance = 1; distance < 3 * WHEEL_SLOTS + 5; distance++) {
    probe p = {0};
    begin(1000);
    set(&p, 1000 + distance);
    for (uint32_t now = 1001; now < 1000 + distance; now++) run_to(now);
    CHECK(p.fired == 0 && w.live == 1);
    run_to(1000 + distance);
    CHECK(p.fired == 1 && p.fired_at == 1000 + distance);
    end();
  }
}

static void test_past_deadlines(void) {
  probe p = {0};
  begin(1000);
  wheel_set(&w, &p.timer, 1000); /* this second has been served: the next one */
  run_to(1000);
  CHECK(p.fired == 0);
  run_to(1001);
  CHECK(p.fired == 1);
  wheel_set(&w, &p.timer, 3);
  run_to(1002);
  CHECK(p.fired == 2);
  end();
}

static void test_stop(void) {
  probe p = {0};
  begin(1000);
  wheel_stop(&w, &p.timer); /* one that never ran */
  set(&p, 1005);
  wheel_stop(&w, &p.timer);
  wheel_stop(&w, &p.timer);
  CHECK(w.live == 0 && !p.timer.next);
  run_to(1300);
  CHECK(p.fired == 0);
  set(&p, 1310);
  run_to(1310);
  CHECK(p.fired == 1);
  end();
}

/* A renewal is one store; it may also bring the deadline nearer. */
static void test_renewal(void) {
  probe p = {0};
  begin(1000);
  set(&p, 1010);
  for (uint32_t now = 1001; now < 2000; now++) {
    timer *before = p.timer.prev;
    set(&p, now + 75);
    if (p.timer.slot_time <= now + 74) CHECK(p.timer.prev == before && w.live == 1);
    run_to(now);
  }
  CHECK(p.fired == 0);
  set(&p, 2005); /* nearer */
  run_to(2004);
  CHECK(p.fired == 0);
  run_to(2005);
  CHECK(p.fired == 1);
  end();
}

static void test_long_jumps(void) {
  static const uint32_t jumps[] = {1, 127, 128, 129, 256, 1000, 100000, 0x80000000u};
  for (size_t i = 0; i < sizeof jumps / sizeof *jumps; i++) {
    probe p[MANY];
    memset(p, 0, sizeof p);
    begin(1000);
    for (uint32_t k = 0; k < MANY; k++) set(&p[k], 1001 + k);
    run_to(1000 + jumps[i]);
    for (uint32_t k = 0; k < MANY; k++) CHECK(p[k].fired == (k + 1 <= jumps[i])); /* each that is due, and no other */
    run_to(1000 + jumps[i] + MANY);
    for (uint32_t k = 0; k < MANY; k++) CHECK(p[k].fired == 1);
    end();
  }
}

/* ---- what happens inside `due` ---- */

static probe others[4];

static void stop_others(probe *p) {
  for (int i = 0; i < 4; i++)
    if (&others[i] != p) wheel_stop(&w, &others[i].timer);
}

static void test_stop_inside_due(void) {
  memset(others, 0, sizeof others);
  begin(1000);
  for (int i = 0; i < 4; i++) set(&others[i], 1010); /* one slot */
  then = stop_others;
  run_to(1300);
  uint32_t fired = 0;
  for (int i = 0; i < 4; i++) fired += others[i].fired;
  CHECK(fired == 1);
  end();
}

static void set_again(probe *p) {
  if (p->fired < 5) set(p, w.now + WHEEL_SLOTS * (p->fired % 2) + 1); /* the slot at work, or the next */
}

static void test_set_inside_due(void) {
  memset(others, 0, sizeof others);
  begin(1000);
  for (int i = 0; i < 4; i++) set(&others[i], 1010);
  then = set_again;
  for (uint32_t now = 1001; now < 2000; now++) run_to(now);
  for (int i = 0; i < 4; i++) CHECK(others[i].fired == 5);
  end();
}

static void move_others(probe *p) {
  for (int i = 0; i < 4; i++)
    if (&others[i] != p && !others[i].fired) set(&others[i], w.now + 3);
}

static void test_move_inside_due(void) {
  memset(others, 0, sizeof others);
  begin(1000);
  for (int i = 0; i < 4; i++) set(&others[i], 1010);
  then = move_others;
  for (uint32_t now = 1001; now < 1100; now++) run_to(now);
  for (int i = 0; i < 4; i++) CHECK(others[i].fired == 1 && others[i].fired_at == others[i].due_at);
  end();
}

static void free_self(probe *p) { free(p); }

static void test_free_inside_due(void) {
  begin(1000);
  for (int i = 0; i < 10; i++) {
    probe *p = calloc(1, sizeof *p);
    if (!p) abort();
    set(p, 1005);
  }
  then = free_self;
  run_to(1005);
  end();
}

/* Random settings, stops and steps against plain deadlines. */
static void test_against_model(void) {
  static probe p[MANY];
  uint32_t now = 1000, wanted[MANY] = {0};
  unsigned seed = 7;
  begin(now);
  for (int step = 0; step < 50000; step++) {
    seed = seed * 1103515245u + 12345u;
    unsigned pick = (seed >> 16) % MANY, kind = (seed >> 8) % 8;
    if (kind == 0) {
      now += 1 + (seed >> 20) % (step % 100 ? 4 : 300);
      run_to(now);
      for (int i = 0; i < MANY; i++) {
        if ((wanted[i] && wanted[i] <= now) != (p[i].fired == 1)) CHECK(!"due when its second has come, and only then");
        if (p[i].fired) wanted[i] = p[i].fired = 0;
      }
    } else if (kind == 1) {
      wheel_stop(&w, &p[pick].timer);
      wanted[pick] = 0;
    } else {
      set(&p[pick], wanted[pick] = now + 1 + (seed >> 20) % 400);
    }
  }
  for (int i = 0; i < MANY; i++) wheel_stop(&w, &p[i].timer);
  CHECK(w.live == 0);
  end();
}

int main(void) {
  test_distances();
  test_past_deadlines();
  test_stop();
  test_renewal();
  test_long_jumps();
  test_stop_inside_due();
  test_set_inside_due();
  test_move_inside_due();
  test_free_inside_due();
  test_against_model();
  return summary("timer");
}
