/* peers.h - the other ends of a fuzzed server's connections: clients, and what the program has connected itself to. */
#ifndef EIGHTIES_PEERS_H
#define EIGHTIES_PEERS_H

#include <sys/un.h>

#include "engine.h"

#define PEERS 6
#define PERIOD 113u /* prime: no block of bytes looks like its neighbour */

/* Bytes that tell where in their direction they stand; datagrams tell their length and number. */
typedef struct {
  bool begun;
  uint64_t at; /* bytes of a stream; datagrams */
} flow;

typedef struct {
  int fd;          /* -1: none */
  unsigned number; /* of its connection: each has another */
  raw_kind kind;
  bool raw;  /* it has sent what is no HTTP, and goes on so */
  bool deaf; /* it has ended the direction to it */
  flow sent, heard;
  struct sockaddr_un name; /* of a client's socket, by which the accepted connection is known */
  socklen_t name_len;
} peer;

extern peer peers[PEERS];
extern struct sockaddr_un listening; /* the server's address */
extern socklen_t listening_len;

void flow_fill(const flow *f, raw_kind kind, char *at, size_t len); /* what comes next in it */
void flow_advance(flow *f, raw_kind kind, size_t len);
void flow_check(flow *f, raw_kind kind, span data); /* asserts that it is what comes next, and advances */
size_t size_of(unsigned how, raw_kind kind);        /* of a piece: nothing, little or much */

void make_pair(raw_kind kind, int *ours, int *theirs);
void peer_begin(peer *p, int fd, raw_kind kind);
peer *peer_of(int fd); /* the client whose connection that is; NULL: it is gone */
void peer_close(peer *p);
/* These connect to the server first where there is no connection. */
void peer_text(peer *p, const char *at, size_t len);
void peer_send(peer *p, unsigned how);
bool peer_read(peer *p, size_t len); /* whether something has come */

#endif
