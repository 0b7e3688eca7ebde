/* query.c - form-encoded text (WHATWG URL section 5.1) and percent escapes (RFC 3986 section 2.1). Contract: http1.h. */
#include <string.h>

#include "http1.h"

bool query_next(span *rest, span *name, span *value) {
  while (rest->len && *rest->at == '&') { /* empty pairs say nothing */
    rest->at++;
    rest->len--;
  }
  if (!rest->len) return false;
  const char *amp = memchr(rest->at, '&', rest->len);
  size_t len = amp ? (size_t)(amp - rest->at) : rest->len;
  const char *equals = memchr(rest->at, '=', len);
  *name = (span){rest->at, equals ? (size_t)(equals - rest->at) : len};
  *value = equals ? (span){equals + 1, len - name->len - 1} : (span){rest->at + len, 0};
  rest->at += len;
  rest->len -= len;
  return true;
}

static int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

size_t query_decode(span in, char *out, bool plus) {
  char *start = out;
  for (size_t i = 0; i < in.len; i++) {
    char c = in.at[i];
    if (c == '%' && i + 2 < in.len && hex(in.at[i + 1]) >= 0 && hex(in.at[i + 2]) >= 0) {
      *out++ = (char)(hex(in.at[i + 1]) * 16 + hex(in.at[i + 2]));
      i += 2;
    } else {
      *out++ = c == '+' && plus ? ' ' : c;
    }
  }
  return (size_t)(out - start);
}
