/*
 * What the agent and the host share: the layout of the mailbox in guest RAM.
 *
 * harness/agent.py holds the same layout in Python; a test compares the two
 * through this kernel's debug information.  All numbers are little endian, all
 * addresses are the guest's own (intermediate physical) ones.
 */
#ifndef MAILBOX_H
#define MAILBOX_H

#define MAILBOX_VERSION  1

#define MAX_VCPUS        8
#define NR_OPERATIONS    8192
#define DATA_SIZE        (512 * 1024)

/*
 * The operations.  Each uses the first arguments only; what it gives back goes
 * into "value".  Widths are 1, 2, 4 or 8 bytes.
 */
#define OP_HYPERCALL     1 /* x0, x1, x2, x3, x4, number -> x0 */
#define OP_FIRMWARE      2 /* x0, x1, x2, x3 (PSCI, SMCCC) -> x0 */
#define OP_LOAD          3 /* address, width -> what was there */
#define OP_STORE         4 /* address, width, value */
#define OP_FILL          5 /* address, bytes, first 64-bit word, step */
#define OP_COMPARE       6 /* address, address, bytes -> offset that differs */
#define OP_COPY          7 /* to, from, bytes */
#define OP_FETCH         8 /* address of code that returns -> its x0 */
#define OP_BARRIER       9 /* complete all that was done so far */
#define OP_AWAIT        10 /* address, width, value, ns -> 1, or 0: too late */
#define OP_SLEEP        11 /* ns */
#define OP_REPEAT       12 /* how many operations before this, how often */
#define OP_STOP         13 /* this vCPU answers nothing any more */

/* Why an operation has no value. */
#define FAULT_NONE       0
#define FAULT_SYNC       1 /* data or instruction abort, undefined, ... */
#define FAULT_SERROR     2
#define FAULT_UNKNOWN    3 /* no such operation, or a wrong width */

#define NR_ARGUMENTS     6

#ifndef __ASSEMBLY__

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

struct operation
{
    u32 code;
    u32 fault;
    u64 argument[NR_ARGUMENTS];
    u64 value;
    u64 esr; /* these two only when fault is set */
    u64 far;
};

/* One vCPU's work; a cache line and more to itself. */
struct slot
{
    u64 posted;   /* the host counts this up when it has put down a batch ... */
    u64 done;     /* ... and the agent follows when the batch is done */
    u32 first;    /* the batch: this operation ... */
    u32 count;    /* ... and so many */
    u32 running;  /* the operation at work, for the post mortem */
    u32 state;    /* SLOT_* */
    u64 vector;   /* of the exception that ended a vCPU, and what it found */
    u64 esr, far, elr, lr;
    u64 reserved[7];
};

#define SLOT_OFF         0 /* every vCPU but the first, when it has no work */
#define SLOT_UP          1
#define SLOT_STOPPED     2 /* by OP_STOP */
#define SLOT_DIED        3 /* by an exception that no operation caused */

/* What the first vCPU does without work; the others turn themselves off. */
#define IDLE_NAP         0 /* look for a moment, then sleep in Xen, by and by */
#define IDLE_SPIN        1 /* look all the time: Xen is left alone */

struct mailbox
{
    u64 magic;    /* last to be written; exists nowhere in the image */
    u32 version;
    u32 idle;     /* IDLE_*, written by the host */
    u64 address;  /* of this mailbox */
    u64 size;     /* of this mailbox */
    u64 image;    /* the agent's own memory, mailbox included: from here ... */
    u64 end;      /* ... to here */
    u64 fdt;      /* as given by Xen */
    u64 secondary; /* where PSCI CPU_ON shall start other vCPUs */
    u64 frequency; /* of the generic timer */
    u64 reserved[7];
    struct slot slot[MAX_VCPUS];
    struct operation operation[NR_OPERATIONS] __attribute__((aligned(4096)));
    u8 data[DATA_SIZE] __attribute__((aligned(4096)));
};

#endif /* !__ASSEMBLY__ */

#endif /* MAILBOX_H */
