/* buffer.c - memory for input and output. Contract: engine.h. */
#include <stdlib.h>
#include <string.h>

#include "engine.h"

#define OWN_ROOM (CHUNK_BYTES - sizeof(chunk))
#define BYTES_FIRST 512

/* ---- chunks ---- */

static chunk *chunk_new(pool *p, size_t room) {
  chunk *k = p->free;
  if (room <= OWN_ROOM && k) {
    p->free = k->next;
    p->n_free--;
  } else {
    if (room < OWN_ROOM) room = OWN_ROOM;
    k = malloc(sizeof(chunk) + room);
    if (!k) return NULL;
    k->room = room;
  }
  k->next = NULL;
  k->kind = CHUNK_OWN;
  k->start = k->end = 0;
  k->bytes = k->own;
  k->owner = NULL;
  p->live++;
  return k;
}

static void chunk_free(pool *p, chunk *k) {
  if (k->owner) p->release(k->owner);
  p->live--;
  if (k->kind == CHUNK_OWN && k->room == OWN_ROOM && p->n_free < CHUNK_POOL) {
    k->next = p->free;
    p->free = k;
    p->n_free++;
  } else {
    free(k);
  }
}

static void queue_push(queue *q, chunk *k) {
  if (q->last) q->last->next = k;
  else q->first = k;
  q->last = k;
  q->n++;
}

char *queue_reserve(queue *q, pool *p, size_t n) {
  chunk *k = q->last;
  if (!k || k->kind != CHUNK_OWN || k->room - k->end < n) {
    k = chunk_new(p, n);
    if (!k) return NULL;
    queue_push(q, k);
  }
  return k->own + k->end;
}

void queue_commit(queue *q, size_t n) {
  q->last->end += n;
  q->bytes += n;
}

bool queue_write(queue *q, pool *p, const char *at, size_t len) {
  if (!len) return true;
  char *room = queue_reserve(q, p, len);
  if (!room) return false;
  memcpy(room, at, len);
  queue_commit(q, len);
  return true;
}

/* REF and FILE chunks hold no bytes and are allocated small. */
static chunk *queue_foreign(queue *q, pool *p, chunk_kind kind, size_t len, void *owner) {
  chunk *k = malloc(sizeof *k);
  if (!k) {
    p->release(owner);
    return NULL;
  }
  *k = (chunk){.kind = kind, .end = len, .owner = owner};
  p->live++;
  queue_push(q, k);
  q->bytes += len;
  return k;
}

bool queue_ref(queue *q, pool *p, const char *at, size_t len, void *owner) {
  chunk *k = queue_foreign(q, p, CHUNK_REF, len, owner);
  if (k) k->bytes = at;
  return k;
}

bool queue_file(queue *q, pool *p, int fd, size_t offset, size_t len, void *owner) {
  chunk *k = queue_foreign(q, p, CHUNK_FILE, len, owner);
  if (!k) return false;
  k->fd = fd;
  k->start = offset;
  k->end += offset;
  return true;
}

int queue_iov(const queue *q, struct iovec *iov, int max) {
  int n = 0;
  for (chunk *k = q->first; k && n < max && k->kind != CHUNK_FILE; k = k->next) {
    if (k->start == k->end) continue;
    iov[n++] = (struct iovec){(void *)(k->bytes + k->start), k->end - k->start};
  }
  return n;
}

void queue_sent(queue *q, pool *p, size_t n) {
  q->bytes -= n;
  while (q->first) {
    chunk *k = q->first;
    size_t left = k->end - k->start;
    if (n < left) {
      k->start += n;
      return;
    }
    n -= left;
    q->n--;
    q->first = k->next;
    if (!q->first) q->last = NULL;
    chunk_free(p, k);
  }
}

void queue_pop(queue *q, pool *p) {
  chunk *k = q->first;
  q->bytes -= k->end - k->start;
  q->n--;
  q->first = k->next;
  if (!q->first) q->last = NULL;
  chunk_free(p, k);
}

void queue_clear(queue *q, pool *p) {
  while (q->first) {
    chunk *k = q->first;
    q->first = k->next;
    chunk_free(p, k);
  }
  q->last = NULL;
  q->bytes = q->n = 0;
}

void pool_clear(pool *p) {
  while (p->free) {
    chunk *k = p->free;
    p->free = k->next;
    free(k);
  }
  p->n_free = 0;
}

/* ---- bytes ---- */

bool bytes_append(bytes *b, const char *at, size_t len) {
  if (!len) return true;
  size_t need = (size_t)b->len + len;
  if (need > UINT32_MAX / 2) return false;
  if (need > b->room) {
    size_t room = b->room ? b->room : BYTES_FIRST;
    while (room < need) room *= 2;
    char *grown = realloc(b->at, room);
    if (!grown) return false;
    b->at = grown;
    b->room = (uint32_t)room;
  }
  memcpy(b->at + b->len, at, len);
  b->len += (uint32_t)len;
  return true;
}

void bytes_drop(bytes *b, size_t n) {
  if (n == b->len) {
    bytes_clear(b);
    return;
  }
  memmove(b->at, b->at + n, b->len - n);
  b->len -= (uint32_t)n;
}

void bytes_clear(bytes *b) {
  free(b->at);
  *b = (bytes){0};
}
