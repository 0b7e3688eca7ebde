/* doubles.h - what stands in for time, memory, accept and send around a server that is fuzzed: the engine is compiled with
 * -Dmalloc=fuzz_malloc and so on, see the Makefile. */
#ifndef EIGHTIES_DOUBLES_H
#define EIGHTIES_DOUBLES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

extern uint64_t now_ns;    /* since the machine started, as it were */
extern uint64_t step_ns;   /* by each look at the clock */
extern int memory_left;    /* allocations until one fails; -1: none does */
extern int accept_error;   /* what accept fails with; 0: it does not */
extern int send_error;     /* what the next send fails with */
extern bool short_sends;   /* a send takes half of its bytes */
extern bool small_buffers; /* output has to wait, and is taken in pieces */

void doubles_begin(void);
void pass_seconds(unsigned n); /* the tick tells of it */
void make_small(int fd);       /* where buffers are small */

#endif
