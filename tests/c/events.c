/* events.c - bytes to events. Contract: events.h. What every answer of a reader must hold to is asserted here. */
#include "events.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void reader_init(reader *r, const http1_limits *limits, bool tell_fields) {
  *r = (reader){.limits = *limits, .tell_fields = tell_fields};
  r->fields = malloc((limits->max_fields + 1) * sizeof *r->fields);
  if (!r->fields) abort();
  text_put(&r->events, "", 0);
}

void reader_clear(reader *r) {
  text_clear(&r->events);
  free(r->fields);
}

/* ---- events ---- */

static void put_event(reader *r, const char *name) {
  if (r->in_body) text_put(&r->events, "\n", 1);
  r->in_body = false;
  text_put(&r->events, name, strlen(name));
}

static void put_body(reader *r, span data) {
  if (!data.len) return;
  if (!r->in_body) put_event(r, "body ");
  r->in_body = true;
  text_escape(&r->events, data.at, data.len);
}

static size_t put_bad(reader *r, const http1_error *error, size_t len) {
  assert(error->status >= 400 && error->status < 600 && error->reason);
  put_event(r, "");
  text_print(&r->events, "bad %d %s\n", error->status, error->reason);
  r->state = AT_BAD;
  return len;
}

static void put_end(reader *r) {
  put_event(r, "end\n");
  r->state = AT_HEAD;
  r->scan = (http1_scan){0};
}

/* ---- heads ---- */

static bool within(span part, span all) { return part.at >= all.at && part.at + part.len <= all.at + all.len; }

static void check_head(const http1_head *head, const http1_limits *limits) {
  span all = head->bytes;
  assert(all.len <= limits->max_head + HTTP1_LEADING_BYTES && head->n_fields <= limits->max_fields);
  assert(all.len >= 4 && memcmp(all.at + all.len - 4, "\r\n\r\n", 4) == 0);
  assert(within(head->method_name, all) && within(head->target, all) && within(head->query, all));
  assert(head->path.len && (*head->path.at == '/' || *head->path.at == '*'));
  assert(!head->authority.at || within(head->authority, all));
  assert(head->host < (int32_t)head->n_fields && (head->host >= 0 || head->minor == 0));
  assert(!(head->chunked && head->has_length) && (head->has_length || !head->length));
  for (size_t i = 0; i < head->n_fields; i++) {
    const http1_field *f = &head->fields[i];
    assert((size_t)f->name + f->name_len < all.len && (size_t)f->value + f->value_len < all.len);
    assert(http1_is_token(all.at + f->name, f->name_len) && http1_is_value(all.at + f->value, f->value_len));
  }
}

static void put_fields(reader *r, const http1_head *head) {
  for (size_t i = 0; i < head->n_fields; i++) {
    const http1_field *f = &head->fields[i];
    text_put(&r->events, "field ", 6);
    text_escape(&r->events, head->bytes.at + f->name, f->name_len);
    text_put(&r->events, ": ", 2);
    text_escape(&r->events, head->bytes.at + f->value, f->value_len);
    text_put(&r->events, "\n", 1);
  }
}

static void put_head(reader *r, const http1_head *head) {
  put_event(r, "head ");
  text_escape(&r->events, head->method_name.at, head->method_name.len);
  text_put(&r->events, " ", 1);
  text_escape(&r->events, head->path.at, head->path.len);
  if (head->query.len) text_put(&r->events, "?", 1);
  text_escape(&r->events, head->query.at, head->query.len);
  if (head->method == HTTP1_OTHER) text_print(&r->events, " unknown");
  if (head->minor == 0) text_print(&r->events, " 1.0");
  text_print(&r->events, head->keep_alive ? " keep-alive" : " close");
  if (head->has_length) text_print(&r->events, " length=%llu", (unsigned long long)head->length);
  if (head->chunked) text_print(&r->events, " chunked");
  if (head->expect_continue) text_print(&r->events, " expect");
  text_put(&r->events, "\n", 1);
  if (r->tell_fields) put_fields(r, head);
}

static size_t feed_head(reader *r, const char *in, size_t len) {
  http1_error error = {0};
  http1_head head = {.fields = r->fields};
  ssize_t n = http1_read_head(in, len, &r->scan, &r->limits, &head, &error);
  if (n == HTTP1_MORE) return 0;
  if (n == HTTP1_BAD) return put_bad(r, &error, len);
  assert(n > 0 && (size_t)n <= len && head.bytes.at == in && head.bytes.len == (size_t)n);
  check_head(&head, &r->limits);
  put_head(r, &head);
  r->chunked = (http1_chunked){0};
  r->left = head.length;
  r->state = head.chunked ? AT_CHUNKED : AT_LENGTH;
  if (r->state == AT_LENGTH && !r->left) put_end(r);
  return (size_t)n;
}

/* ---- bodies ---- */

static size_t feed_length(reader *r, const char *in, size_t len) {
  size_t n = len < r->left ? len : (size_t)r->left;
  put_body(r, (span){in, n});
  r->left -= n;
  if (!r->left) put_end(r);
  return n;
}

static size_t feed_chunked(reader *r, const char *in, size_t len) {
  http1_error error = {0};
  span data;
  ssize_t n = http1_read_chunked(&r->chunked, in, len, r->limits.max_fields, &data, &error);
  if (n == HTTP1_MORE) return 0;
  if (n == HTTP1_BAD) return put_bad(r, &error, len);
  assert(n > 0 && (size_t)n <= len && within(data, (span){in, (size_t)n}));
  put_body(r, data);
  if (r->chunked.state == HTTP1_CHUNKED_DONE) put_end(r);
  return (size_t)n;
}

size_t reader_feed(reader *r, const char *in, size_t len) {
  size_t used = 0;
  for (;;) {
    size_t n = 0, left = len - used;
    if (r->state == AT_BAD) return len;
    if (r->state == AT_HEAD) n = feed_head(r, in + used, left);
    else if (r->state == AT_LENGTH) n = feed_length(r, in + used, left);
    else n = feed_chunked(r, in + used, left);
    if (!n) return used;
    used += n;
  }
}

void reader_end(reader *r, size_t len) {
  if (r->state != AT_BAD && (len || r->state != AT_HEAD)) put_event(r, "more\n");
}
