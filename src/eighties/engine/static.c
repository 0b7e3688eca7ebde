/* static.c - what is asked of a small file that is in memory, and whether the answer to it is simple. Contract: engine.h.
 *
 * Only what browsers ask a thousand times is decided here. Whatever has to be weighed (quality values, lists of entity
 * tags, dates that are not the file's own, ranges) is handed over to the handler: the truth about it is written once.
 */
#include "engine.h"

static span value_of(const http1_head *head, const http1_field *field) {
  return (span){head->bytes.at + field->value, field->value_len};
}

/* A field that may stand once; of several the handler has to make something. */
static void note_once(static_wishes *w, span *place, span value) {
  w->other |= place->at != NULL;
  *place = value;
}

/* The fields that matter (RFC 9110 sections 12.5.3, 13.1 and 14.2); names of other lengths are not looked at. */
static void note_field(static_wishes *w, const http1_head *head, const http1_field *field) {
  const char *name = head->bytes.at + field->name;
  switch (field->name_len) {
  case 5: w->other |= http1_same(name, 5, "range"); break;
  case 8: w->other |= http1_same(name, 8, "if-match") || http1_same(name, 8, "if-range"); break;
  case 13:
    if (http1_same(name, 13, "if-none-match")) note_once(w, &w->none_match, value_of(head, field));
    break;
  case 15:
    if (http1_same(name, 15, "accept-encoding")) note_once(w, &w->encodings, value_of(head, field));
    break;
  case 17:
    if (http1_same(name, 17, "if-modified-since")) note_once(w, &w->modified_since, value_of(head, field));
    break;
  case 19: w->other |= http1_same(name, 19, "if-unmodified-since"); break;
  default: break;
  }
}

void static_read(const http1_head *head, static_wishes *w) {
  *w = (static_wishes){.version = head->query.len > 0};
  w->other = head->method != HTTP1_GET && head->method != HTTP1_HEAD;
  for (size_t i = 0; i < head->n_fields; i++) note_field(w, head, &head->fields[i]);
}

/* ---- codings ---- */

static bool is_space(char c) { return c == ' ' || c == '\t'; }

/* The next element of a list, without the white space around it; false at the end. `rest` advances. */
static bool next_element(span *rest, span *element) {
  if (!rest->at) return false;
  const char *comma = rest->len ? memchr(rest->at, ',', rest->len) : NULL;
  *element = (span){rest->at, comma ? (size_t)(comma - rest->at) : rest->len};
  *rest = comma ? (span){comma + 1, rest->len - element->len - 1} : (span){0};
  while (element->len && is_space(*element->at)) element->at++, element->len--;
  while (element->len && is_space(element->at[element->len - 1])) element->len--;
  return true;
}

/* `word` is in small letters. */
static bool same_word(span text, span word) {
  if (text.len != word.len) return false;
  for (size_t i = 0; i < word.len; i++) {
    char c = text.at[i];
    if (c >= 'A' && c <= 'Z') c |= 0x20;
    if (c != word.at[i]) return false;
  }
  return true;
}

int static_choose(const static_wishes *w, const span *codings, int n) {
  int best = n;
  span rest = w->encodings, element;
  while (next_element(&rest, &element)) {
    if (!element.len) continue;
    if (*element.at == '*' || !http1_is_token(element.at, element.len)) return -1; /* weights, or no list of codings */
    for (int i = 0; i < best; i++)
      if (same_word(element, codings[i])) best = i;
  }
  return best;
}

/* ---- conditions ---- */

/* The opaque part of an entity tag (RFC 9110 section 8.8.3), which may be weak; false: it is none. */
static bool read_etag(span text, span *opaque) {
  if (text.len >= 2 && text.at[0] == 'W' && text.at[1] == '/') text = (span){text.at + 2, text.len - 2};
  if (text.len < 2 || text.at[0] != '"' || text.at[text.len - 1] != '"') return false;
  *opaque = (span){text.at + 1, text.len - 2};
  for (size_t i = 0; i < opaque->len; i++) {
    const uint8_t c = (uint8_t)opaque->at[i];
    if (c < 0x21 || c == '"' || c == 0x7f) return false;
  }
  return true;
}

bool static_is_etag(span text) {
  span opaque;
  return read_etag(text, &opaque);
}

static bool same(span a, span b) { return a.len == b.len && (!a.len || memcmp(a.at, b.at, a.len) == 0); }

static_verdict static_judge(const static_wishes *w, span etag, span last_modified) {
  span asked, own;
  if (w->none_match.at) { /* If-Modified-Since does not count then (RFC 9110 section 13.1.3) */
    if (!read_etag(w->none_match, &asked) || !read_etag(etag, &own)) return STATIC_OTHER;
    return same(asked, own) ? STATIC_NOT_MODIFIED : STATIC_WHOLE; /* weak comparison (section 13.1.2) */
  }
  if (!w->modified_since.at) return STATIC_WHOLE;
  return same(w->modified_since, last_modified) ? STATIC_NOT_MODIFIED : STATIC_OTHER;
}

/* ---- what the program gives ---- */

/* Fields that the engine writes, or that bear on framing. */
static bool is_ours(const char *name, size_t len) {
  static const char *const ours[] = {"connection", "content-length", "content-type",      "date",   "keep-alive",
                                     "server",     "trailer",        "transfer-encoding", "upgrade"};
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
    if (http1_same(name, len, ours[i])) return true;
  return false;
}

const char *static_refuses(span lines) {
  while (lines.len) {
    const char *end = memchr(lines.at, '\r', lines.len);
    if (!end || (size_t)(end - lines.at) + 1 == lines.len || end[1] != '\n')
      return "a field line does not end with CRLF";
    const size_t len = (size_t)(end - lines.at);
    const char *colon = len ? memchr(lines.at, ':', len) : NULL;
    if (!colon || !http1_is_token(lines.at, (size_t)(colon - lines.at)))
      return "a field line does not begin with a name";
    if (!http1_is_value(colon + 1, (size_t)(end - colon) - 1)) return "a field's value holds a control character";
    if (is_ours(lines.at, (size_t)(colon - lines.at))) return "a field is the engine's to set";
    lines = (span){end + 2, lines.len - len - 2};
  }
  return NULL;
}

bool static_is_coding(span name) {
  for (size_t i = 0; i < name.len; i++)
    if (name.at[i] >= 'A' && name.at[i] <= 'Z') return false;
  return http1_is_token(name.at, name.len) && *name.at != '*';
}
