/* cases.h - the case files of tests/c/cases: request bytes and the events that a reader must make of them. The format is
 * told in README.md. Read by test_http1.c and by fuzz/seeds.c. */
#ifndef EIGHTIES_CASES_H
#define EIGHTIES_CASES_H

#include "http1.h"

/* A text that grows; always ends with a NUL byte that is not counted. */
typedef struct {
  char *at;
  size_t len, room;
} text;

void text_put(text *t, const char *at, size_t len);
void text_print(text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Append with \r \n \t \0 \\ and \xHH for what is not printable ASCII. */
void text_escape(text *t, const char *at, size_t len);
void text_clear(text *t);

typedef struct test_case test_case;
struct test_case {
  test_case *next;
  char *name;
  int line; /* of the file, where it begins */
  http1_limits limits;
  text bytes;    /* what the client sends */
  text expected; /* events, a line each, escaped as text_escape does */
  bool fields;   /* the events tell each header field */
};

extern const http1_limits default_limits; /* those of limits.py */

/* Ends the program with a message where the file is not in order. */
test_case *cases_load(const char *path);
void cases_free(test_case *first);

#endif
