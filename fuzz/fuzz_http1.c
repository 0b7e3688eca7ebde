/* fuzz_http1.c - heads and chunked bodies: whatever the bytes, and however they are split, the events are the same.
 *
 * Input: 4 bytes of control (limits, longest piece, seed of the pieces' lengths), then what the client sends. It is read
 * whole, in pieces of the fuzzer's choice, and, when short, byte by byte; each piece in memory of its own size, which
 * AddressSanitizer watches. What every head must hold to is asserted in tests/c/events.c. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "events.h"

#define CONTROL 4
#define MOST_BYTES 20000
#define MOST_STEPS 400 /* pieces; each is read together with what is left of those before */

static const http1_limits choices[] = {
    {.max_line = 8192, .max_head = 32768, .max_fields = 100},
    {.max_line = 62, .max_head = 64, .max_fields = 2},
    {.max_line = 30, .max_head = 256, .max_fields = 5},
    {.max_line = 254, .max_head = 256, .max_fields = 0},
};

typedef struct {
  reader reader;
  const uint8_t *at;
  size_t len, used;
} run;

static void run_to(run *r, size_t end) {
  size_t n = end - r->used;
  char *piece = malloc(n ? n : 1);
  if (!piece) abort();
  memcpy(piece, r->at + r->used, n);
  r->used += reader_feed(&r->reader, piece, n);
  free(piece);
}

static uint32_t next(uint32_t *seed) {
  *seed ^= *seed << 13;
  *seed ^= *seed >> 17;
  return *seed ^= *seed << 5;
}

static text run_in_pieces(const http1_limits *limits, const uint8_t *at, size_t len, size_t longest, uint32_t seed) {
  run r = {.at = at, .len = len};
  reader_init(&r.reader, limits, true);
  for (size_t end = 0; end < len;) {
    end += longest == 1 ? 1 : 1 + next(&seed) % longest;
    run_to(&r, end < len ? end : len);
  }
  reader_end(&r.reader, len - r.used);
  text events = r.reader.events;
  r.reader.events = (text){0};
  reader_clear(&r.reader);
  return events;
}

static void compare(const text *whole, text pieces, const char *way) {
  if (strcmp(whole->at, pieces.at) != 0) {
    fprintf(stderr, "--- whole\n%s--- %s\n%s", whole->at, way, pieces.at);
    abort();
  }
  text_clear(&pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < CONTROL || size > MOST_BYTES) return 0;
  const http1_limits *limits = &choices[data[0] % 4];
  size_t longest = (size_t)data[1] + 1, len = size - CONTROL;
  uint32_t seed = 1u + data[2] + 256u * data[3];
  const uint8_t *at = data + CONTROL;
  text whole = {0};
  run r = {.at = at, .len = len};
  reader_init(&r.reader, limits, true);
  run_to(&r, len);
  reader_end(&r.reader, len - r.used);
  text_put(&whole, r.reader.events.at, r.reader.events.len);
  reader_clear(&r.reader);
  if (longest < len / MOST_STEPS) longest = len / MOST_STEPS;
  compare(&whole, run_in_pieces(limits, at, len, longest + 1, seed), "in pieces");
  if (len <= MOST_STEPS) compare(&whole, run_in_pieces(limits, at, len, 1, seed), "byte by byte");
  text_clear(&whole);
  return 0;
}
