/* events.h - bytes to events, as a connection would read them: heads and bodies one after the other, each event a line
 * of text. Used by test_http1.c and fuzz/fuzz_http1.c. Events: README.md. */
#ifndef EIGHTIES_EVENTS_H
#define EIGHTIES_EVENTS_H

#include "cases.h"

typedef struct {
  http1_limits limits;
  http1_field *fields;
  bool tell_fields;
  enum { AT_HEAD, AT_LENGTH, AT_CHUNKED, AT_BAD } state;
  bool in_body; /* the last event is a body that goes on */
  http1_scan scan;
  http1_chunked chunked;
  uint64_t left;
  text events;
} reader;

void reader_init(reader *r, const http1_limits *limits, bool tell_fields);
/* Take what can be taken. Returns how much that is; what is left is given again, with the bytes that follow it. */
size_t reader_feed(reader *r, const char *in, size_t len);
/* No more bytes will come, and `len` of them are left. */
void reader_end(reader *r, size_t len);
void reader_clear(reader *r);

#endif
