/* raw_program.h - a program with raw connections, for the tests of them: each connection writes down what it is told.
 *
 * That is a line of words which a test compares, "opened data:hello eof closed ", and behind each word stands what the
 * program does then, within the upcall (`then`). Checked for all: no upcall comes from within a function that promises none,
 * none but from server_poll or server_close, none after `closed`; and everything has been given back at the end. */
#ifndef EIGHTIES_RAW_PROGRAM_H
#define EIGHTIES_RAW_PROGRAM_H

#include "engine.h"

#define SOCKETS 8
#define SNIFFS 4
#define TOLD_BYTES 400
#define BIG (1 << 20)
#define MUCH 100000 /* more than is held without a word of it, and less than a socket's buffer */

typedef enum { ACCEPTED, OPENED, DATA, EOF_TOLD, DRAINED, CLOSED, EVENTS } event;
typedef enum {
  TAKE,
  TAKE_LATER,
  TAKE_NOT
} handler; /* what handlers of requests do: take the connection over, or answer */

extern const char *const event_words[EVENTS];

/* The program's side of a connection. */
typedef struct sock sock;
struct sock {
  conn *conn;      /* NULL: none, or over */
  uint64_t handle; /* as it was */
  char told[TOLD_BYTES];
  bytes got;
  bool keep; /* what `eof` gives */
  void (*then[EVENTS])(sock *k);
};

extern server *s;
extern sock socks[SOCKETS]; /* in the order of their beginnings */
extern int n_socks, n_released, n_owned, n_sniffs;
extern bool may_call;    /* within a function that may make upcalls */
extern bool woken;       /* server_poll has been asked for */
extern bool accepts;     /* what `accepted` gives */
extern char logged[200]; /* the last message */
extern char big[BIG];    /* bytes that do not repeat soon */
extern handler handling;
extern conn *waiting; /* of TAKE_LATER */
extern bool waiting_ended;
extern sniffed sniffs[SNIFFS]; /* what the sniffer says, one after another */
extern size_t most_sniffed;

/* A server with the routes /stream and /buffered; and the end of it and of all that it had. */
void begin(void);
void end(void);
void settle(void); /* poll as the loop does: until there is no event, and no word that there is work */
bool told(const sock *k, const char *expected);
bool got(const sock *k, const char *text);
int program_failures(void); /* of checks made here */

/* The functions of raw.c. */
bool take(conn *c, bool ended);
sock *open_sock(raw_kind kind);
bool attach(sock *k, int fd);
bool write_at(sock *k, const char *at, size_t len, void *owner);
bool write_text(sock *k, const char *text);
bool write_owned(sock *k, const char *at,
                 size_t len); /* not copied; counted in n_owned, and n_released when given up */
bool close_sock(sock *k);
void pause_sock(sock *k, bool paused);
void abort_sock(sock *k);
void close_server(void);

/* Peers. */
int make_pair(raw_kind kind, int *peer);   /* a descriptor to attach */
sock *connected(raw_kind kind, int *peer); /* open, and told so */
void listen_here(void);
int client(void);
int client_that_sends(const char *text);
void send_text(int peer, const char *text);
const char *heard(int peer); /* all that has come, as text; "" for nothing, and for the end */
bool read_away(int peer);    /* whether something had come */
bool at_end(int peer);
size_t read_big(int peer, size_t from); /* reads what there is: it must be `big` from `from` on */

#endif
