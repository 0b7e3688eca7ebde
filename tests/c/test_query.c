/* test_query.c - query.c: pairs of a form-encoded text, percent escapes. Each text lies in memory of its own size. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "http1.h"

static char *copy(const char *at, size_t len) {
  char *made = malloc(len ? len : 1);
  if (!made) abort();
  memcpy(made, at, len);
  return made;
}

static bool same(span s, const char *text) { return s.len == strlen(text) && memcmp(s.at, text, s.len) == 0; }

/* `pairs` are names and values in turn, NULL at the end. */
static void check_pairs(const char *in, const char *const *pairs) {
  size_t len = strlen(in);
  char *memory = copy(in, len);
  span rest = {memory, len}, name, value;
  while (query_next(&rest, &name, &value)) {
    if (!CHECK(*pairs)) break;
    if (!CHECK(same(name, pairs[0]) && same(value, pairs[1]))) fprintf(stderr, "  in %s\n", in);
    pairs += 2;
  }
  CHECK(!*pairs);
  CHECK(!rest.len && !query_next(&rest, &name, &value));
  free(memory);
}

static void test_pairs(void) {
  check_pairs("", (const char *[]){NULL});
  check_pairs("&", (const char *[]){NULL});
  check_pairs("&&&", (const char *[]){NULL});
  check_pairs("a=b", (const char *[]){"a", "b", NULL});
  check_pairs("a=b&c=d", (const char *[]){"a", "b", "c", "d", NULL});
  check_pairs("&a=b&&c=d&", (const char *[]){"a", "b", "c", "d", NULL});
  check_pairs("a", (const char *[]){"a", "", NULL});
  check_pairs("a&b=", (const char *[]){"a", "", "b", "", NULL});
  check_pairs("=", (const char *[]){"", "", NULL});
  check_pairs("=a", (const char *[]){"", "a", NULL});
  check_pairs("a=b=c", (const char *[]){"a", "b=c", NULL});
  check_pairs("a;b=c", (const char *[]){"a;b", "c", NULL});
  check_pairs("a%26=b%3D&c", (const char *[]){"a%26", "b%3D", "c", "", NULL});
  check_pairs("a=1&a=2&a=1", (const char *[]){"a", "1", "a", "2", "a", "1", NULL});
}

/* Both into fresh memory and in place. */
static void check_decoded(span in, const char *out, size_t len, bool plus) {
  char *memory = copy(in.at, in.len), *room = copy(in.at, in.len);
  size_t n = query_decode((span){memory, in.len}, room, plus);
  if (!CHECK(n == len && memcmp(room, out, len) == 0)) fprintf(stderr, "  in %.*s\n", (int)in.len, in.at);
  n = query_decode((span){memory, in.len}, memory, plus);
  CHECK(n == len && memcmp(memory, out, len) == 0);
  free(memory);
  free(room);
}

static void decodes(const char *in, const char *out, bool plus) {
  check_decoded((span){in, strlen(in)}, out, strlen(out), plus);
}

static void test_decode(void) {
  decodes("", "", true);
  decodes("abc", "abc", true);
  decodes("%41%62%7e", "Ab~", true);
  decodes("%2f%2F", "//", true);
  decodes("a+b", "a b", true);
  decodes("a+b", "a+b", false);
  decodes("%2B", "+", true);
  decodes("%2b", "+", false);
  decodes("%2541", "%41", true); /* once, not twice */
  check_decoded((span){"a%00b", 5}, "a\0b", 3, true);
  check_decoded((span){"%ff%C3%a4", 9}, "\xff\xc3\xa4", 3, true);
  for (const char *const *bad =
           (const char *[]){"%", "%4", "a%", "%%", "%g1", "%1g", "%-1", "% 1", "%u0041", "%\xc3\xa4", NULL};
       *bad; bad++)
    decodes(*bad, *bad, true); /* bad escapes stay */
  decodes("%%41", "%A", true);
  decodes("%4%41", "%4A", true);
}

/* Every escape, in both cases, against a table of our own; and what is none for every pair of bytes. */
static void test_every_escape(void) {
  static const char digits[] = "0123456789abcdefABCDEF";
  for (int a = 0; a < 256; a++)
    for (int b = 0; b < 256; b++) {
      char in[3] = {'%', (char)a, (char)b}, out[3];
      const char *high = a ? strchr(digits, a) : NULL, *low = b ? strchr(digits, b) : NULL;
      size_t n = query_decode((span){in, 3}, out, false);
      if (!high || !low) {
        if (n != 3 || memcmp(in, out, 3) != 0) CHECK(!"a bad escape was changed");
        continue;
      }
      int h = (int)(high - digits), l = (int)(low - digits);
      int expected = (h > 15 ? h - 6 : h) * 16 + (l > 15 ? l - 6 : l);
      CHECK(n == 1 && (unsigned char)out[0] == expected);
    }
}

int main(void) {
  test_pairs();
  test_decode();
  test_every_escape();
  return summary("query");
}
