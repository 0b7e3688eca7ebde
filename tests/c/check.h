/* check.h - what the C tests count with: CHECK goes on after a failure, summary says how it went and is the exit code. */
#ifndef EIGHTIES_CHECK_H
#define EIGHTIES_CHECK_H

#include <stdbool.h>
#include <stdio.h>

static int checks, failures;

static inline bool check_that(bool fine, const char *what, const char *file, int line) {
  checks++;
  if (fine) return true;
  failures++;
  fprintf(stderr, "%s:%d: %s\n", file, line, what);
  return false;
}

#define CHECK(what) check_that(what, #what, __FILE__, __LINE__)

static inline int summary(const char *name) {
  printf("%s: %d checks, %d failed\n", name, checks, failures);
  return failures ? 1 : 0;
}

#endif
