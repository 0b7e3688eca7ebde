/* router.c - path and method to route. Contract: engine.h.
 *
 * Patterns without parameters stand in one hash of whole paths; the others in a tree of segments. A search visits each
 * tree node at most once, in the order text, int, text parameter, path; the first node that has the method wins, and the
 * methods of all matching nodes make up the Allow field. A path is split before it is decoded: %2F is no separator.
 */
#include <stdlib.h>
#include <string.h>

#include "engine.h"

#define DECODE_BYTES 1024 /* a longer escaped segment or path matches no literal text */
#define PATTERN_SEGMENTS 64
#define TABLE_FIRST 64

typedef struct node node;
struct node {
  char *text; /* the segment, or the whole path in the hash; NULL for parameters */
  size_t len;
  node *next;    /* sibling */
  node *literal; /* first child with text */
  node *params[3];
  void *routes[HTTP1_METHODS];
};

struct router {
  node root;
  node **table; /* open addressing, a power of two */
  size_t room, used;
};

static node *node_new(const char *text, size_t len) {
  node *n = calloc(1, sizeof *n);
  if (!n) return NULL;
  n->text = malloc(len + 1);
  if (!n->text) {
    free(n);
    return NULL;
  }
  memcpy(n->text, text, len);
  n->text[len] = 0;
  n->len = len;
  return n;
}

static void node_free(node *n) {
  if (!n) return;
  for (node *child = n->literal, *next; child; child = next) {
    next = child->next;
    node_free(child);
  }
  for (int i = 0; i < 3; i++) node_free(n->params[i]);
  free(n->text);
  free(n);
}

router *router_new(void) {
  router *r = calloc(1, sizeof *r);
  if (!r) return NULL;
  r->room = TABLE_FIRST;
  r->table = calloc(r->room, sizeof *r->table);
  if (r->table) return r;
  free(r);
  return NULL;
}

void router_free(router *r) {
  if (!r) return;
  for (size_t i = 0; i < r->room; i++) node_free(r->table[i]);
  for (node *child = r->root.literal, *next; child; child = next) {
    next = child->next;
    node_free(child);
  }
  for (int i = 0; i < 3; i++) node_free(r->root.params[i]);
  free(r->table);
  free(r);
}

/* ---- whole paths ---- */

static size_t hash_of(const char *text, size_t len) { /* FNV-1a; the keys are the program's, not the client's */
  uint64_t h = 14695981039346656037u;
  for (size_t i = 0; i < len; i++) h = (h ^ (uint8_t)text[i]) * 1099511628211u;
  return (size_t)(h ^ (h >> 32));
}

static node **slot_of(node **table, size_t room, const char *text, size_t len) {
  size_t i = hash_of(text, len) & (room - 1);
  while (table[i] && (table[i]->len != len || memcmp(table[i]->text, text, len) != 0)) i = (i + 1) & (room - 1);
  return &table[i];
}

static bool table_grow(router *r) {
  size_t room = r->room * 2;
  node **table = calloc(room, sizeof *table);
  if (!table) return false;
  for (size_t i = 0; i < r->room; i++)
    if (r->table[i]) *slot_of(table, room, r->table[i]->text, r->table[i]->len) = r->table[i];
  free(r->table);
  r->table = table;
  r->room = room;
  return true;
}

static node *table_add(router *r, const char *text, size_t len) {
  if (r->used * 2 >= r->room && !table_grow(r)) return NULL;
  node **slot = slot_of(r->table, r->room, text, len);
  if (!*slot && (*slot = node_new(text, len))) r->used++;
  return *slot;
}

/* ---- patterns ---- */

static node *child_literal(node *parent, const char *text, size_t len) {
  for (node *n = parent->literal; n; n = n->next)
    if (n->len == len && memcmp(n->text, text, len) == 0) return n;
  node *n = node_new(text, len);
  if (!n) return NULL;
  n->next = parent->literal;
  parent->literal = n;
  return n;
}

static node *child_param(node *parent, param_kind kind) {
  if (!parent->params[kind]) parent->params[kind] = calloc(1, sizeof(node));
  return parent->params[kind];
}

/* {name}, {name:int} or {name:path}; returns -1 for anything else. */
static int kind_of(const char *text, size_t len) {
  if (len < 3 || text[0] != '{' || text[len - 1] != '}') return -1;
  if (memchr(text + 1, '{', len - 1) || memchr(text, '}', len - 1)) return -1; /* two in one segment */
  const char *colon = memchr(text, ':', len);
  if (!colon) return PARAM_TEXT;
  size_t n = (size_t)(text + len - 1 - (colon + 1));
  if (n == 3 && memcmp(colon + 1, "int", 3) == 0) return PARAM_INT;
  if (n == 4 && memcmp(colon + 1, "path", 4) == 0) return PARAM_PATH;
  return -1;
}

static const char *tree_add(router *r, const char *pattern, node **out) {
  node *n = &r->root;
  int segments = 0, params = 0;
  for (const char *at = pattern; at;) {
    const char *text = at + 1, *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    if (++segments > PATTERN_SEGMENTS) return "more than 64 segments";
    if (memchr(text, '{', len) || memchr(text, '}', len)) {
      int kind = kind_of(text, len);
      if (kind < 0) return "a parameter is {name}, {name:int} or {name:path} and fills a segment";
      if (kind == PARAM_PATH && slash) return "a {name:path} parameter stands at the end";
      if (++params > MAX_PARAMS) return "more than 16 parameters";
      n = child_param(n, (param_kind)kind);
    } else {
      n = child_literal(n, text, len);
    }
    if (!n) return "no memory";
    at = slash;
  }
  *out = n;
  return NULL;
}

const char *router_add(router *r, const char *pattern, http1_method method, void *route) {
  node *n = NULL;
  if (pattern[0] != '/') return "a pattern begins with /";
  if (strpbrk(pattern, "{}")) {
    const char *wrong = tree_add(r, pattern, &n);
    if (wrong) return wrong;
  } else {
    n = table_add(r, pattern, strlen(pattern));
    if (!n) return "no memory";
  }
  if (n->routes[method]) return "the same pattern and method stand twice";
  n->routes[method] = route;
  return NULL;
}

/* ---- search ---- */

/* Take note of a node whose whole pattern matches. True: it has the method, the search ends. */
static bool take(const node *n, http1_method method, router_match *match) {
  for (int i = 0; i < HTTP1_METHODS; i++)
    if (n->routes[i]) match->allowed |= 1u << i;
  if (method >= HTTP1_METHODS) return false;
  match->route = n->routes[method];
  if (!match->route && method == HTTP1_HEAD) match->route = n->routes[HTTP1_GET];
  return match->route;
}

static bool same_text(const node *n, span raw) {
  if (!memchr(raw.at, '%', raw.len)) return n->len == raw.len && memcmp(n->text, raw.at, raw.len) == 0;
  char plain[DECODE_BYTES];
  if (raw.len > sizeof plain) return false;
  size_t len = query_decode(raw, plain, false);
  return n->len == len && memcmp(n->text, plain, len) == 0;
}

static bool is_int(span s) {
  for (size_t i = 0; i < s.len; i++)
    if (s.at[i] < '0' || s.at[i] > '9') return false;
  return s.len > 0 && s.len <= HTTP1_LENGTH_DIGITS;
}

/* `rest` begins behind the slash of the next segment; rest.at is NULL behind the last one. */
static bool search(const node *n, span rest, http1_method method, router_match *match) {
  if (!rest.at) return take(n, method, match);
  const char *slash = rest.len ? memchr(rest.at, '/', rest.len) : NULL;
  span part = {rest.at, slash ? (size_t)(slash - rest.at) : rest.len};
  span next = slash ? (span){slash + 1, rest.len - part.len - 1} : (span){NULL, 0};
  for (const node *child = n->literal; child; child = child->next)
    if (same_text(child, part) && search(child, next, method, match)) return true;
  int mine = match->n_params;
  static const param_kind order[] = {PARAM_INT, PARAM_TEXT, PARAM_PATH};
  for (int i = 0; i < 3; i++) {
    const node *child = n->params[order[i]];
    bool fits = child && (order[i] == PARAM_INT ? is_int(part) : order[i] == PARAM_TEXT ? part.len > 0 : true);
    if (!fits) continue;
    match->params[mine] = order[i] == PARAM_PATH ? rest : part;
    match->n_params = mine + 1;
    if (order[i] == PARAM_PATH ? take(child, method, match) : search(child, next, method, match)) return true;
    match->n_params = mine;
  }
  return false;
}

static const node *find_whole(const router *r, span path) {
  if (!memchr(path.at, '%', path.len)) return *slot_of(r->table, r->room, path.at, path.len);
  char plain[DECODE_BYTES];
  if (path.len > sizeof plain) return NULL;
  size_t slashes = 0, decoded = 0;
  for (size_t i = 0; i < path.len; i++) slashes += path.at[i] == '/';
  size_t len = query_decode(path, plain, false);
  for (size_t i = 0; i < len; i++) decoded += plain[i] == '/';
  return slashes == decoded ? *slot_of(r->table, r->room, plain, len) : NULL;
}

void router_find(const router *r, span path, http1_method method, router_match *match) {
  match->route = NULL;
  match->allowed = 0;
  match->n_params = 0;
  const node *n = find_whole(r, path);
  if (n && take(n, method, match)) return;
  if (*path.at == '/') search(&r->root, (span){path.at + 1, path.len - 1}, method, match);
}
