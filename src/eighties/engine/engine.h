/* engine.h - the one header of the engine's lower half, and its manual.
 *
 * The engine is a server in one descriptor. A `server` owns a poller (an epoll or kqueue set) which holds listeners,
 * connections and a one-second tick; the set's own descriptor is what the asyncio loop watches. When it is readable the
 * loop calls `server_poll`, which never blocks and works for POLL_BUDGET_NS at most.
 *
 * A request's way:  poller_wait -> conn_run (recv) -> http1_read_head -> router_find -> up->begin, up->run (the handler)
 *                   -> answer_head (serialise) -> conn_end_answer -> conn_flush (send)
 *
 * Who owns what. The server owns its connections; a connection owns its descriptor, its input and its output queue. The
 * layer above (`upcalls`, filled in by the Python half) owns an `exchange` object for each request and links it to the
 * connection: `conn->exchange` is set by up->begin and cleared by conn_end_answer or by up->abandon, whichever comes
 * first. After that neither knows the other.
 *
 * Raw connections. A connection can leave HTTP for good (OUT_RAW): at accept, by its first bytes, by a handler that takes it
 * over, or because the program opened it. Then its exchange is a socket of the layer above, which gets every byte and is
 * known to programs by a handle. All its upcalls come from server_poll, never from within a raw_* function: so its end is
 * told (up->closed) by the ready list, after conn_close has taken everything else away.
 *
 * Lifetime. Whoever calls out while it holds a `conn *` takes a reference; closing is a state, the memory goes with the
 * last reference. An upcall may do anything: close this connection or another, stop the server, answer any request.
 *
 * This half never includes Python.h, has no mutable globals, and one server is used by one thread only.
 */
#ifndef EIGHTIES_ENGINE_H
#define EIGHTIES_ENGINE_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "http1.h"

/* ---- constants: each a limit or a budget with its reason ---- */

#define POLL_EVENTS 256            /* events fetched by one wait: 4 kB of stack */
#define POLL_BUDGET_NS 2000000     /* longest stay in server_poll, so that tasks on the loop wait a few ms at most */
#define POLL_ROUNDS 8              /* waits in one server_poll: new events need no turn of the outer loop */
#define BUDGET_STRIDE 8            /* units of work between two looks at the clock */
#define SCRATCH_BYTES 65536        /* one recv; also what a pipelining client can have read ahead of its answers */
#define CHUNK_BYTES 16384          /* a pooled output buffer */
#define CHUNK_POOL 64              /* free output buffers that are kept: 1 MB */
#define COPY_BYTES 8192            /* longer bodies are sent from where they are, not copied to a buffer */
#define IOV_MAX_SEND 64            /* pieces in one send */
#define WHEEL_SLOTS 128            /* seconds; deadlines further away go round again */
#define LINGER_SECONDS 2           /* how long an ended connection may still talk before it is closed... */
#define LINGER_BYTES (256 * 1024)  /* ...and how much; then a reset is what it gets */
#define DISCARD_BYTES (256 * 1024) /* unread rest of a body that is read away to keep the connection */
#define REFUSED_CONNECTIONS 256    /* connections over the limit that are told so with a 503 */
#define DRAIN_ACCEPTS 4096         /* queued connections that are still accepted when the server stops */
#define GONE_SECONDS 2             /* a client that ended its sending side this long ago is asked whether it lives */
#define PROBE_SECONDS 10           /* TCP keep-alive probes to such a client, where it cannot be asked */
#define PROBE_COUNT 3
#define KEEPALIVE_SECONDS 60        /* silence after which such probes go to any client */
#define STREAM_IN_BYTES (64 * 1024) /* streamed request body held for a handler before the socket is left unread */
#define MAX_PARAMS 16               /* parameters in one route pattern */
#define FIRST_BYTES 512             /* what protocols may look at to tell whether a connection is theirs */
#define RAW_QUEUE_BYTES (64 * 1024 * 1024) /* output held for a raw connection; a further write closes it */
#define RAW_HOLD_BYTES (64 * 1024)         /* more than this at once, and the program is told when it is sent */
#define PASSED_BYTES SCRATCH_BYTES         /* unread bytes that go along with a connection to another process */
#define HANDLE_SLOT_BITS 24 /* raw connections at one time: 16 million; the rest of a handle is its generation */

typedef struct {
  http1_limits http;
  uint64_t max_body;
  uint32_t header_timeout, body_timeout, keep_alive_timeout, handler_timeout, write_timeout; /* seconds */
  uint32_t min_rate;                                                                         /* bytes a second */
  uint32_t max_connections;
  uint32_t max_buffered;
} limits;

/* ---- buffer.c: memory for input and output ---- */

typedef enum { CHUNK_OWN, CHUNK_REF, CHUNK_FILE } chunk_kind;

/* A piece of output. OWN: bytes in the chunk itself. REF: bytes elsewhere, kept alive by `owner`. FILE: part of a file. */
typedef struct chunk chunk;
struct chunk {
  chunk *next;
  chunk_kind kind;
  int fd;
  size_t start, end, room; /* OWN and REF: bytes [start, end) of `bytes`; FILE: offsets in the file */
  const char *bytes;
  void *owner;
  char own[];
};

typedef struct {
  chunk *free;
  unsigned n_free;
  unsigned live;                /* chunks in use, for leak checks */
  void (*release)(void *owner); /* gives up a REF's or FILE's owner */
} pool;

typedef struct {
  chunk *first, *last;
  size_t bytes;
  uint32_t n; /* chunks */
} queue;

/* A growing array of bytes; memory only while there is something in it. */
typedef struct {
  char *at;
  uint32_t len, room;
} bytes;

/* Room for `n` contiguous bytes at the end of the queue, or NULL without memory; queue_commit says how many were used. */
char *queue_reserve(queue *q, pool *p, size_t n);
void queue_commit(queue *q, size_t n);
bool queue_write(queue *q, pool *p, const char *at, size_t len);
/* `owner` is given up when the bytes are sent, or at once where this fails. */
bool queue_ref(queue *q, pool *p, const char *at, size_t len, void *owner);
bool queue_file(queue *q, pool *p, int fd, size_t offset, size_t len, void *owner);
int queue_iov(const queue *q, struct iovec *iov, int max); /* stops before a file */
void queue_sent(queue *q, pool *p, size_t n);
void queue_pop(queue *q, pool *p); /* the first chunk is sent, though it may be empty */
void queue_clear(queue *q, pool *p);
void pool_clear(pool *p);

bool bytes_append(bytes *b, const char *at, size_t len);
void bytes_drop(bytes *b, size_t n); /* from the front */
void bytes_clear(bytes *b);

/* ---- timer.c: one wheel, ticking once a second ---- */

typedef struct timer timer;
struct timer {
  timer *prev, *next;
  uint32_t slot_time; /* the second in whose slot it stands */
  uint32_t deadline;  /* the second at which it is due; may be later: it is moved then, so a renewal is one store */
};

typedef struct {
  timer slots[WHEEL_SLOTS];
  uint32_t now;
  unsigned live;
} wheel;

void wheel_init(wheel *w, uint32_t now);
void wheel_set(wheel *w, timer *t, uint32_t deadline);
void wheel_stop(wheel *w, timer *t);
/* Advance to `now`; call `due` for each timer whose deadline has come (it is stopped first). */
void wheel_advance(wheel *w, uint32_t now, void (*due)(timer *t));

/* ---- poller_epoll.c, poller_kqueue.c ---- */

typedef struct {
  void *data;                               /* as given to poller_add; NULL: the tick */
  bool readable, writable, hung_up, broken; /* hung_up: the peer has ended its sending side */
} poller_event;

typedef struct poller poller;
extern const char *const poller_name;
poller *poller_new(void);
void poller_free(poller *p);
int poller_fd(const poller *p);
bool poller_add(poller *p, int fd, void *data);                    /* reading and writing, each change told once */
bool poller_add_pipe(poller *p, int fd, void *data, bool writing); /* the one or the other */
bool poller_add_listener(poller *p, int fd, void *data);           /* reading, told for as long as it is so */
void poller_del(poller *p, int fd);
bool poller_tick(poller *p, bool on);                      /* once a second */
int poller_wait(poller *p, poller_event *events, int max); /* never blocks */

/* ---- router.c ---- */

typedef struct router router;
typedef enum { PARAM_TEXT, PARAM_INT, PARAM_PATH } param_kind;

typedef struct {
  void *route;      /* as given to router_add; NULL when the path or the method is not known */
  unsigned allowed; /* bit per http1_method: methods of this path; 0 when the path is unknown */
  int n_params;
  span params[MAX_PARAMS]; /* raw, to be percent-decoded */
} router_match;

router *router_new(void);
void router_free(router *r);
/* Returns NULL, or why the pattern cannot be taken. */
const char *router_add(router *r, const char *pattern, http1_method method, void *route);
/* HEAD falls back to GET. */
void router_find(const router *r, span path, http1_method method, router_match *match);

/* ---- static.c: what is asked of a small file that is in memory ---- */

#define STATIC_ENCODINGS 3 /* encoded siblings of a file: br, zstd, gzip */

/* What a request says about the file it wants. A span without `at`: not a word. They point into the head. */
typedef struct {
  span none_match, modified_since, encodings;
  bool version; /* the target has a query, as that of a file which browsers then keep: never answer with an old one */
  bool other;   /* asks for something that is not decided here: hand it over to the handler */
} static_wishes;

typedef enum { STATIC_OTHER, STATIC_WHOLE, STATIC_NOT_MODIFIED } static_verdict; /* OTHER: hand over; 200; 304 */

void static_read(const http1_head *head, static_wishes *w);
/* Which of `n` codings, the preferred first, to answer with; n: the file as it is; -1: hand over. */
int static_choose(const static_wishes *w, const span *codings, int n);
static_verdict static_judge(const static_wishes *w, span etag, span last_modified);
/* Checks of what the program gives. `lines`: each "Name: value" and CRLF, none of them a field that answer_head writes or
 * that bears on framing; NULL or why not. A coding is a token in small letters. */
const char *static_refuses(span lines);
/* Whether a field of lines that are not refused lists a word; it and the field's name are in small letters. */
bool static_lists(span lines, const char *name, span word);
bool static_is_etag(span text);
bool static_same_etag(span a, span b); /* of two that are some: the weak comparison */
bool static_is_coding(span name);

/* ---- connection.c, input.c, output.c ---- */

typedef struct server server;
typedef struct conn conn;
typedef enum { SNIFF_HTTP, SNIFF_MORE, SNIFF_TAKEN } sniffed;

/* What the layer above does. An exchange is one request and its answer. */
typedef struct {
  /* A head without a body is complete and has a route: answer it at once, without an exchange, or return false. */
  bool (*answer)(conn *c, const http1_head *head, const router_match *match);
  /* A head is complete and has a route. Make the exchange (conn->exchange). False: no memory. `stream`: what follows of
   * the body comes by `chunk`; the handler runs at once. */
  bool (*begin)(conn *c, const http1_head *head, const router_match *match, bool *stream);
  /* The bytes of the head go away: copy what is needed. False: no memory. */
  bool (*keep)(conn *c);
  /* Run the handler. `body` is valid during the call. Where `taken` is given the body is malloc'ed and may be kept. */
  void (*run)(conn *c, span body, bool *taken);
  void (*chunk)(conn *c, span data);        /* a piece of a streamed body */
  void (*body_end)(conn *c);                /* a streamed body is complete */
  void (*abandon)(conn *c);                 /* the connection is gone or was refused: cancel the handler */
  void (*timed_out)(conn *c);               /* as abandon, and tell the log */
  void (*send_ready)(conn *c);              /* the output fell below half of max_buffered */
  void *(*fallback)(server *s, int status); /* the route that answers 404 or 405, or NULL for the built-in answer */
  void (*wake)(server *s);                  /* call server_poll again soon: there is work that no event will tell of */
  void (*log)(server *s, bool error, const char *message);
  /* Raw connections. Their exchange is a socket, given by raw_take or raw_open and taken back by `closed`. */
  bool (*accepted)(conn *c, int listener); /* of a server that is raw: raw_take it. False: no memory */
  sniffed (*sniff)(conn *c, span first);   /* whose is it? Only where server.sniffing */
  void (*opened)(conn *c);                 /* raw_attach has made it a connection, or raw_greet was asked for */
  void (*data)(conn *c, span data);
  bool (*eof)(conn *c);     /* the peer's sending side has ended; false: close when the output is sent */
  void (*drained)(conn *c); /* output that had to wait is sent */
  void (*closed)(conn *c);  /* it is over, nothing follows: clear conn->exchange */
} upcalls;

typedef struct {
  ssize_t (*recv)(conn *c, char *at, size_t len);
  ssize_t (*send)(conn *c, const struct iovec *iov, int n);
  ssize_t (*sendfile)(conn *c, int fd, size_t offset, size_t len);
  void (*shutdown)(conn *c); /* end the sending side */
} transport;                 /* transport.c has those of the system; TLS is another one of these */
extern const transport transport_plain, transport_datagram, transport_pipe;
void transport_keep_alive(int fd); /* a peer that has vanished without a word is noticed, however long nobody speaks */

/* The two sides of a connection, as states of h11's kind. Legal changes stand in one table in connection.c. */
typedef enum { IN_HEAD, IN_BODY, IN_DONE, IN_RAW, IN_LINGER, IN_CLOSED, IN_STATES } in_state;
typedef enum { OUT_IDLE, OUT_OWED, OUT_BODY, OUT_RAW, OUT_STATES } out_state;
/* What a raw connection is on: a stream or datagram socket, or the reading or writing end of a pipe. */
typedef enum { RAW_STREAM, RAW_DATAGRAM, RAW_READER, RAW_WRITER } raw_kind;
/* What becomes of a request body. */
typedef enum { SINK_BUFFER, SINK_STREAM, SINK_DISCARD } sink;

typedef struct {
  sa_family_t family; /* AF_INET, AF_INET6, AF_UNIX */
  in_port_t port;
  uint8_t ip[16];
} address;

typedef enum { WATCH_LISTENER, WATCH_CONN } watch_kind;

struct conn {
  watch_kind watch; /* first: the poller's data points here */
  int fd;
  server *server;
  const transport *io;
  conn *prev, *next; /* all connections */
  conn *ready_next;  /* those with something to do */
  timer timer;
  uint32_t refs;
  uint32_t since;       /* second in which the present wait began: see conn_deadline */
  uint32_t progress;    /* second of the last byte in or out within it */
  uint64_t sent, acked; /* bytes given to the kernel, and those of them known to have arrived */
  uint64_t moved;       /* bytes within it, for min_rate */
  uint8_t in, out, sink;
  uint8_t wait; /* what `since` counts: enum in connection.c */
  bool readable : 1, writable : 1, eof : 1, hung_up : 1, broken : 1, ready : 1, feeding : 1;
  bool hungry : 1; /* what is in `input` is no whole head yet */
  bool fresh : 1;  /* no request yet */
  bool asked_close : 1, was_shut : 1;
  bool keep_alive : 1; /* after this answer */
  bool closing : 1;    /* close when the output is sent */
  bool linger : 1;     /* ...but let the client finish talking first */
  bool probing : 1, asked : 1, http10 : 1, is_head : 1, chunked_in : 1, chunked_out : 1, paused : 1, wants_send : 1,
      over_limit : 1;
  bool expect : 1;  /* a 100 (Continue) is owed when the body is wanted */
  bool counted : 1; /* out_left counts a declared length */
  bool own : 1;     /* the program opened it: no client */
  bool pending : 1; /* raw, and no descriptor yet */
  bool greet : 1;   /* raw: the layer above has to be told that it is there */
  bool known : 1;   /* no protocol but HTTP wants it */
  bool held : 1;    /* answered, and to be given away before its next request */
  uint8_t kind;     /* raw_kind */
  uint16_t refusal; /* status to answer with when a discarded body is complete, or 0 */
  uint16_t allowed; /* methods for the Allow field of a 405 */
  http1_scan scan;
  bytes input; /* unread bytes of a head, or of pipelined requests */
  bytes body;
  union {
    uint64_t left;
    http1_chunked chunked;
  } framing;
  uint64_t taken; /* bytes of this body, or bytes read while lingering */
  queue output;
  uint64_t out_left;
  void *exchange;
  uint64_t handle; /* of a raw connection; 0: none */
  address peer;
};

/* connection.c: life, states, deadlines */
conn *conn_new(server *s, int fd,
               const struct sockaddr *peer); /* NULL: no memory; the descriptor is still the caller's */
conn *conn_make(server *s, bool own);        /* without a descriptor */
void conn_copy_peer(conn *c, const struct sockaddr *peer);
void conn_ref(conn *c);
void conn_unref(conn *c);
void conn_close(conn *c); /* at once */
int conn_give(conn *c); /* as conn_close, but its descriptor stays open and is the caller's; not one that is pending */
void conn_set_in(conn *c, in_state state);
void conn_set_out(conn *c, out_state state);
void conn_check(const conn *c); /* asserts the invariants in builds with EIGHTIES_CHECK */
bool conn_idle(const conn *c);
void conn_arm(conn *c);                                    /* set the timer to what is waited for */
void conn_due(timer *t);                                   /* a deadline has come */
void conn_enqueue(conn *c);                                /* onto the server's ready list */
void conn_enqueue_end(conn *c);                            /* so that up->closed is called */
void conn_kick(conn *c);                                   /* run it now, or soon where the server is at work */
void conn_drain(conn *c);                                  /* the server stops */
void conn_refuse(conn *c, int status, const char *reason); /* answer an error, then end the connection */
void conn_linger(conn *c);                                 /* take nothing more, send the output, then end in stages */
/* input.c: bytes to requests */
void conn_run(conn *c); /* do what can be done now: send, receive, feed */
/* output.c: answers to bytes */
/* For the layer above. Answer: answer_head, conn_write..., conn_end_answer. */
bool conn_write(conn *c, const char *at, size_t len);
bool conn_write_ref(conn *c, const char *at, size_t len, void *owner);
bool conn_write_file(conn *c, int fd, size_t offset, size_t len, void *owner);
/* A piece of a streamed answer, framed where needed; `owner` keeps the bytes and is given up. */
bool conn_write_chunk(conn *c, const char *at, size_t len, void *owner);
bool conn_send_ready(const conn *c);         /* whether more output is welcome */
bool conn_body_in_the_way(const conn *c);    /* an unread body keeps it from going on */
void conn_end_answer(conn *c);               /* the answer is complete */
void conn_abort(conn *c);                    /* the answer cannot be completed: cut the connection */
void conn_continue(conn *c);                 /* a stream wants its body: send 100 where expected */
bool conn_write_continue(conn *c);           /* the 100 itself, once; false: no memory */
void conn_resume_body(conn *c, bool paused); /* back-pressure of a streamed body */
void conn_flush(conn *c);                    /* send what the kernel takes */

/* ---- raw.c: connections that speak bytes ---- */

/* A connection that the program opens; it has no descriptor until raw_attach. NULL: no memory, or the server is closed. */
conn *raw_open(server *s, raw_kind kind, void *socket);
bool raw_attach(conn *c, int fd); /* false: errno says why; the descriptor is still the caller's */
/* Take a connection out of HTTP: a fresh one, or one whose exchange the caller has unlinked and which owes an answer.
 * `ended`: the request had a body, and it is complete. False: no memory. */
bool raw_take(conn *c, void *socket, bool ended);
void raw_greet(conn *c);        /* have up->opened called */
bool raw_writes(const conn *c); /* whether it takes output */
bool raw_write(conn *c, span data,
               void *owner); /* with an owner, which datagrams need, the bytes stay where they are; false: closed */
bool raw_close(conn *c);     /* when the output is sent; false: it was closed */
void raw_pause(conn *c, bool paused); /* whether input is left in the kernel */
/* For output.c: nothing more can be sent. False: nor is there anything to be read, so close it. */
bool raw_send_failed(conn *c);
/* For input.c: what conn_run does before and after the bytes, and the end of input. */
void raw_begin(conn *c);
void raw_finish(conn *c);
void raw_eof(conn *c);

/* ---- handle.c: numbers for raw connections ---- */

typedef struct {
  conn *conn;      /* NULL: free */
  uint64_t handle; /* of the connection, or of the last one; in free slots the next free one stands in `next` */
  uint32_t next;
} handle_slot;

typedef struct {
  handle_slot *slots;
  uint32_t n, free; /* `free`: the first free slot + 1, or 0 */
  uint64_t generation;
  unsigned live;
} handle_table;

void handle_init(handle_table *t, uint64_t seed); /* processes begin with different generations */
uint64_t handle_new(handle_table *t, conn *c); /* never 0 but without memory; below 2^63, above any descriptor number */
conn *handle_find(const handle_table *t, uint64_t handle);
void handle_end(handle_table *t, uint64_t handle);
void handle_clear(handle_table *t);

/* ---- answer.c: status lines, dates, heads, error answers ---- */

typedef struct {
  int status;
  span content_type;                /* empty: none */
  int64_t length;                   /* -1: unknown, the body is streamed */
  span extra;                       /* further field lines, each with CRLF, checked by the caller */
  bool has_date, has_server, close; /* the extra lines hold these / ask for the end of the connection */
} answer;

const char *answer_phrase(int status);
/* Put the head of the answer in the queue and set how the body is framed. False: no memory. */
bool answer_head(conn *c, const answer *a);
/* A whole answer with a short text. False: no memory. */
bool answer_text(conn *c, int status, const char *text, const char *extra);
/* The 405 or OPTIONS answer's Allow line for a set of methods; returns its length. */
size_t answer_allow(char *out, unsigned allowed);
#define ALLOW_BYTES 80
void answer_touch_date(server *s, int64_t now); /* seconds since 1970 */

/* ---- server.c ---- */

enum {
  COUNT_ACCEPTED,
  COUNT_CONNECTIONS,
  COUNT_REQUESTS,
  COUNT_ERRORS,
  COUNT_BYTES_IN,
  COUNT_BYTES_OUT,
  COUNT_TIMEOUTS,
  COUNT_STARTED,
  COUNTERS
};

typedef struct listener listener;
struct listener {
  watch_kind watch;
  int fd;
  listener *next;
  bool watched;
};

#define PREFACE_BYTES 160

struct server {
  limits limits;
  const upcalls *up;
  void *owner; /* of the layer above */
  poller *poller;
  listener *listeners;
  const router *router;
  conn *conns;              /* all */
  conn *passing;            /* where server_give_away goes on, within a round */
  conn *ready, *ready_last; /* to be run */
  unsigned n_conns, n_refused;
  unsigned conns_alive; /* with those that are closed but still referenced; for leak checks */
  int accept_batch;
  bool polling, draining, accept_paused, pause_told, ticking;
  bool raw;            /* accepted connections are raw from the start */
  bool sniffing;       /* up->sniff looks at their first bytes */
  bool shut;           /* server_close was called: nothing is opened any more */
  bool woken;          /* up->wake was called, and server_poll not yet */
  bool in_round;       /* of server_give_away */
  bool giving;         /* who is answered waits for the next round */
  bool alone;          /* server_run is at work: no raw connection is told anything */
  uint32_t now;        /* monotonic second, read once a turn */
  uint64_t budget_end; /* monotonic ns */
  unsigned work;       /* units since the last look at the clock */
  bool spent;          /* the budget is, until the clock is read again */
  wheel wheel;
  pool pool;
  handle_table handles;
  int64_t date;                /* second of the cached preface */
  char server_name[32];        /* without CR and LF; empty: no Server field */
  char preface[PREFACE_BYTES]; /* "Server: ...CRLF Date: ...CRLF" */
  size_t preface_len;
  char ok[PREFACE_BYTES + 32]; /* status line of 200 and the preface */
  size_t ok_len;
  uint64_t *counters; /* COUNTERS of them; in the shared scoreboard or own_counters */
  uint64_t own_counters[COUNTERS];
  http1_field *fields; /* of the head that is being read */
  char *scratch;       /* SCRATCH_BYTES */
};

server *server_new(const limits *l, const upcalls *up, void *owner, const char *server_name);
unsigned server_free(server *s);       /* closes everything; returns how many things were left over: none, or a leak */
bool server_listen(server *s, int fd); /* takes the descriptor over */
void server_poll(server *s);
void server_run(server *s, conn *c); /* one connection, outside of server_poll: whatever else is ready waits for that */
void server_wake(server *s);         /* have server_poll called soon */
void server_drain(server *s);
void server_close_listeners(server *s); /* accept no more, not even what is queued; connections go on */
void server_close(server *s);           /* every connection and listener, at once */
bool server_over_budget(server *s);
void server_touch_clock(server *s);
void server_conn_gone(server *s); /* a descriptor is free again */
void server_tick_on(server *s);
uint64_t clock_ns(void);

/* ---- passing.c: connections that go on in another process, which gets the descriptor by SCM_RIGHTS ---- */

/* What must be known of one there. The numbers go from version to version: they are not to be changed. */
enum { PASSED_FRESH = 1, PASSED_KNOWN = 2, PASSED_FLAGS = 3 }; /* conn.fresh, conn.known */

typedef struct {
  int fd;      /* the caller's; open, and no process watches it */
  bytes input; /* read, and not yet used; the caller's */
  unsigned flags;
} passed;

/* Take away the next connection that is between two requests, with `most` unread bytes at most. False: the round is over,
 * and the next call begins another; so who asks until then looks at each once, however many are busy. Never under
 * server_poll: false. From the first call on no connection begins another request after its answer: a client that asks
 * again at once would never be found between two. */
bool server_give_away(server *s, size_t most, passed *p);
/* They do again. So too when one is adopted here, which means that it could not be sent. */
void server_keep(server *s);
/* Make a connection of a descriptor, `unread` coming before what is in the socket. It is not counted as accepted, and taken
 * even beyond max_connections: accepting makes good for that. It runs under the next server_poll, and its deadlines begin
 * anew. False: errno says why (ESHUTDOWN: the server is closed); the descriptor is still the caller's. It must not be one of
 * this server's connections: kqueue does not tell. */
bool server_adopt(server *s, int fd, span unread, unsigned flags);

#endif
