/*
 * What the second stage found out. The host finds `report` by its symbol, and
 * reads it by the layout that this kernel's debug information gives.
 */
#ifndef SECOND_STAGE_H
#define SECOND_STAGE_H

#include "agent.h"

typedef long s64;

/* What became of an event that was sent. */
#define EVENT_NONE       0 /* none was sent */
#define EVENT_DELIVERED  1 /* recorded, and the vCPU was told */
#define EVENT_LOST       2 /* recorded, but masked: the vCPU will never know */
#define EVENT_NOWHERE    3 /* not recorded in the page we look at */

struct report
{
    u64 complete;        /* written last: 1 */
    u64 ram, ram_size;   /* from the device tree, in bytes */
    u64 mapped_at;       /* where shared_info was asked for */
    s64 result;          /* what Xen said to that */
    u64 holes;           /* RAM pages with nothing behind them */
    u64 aliases;         /* RAM pages that turned out to be shared_info */
    u64 alias;           /* the last of these */
    u64 shared_to_ram;   /* 1: a store through our mapping appeared in RAM */
    u64 ram_to_shared;   /* 1: a store into RAM appeared in our mapping */
    u64 event_before;    /* EVENT_*, while RAM is left alone */
    u64 mask_before;     /* the channel's word of the event mask */
    u64 mask_after;      /* the same after a store into that RAM page */
    u64 event_after;     /* EVENT_*, after it */
};

/* fdt.c: the first bank of RAM; 0 when the device tree has none. */
int fdt_ram(const void *fdt, u64 *base, u64 *size);

#endif /* SECOND_STAGE_H */
