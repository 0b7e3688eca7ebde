/* timer.c - one wheel of seconds. Contract: engine.h.
 *
 * A timer that is renewed again and again (a busy keep-alive connection) must cost nothing: wheel_set only stores the new
 * deadline while the timer stands in an earlier slot. When that slot comes round, it is moved to where it belongs.
 */
#include "engine.h"

void wheel_init(wheel *w, uint32_t now) {
  w->now = now;
  w->live = 0;
  for (int i = 0; i < WHEEL_SLOTS; i++) w->slots[i].prev = w->slots[i].next = &w->slots[i];
}

static void link_at(wheel *w, timer *t, uint32_t second) {
  /* A slot further than one round away is looked at early, and the timer moved on. */
  if (second - w->now >= WHEEL_SLOTS) second = w->now + WHEEL_SLOTS - 1;
  timer *slot = &w->slots[second % WHEEL_SLOTS];
  t->slot_time = second;
  t->prev = slot->prev;
  t->next = slot;
  slot->prev->next = t;
  slot->prev = t;
}

static void unlink_timer(timer *t) {
  t->prev->next = t->next;
  t->next->prev = t->prev;
  t->prev = t->next = NULL;
}

void wheel_set(wheel *w, timer *t, uint32_t deadline) {
  if (deadline <= w->now) deadline = w->now + 1; /* the slot of this second has been served */
  t->deadline = deadline;
  if (t->next) {
    if (t->slot_time <= deadline) return;
    unlink_timer(t);
  } else {
    w->live++;
  }
  link_at(w, t, deadline);
}

void wheel_stop(wheel *w, timer *t) {
  if (!t->next) return;
  unlink_timer(t);
  w->live--;
}

static void serve_slot(wheel *w, timer *slot, void (*due)(timer *t)) {
  timer work = {.prev = &work, .next = &work}; /* `due` may set and stop any timer: take the list away first */
  if (slot->next == slot) return;
  work.next = slot->next;
  work.prev = slot->prev;
  work.next->prev = work.prev->next = &work;
  slot->prev = slot->next = slot;
  while (work.next != &work) {
    timer *t = work.next;
    unlink_timer(t);
    if (t->deadline > w->now) {
      link_at(w, t, t->deadline);
    } else {
      w->live--;
      due(t);
    }
  }
}

void wheel_advance(wheel *w, uint32_t now, void (*due)(timer *t)) {
  if (now - w->now > WHEEL_SLOTS) w->now = now - WHEEL_SLOTS; /* a long stop: each slot once is enough */
  while (w->now < now) {
    w->now++;
    serve_slot(w, &w->slots[w->now % WHEEL_SLOTS], due);
  }
}
