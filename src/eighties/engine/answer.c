/* answer.c - what goes out in front of a body: status lines, dates, framing, error answers. Contract: engine.h. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "engine.h"

#define STATUS_FIRST 100
#define STATUS_LAST 599
#define HEAD_BYTES 192 /* status line, framing and connection fields, without preface, content type and extra */

static const char *const phrases[STATUS_LAST + 1] = {
    [100] = "Continue",
    [101] = "Switching Protocols",
    [103] = "Early Hints",
    [200] = "OK",
    [201] = "Created",
    [202] = "Accepted",
    [203] = "Non-Authoritative Information",
    [204] = "No Content",
    [205] = "Reset Content",
    [206] = "Partial Content",
    [300] = "Multiple Choices",
    [301] = "Moved Permanently",
    [302] = "Found",
    [303] = "See Other",
    [304] = "Not Modified",
    [307] = "Temporary Redirect",
    [308] = "Permanent Redirect",
    [400] = "Bad Request",
    [401] = "Unauthorized",
    [402] = "Payment Required",
    [403] = "Forbidden",
    [404] = "Not Found",
    [405] = "Method Not Allowed",
    [406] = "Not Acceptable",
    [407] = "Proxy Authentication Required",
    [408] = "Request Timeout",
    [409] = "Conflict",
    [410] = "Gone",
    [411] = "Length Required",
    [412] = "Precondition Failed",
    [413] = "Content Too Large",
    [414] = "URI Too Long",
    [415] = "Unsupported Media Type",
    [416] = "Range Not Satisfiable",
    [417] = "Expectation Failed",
    [421] = "Misdirected Request",
    [422] = "Unprocessable Content",
    [423] = "Locked",
    [424] = "Failed Dependency",
    [425] = "Too Early",
    [426] = "Upgrade Required",
    [428] = "Precondition Required",
    [429] = "Too Many Requests",
    [431] = "Request Header Fields Too Large",
    [451] = "Unavailable For Legal Reasons",
    [500] = "Internal Server Error",
    [501] = "Not Implemented",
    [502] = "Bad Gateway",
    [503] = "Service Unavailable",
    [504] = "Gateway Timeout",
    [505] = "HTTP Version Not Supported",
    [507] = "Insufficient Storage",
    [511] = "Network Authentication Required",
};

const char *answer_phrase(int status) {
  const char *phrase = status >= STATUS_FIRST && status <= STATUS_LAST ? phrases[status] : NULL;
  return phrase ? phrase : ""; /* RFC 9112 section 4: the phrase may be empty */
}

/* ---- writing ---- */

static char *put(char *to, const char *at, size_t len) {
  memcpy(to, at, len);
  return to + len;
}

static char *put_text(char *to, const char *text) { return put(to, text, strlen(text)); }

static char *put_number(char *to, uint64_t n) {
  char digits[20];
  int i = 20;
  do digits[--i] = (char)('0' + n % 10);
  while (n /= 10);
  return put(to, digits + i, (size_t)(20 - i));
}

/* IMF-fixdate (RFC 9110 section 5.6.7), whatever the locale. */
static char *put_date(char *to, int64_t second) {
  static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  time_t t = (time_t)second;
  struct tm tm;
  gmtime_r(&t, &tm);
  return to + sprintf(to, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + 3 * tm.tm_wday, tm.tm_mday,
                      months + 3 * tm.tm_mon, (tm.tm_year + 1900) % 10000, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

void answer_touch_date(server *s, int64_t now) {
  if (now == s->date) return;
  s->date = now;
  char *to = s->preface;
  if (*s->server_name) to = put_text(put_text(put_text(to, "Server: "), s->server_name), "\r\n");
  to = put_text(put_date(put_text(to, "Date: "), now), "\r\n");
  s->preface_len = (size_t)(to - s->preface);
  to = put_text(s->ok, "HTTP/1.1 200 OK\r\n");
  s->ok_len = (size_t)(put(to, s->preface, s->preface_len) - s->ok);
}

static char *put_status(char *to, int status) {
  to = put_number(put_text(to, "HTTP/1.1 "), (uint64_t)status);
  *to++ = ' ';
  return put_text(put_text(to, answer_phrase(status)), "\r\n");
}

/* Status line, Server and Date. The program's own Server or Date field takes the place of ours. */
static char *put_preface(char *to, const server *s, const answer *a) {
  if (a->status == 200 && !a->has_date && !a->has_server) return put(to, s->ok, s->ok_len);
  to = put_status(to, a->status);
  const char *date = strstr(s->preface, "Date: ");
  size_t server_len = (size_t)(date - s->preface);
  if (!a->has_server) to = put(to, s->preface, server_len);
  if (!a->has_date) to = put(to, date, s->preface_len - server_len);
  return to;
}

/* RFC 9110 section 6.4.1 and 8.6: these have no body, and no Content-Length but what the program says for a 304. */
static bool has_no_body(int status) { return status < 200 || status == 204 || status == 304; }

static void choose_framing(conn *c, const answer *a) {
  bool none = c->is_head || has_no_body(a->status);
  c->chunked_out = !none && a->length < 0 && !c->http10;
  c->counted = none || a->length >= 0;
  c->out_left = none || a->length < 0 ? 0 : (uint64_t)a->length;
  bool until_close = !none && a->length < 0 && c->http10;
  if (a->close || c->server->draining || until_close || conn_body_in_the_way(c)) c->keep_alive = false;
}

static char *put_framing(char *to, const conn *c, const answer *a) {
  if (a->length >= 0 && !has_no_body(a->status))
    to = put_text(put_number(put_text(to, "Content-Length: "), (uint64_t)a->length), "\r\n");
  else if (c->chunked_out || (c->is_head && a->length < 0 && !c->http10 && !has_no_body(a->status)))
    to = put_text(to, "Transfer-Encoding: chunked\r\n"); /* RFC 9112 section 6.1: HEAD tells what GET would */
  if (!c->keep_alive) to = put_text(to, "Connection: close\r\n");
  else if (c->http10) to = put_text(to, "Connection: keep-alive\r\n");
  return to;
}

bool answer_head(conn *c, const answer *a) {
  server *s = c->server;
  choose_framing(c, a);
  size_t room = HEAD_BYTES + s->preface_len + a->content_type.len + a->extra.len;
  char *start = queue_reserve(&c->output, &s->pool, room);
  if (!start) return false;
  char *to = put_preface(start, s, a);
  if (a->content_type.len) {
    to = put_text(to, "Content-Type: ");
    to = put_text(put(to, a->content_type.at, a->content_type.len), "\r\n");
  }
  to = put(put_framing(to, c, a), a->extra.at, a->extra.len);
  to = put_text(to, "\r\n");
  queue_commit(&c->output, (size_t)(to - start));
  conn_set_out(c, OUT_BODY);
  return true;
}

size_t answer_allow(char *out, unsigned allowed) {
  if (allowed & 1u << HTTP1_GET) allowed |= 1u << HTTP1_HEAD;
  allowed |= 1u << HTTP1_OPTIONS;
  char *to = put_text(out, "Allow: ");
  for (int i = 0; i < HTTP1_METHODS; i++)
    if (allowed & 1u << i) to = put_text(put_text(to, http1_method_names[i]), ", ");
  to = put_text(to - 2, "\r\n");
  return (size_t)(to - out);
}

bool answer_text(conn *c, int status, const char *text, const char *extra) {
  static const char plain[] = "text/plain; charset=utf-8";
  bool body = !has_no_body(status);
  size_t len = body ? strlen(text) : 0;
  answer a = {.status = status,
              .content_type = {plain, body ? sizeof plain - 1 : 0},
              .length = (int64_t)len,
              .extra = {extra, strlen(extra)}};
  return answer_head(c, &a) && (c->is_head || conn_write(c, text, len));
}
