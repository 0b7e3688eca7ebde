/* handle.c - numbers by which programs know raw connections. Contract: engine.h.
 *
 * A handle is a slot and a generation that no other connection of this process has: a program that keeps one for too long
 * reaches nobody, and never the next connection in the same slot. Generations begin somewhere else in each process, so
 * that a handle that came by mail from a worker's former process reaches nobody either.
 */
#include <stdlib.h>

#include "engine.h"

#define SLOT_MASK ((1u << HANDLE_SLOT_BITS) - 1)
#define FIRST_SLOTS 16
/* With these bounds a handle is a positive 64-bit number, and greater than any descriptor. */
#define LEAST_GENERATION (1ull << 20)
#define GENERATIONS (1ull << (63 - HANDLE_SLOT_BITS))

void handle_init(handle_table *t, uint64_t seed) {
  *t = (handle_table){0};
  seed *= 0x9E3779B97F4A7C15ull; /* spread what differs over all bits (Fibonacci hashing) */
  t->generation = LEAST_GENERATION + (seed >> (HANDLE_SLOT_BITS + 2));
}

static bool grow(handle_table *t) {
  uint32_t n = t->n ? t->n * 2 : FIRST_SLOTS;
  if (n > SLOT_MASK + 1) return false;
  handle_slot *slots = realloc(t->slots, n * sizeof *slots);
  if (!slots) return false;
  for (uint32_t i = t->n; i < n; i++) slots[i] = (handle_slot){.next = i + 1 < n ? i + 2 : t->free};
  t->free = t->n + 1;
  t->slots = slots;
  t->n = n;
  return true;
}

uint64_t handle_new(handle_table *t, conn *c) {
  if (!t->free && !grow(t)) return 0;
  uint32_t i = t->free - 1;
  handle_slot *slot = &t->slots[i];
  t->free = slot->next;
  if (++t->generation >= GENERATIONS) t->generation = LEAST_GENERATION;
  *slot = (handle_slot){.conn = c, .handle = t->generation << HANDLE_SLOT_BITS | i};
  t->live++;
  return slot->handle;
}

static handle_slot *slot_of(const handle_table *t, uint64_t handle) {
  uint32_t i = (uint32_t)(handle & SLOT_MASK);
  return i < t->n && t->slots[i].conn && t->slots[i].handle == handle ? &t->slots[i] : NULL;
}

conn *handle_find(const handle_table *t, uint64_t handle) {
  const handle_slot *slot = slot_of(t, handle);
  return slot ? slot->conn : NULL;
}

void handle_end(handle_table *t, uint64_t handle) {
  handle_slot *slot = slot_of(t, handle);
  if (!slot) return;
  slot->conn = NULL;
  slot->next = t->free;
  t->free = (uint32_t)(slot - t->slots) + 1;
  t->live--;
}

void handle_clear(handle_table *t) {
  free(t->slots);
  t->slots = NULL;
  t->n = t->free = 0;
}
