/* test_router.c - router.c: whole paths, parameters, which of several patterns wins, Allow, patterns that are refused. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "engine.h"

#define ROUTE(n) ((void *)(uintptr_t)(n))
#define BIT(method) (1u << HTTP1_##method)

static router *routes;

static void add(const char *pattern, http1_method method, int route) {
  const char *wrong = router_add(routes, pattern, method, ROUTE(route));
  if (!CHECK(!wrong)) fprintf(stderr, "  %s: %s\n", pattern, wrong);
}

static void refused(const char *pattern, const char *reason) {
  const char *wrong = router_add(routes, pattern, HTTP1_GET, ROUTE(99));
  if (!CHECK(wrong && strstr(wrong, reason))) fprintf(stderr, "  %s: %s\n", pattern, wrong ? wrong : "taken");
}

/* The path lies in memory of its own size. */
static router_match find(const char *path, http1_method method) {
  size_t len = strlen(path);
  char *memory = malloc(len);
  if (!memory) abort();
  memcpy(memory, path, len);
  router_match match;
  router_find(routes, (span){memory, len}, method, &match);
  for (int i = 0; i < match.n_params; i++) { /* into the caller's path, which stays */
    CHECK(match.params[i].at >= memory && match.params[i].at + match.params[i].len <= memory + len);
    match.params[i].at = path + (match.params[i].at - memory);
  }
  free(memory);
  return match;
}

/* `params`: what they are, with a comma behind each. */
static void finds(const char *path, http1_method method, int route, const char *params) {
  router_match match = find(path, method);
  char all[512] = "";
  for (int i = 0; i < match.n_params; i++)
    snprintf(all + strlen(all), sizeof all - strlen(all), "%.*s,", (int)match.params[i].len, match.params[i].at);
  if (!CHECK(match.route == ROUTE(route) && strcmp(all, params) == 0))
    fprintf(stderr, "  %s: route %d with %s\n", path, (int)(uintptr_t)match.route, all);
}

static void knows_not(const char *path) {
  router_match match = find(path, HTTP1_GET);
  if (!CHECK(!match.route && !match.allowed)) fprintf(stderr, "  %s is known\n", path);
}

static void allows(const char *path, unsigned allowed) {
  router_match match = find(path, HTTP1_DELETE);
  if (!CHECK(!match.route && match.allowed == allowed)) fprintf(stderr, "  %s: %x\n", path, match.allowed);
}

static void begin(void) {
  routes = router_new();
  CHECK(routes);
}

static void end(void) { router_free(routes); }

static void test_whole_paths(void) {
  begin();
  knows_not("/");
  add("/", HTTP1_GET, 1);
  add("/a", HTTP1_GET, 2);
  add("/a/", HTTP1_GET, 3);
  add("/a/b", HTTP1_GET, 4);
  add("/a b", HTTP1_GET, 5);
  add("//", HTTP1_GET, 6);
  finds("/", HTTP1_GET, 1, "");
  finds("/a", HTTP1_GET, 2, "");
  finds("/a/", HTTP1_GET, 3, "");
  finds("/a/b", HTTP1_GET, 4, "");
  finds("/a%20b", HTTP1_GET, 5, "");
  finds("//", HTTP1_GET, 6, "");
  finds("/%61", HTTP1_GET, 2, "");
  finds("/%61/%62", HTTP1_GET, 4, "");
  knows_not("/a%2Fb"); /* %2F is no separator */
  knows_not("/a%2fb");
  knows_not("%2Fa");
  knows_not("/A");
  knows_not("/ab");
  knows_not("/a/b/");
  knows_not("///");
  knows_not("/a%");
  knows_not("*");
  end();
}

static void test_many_whole_paths(void) {
  char path[32];
  begin();
  for (int i = 1; i <= 1000; i++) {
    snprintf(path, sizeof path, "/p/%d", i);
    add(path, HTTP1_GET, i);
  }
  for (int i = 1; i <= 1000; i++) {
    snprintf(path, sizeof path, "/p/%d", i);
    finds(path, HTTP1_GET, i, "");
  }
  knows_not("/p/1001");
  end();
}

static void test_params(void) {
  begin();
  add("/u/{name}", HTTP1_GET, 1);
  add("/u/{name}/posts/{n:int}", HTTP1_GET, 2);
  add("/f/{rest:path}", HTTP1_GET, 3);
  finds("/u/ann", HTTP1_GET, 1, "ann,");
  finds("/u/a%2Fb", HTTP1_GET, 1, "a%2Fb,"); /* raw, one segment */
  finds("/u/{name}", HTTP1_GET, 1, "{name},");
  finds("/%75/ann", HTTP1_GET, 1, "ann,");
  finds("/u/ann/posts/7", HTTP1_GET, 2, "ann,7,");
  finds("/f/", HTTP1_GET, 3, ",");
  finds("/f/a", HTTP1_GET, 3, "a,");
  finds("/f/a/b//c/", HTTP1_GET, 3, "a/b//c/,");
  finds("/f/a%2Fb", HTTP1_GET, 3, "a%2Fb,");
  knows_not("/u/"); /* a text parameter is not empty */
  knows_not("/u//posts/7");
  knows_not("/u/ann/");
  knows_not("/u/ann/posts/x");
  knows_not("/f");
  knows_not("/u%2Fann");
  end();
}

static void test_int(void) {
  begin();
  add("/n/{n:int}", HTTP1_GET, 1);
  finds("/n/0", HTTP1_GET, 1, "0,");
  finds("/n/007", HTTP1_GET, 1, "007,");
  finds("/n/999999999999999999", HTTP1_GET, 1, "999999999999999999,"); /* 18 digits: no wrap in 63 bits */
  knows_not("/n/1000000000000000000");
  knows_not("/n/000000000000000000000001");
  knows_not("/n/9223372036854775808");
  knows_not("/n/");
  knows_not("/n/-1");
  knows_not("/n/+1");
  knows_not("/n/1_0");
  knows_not("/n/1.0");
  knows_not("/n/%31"); /* an escaped digit is no digit */
  knows_not("/n/\xd9\xa1");
  end();
}

static void test_priorities(void) {
  begin();
  add("/{rest:path}", HTTP1_GET, 1);
  add("/a/{name}", HTTP1_GET, 2);
  add("/a/{n:int}", HTTP1_GET, 3);
  add("/a/b", HTTP1_GET, 4);
  add("/a/{name}/x", HTTP1_GET, 5);
  add("/a/b/{rest:path}", HTTP1_GET, 6);
  add("/{any}/b/y", HTTP1_GET, 7);
  add("/a/c/{n:int}", HTTP1_GET, 8);
  finds("/a/b", HTTP1_GET, 4, "");
  finds("/a/5", HTTP1_GET, 3, "5,");
  finds("/a/c", HTTP1_GET, 2, "c,");
  finds("/a/5x", HTTP1_GET, 2, "5x,");
  finds("/a/c/x", HTTP1_GET, 5, "c,");
  finds("/a/b/x", HTTP1_GET, 6, "x,"); /* text before a parameter, although both fit */
  finds("/q/b/y", HTTP1_GET, 7, "q,");
  finds("/a/c/5", HTTP1_GET, 8, "5,");
  finds("/a/c/d", HTTP1_GET, 1, "a/c/d,"); /* back out of /a/c and /a/{name} */
  finds("/", HTTP1_GET, 1, ",");
  finds("/a", HTTP1_GET, 1, "a,");
  end();
}

static void test_methods(void) {
  begin();
  add("/a", HTTP1_GET, 1);
  add("/a", HTTP1_POST, 2);
  add("/b", HTTP1_POST, 3);
  add("/c/{n:int}", HTTP1_GET, 4);
  add("/c/{name}", HTTP1_PUT, 5);
  add("/c/{rest:path}", HTTP1_PATCH, 6);
  add("/c/5", HTTP1_POST, 7);
  add("/h", HTTP1_GET, 8);
  add("/h", HTTP1_HEAD, 9);
  finds("/a", HTTP1_GET, 1, "");
  finds("/a", HTTP1_HEAD, 1, ""); /* HEAD falls back to GET */
  finds("/a", HTTP1_POST, 2, "");
  finds("/h", HTTP1_HEAD, 9, "");
  finds("/b", HTTP1_HEAD, 0, "");
  finds("/a", HTTP1_OTHER, 0, "");
  finds("/c/5", HTTP1_POST, 7, "");
  finds("/c/5", HTTP1_GET, 4, "5,"); /* the method decides among what fits */
  finds("/c/5", HTTP1_PUT, 5, "5,");
  finds("/c/5", HTTP1_PATCH, 6, "5,");
  finds("/c/x", HTTP1_PATCH, 6, "x,");
  allows("/a", BIT(GET) | BIT(POST));
  allows("/b", BIT(POST));
  allows("/h", BIT(GET) | BIT(HEAD));
  allows("/c/5", BIT(GET) | BIT(POST) | BIT(PUT) | BIT(PATCH));
  allows("/c/x", BIT(PUT) | BIT(PATCH));
  allows("/c/x/y", BIT(PATCH));
  allows("/d", 0);
  end();
}

static void test_refused_patterns(void) {
  char many[1024] = "";
  begin();
  refused("", "begins with /");
  refused("a", "begins with /");
  refused("{a}", "begins with /");
  refused("/{", "a parameter is");
  refused("/}", "a parameter is");
  refused("/{}", "a parameter is");
  refused("/a{b}", "a parameter is");
  refused("/{a}b", "a parameter is");
  refused("/{a:float}", "a parameter is");
  refused("/{a:}", "a parameter is");
  refused("/{a:int", "a parameter is");
  refused("/{a:path}/b", "stands at the end");
  refused("/{a:path}/", "stands at the end");
  for (int i = 0; i < MAX_PARAMS; i++) strcat(many, "/{p}");
  add(many, HTTP1_GET, 1);
  strcat(many, "/{p}");
  refused(many, "more than 16 parameters");
  *many = 0;
  for (int i = 0; i < 64; i++) strcat(many, "/s");
  strcat(many, "/{p}");
  refused(many, "more than 64 segments");
  end();
}

static void test_clashes(void) {
  begin();
  add("/a", HTTP1_GET, 1);
  refused("/a", "stand twice");
  add("/a/{x}", HTTP1_GET, 2);
  refused("/a/{y}", "stand twice"); /* the name is no difference */
  add("/a/{n:int}", HTTP1_GET, 3);
  refused("/a/{m:int}", "stand twice");
  add("/{rest:path}", HTTP1_GET, 4);
  refused("/{other:path}", "stand twice");
  finds("/a", HTTP1_GET, 1, ""); /* what was there stays */
  finds("/a/b", HTTP1_GET, 2, "b,");
  end();
}

static void test_sixteen_params(void) {
  char pattern[128] = "", path[64] = "", params[64] = "";
  begin();
  for (int i = 0; i < MAX_PARAMS; i++) strcat(pattern, "/{p}"), strcat(path, "/v"), strcat(params, "v,");
  add(pattern, HTTP1_GET, 1);
  add("/{rest:path}", HTTP1_GET, 2);
  finds(path, HTTP1_GET, 1, params);
  strcat(path, "/v");
  finds(path, HTTP1_GET, 2, "v/v/v/v/v/v/v/v/v/v/v/v/v/v/v/v/v,");
  end();
}

/* A literal longer than what is decoded on the stack is found by its plain spelling only. */
static void test_long_paths(void) {
  char path[2100] = "/";
  memset(path + 1, 'a', 2000);
  path[2001] = 0;
  begin();
  add(path, HTTP1_GET, 1);
  add("/x/{rest:path}", HTTP1_GET, 2);
  finds(path, HTTP1_GET, 1, "");
  memcpy(path + 1, "%61", 3);
  knows_not(path);
  memcpy(path, "/x/%61", 6);
  CHECK(find(path, HTTP1_GET).route == ROUTE(2));
  end();
}

int main(void) {
  test_whole_paths();
  test_many_whole_paths();
  test_params();
  test_int();
  test_priorities();
  test_methods();
  test_refused_patterns();
  test_clashes();
  test_sixteen_params();
  test_long_paths();
  router_free(NULL);
  return summary("router");
}
