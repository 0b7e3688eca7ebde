/* http1.h - HTTP/1.x framing: bytes in, events out.
 *
 * This header is the manual of the parser. It knows no socket and no Python, and allocates nothing. Three readers, all
 * with one contract:
 *
 *     > 0   that many bytes are consumed, the result is in the output structure
 *     -1    the input is bad: `status` and `reason` of the error say what to answer; nothing more may be read
 *     -2    more bytes are needed; call again with the same bytes and those that follow
 *
 * The verdict never depends on how the bytes were split: it is a function of the bytes alone. Every byte is looked at a
 * bounded number of times, whatever the split (the `scan` remembers how far the search for the end has come).
 *
 * Strict by default: RFC 9112, and where that leaves a choice, the choice that no intermediary can read otherwise.
 */
#ifndef EIGHTIES_HTTP1_H
#define EIGHTIES_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#define HTTP1_BAD (-1)
#define HTTP1_MORE (-2)

/* CRLFs before a request line that are skipped (RFC 9112 section 2.2 asks for at least one). */
#define HTTP1_LEADING_BYTES 8
/* Bytes of chunk extensions in a whole body. Nobody uses them; unbounded they cost CPU for no data (CVE-2023-39326). */
#define HTTP1_EXTENSION_BYTES 4096
/* Bytes of a trailer section. */
#define HTTP1_TRAILER_BYTES 8192
/* Hexadecimal digits of a chunk size: 2^60 is enough for anyone and cannot wrap 64 bits. */
#define HTTP1_SIZE_DIGITS 15
/* Decimal digits of a Content-Length: 10^18 - 1 cannot wrap 63 bits. */
#define HTTP1_LENGTH_DIGITS 18

typedef struct {
  const char *at;
  size_t len;
} span;

/* What to answer to bad input. `reason` is a constant text for the client and the log. */
typedef struct {
  int status;
  const char *reason;
} http1_error;

typedef struct {
  size_t max_line;   /* request line, bytes without CRLF, at most max_head - 2: 414 */
  size_t max_head;   /* request line and header section, bytes: 431 */
  size_t max_fields; /* header fields: 431 */
} http1_limits;

/* Known methods, in the order of http1_method_names; HTTP1_OTHER is answered with 501. */
typedef enum {
  HTTP1_GET,
  HTTP1_HEAD,
  HTTP1_POST,
  HTTP1_PUT,
  HTTP1_DELETE,
  HTTP1_PATCH,
  HTTP1_OPTIONS,
  HTTP1_METHODS,
  HTTP1_OTHER = HTTP1_METHODS
} http1_method;
extern const char *const http1_method_names[HTTP1_METHODS + 1];

/* A header field, as offsets from the first byte of the head: they stay true when the head is copied. */
typedef struct {
  uint32_t name, name_len, value, value_len;
} http1_field;

/* How far the search for the end of a head has come; zero it before each head. */
typedef struct {
  uint32_t pos;   /* bytes searched */
  uint32_t start; /* first byte of the request line */
  uint32_t line;  /* first byte of the current line */
} http1_scan;

typedef struct {
  span bytes;          /* the whole head, leading CRLFs and final empty line included */
  span method_name;    /* as sent */
  span target;         /* as sent */
  span path;           /* raw path, never empty; "*" for OPTIONS * */
  span query;          /* raw, without "?" */
  span authority;      /* of an absolute-form target; it replaces Host (RFC 9112 section 3.2.2) */
  http1_field *fields; /* room for max_fields, given by the caller */
  size_t n_fields;
  http1_method method;
  int minor;       /* HTTP/1.minor */
  int32_t host;    /* index of the Host field or -1 */
  bool keep_alive; /* the client asks to, or does not refuse to, go on */
  bool chunked;
  bool has_length;
  bool expect_continue;
  uint64_t length; /* Content-Length */
} http1_head;

/* Find and parse one request head at in[0..len). */
ssize_t http1_read_head(const char *in, size_t len, http1_scan *scan, const http1_limits *limits, http1_head *head,
                        http1_error *error);

/* Decoder of a chunked body; zero it before each body. */
typedef struct {
  uint64_t left;      /* data bytes of the current chunk to come */
  uint32_t extension; /* extension bytes so far */
  uint32_t trailer;   /* trailer bytes so far */
  uint16_t fields;    /* trailer fields so far */
  uint8_t state;      /* see http1.c; HTTP1_CHUNKED_DONE when the body is complete */
  uint8_t digits;
} http1_chunked;
#define HTTP1_CHUNKED_DONE 255

/* Take one step: consume framing or data. `data` is a part of `in` (maybe empty). Trailer fields are checked and dropped. */
ssize_t http1_read_chunked(http1_chunked *c, const char *in, size_t len, size_t max_fields, span *data,
                           http1_error *error);

/* Whether `text` is a token (RFC 9110 section 5.6.2), or a field value (section 5.5) without outer white space rules. */
bool http1_is_token(const char *text, size_t len);
bool http1_is_value(const char *text, size_t len);
/* Whether `text` equals the lower-case `word`, ignoring case. */
static inline bool http1_same(const char *text, size_t len, const char *word) {
  if (strlen(word) != len) return false;
  for (size_t i = 0; i < len; i++) {
    char c = text[i];
    if (c >= 'A' && c <= 'Z') c |= 0x20;
    if (c != word[i]) return false;
  }
  return true;
}
/* uri-host [ ":" port ] (RFC 9110 section 7.2). */
bool http1_is_host(const char *text, size_t len);

/* The next name=value pair of a form-encoded text; false at the end. `rest` advances. */
bool query_next(span *rest, span *name, span *value);
/* Percent-decode `in` to `out` (at least in.len bytes); `plus` turns + into a space. Bad escapes stay. Returns length. */
size_t query_decode(span in, char *out, bool plus);

#endif
