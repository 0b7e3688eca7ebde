/* fuzz_static.c - what static.c makes of a request, and of the field lines of a program, against a model that is simple.
 *
 * Input: a byte with settings; then the header section of a request, which is also taken for a program's field lines, for
 * an entity tag and for the name of a coding. The model works on C strings: no accepted text has a NUL in it. */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "engine.h"

#define MOST_BYTES 4096
#define MOST_FIELDS 64
#define DATE "Wed, 21 Oct 2015 07:28:00 GMT"

static const span codings[STATIC_ENCODINGS] = {{"br", 2}, {"zstd", 4}, {"gzip", 4}};
static const char *const tags[] = {"\"a-1\"", "W/\"a-1\"", "\"\"", "\"a,b\""};

static char *copy(const char *at, size_t len) {
  char *made = malloc(len + 1);
  if (!made) abort();
  memcpy(made, at, len);
  made[len] = 0;
  return made;
}

/* ---- the model ---- */

/* The value of a field as a new string, or NULL; how often it stands. */
static char *value(const http1_head *head, const char *name, int *times) {
  char *found = NULL;
  *times = 0;
  for (size_t i = 0; i < head->n_fields; i++) {
    const http1_field *f = &head->fields[i];
    if (f->name_len != strlen(name) || strncasecmp(head->bytes.at + f->name, name, f->name_len) != 0) continue;
    free(found);
    found = copy(head->bytes.at + f->value, f->value_len);
    ++*times;
  }
  return found;
}

static bool has(const http1_head *head, const char *name) {
  int times;
  free(value(head, name, &times));
  return times;
}

static bool model_other(const http1_head *head) {
  static const char *const never[] = {"range", "if-range", "if-match", "if-unmodified-since"};
  static const char *const once[] = {"if-none-match", "if-modified-since", "accept-encoding"};
  if (head->method_name.len > 4 || strncmp(head->method_name.at, "POST", 4) == 0) return true;
  if (strncmp(head->method_name.at, "PUT", 3) == 0) return true;
  for (size_t i = 0; i < sizeof never / sizeof *never; i++)
    if (has(head, never[i])) return true;
  for (size_t i = 0; i < sizeof once / sizeof *once; i++) {
    int times;
    free(value(head, once[i], &times));
    if (times > 1) return true;
  }
  return false;
}

/* Without anything but names and commas: the first of ours that is named. */
static int model_choice(const http1_head *head, int n) {
  static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~";
  int times, place[STATIC_ENCODINGS + 1] = {0};
  char *all = value(head, "accept-encoding", &times), *left = all;
  bool wrong = false;
  for (char *element; all && (element = strsep(&left, ","));) {
    element += strspn(element, " \t");
    size_t len = strcspn(element, " \t");
    if (strlen(element + len) != strspn(element + len, " \t")) wrong = true;
    element[len] = 0;
    if (*element == '*' || strspn(element, word) != len) wrong = true;
    for (int i = 0; i < STATIC_ENCODINGS; i++) place[i] |= strcasecmp(element, codings[i].at) == 0;
  }
  free(all);
  if (wrong) return -1;
  int best = 0;
  while (best < n && !place[best]) best++;
  return best;
}

/* What is between the quotes, in place; NULL: it is no entity tag. */
static char *model_tag(char *text) {
  if (strncmp(text, "W/", 2) == 0) text += 2;
  if (*text++ != '"') return NULL;
  char *end = strchr(text, '"');
  if (!end || end[1]) return NULL;
  *end = 0;
  for (const char *c = text; *c; c++)
    if ((unsigned char)*c <= ' ' || *c == 0x7f) return NULL;
  return text;
}

static static_verdict model_verdict(const http1_head *head, const char *etag) {
  int times;
  char *match = value(head, "if-none-match", &times), *since = value(head, "if-modified-since", &times);
  char *own = copy(etag, strlen(etag));
  static_verdict verdict = STATIC_WHOLE;
  if (match) {
    const char *asked = model_tag(match);
    verdict = !asked ? STATIC_OTHER : strcmp(asked, model_tag(own)) == 0 ? STATIC_NOT_MODIFIED : STATIC_WHOLE;
  } else if (since) {
    verdict = strcmp(since, DATE) == 0 ? STATIC_NOT_MODIFIED : STATIC_OTHER;
  }
  free(match);
  free(since);
  free(own);
  return verdict;
}

/* ---- both ---- */

static void check_request(const char *method, unsigned settings, const char *fields, size_t len) {
  static http1_field room[MOST_FIELDS];
  static const char *const targets[] = {"/a", "/a?v=2", "/a?"};
  const http1_limits limits = {.max_line = 256, .max_head = MOST_BYTES + 256, .max_fields = MOST_FIELDS};
  char line[64];
  int begin = snprintf(line, sizeof line, "%s %s HTTP/1.1\r\nHost: a\r\n", method, targets[settings % 3]);
  size_t total = (size_t)begin + len + 4;
  char *all = malloc(total);
  if (!all) abort();
  memcpy(all, line, (size_t)begin);
  memcpy(all + begin, fields, len);
  memcpy(all + begin + len, "\r\n\r\n", 4);
  http1_scan scan = {0};
  http1_error error;
  http1_head head = {.fields = room};
  if (http1_read_head(all, total, &scan, &limits, &head, &error) > 0) {
    const int n = settings % (STATIC_ENCODINGS + 1);
    const char *etag = tags[settings / 4 % (sizeof tags / sizeof *tags)];
    static_wishes w;
    static_read(&head, &w);
    assert(w.other == model_other(&head));
    assert(w.version == (settings % 3 == 1));
    if (!w.other) {
      assert(static_choose(&w, codings, n) == model_choice(&head, n));
      assert(static_judge(&w, (span){etag, strlen(etag)}, (span){DATE, strlen(DATE)}) == model_verdict(&head, etag));
    }
  }
  free(all);
}

/* Lines that are taken make a head with one field for each, that ends where they end, and none of them is the engine's. */
static void check_lines(const char *at, size_t len) {
  static const char *const ours[] = {"connection", "content-length", "content-type",      "date",   "keep-alive",
                                     "server",     "trailer",        "transfer-encoding", "upgrade"};
  if (static_refuses((span){at, len})) return;
  char *all = copy(at, len), *left = all;
  assert(strlen(all) == len && (!len || strcmp(all + len - 2, "\r\n") == 0));
  for (char *line; (line = strsep(&left, "\n")) && left;) {
    size_t line_len = strlen(line);
    assert(line_len > 2 && line[line_len - 1] == '\r' && strchr(line, '\r') == line + line_len - 1);
    size_t name = strcspn(line, ":");
    assert(name && name < line_len && strcspn(line, " \t\"(),/;<=>?@[\\]{}") >= name);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
      assert(name != strlen(ours[i]) || strncasecmp(line, ours[i], name) != 0);
  }
  free(all);
}

static void check_names(const char *at, size_t len) {
  char *all = copy(at, len);
  bool tag = static_is_etag((span){at, len}), coding = static_is_coding((span){at, len});
  assert(tag == (strlen(all) == len && model_tag(all)));
  free(all);
  for (size_t i = 0; coding && i < len; i++) assert(at[i] > ' ' && at[i] < 0x7f && !strchr(",;=\"ABCXYZ", at[i]));
  assert(!coding || len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char *const methods[] = {"GET", "HEAD", "GET", "POST", "PUT", "OPTIONS", "GET", "DELETE"};
  if (!size || size > MOST_BYTES) return 0;
  char *exact = malloc(size - 1 ? size - 1 : 1);
  if (!exact) abort();
  memcpy(exact, data + 1, size - 1);
  check_request(methods[data[0] / 32], data[0] % 32, exact, size - 1);
  check_lines(exact, size - 1);
  check_names(exact, size - 1);
  free(exact);
  return 0;
}
