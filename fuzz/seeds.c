/* seeds.c - first inputs for the fuzzers from the case files: seeds http1|connection|raw FOLDER CASES... */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"

#define PIECE 255 /* bytes in one write of fuzz_connection.c */

static void write_seed(const char *folder, int number, const text *seed) {
  char path[512];
  if (snprintf(path, sizeof path, "%s/case-%04d", folder, number) >= (int)sizeof path) abort();
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(seed->at, 1, seed->len, file) != seed->len || fclose(file) != 0) {
    perror(path);
    exit(2);
  }
}

/* The control bytes of fuzz_http1.c: the limits that are nearest; pieces of three bytes at most. */
static void http1_seed(text *seed, const test_case *c) {
  char control[4] = {0, 2, 1, 0};
  if (c->limits.max_head == 64) control[0] = 1;
  else if (c->limits.max_line == 25) control[0] = 2;
  text_put(seed, control, sizeof control);
  text_put(seed, c->bytes.at, c->bytes.len);
}

/* fuzz_connection.c: settings, then the first client's writes, each with a poll behind it. */
static void connection_seed(text *seed, const test_case *c) {
  text_put(seed, "\0\0", 2);
  for (size_t at = 0; at < c->bytes.len; at += PIECE) {
    size_t n = c->bytes.len - at < PIECE ? c->bytes.len - at : PIECE;
    char write[2] = {0, (char)n}, poll[2] = {3, 0};
    text_put(seed, write, sizeof write);
    text_put(seed, c->bytes.at + at, n);
    text_put(seed, poll, sizeof poll);
  }
}

/* fuzz_raw.c: settings (HTTP, raw or sniffing), then the first peer's writes, each with a poll behind it. */
static void raw_seed(text *seed, const test_case *c, int number) {
  static const char settings[] = {0, 1, 4};
  text_put(seed, &settings[number % 3], 1);
  text_put(seed, "\0", 1);
  for (size_t at = 0; at < c->bytes.len; at += PIECE) {
    size_t n = c->bytes.len - at < PIECE ? c->bytes.len - at : PIECE;
    char write[2] = {0x30, (char)n}, poll = 3;
    text_put(seed, write, sizeof write);
    text_put(seed, c->bytes.at + at, n);
    text_put(seed, &poll, 1);
  }
}

int main(int argc, char **argv) {
  int number = 0;
  if (argc < 4) return 2;
  for (int i = 3; i < argc; i++) {
    test_case *first = cases_load(argv[i]);
    for (const test_case *c = first; c; c = c->next) {
      text seed = {0};
      if (strcmp(argv[1], "http1") == 0) http1_seed(&seed, c);
      else if (strcmp(argv[1], "raw") == 0) raw_seed(&seed, c, number);
      else connection_seed(&seed, c);
      write_seed(argv[2], ++number, &seed);
      text_clear(&seed);
    }
    cases_free(first);
  }
  return 0;
}
