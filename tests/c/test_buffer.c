/* test_buffer.c - buffer.c: output queues of all kinds of chunks, against a plain model; the pool; growing bytes. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "engine.h"

static pool chunks;
static int released;

static void release(void *owner) {
  released++;
  free(owner);
}

static void begin(void) {
  chunks = (pool){.release = release};
  released = 0;
}

static void end(void) {
  CHECK(chunks.live == 0);
  pool_clear(&chunks);
  CHECK(chunks.n_free == 0 && !chunks.free);
}

static char *owned(size_t len, char fill) {
  char *made = malloc(len ? len : 1);
  if (!made) abort();
  memset(made, fill, len);
  return made;
}

/* ---- queues ---- */

static void test_write(void) {
  begin();
  queue q = {0};
  struct iovec iov[4];
  CHECK(queue_write(&q, &chunks, "", 0) && !q.first && !q.bytes);
  CHECK(queue_write(&q, &chunks, "hello", 5) && queue_write(&q, &chunks, " world", 6));
  CHECK(q.bytes == 11 && chunks.live == 1); /* small pieces share a chunk */
  CHECK(queue_iov(&q, iov, 4) == 1 && iov[0].iov_len == 11 && memcmp(iov[0].iov_base, "hello world", 11) == 0);
  queue_sent(&q, &chunks, 6);
  CHECK(q.bytes == 5 && queue_iov(&q, iov, 4) == 1 && memcmp(iov[0].iov_base, "world", 5) == 0);
  queue_sent(&q, &chunks, 0);
  CHECK(q.bytes == 5);
  queue_sent(&q, &chunks, 5);
  CHECK(!q.first && !q.last && !q.bytes && chunks.live == 0 && chunks.n_free == 1);
  end();
}

static void test_reserve(void) {
  begin();
  queue q = {0};
  char *at = queue_reserve(&q, &chunks, 100);
  CHECK(at && q.bytes == 0);
  memset(at, 'a', 100);
  queue_commit(&q, 60);
  CHECK(q.bytes == 60 && queue_reserve(&q, &chunks, 10) == at + 60);
  CHECK(queue_reserve(&q, &chunks, CHUNK_BYTES) && chunks.live == 2); /* contiguous: another chunk */
  queue_commit(&q, 0);
  struct iovec iov[4];
  CHECK(queue_iov(&q, iov, 4) == 1); /* an empty chunk is no piece */
  queue_sent(&q, &chunks, 60);
  CHECK(!q.first && chunks.live == 0); /* and goes with the last byte */
  end();
}

static void test_large_write(void) {
  begin();
  queue q = {0};
  size_t len = 5 * CHUNK_BYTES;
  char *big = owned(len, 'b');
  struct iovec iov[4];
  CHECK(queue_write(&q, &chunks, "a", 1) && queue_write(&q, &chunks, big, len) && q.bytes == len + 1);
  CHECK(queue_iov(&q, iov, 4) == 2 && iov[1].iov_len == len && memcmp(iov[1].iov_base, big, len) == 0);
  queue_sent(&q, &chunks, len + 1);
  CHECK(chunks.n_free == 1); /* one of unusual size is not kept */
  free(big);
  end();
}

static void test_ref(void) {
  begin();
  queue q = {0};
  char *a = owned(10, 'a'), *b = owned(10, 'b');
  struct iovec iov[4];
  CHECK(queue_ref(&q, &chunks, a, 10, a) && queue_write(&q, &chunks, "--", 2) && queue_ref(&q, &chunks, b + 2, 8, b));
  CHECK(q.bytes == 20 && queue_iov(&q, iov, 4) == 3 && iov[0].iov_base == a && iov[2].iov_base == b + 2);
  CHECK(queue_iov(&q, iov, 2) == 2);
  queue_sent(&q, &chunks, 9);
  CHECK(released == 0 && q.bytes == 11);
  queue_sent(&q, &chunks, 1);
  CHECK(released == 1 && q.bytes == 10); /* its owner is given up with its last byte */
  queue_sent(&q, &chunks, 10);
  CHECK(released == 2 && !q.first && !q.last);
  end();
}

static void test_file(void) {
  begin();
  queue q = {0};
  struct iovec iov[4];
  char *owner = owned(1, 'f');
  CHECK(queue_write(&q, &chunks, "head", 4) && queue_file(&q, &chunks, 99, 1000, 50, owner));
  CHECK(queue_write(&q, &chunks, "tail", 4) && q.bytes == 58);
  CHECK(queue_iov(&q, iov, 4) == 1); /* stops before a file */
  queue_sent(&q, &chunks, 4);
  CHECK(queue_iov(&q, iov, 4) == 0 && q.first->kind == CHUNK_FILE && q.first->fd == 99);
  CHECK(q.first->start == 1000 && q.first->end == 1050);
  queue_sent(&q, &chunks, 20);
  CHECK(q.first->start == 1020 && released == 0);
  queue_sent(&q, &chunks, 30);
  CHECK(released == 1 && queue_iov(&q, iov, 4) == 1 && iov[0].iov_len == 4);
  queue_sent(&q, &chunks, 4);
  end();
}

static void test_empty_pieces(void) {
  begin();
  queue q = {0};
  struct iovec iov[4];
  CHECK(queue_ref(&q, &chunks, "", 0, owned(1, 'a')) && queue_file(&q, &chunks, 9, 7, 0, owned(1, 'b')));
  CHECK(q.bytes == 0 && q.first && queue_iov(&q, iov, 4) == 0);
  queue_sent(&q, &chunks, 0);
  CHECK(!q.first && released == 2);
  end();
}

static void test_clear(void) {
  begin();
  queue q = {0};
  CHECK(queue_write(&q, &chunks, "a", 1) && queue_ref(&q, &chunks, "b", 1, owned(1, 'b')));
  CHECK(queue_file(&q, &chunks, 9, 0, 5, owned(1, 'c')) && queue_write(&q, &chunks, "d", 1));
  queue_clear(&q, &chunks);
  CHECK(!q.first && !q.last && !q.bytes && released == 2);
  queue_clear(&q, &chunks);
  CHECK(queue_write(&q, &chunks, "again", 5) && q.bytes == 5);
  queue_clear(&q, &chunks);
  end();
}

static void test_pool_is_bounded(void) {
  begin();
  queue q = {0};
  char *piece = owned(CHUNK_BYTES - 200, 'p');
  for (int i = 0; i < 2 * CHUNK_POOL; i++) CHECK(queue_write(&q, &chunks, piece, CHUNK_BYTES - 200));
  CHECK(chunks.live == 2 * CHUNK_POOL);
  queue_clear(&q, &chunks);
  CHECK(chunks.n_free == CHUNK_POOL);
  for (int i = 0; i < 2 * CHUNK_POOL; i++) CHECK(queue_write(&q, &chunks, piece, CHUNK_BYTES - 200));
  CHECK(chunks.n_free == 0);
  queue_clear(&q, &chunks);
  free(piece);
  end();
}

/* Random pieces in, random amounts out: what comes out is what went in. */
static void test_against_model(void) {
  begin();
  queue q = {0};
  size_t in = 0, out = 0; /* byte i of the stream is i % 251 */
  unsigned seed = 1;
  char piece[3000];
  for (int step = 0; step < 20000; step++) {
    seed = seed * 1103515245u + 12345u;
    size_t n = (seed >> 16) % sizeof piece;
    if (seed >> 31 || step > 15000) {
      struct iovec iov[3];
      int k = queue_iov(&q, iov, 3);
      size_t sent = 0;
      for (int i = 0; i < k && sent < n; i++)
        for (size_t j = 0; j < iov[i].iov_len && sent < n; j++, sent++, out++)
          if (((unsigned char *)iov[i].iov_base)[j] != out % 251) CHECK(!"bytes in order");
      queue_sent(&q, &chunks, sent);
    } else {
      for (size_t i = 0; i < n; i++, in++) piece[i] = (char)(in % 251);
      char *copy = owned(n, 0);
      memcpy(copy, piece, n);
      if (step % 3) CHECK(queue_write(&q, &chunks, piece, n)), free(copy);
      else CHECK(queue_ref(&q, &chunks, copy, n, copy));
    }
    if (q.bytes != in - out) CHECK(!"the queue counts its bytes");
  }
  queue_clear(&q, &chunks);
  end();
}

/* ---- bytes ---- */

static void test_bytes(void) {
  bytes b = {0};
  CHECK(bytes_append(&b, "", 0) && !b.at);
  CHECK(bytes_append(&b, "hello", 5) && bytes_append(&b, " world", 6) && b.len == 11);
  bytes_drop(&b, 0);
  CHECK(b.len == 11);
  bytes_drop(&b, 6);
  CHECK(b.len == 5 && memcmp(b.at, "world", 5) == 0);
  bytes_drop(&b, 5);
  CHECK(!b.at && !b.len && !b.room); /* memory only while there is something in it */
  char *big = owned(100000, 'x');
  for (int i = 0; i < 10; i++) CHECK(bytes_append(&b, big, 100000));
  CHECK(b.len == 1000000 && b.room >= b.len && b.room <= 4 * b.len);
  CHECK(!bytes_append(&b, big, UINT32_MAX) && b.len == 1000000); /* refused before it is read */
  bytes_clear(&b);
  CHECK(!b.at);
  bytes_clear(&b);
  free(big);
}

int main(void) {
  test_write();
  test_reserve();
  test_large_write();
  test_ref();
  test_file();
  test_empty_pieces();
  test_clear();
  test_pool_is_bounded();
  test_against_model();
  test_bytes();
  return summary("buffer");
}
