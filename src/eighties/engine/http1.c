/* http1.c - the HTTP/1.x reader. Contract and limits: http1.h. */
#include "http1.h"

#include <string.h>

/* Classes of bytes: TOKEN (RFC 9110 5.6.2), VALUE (field-vchar, SP, HTAB), TARGET (visible ASCII but "#", RFC 9112 3.2),
 * HOST (reg-name of RFC 3986 3.2.2). */
enum { TOKEN = 1, VALUE = 2, TARGET = 4, HOST = 8 };

static const uint8_t classes[256] = {
    ['\t'] = VALUE,
    [' '] = VALUE,
    ['!'] = TOKEN | VALUE | TARGET | HOST,
    ['"'] = VALUE | TARGET,
    ['#'] = TOKEN | VALUE,
    ['$'] = TOKEN | VALUE | TARGET | HOST,
    ['%'] = TOKEN | VALUE | TARGET | HOST,
    ['&'] = TOKEN | VALUE | TARGET | HOST,
    ['\''] = TOKEN | VALUE | TARGET | HOST,
    ['('] = VALUE | TARGET | HOST,
    [')'] = VALUE | TARGET | HOST,
    ['*'] = TOKEN | VALUE | TARGET | HOST,
    ['+'] = TOKEN | VALUE | TARGET | HOST,
    [','] = VALUE | TARGET | HOST,
    ['-'] = TOKEN | VALUE | TARGET | HOST,
    ['.'] = TOKEN | VALUE | TARGET | HOST,
    ['/'] = VALUE | TARGET,
    ['0' ... '9'] = TOKEN | VALUE | TARGET | HOST,
    [':'] = VALUE | TARGET,
    [';'] = VALUE | TARGET | HOST,
    ['<'] = VALUE | TARGET,
    ['='] = VALUE | TARGET | HOST,
    ['>'] = VALUE | TARGET,
    ['?'] = VALUE | TARGET,
    ['@'] = VALUE | TARGET,
    ['A' ... 'Z'] = TOKEN | VALUE | TARGET | HOST,
    ['['] = VALUE | TARGET,
    ['\\'] = VALUE | TARGET,
    [']'] = VALUE | TARGET,
    ['^'] = TOKEN | VALUE | TARGET,
    ['_'] = TOKEN | VALUE | TARGET | HOST,
    ['`'] = TOKEN | VALUE | TARGET,
    ['a' ... 'z'] = TOKEN | VALUE | TARGET | HOST,
    ['{'] = VALUE | TARGET,
    ['|'] = TOKEN | VALUE | TARGET,
    ['}'] = VALUE | TARGET,
    ['~'] = TOKEN | VALUE | TARGET | HOST,
    [0x80 ... 0xff] = VALUE,
};

const char *const http1_method_names[HTTP1_METHODS + 1] = {"GET",    "HEAD",  "POST",    "PUT",
                                                           "DELETE", "PATCH", "OPTIONS", NULL};

static bool all_of(const char *text, size_t len, uint8_t class) {
  for (size_t i = 0; i < len; i++)
    if (!(classes[(uint8_t)text[i]] & class)) return false;
  return true;
}

bool http1_is_token(const char *text, size_t len) { return len > 0 && all_of(text, len, TOKEN); }

bool http1_is_value(const char *text, size_t len) { return all_of(text, len, VALUE); }

static ssize_t bad(http1_error *error, int status, const char *reason) {
  error->status = status;
  error->reason = reason;
  return HTTP1_BAD;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* ---- the host ---- */

static bool is_port(const char *text, size_t len) {
  if (len > 5) return false;
  unsigned port = 0;
  for (size_t i = 0; i < len; i++) {
    if (text[i] < '0' || text[i] > '9') return false;
    port = port * 10 + (unsigned)(text[i] - '0');
  }
  return port <= 65535;
}

static bool is_ip_literal(const char *text, size_t len) {
  for (size_t i = 0; i < len; i++)
    if (hex_digit(text[i]) < 0 && text[i] != ':' && text[i] != '.') return false;
  return len >= 2;
}

static bool is_reg_name(const char *text, size_t len) {
  for (size_t i = 0; i < len; i++) {
    if (!(classes[(uint8_t)text[i]] & HOST)) return false;
    if (text[i] == '%' && (i + 2 >= len || hex_digit(text[i + 1]) < 0 || hex_digit(text[i + 2]) < 0)) return false;
  }
  return len > 0;
}

bool http1_is_host(const char *text, size_t len) {
  const char *end = text + len, *colon;
  if (len && *text == '[') {
    const char *close = memchr(text, ']', len);
    if (!close || !is_ip_literal(text + 1, (size_t)(close - text - 1))) return false;
    colon = close + 1;
    if (colon == end) return true;
    if (*colon != ':') return false;
  } else {
    colon = memchr(text, ':', len);
    if (!colon) return is_reg_name(text, len);
    if (!is_reg_name(text, (size_t)(colon - text))) return false;
  }
  return is_port(colon + 1, (size_t)(end - colon - 1));
}

/* ---- the end of the head ---- */

/* Skip leading CRLFs. Returns 0 when the request line begins, or a verdict. */
static ssize_t skip_leading(const char *in, size_t len, http1_scan *scan, http1_error *error) {
  while (scan->start < len) {
    char c = in[scan->start];
    if (c != '\r' && c != '\n') {
      if (!(classes[(uint8_t)c] & TOKEN)) return bad(error, 400, "the request line does not begin with a method");
      return 0;
    }
    if (c == '\n') return bad(error, 400, "a line feed without carriage return (RFC 9112 2.2)");
    if (scan->start + 1 == len) return HTTP1_MORE;
    if (in[scan->start + 1] != '\n') return bad(error, 400, "a carriage return without line feed (RFC 9112 2.2)");
    scan->start += 2;
    if (scan->start > HTTP1_LEADING_BYTES) return bad(error, 400, "too many empty lines before the request");
    scan->pos = scan->line = scan->start;
  }
  return HTTP1_MORE;
}

/* Find the empty line. Limits are checked before anything behind them is judged, so that the verdict is the same however
 * the bytes were split. */
static ssize_t find_end(const char *in, size_t len, http1_scan *scan, const http1_limits *limits, http1_error *error) {
  ssize_t verdict = scan->pos == scan->start ? skip_leading(in, len, scan, error) : 0;
  if (verdict) return verdict;
  for (;;) {
    const char *found = memchr(in + scan->pos, '\n', len - scan->pos);
    size_t end = found ? (size_t)(found - in) : len;
    if (scan->line == scan->start && end - scan->start > limits->max_line + 1)
      return bad(error, 414, "the request line is longer than max_request_line");
    if (end - scan->start >= limits->max_head)
      return bad(error, 431, "the header section is longer than max_header_bytes");
    if (!found) {
      scan->pos = (uint32_t)len;
      return HTTP1_MORE;
    }
    if (end == scan->line || in[end - 1] != '\r')
      return bad(error, 400, "a line feed without carriage return (RFC 9112 2.2)");
    bool empty = end == scan->line + 1;
    scan->pos = scan->line = (uint32_t)end + 1;
    if (empty) return (ssize_t)end + 1;
  }
}

/* ---- the request line ---- */

static http1_method method_of(const char *name, size_t len) {
  for (int i = 0; i < HTTP1_METHODS; i++)
    if (strlen(http1_method_names[i]) == len && memcmp(name, http1_method_names[i], len) == 0) return (http1_method)i;
  return HTTP1_OTHER;
}

/* http://authority/path?query: cut the authority off; what is left is origin-form (RFC 9112 3.2.2). */
static ssize_t read_absolute(http1_head *head, span *rest, http1_error *error) {
  size_t scheme = rest->len >= 7 && http1_same(rest->at, 7, "http://")    ? 7
                  : rest->len >= 8 && http1_same(rest->at, 8, "https://") ? 8
                                                                          : 0;
  if (!scheme) return bad(error, 400, "the request target is neither a path nor an absolute http URL (RFC 9112 3.2)");
  rest->at += scheme;
  rest->len -= scheme;
  size_t n = 0;
  while (n < rest->len && rest->at[n] != '/' && rest->at[n] != '?') n++;
  if (!http1_is_host(rest->at, n)) return bad(error, 400, "the request target has no valid host");
  head->authority = (span){rest->at, n};
  rest->at += n;
  rest->len -= n;
  return 0;
}

/* What the target means, once it is known to hold only bytes that a URL may hold. `mark` is its first "?", or NULL. */
static ssize_t read_target(http1_head *head, const char *mark, http1_error *error) {
  span rest = head->target;
  if (!rest.len) return bad(error, 400, "the request target is missing (RFC 9112 3)");
  if (head->method == HTTP1_OTHER && head->method_name.len == 7 && memcmp(head->method_name.at, "CONNECT", 7) == 0)
    return bad(error, 501, "CONNECT is not served");
  if (rest.len == 1 && *rest.at == '*') {
    if (head->method != HTTP1_OPTIONS) return bad(error, 400, "only OPTIONS may have the target * (RFC 9112 3.2.4)");
    head->path = rest;
    return 0;
  }
  if (*rest.at != '/') {
    ssize_t verdict = read_absolute(head, &rest, error);
    if (verdict) return verdict;
  }
  head->path = (span){rest.at, mark ? (size_t)(mark - rest.at) : rest.len};
  if (mark) head->query = (span){mark + 1, rest.len - head->path.len - 1};
  if (!head->path.len) head->path = (span){head->method == HTTP1_OPTIONS && !mark ? "*" : "/", 1};
  return 0;
}

/* Exactly HTTP/1.x; another version that is well-formed gets 505. */
static ssize_t read_version(http1_head *head, const char *text, size_t len, http1_error *error) {
  if (len != 8 || memcmp(text, "HTTP/", 5) != 0 || text[6] != '.' || text[5] < '0' || text[5] > '9' || text[7] < '0' ||
      text[7] > '9')
    return bad(error, 400, "the request line does not end with HTTP/1.1 (RFC 9112 2.3)");
  if (text[5] != '1') return bad(error, 505, "only HTTP/1.1 and HTTP/1.0 are served");
  head->minor = text[7] == '0' ? 0 : 1;
  return 0;
}

/* METHOD SP TARGET SP VERSION, each byte looked at once. `line` ends with CRLF; *next is set to what follows. */
static ssize_t read_request_line(http1_head *head, const char *line, const char **next, http1_error *error) {
  const char *at = line, *mark = NULL;
  while (classes[(uint8_t)*at] & TOKEN) at++;
  if (at == line || *at != ' ') return bad(error, 400, "the request line does not begin with a method and a space");
  head->method_name = (span){line, (size_t)(at - line)};
  head->method = method_of(line, head->method_name.len);
  const char *target = ++at;
  for (; classes[(uint8_t)*at] & TARGET; at++)
    if (*at == '?' && !mark) mark = at;
  if (*at != ' ') return bad(error, 400, "the request target holds a byte that no URL may hold (RFC 9112 3.2)");
  head->target = (span){target, (size_t)(at - target)};
  const char *version = ++at;
  while (*at != '\n') at++; /* the head has been found: it is there, behind a carriage return */
  *next = at + 1;
  ssize_t verdict = read_version(head, version, (size_t)(at - version) - (at > version), error);
  return verdict ? verdict : read_target(head, mark, error);
}

/* ---- header fields ---- */

/* What the fields seen so far say about framing. */
typedef struct {
  int hosts, codings;
  bool close, keep;
} facts;

static ssize_t read_length(http1_head *head, const char *value, size_t len, http1_error *error) {
  if (head->has_length) return bad(error, 400, "Content-Length stands twice (RFC 9112 6.3)");
  if (!len || len > HTTP1_LENGTH_DIGITS)
    return bad(error, 400, "Content-Length is not a number of bytes (RFC 9110 8.6)");
  uint64_t n = 0;
  for (size_t i = 0; i < len; i++) {
    if (value[i] < '0' || value[i] > '9')
      return bad(error, 400, "Content-Length is not a number of bytes (RFC 9110 8.6)");
    n = n * 10 + (uint64_t)(value[i] - '0');
  }
  head->has_length = true;
  head->length = n;
  return 0;
}

/* The list of a Connection field; close wins wherever it stands (RFC 9112 9.3). */
static void read_connection(facts *f, const char *value, size_t len) {
  const char *end = value + len;
  while (value < end) {
    const char *comma = memchr(value, ',', (size_t)(end - value));
    const char *stop = comma ? comma : end, *last = stop;
    while (value < last && (*value == ' ' || *value == '\t')) value++;
    while (last > value && (last[-1] == ' ' || last[-1] == '\t')) last--;
    if (http1_same(value, (size_t)(last - value), "close")) f->close = true;
    if (http1_same(value, (size_t)(last - value), "keep-alive")) f->keep = true;
    value = comma ? comma + 1 : end;
  }
}

/* Fields that bear on framing, told apart by length first. */
static ssize_t read_known(http1_head *head, facts *f, const http1_field *field, http1_error *error) {
  const char *name = head->bytes.at + field->name, *value = head->bytes.at + field->value;
  size_t len = field->value_len;
  switch (field->name_len) {
  case 4:
    if (!http1_same(name, 4, "host")) break;
    if (f->hosts++) return bad(error, 400, "Host stands twice (RFC 9112 3.2)");
    if (!http1_is_host(value, len)) return bad(error, 400, "Host is not a host with an optional port (RFC 9112 3.2)");
    head->host = (int32_t)(field - head->fields);
    break;
  case 6:
    if (!http1_same(name, 6, "expect")) break;
    if (head->minor == 0) break; /* RFC 9110 10.1.1: ignored in HTTP/1.0 */
    if (!http1_same(value, len, "100-continue")) return bad(error, 417, "only 100-continue may be expected");
    head->expect_continue = true;
    break;
  case 10:
    if (http1_same(name, 10, "connection")) read_connection(f, value, len);
    break;
  case 14:
    if (http1_same(name, 14, "content-length")) return read_length(head, value, len, error);
    break;
  case 17:
    if (!http1_same(name, 17, "transfer-encoding")) break;
    if (f->codings++) return bad(error, 400, "Transfer-Encoding stands twice (RFC 9112 6.1)");
    if (!http1_same(value, len, "chunked")) return bad(error, 501, "the only transfer coding served is chunked");
    head->chunked = true;
    break;
  default: break;
  }
  return 0;
}

/* One line into the next field, each byte looked at once. `line` ends with CRLF; *next is set to what follows. */
static ssize_t read_field(http1_head *head, const char *line, const char **next, http1_error *error) {
  const char *colon = line;
  if (*line == ' ' || *line == '\t') return bad(error, 400, "a header field is folded over lines (RFC 9112 5.2)");
  while (classes[(uint8_t)*colon] & TOKEN) colon++;
  if (colon == line || *colon != ':') return bad(error, 400, "a header field has no valid name (RFC 9112 5.1)");
  const char *value = colon + 1;
  while (*value == ' ' || *value == '\t') value++;
  const char *end = value;
  while (classes[(uint8_t)*end] & VALUE) end++;
  if (end[0] != '\r' || end[1] != '\n')
    return bad(error, 400, "a header field value holds a control byte (RFC 9110 5.5)");
  *next = end + 2;
  while (end > value && (end[-1] == ' ' || end[-1] == '\t')) end--;
  const char *base = head->bytes.at;
  head->fields[head->n_fields++] = (http1_field){(uint32_t)(line - base), (uint32_t)(colon - line),
                                                 (uint32_t)(value - base), (uint32_t)(end - value)};
  return 0;
}

/* What the fields mean together. */
static ssize_t conclude(http1_head *head, const facts *f, http1_error *error) {
  if (head->minor > 0 && !f->hosts) return bad(error, 400, "Host is missing (RFC 9112 3.2)");
  if (head->chunked && head->has_length)
    return bad(error, 400, "Content-Length and Transfer-Encoding together (RFC 9112 6.3)");
  if (head->chunked && head->minor == 0) return bad(error, 400, "Transfer-Encoding in HTTP/1.0 (RFC 9112 6.1)");
  head->keep_alive = !f->close && (head->minor > 0 || f->keep);
  if (head->authority.at && head->host >= 0) { /* RFC 9112 3.2.2: the target's authority replaces Host */
    head->fields[head->host].value = (uint32_t)(head->authority.at - head->bytes.at);
    head->fields[head->host].value_len = (uint32_t)head->authority.len;
  }
  return 0;
}

static ssize_t parse(const char *in, size_t len, size_t start, const http1_limits *limits, http1_head *head,
                     http1_error *error) {
  http1_field *room = head->fields;
  *head = (http1_head){.bytes = {in, len}, .fields = room, .host = -1, .query = {in, 0}};
  facts f = {0};
  const char *line, *end = in + len - 2; /* the empty line */
  ssize_t verdict = read_request_line(head, in + start, &line, error);
  if (verdict) return verdict;
  while (line < end) {
    if (head->n_fields == limits->max_fields) return bad(error, 431, "more header fields than max_headers");
    if ((verdict = read_field(head, line, &line, error))) return verdict;
    if ((verdict = read_known(head, &f, &head->fields[head->n_fields - 1], error))) return verdict;
  }
  verdict = conclude(head, &f, error);
  return verdict ? verdict : (ssize_t)len;
}

ssize_t http1_read_head(const char *in, size_t len, http1_scan *scan, const http1_limits *limits, http1_head *head,
                        http1_error *error) {
  if (!len) return HTTP1_MORE;
  ssize_t end = find_end(in, len, scan, limits, error);
  return end < 0 ? end : parse(in, (size_t)end, scan->start, limits, head, error);
}

/* ---- chunked bodies (RFC 9112 section 7.1) ---- */

enum { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER, NAME, FIELD, FIELD_LF, END_LF };

/* One byte of framing; the data itself never comes here. */
static ssize_t chunk_byte(http1_chunked *c, char byte, size_t max_fields, http1_error *error) {
  if (c->state >= TRAILER && ++c->trailer > HTTP1_TRAILER_BYTES)
    return bad(error, 431, "the trailer section is too long");
  switch (c->state) {
  case SIZE: {
    int digit = hex_digit(byte);
    if (digit >= 0) {
      if (++c->digits > HTTP1_SIZE_DIGITS) return bad(error, 400, "a chunk size is too long (RFC 9112 7.1)");
      c->left = c->left * 16 + (uint64_t)digit;
    } else if (c->digits && (byte == ';' || byte == '\r')) {
      c->state = byte == ';' ? EXTENSION : SIZE_LF;
    } else {
      return bad(error, 400, "a chunk size is not a hexadecimal number (RFC 9112 7.1)");
    }
    return 1;
  }
  case EXTENSION:
    if (++c->extension > HTTP1_EXTENSION_BYTES) return bad(error, 400, "the chunk extensions are too long");
    if (byte == '\r') c->state = SIZE_LF;
    else if (!(classes[(uint8_t)byte] & VALUE)) return bad(error, 400, "a control byte in a chunk extension");
    return 1;
  case SIZE_LF:
    if (byte != '\n') return bad(error, 400, "a chunk size does not end with CRLF (RFC 9112 7.1)");
    c->digits = 0;
    c->state = c->left ? DATA : TRAILER;
    return 1;
  case DATA_CR:
  case DATA_LF:
    if (byte != (c->state == DATA_CR ? '\r' : '\n'))
      return bad(error, 400, "a chunk's data does not end with CRLF (RFC 9112 7.1)");
    c->state = c->state == DATA_CR ? DATA_LF : SIZE;
    return 1;
  case TRAILER:
    if (byte == '\r') {
      c->state = END_LF;
      return 1;
    }
    if (c->fields++ >= max_fields) return bad(error, 431, "more trailer fields than max_headers");
    if (!(classes[(uint8_t)byte] & TOKEN)) return bad(error, 400, "a trailer field has no valid name (RFC 9112 5.1)");
    c->state = NAME;
    return 1;
  case NAME:
    if (byte == ':') c->state = FIELD;
    else if (!(classes[(uint8_t)byte] & TOKEN))
      return bad(error, 400, "a trailer field has no valid name (RFC 9112 5.1)");
    return 1;
  case FIELD:
    if (byte == '\r') c->state = FIELD_LF;
    else if (!(classes[(uint8_t)byte] & VALUE))
      return bad(error, 400, "a control byte in a trailer field (RFC 9110 5.5)");
    return 1;
  case FIELD_LF:
  case END_LF:
    if (byte != '\n') return bad(error, 400, "a trailer line does not end with CRLF (RFC 9112 7.1)");
    c->state = c->state == FIELD_LF ? TRAILER : HTTP1_CHUNKED_DONE;
    return 1;
  default: return bad(error, 400, "bytes after the end of a chunked body");
  }
}

ssize_t http1_read_chunked(http1_chunked *c, const char *in, size_t len, size_t max_fields, span *data,
                           http1_error *error) {
  *data = (span){in, 0};
  if (!len) return HTTP1_MORE;
  if (c->state == DATA) {
    size_t n = len < c->left ? len : (size_t)c->left;
    *data = (span){in, n};
    c->left -= n;
    if (!c->left) c->state = DATA_CR;
    return (ssize_t)n;
  }
  size_t used = 0;
  while (used < len && c->state != DATA && c->state != HTTP1_CHUNKED_DONE) {
    ssize_t n = chunk_byte(c, in[used], max_fields, error);
    if (n < 0) return n;
    used += (size_t)n;
  }
  return (ssize_t)used;
}
