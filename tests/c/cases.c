/* cases.c - reads case files. Format: README.md. */
#include "cases.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const http1_limits default_limits = {.max_line = 8192, .max_head = 32768, .max_fields = 100};

/* ---- texts ---- */

void text_put(text *t, const char *at, size_t len) {
  if (t->len + len + 1 > t->room) {
    t->room = (t->len + len + 1) * 2;
    t->at = realloc(t->at, t->room);
    if (!t->at) abort();
  }
  if (len) memcpy(t->at + t->len, at, len);
  t->len += len;
  t->at[t->len] = 0;
}

void text_print(text *t, const char *format, ...) {
  char line[256];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(line, sizeof line, format, args);
  va_end(args);
  if (n < 0 || (size_t)n >= sizeof line) abort();
  text_put(t, line, (size_t)n);
}

void text_escape(text *t, const char *at, size_t len) {
  for (size_t i = 0; i < len; i++) {
    unsigned char c = (unsigned char)at[i];
    if (c == '\r') text_put(t, "\\r", 2);
    else if (c == '\n') text_put(t, "\\n", 2);
    else if (c == '\t') text_put(t, "\\t", 2);
    else if (c == 0) text_put(t, "\\0", 2);
    else if (c == '\\') text_put(t, "\\\\", 2);
    else if (c < ' ' || c > '~') text_print(t, "\\x%02x", c);
    else text_put(t, &at[i], 1);
  }
}

void text_clear(text *t) {
  free(t->at);
  *t = (text){0};
}

/* ---- lines ---- */

typedef struct {
  const char *path;
  int line;
} place;

static void wrong(const place *p, const char *what) {
  fprintf(stderr, "%s:%d: %s\n", p->path, p->line, what);
  exit(2);
}

static int hex(char c) {
  const char *digits = "0123456789abcdef", *found = c ? strchr(digits, c) : NULL;
  return found ? (int)(found - digits) : -1;
}

static void unescape(const place *p, text *to, const char *at) {
  for (; *at; at++) {
    char c = *at;
    if (c == '\\') {
      switch (*++at) {
      case 'r': c = '\r'; break;
      case 'n': c = '\n'; break;
      case 't': c = '\t'; break;
      case '0': c = 0; break;
      case '\\': break;
      case 'x':
        if (hex(at[1]) < 0 || hex(at[2]) < 0) wrong(p, "\\x is followed by two digits of 0-9a-f");
        c = (char)(hex(at[1]) * 16 + hex(at[2]));
        at += 2;
        break;
      default: wrong(p, "an escape is \\r \\n \\t \\0 \\\\ or \\xHH");
      }
    }
    text_put(to, &c, 1);
  }
}

/* "> text" sends the text; ">12 text" sends it twelve times. */
static void read_bytes(const place *p, test_case *c, char *line) {
  char *end;
  long times = line[1] == ' ' ? 1 : strtol(line + 1, &end, 10);
  if (line[1] == ' ') end = line + 1;
  if (times < 1 || *end != ' ') wrong(p, "bytes are \"> text\" or \">12 text\"");
  text piece = {0};
  unescape(p, &piece, end + 1);
  for (long i = 0; i < times; i++) text_put(&c->bytes, piece.at, piece.len);
  text_clear(&piece);
}

static void read_event(const place *p, test_case *c, const char *line) {
  if (line[1] != ' ') wrong(p, "an event is \"= text\"");
  text plain = {0};
  unescape(p, &plain, line + 2);
  text_escape(&c->expected, plain.at, plain.len);
  text_put(&c->expected, "\n", 1);
  if (plain.len > 6 && memcmp(plain.at, "field ", 6) == 0) c->fields = true;
  text_clear(&plain);
}

static void read_limits(const place *p, test_case *c, const char *line) {
  static const char *const names[] = {"line=", "head=", "fields="};
  size_t *values[] = {&c->limits.max_line, &c->limits.max_head, &c->limits.max_fields};
  bool any = false;
  for (int i = 0; i < 3; i++) {
    const char *at = strstr(line, names[i]);
    if (at) *values[i] = (size_t)strtoul(at + strlen(names[i]), NULL, 10), any = true;
  }
  if (!any) wrong(p, "limits are line=, head= and fields=");
}

static test_case *begin(const place *p, const char *name) {
  test_case *c = calloc(1, sizeof *c);
  if (!c || !(c->name = strdup(name))) abort();
  c->line = p->line;
  c->limits = default_limits;
  text_put(&c->bytes, "", 0);
  text_put(&c->expected, "", 0);
  return c;
}

/* ---- files ---- */

static text read_file(const char *path) {
  text all = {0};
  char piece[4096];
  FILE *file = fopen(path, "rb");
  if (!file) {
    perror(path);
    exit(2);
  }
  for (size_t n; (n = fread(piece, 1, sizeof piece, file)) > 0;) text_put(&all, piece, n);
  fclose(file);
  return all;
}

test_case *cases_load(const char *path) {
  text all = read_file(path);
  test_case *first = NULL, *c = NULL;
  place p = {path, 0};
  for (char *rest = all.at, *line; rest && (line = strsep(&rest, "\n"));) {
    p.line++;
    if (!*line || *line == ';') continue;
    if (line[0] == '#' && line[1] == ' ') {
      test_case *made = begin(&p, line + 2);
      if (c) c->next = made;
      else first = made;
      c = made;
    } else if (!c) {
      wrong(&p, "a case begins with \"# its name\"");
    } else if (*line == '>') {
      read_bytes(&p, c, line);
    } else if (*line == '=') {
      read_event(&p, c, line);
    } else if (strncmp(line, "limits ", 7) == 0) {
      read_limits(&p, c, line);
    } else {
      wrong(&p, "a line begins with # > = ; or limits");
    }
  }
  text_clear(&all);
  return first;
}

void cases_free(test_case *first) {
  while (first) {
    test_case *c = first;
    first = c->next;
    text_clear(&c->bytes);
    text_clear(&c->expected);
    free(c->name);
    free(c);
  }
}
