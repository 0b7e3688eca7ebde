/* test_static.c - static.c: what requests ask of a file in memory, and what is decided about them. Each head, and each text,
 * lies in memory of its own size. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "engine.h"

#define MOST_FIELDS 16
#define DATE "Wed, 21 Oct 2015 07:28:00 GMT"
#define LATER "Wed, 21 Oct 2015 07:28:01 GMT"

static span text(const char *at) { return (span){at, strlen(at)}; }

static char *copy(const char *at, size_t len) {
  char *made = malloc(len ? len : 1);
  if (!made) abort();
  memcpy(made, at, len);
  return made;
}

/* A request as the engine sees it; `memory` holds its bytes. */
typedef struct {
  char *memory;
  http1_field fields[MOST_FIELDS];
  http1_head head;
  static_wishes wishes;
} request;

static void ask(request *r, const char *target, const char *fields) {
  char all[2048];
  int len = snprintf(all, sizeof all, "%s HTTP/1.1\r\nHost: a\r\n%s\r\n", target, fields);
  const http1_limits limits = {.max_line = 256, .max_head = sizeof all, .max_fields = MOST_FIELDS};
  http1_scan scan = {0};
  http1_error error;
  r->memory = copy(all, (size_t)len);
  r->head.fields = r->fields;
  if (!CHECK(http1_read_head(r->memory, (size_t)len, &scan, &limits, &r->head, &error) == len)) abort();
  static_read(&r->head, &r->wishes);
}

/* ---- which encoding ---- */

static const span codings[STATIC_ENCODINGS] = {{"br", 2}, {"zstd", 4}, {"gzip", 4}};

static void chooses(const char *fields, int n, int expected) {
  request r;
  ask(&r, "GET /a", fields);
  int chosen = r.wishes.other ? -1 : static_choose(&r.wishes, codings, n);
  if (!CHECK(chosen == expected)) fprintf(stderr, "  %s: %d of %d, not %d\n", fields, chosen, n, expected);
  free(r.memory);
}

static void test_encodings(void) {
  chooses("", 3, 3);
  chooses("Accept-Encoding:\r\n", 3, 3); /* empty: no coding is liked (RFC 9110 section 12.5.3) */
  chooses("Accept-Encoding: ,\r\n", 3, 3);
  chooses("Accept-Encoding: gzip\r\n", 3, 2);
  chooses("accept-encoding: gzip\r\n", 3, 2);
  chooses("Accept-Encoding: GZip\r\n", 3, 2);
  chooses("Accept-Encoding: gzip, deflate, br, zstd\r\n", 3, 0);
  chooses("Accept-Encoding: gzip, deflate, br, zstd\r\n", 0, 0);
  chooses("Accept-Encoding: gzip, deflate\r\n", 2, 2);
  chooses("Accept-Encoding: zstd,gzip\r\n", 3, 1);
  chooses("Accept-Encoding: ,, gzip ,\tzstd ,\r\n", 3, 1);
  chooses("Accept-Encoding: identity\r\n", 3, 3);
  chooses("Accept-Encoding: identity, gzip\r\n", 3, 2);
  chooses("Accept-Encoding: gzi, gzipp, b, brr, xbr, x-gzip\r\n", 3, 3);
  chooses("Accept-Encoding: gzip br\r\n", 3, -1); /* no list */
  chooses("Accept-Encoding: \"gzip\"\r\n", 3, -1);
  chooses("Accept-Encoding: gzip\xff\r\n", 3, -1);
}

static void test_weights(void) {
  chooses("Accept-Encoding: *\r\n", 3, -1);
  chooses("Accept-Encoding: gzip;q=0\r\n", 3, -1);
  chooses("Accept-Encoding: br, gzip;q=0.5\r\n", 3, -1);
  chooses("Accept-Encoding: br ; q=0\r\n", 3, -1);
  chooses("Accept-Encoding: br, *;q=0\r\n", 3, -1);
  chooses("Accept-Encoding: identity;q=0\r\n", 3, -1);
  chooses("Accept-Encoding: identity;q=0\r\n", 0, -1); /* also where there is nothing to choose */
  chooses("Accept-Encoding: br\r\nAccept-Encoding: gzip\r\n", 3, -1);
  chooses("Accept-Encoding:\r\naccept-encoding: gzip\r\n", 3, -1);
}

/* ---- conditions ---- */

static void judges_of(const char *etag, const char *fields, static_verdict expected) {
  request r;
  ask(&r, "GET /a", fields);
  static_verdict verdict = r.wishes.other ? STATIC_OTHER : static_judge(&r.wishes, text(etag), text(DATE));
  if (!CHECK(verdict == expected)) fprintf(stderr, "  %s against %s: %d, not %d\n", fields, etag, verdict, expected);
  free(r.memory);
}

static void judges(const char *fields, static_verdict expected) { judges_of("\"a-1\"", fields, expected); }

static void test_entity_tags(void) {
  judges("", STATIC_WHOLE);
  judges("If-None-Match: \"a-1\"\r\n", STATIC_NOT_MODIFIED);
  judges("IF-NONE-MATCH: \"a-1\"\r\n", STATIC_NOT_MODIFIED);
  judges("If-None-Match: W/\"a-1\"\r\n", STATIC_NOT_MODIFIED); /* weak comparison (RFC 9110 section 13.1.2) */
  judges_of("W/\"a-1\"", "If-None-Match: \"a-1\"\r\n", STATIC_NOT_MODIFIED);
  judges_of("W/\"a-1\"", "If-None-Match: W/\"a-1\"\r\n", STATIC_NOT_MODIFIED);
  judges_of("\"\"", "If-None-Match: \"\"\r\n", STATIC_NOT_MODIFIED);
  judges_of("\"a,b\"", "If-None-Match: \"a,b\"\r\n", STATIC_NOT_MODIFIED); /* one tag with a comma in it */
  judges_of("\"\xc3\xa9\"", "If-None-Match: \"\xc3\xa9\"\r\n", STATIC_NOT_MODIFIED);
  judges("If-None-Match: \"a-2\"\r\n", STATIC_WHOLE);
  judges("If-None-Match: \"A-1\"\r\n", STATIC_WHOLE);
  judges("If-None-Match: \"a-1 \"\r\n", STATIC_OTHER); /* no white space in a tag */
  judges("If-None-Match: \"a\", \"a-1\"\r\n", STATIC_OTHER);
  judges("If-None-Match: \"a-1\",\r\n", STATIC_OTHER);
  judges("If-None-Match: *\r\n", STATIC_OTHER);
  judges("If-None-Match:\r\n", STATIC_OTHER);
  judges("If-None-Match: a-1\r\n", STATIC_OTHER);
  judges("If-None-Match: w/\"a-1\"\r\n", STATIC_OTHER);
  judges("If-None-Match: W/\r\n", STATIC_OTHER);
  judges("If-None-Match: W/\"\r\n", STATIC_OTHER);
  judges("If-None-Match: \"\r\n", STATIC_OTHER);
  judges("If-None-Match: \"a-1\"\r\nIf-None-Match: \"a-1\"\r\n", STATIC_OTHER);
}

static void test_dates(void) {
  judges("If-Modified-Since: " DATE "\r\n", STATIC_NOT_MODIFIED);
  judges("If-Modified-Since: " LATER "\r\n", STATIC_OTHER); /* dates have to be read */
  judges("If-Modified-Since: yesterday\r\n", STATIC_OTHER);
  judges("If-Modified-Since:\r\n", STATIC_OTHER);
  judges("If-Modified-Since: " DATE "\r\nIf-Modified-Since: " DATE "\r\n", STATIC_OTHER);
  judges("If-Modified-Since: " LATER "\r\nIf-Modified-Since: " DATE "\r\n", STATIC_OTHER);
  /* With If-None-Match it does not count (RFC 9110 section 13.1.3). */
  judges("If-None-Match: \"a-1\"\r\nIf-Modified-Since: " LATER "\r\n", STATIC_NOT_MODIFIED);
  judges("If-Modified-Since: " DATE "\r\nIf-None-Match: \"a-2\"\r\n", STATIC_WHOLE);
  judges("If-Modified-Since: nonsense\r\nIf-None-Match: \"a-2\"\r\n", STATIC_WHOLE);
}

static void test_others(void) {
  static const char *const fields[] = {"Range: bytes=0-1\r\n", "If-Range: \"a-1\"\r\n", "If-Match: \"a-1\"\r\n",
                                       "If-Unmodified-Since: " DATE "\r\n", "range:\r\n"};
  static const char *const targets[] = {"POST /a", "PUT /a", "DELETE /a", "PATCH /a", "OPTIONS /a"};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) judges(fields[i], STATIC_OTHER);
  judges("Ranges: a\r\nIf-Rangx: a\r\nIf-Modified-Sinc: a\r\nX: If-Range\r\n", STATIC_WHOLE);
  judges("xccept-Encoding: a\r\nif-none-matcx: a\r\nif-xodified-since: a\r\n", STATIC_WHOLE);
  for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
    request r;
    ask(&r, targets[i], "");
    CHECK(r.wishes.other);
    free(r.memory);
  }
}

static void test_versions(void) {
  static const struct {
    const char *target;
    bool version;
  } cases[] = {{"GET /a", false}, {"GET /a?v=2", true}, {"HEAD /a?2", true}, {"GET /a?", false}, {"HEAD /a", false}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    request r;
    ask(&r, cases[i].target, "");
    if (!CHECK(!r.wishes.other && r.wishes.version == cases[i].version)) fprintf(stderr, "  %s\n", cases[i].target);
    free(r.memory);
  }
}

/* ---- what the program gives ---- */

/* `why`: a part of the reason, or NULL. */
static void lines_are(const char *at, size_t len, const char *why) {
  char *memory = copy(at, len);
  const char *refusal = static_refuses((span){memory, len});
  if (!CHECK(why ? refusal && strstr(refusal, why) : !refusal)) fprintf(stderr, "  %s: %s\n", at, refusal);
  free(memory);
}

static void lines(const char *at, const char *why) { lines_are(at, strlen(at), why); }

static void test_lines(void) {
  static const char *const ours[] = {"Connection", "content-length", "Content-Type",     "DATE", "Keep-Alive", "Server",
                                     "Trailer",    "Upgrade",        "Transfer-Encoding"};
  char line[64];
  lines("", NULL);
  lines("A: b\r\n", NULL);
  lines("A:\r\nB:c\r\nETag: \"a-1\"\r\nContent-Encoding: br\r\nVary: Accept-Encoding\r\n", NULL);
  lines("A: caf\xe9 \t;=\r\n", NULL);
  lines("A: b", "end with CRLF");
  lines("A: b\r", "end with CRLF");
  lines("A: b\n", "end with CRLF");
  lines("A: b\r\r\n", "end with CRLF");
  lines("A: b\rX: c\r\n", "end with CRLF");
  lines("A: b\r\nB: c", "end with CRLF");
  lines("A: b\nB: c\r\n", "control character");
  lines("A: b\x7f\r\n", "control character");
  lines_are("A: b\0\r\n", 7, "control character");
  lines_are("A\0: b\r\n", 7, "begin with a name");
  lines("\r\n", "begin with a name");
  lines("A: b\r\n\r\n", "begin with a name");
  lines("A: b\r\n\r\nX: c\r\n", "begin with a name");
  lines("A: b\r\n folded\r\n", "begin with a name");
  lines("A: b\r\n folded: c\r\n", "begin with a name");
  lines("A : b\r\n", "begin with a name");
  lines(": b\r\n", "begin with a name");
  lines("A\r\n", "begin with a name");
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
    snprintf(line, sizeof line, "A: b\r\n%s: c\r\n", ours[i]);
    lines(line, "engine's to set");
  }
}

static void test_names(void) {
  static const char *const tags[] = {"\"\"", "\"a\"", "W/\"a\"", "\"!#~\xff\"", "\"W/\""};
  static const char *const no_tags[] = {"",         "a",        "\"",      "\"a",    "a\"",      "W/",
                                        "W/\"",     "W/a",      "w/\"a\"", "\"a\"b", "\"a\"b\"", "\"a b\"",
                                        "\"\r\n\"", "\"\x7f\"", "\"a\" ",  " \"a\"", "*",        "\"a\",\"b\""};
  static const char *const words[] = {"br", "gzip", "x-gzip", "dcb"};
  static const char *const no_words[] = {"", "Br", "gzip, br", "*", "a b", "a;q=1", "a\r\n", "\xe9"};
  for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) CHECK(static_is_etag(text(tags[i])));
  for (size_t i = 0; i < sizeof no_tags / sizeof *no_tags; i++) CHECK(!static_is_etag(text(no_tags[i])));
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) CHECK(static_is_coding(text(words[i])));
  for (size_t i = 0; i < sizeof no_words / sizeof *no_words; i++) CHECK(!static_is_coding(text(no_words[i])));
  CHECK(!static_is_etag((span){"\"a\0\"", 4}));
}

int main(void) {
  test_encodings();
  test_weights();
  test_entity_tags();
  test_dates();
  test_others();
  test_versions();
  test_lines();
  test_names();
  return summary("static");
}
