/*
 * The interpreter: one function an operation, each run guarded.
 */
#include "agent.h"

#define NS_PER_SECOND    1000000000ul

u64 counter(void)
{
    u64 now;

    __asm__ volatile ( "isb; mrs %0, cntvct_el0" : "=r" (now) :: "memory" );

    return now;
}

/* The same, as Xen sees it: not beginning with this domain. */
u64 physical_counter(void)
{
    u64 now;

    __asm__ volatile ( "isb; mrs %0, cntpct_el0" : "=r" (now) :: "memory" );

    return now;
}

static u64 scale(u64 value, u64 from, u64 to)
{
    return value / from * to + value % from * to / from;
}

static u64 to_ticks(u64 ns)
{
    return scale(ns, NS_PER_SECOND, mailbox.frequency);
}

u64 to_ns(u64 ticks)
{
    return scale(ticks, mailbox.frequency, NS_PER_SECOND);
}

static u64 load(u64 address, u64 width)
{
    switch ( width )
    {
    case 1: return *(volatile u8 *)address;
    case 2: return *(volatile u16 *)address;
    case 4: return *(volatile u32 *)address;
    default: return *(volatile u64 *)address;
    }
}

static u64 do_load(const u64 *argument)
{
    return load(argument[0], argument[1]);
}

static u64 do_store(const u64 *argument)
{
    u64 address = argument[0], value = argument[2];

    switch ( argument[1] )
    {
    case 1: *(volatile u8 *)address = value; break;
    case 2: *(volatile u16 *)address = value; break;
    case 4: *(volatile u32 *)address = value; break;
    default: *(volatile u64 *)address = value; break;
    }

    return 0;
}

static u64 do_fill(const u64 *argument)
{
    volatile u64 *to = (volatile u64 *)argument[0];
    u64 words = argument[1] / sizeof(u64), word = argument[2], i;

    for ( i = 0; i < words; i++, word += argument[3] )
        to[i] = word;

    return 0;
}

/* Words while both sides and the length allow it, bytes for the rest. */
static u64 do_compare(const u64 *argument)
{
    u64 one = argument[0], other = argument[1], bytes = argument[2], i = 0;

    if ( !((one | other) % sizeof(u64)) )
        while ( i + sizeof(u64) <= bytes &&
                load(one + i, sizeof(u64)) == load(other + i, sizeof(u64)) )
            i += sizeof(u64);
    while ( i < bytes && load(one + i, 1) == load(other + i, 1) )
        i++;

    return i;
}

static u64 do_copy(const u64 *argument)
{
    u64 to = argument[0], from = argument[1], bytes = argument[2], i = 0;

    if ( !((to | from) % sizeof(u64)) )
        for ( ; i + sizeof(u64) <= bytes; i += sizeof(u64) )
            *(volatile u64 *)(to + i) = load(from + i, sizeof(u64));
    for ( ; i < bytes; i++ )
        *(volatile u8 *)(to + i) = load(from + i, 1);

    return 0;
}

static u64 do_fetch(const u64 *argument)
{
    __asm__ volatile ( "ic iallu; dsb sy; isb" ::: "memory" );

    return ((u64 (*)(u64))argument[0])(0);
}

static u64 do_barrier(const u64 *argument)
{
    (void)argument;
    __asm__ volatile ( "dsb sy; isb" ::: "memory" );

    return 0;
}

static u64 do_await(const u64 *argument)
{
    u64 start = counter(), patience = to_ticks(argument[3]);

    while ( load(argument[0], argument[1]) != argument[2] )
        if ( counter() - start > patience )
            return 0;

    return 1;
}

static u64 do_sleep(const u64 *argument)
{
    u64 start = counter(), duration = to_ticks(argument[0]);

    while ( counter() - start < duration )
        continue;

    return 0;
}

/*
 * Who does an operation, how many of its first arguments are addresses that
 * have to be within reach, and whether the second one is a width.
 */
static const struct job
{
    u64 (*function)(const u64 *argument);
    u32 nr_addresses;
    u32 has_width;
} jobs[] = {
    [OP_HYPERCALL] = { do_hypercall, 0, 0 },
    [OP_FIRMWARE] = { do_firmware, 0, 0 },
    [OP_LOAD] = { do_load, 1, 1 },
    [OP_STORE] = { do_store, 1, 1 },
    [OP_FILL] = { do_fill, 1, 0 },
    [OP_COMPARE] = { do_compare, 2, 0 },
    [OP_COPY] = { do_copy, 2, 0 },
    [OP_FETCH] = { do_fetch, 1, 0 },
    [OP_BARRIER] = { do_barrier, 0, 0 },
    [OP_AWAIT] = { do_await, 1, 1 },
    [OP_SLEEP] = { do_sleep, 0, 0 },
};

static const struct job *job_of(const struct operation *op)
{
    const struct job *job = &jobs[op->code];
    u64 width = op->argument[1];
    u32 i;

    if ( op->code >= sizeof(jobs) / sizeof(*jobs) || !job->function )
        return 0;
    if ( job->has_width && width != 1 && width != 2 && width != 4 && width != 8 )
        return 0;
    for ( i = 0; i < job->nr_addresses; i++ )
        if ( !mmu_reach(op->argument[i]) )
            return 0;

    return job;
}

/* Vectors come in fours: synchronous, IRQ, FIQ, SError; counted from 1. */
static u32 kind_of_fault(u64 vector)
{
    if ( !vector )
        return FAULT_NONE;

    return vector % 4 ? FAULT_SYNC : FAULT_SERROR;
}

static void execute(struct operation *op)
{
    const struct job *job = job_of(op);
    struct cpu *cpu = this_cpu();
    u64 function;

    if ( !job )
    {
        op->fault = FAULT_UNKNOWN;
        return;
    }

    /* Linked at 0: what is stored as an address is the distance from _start. */
    function = (u64)_start + (u64)job->function;
    op->fault = kind_of_fault(guarded((u64 (*)(const u64 *))function, op->argument));
    op->value = cpu->value;
    op->esr = cpu->esr;
    op->far = cpu->far;
}

void run(struct slot *slot, struct operation *first, u32 count)
{
    u32 i;

    for ( i = 0; i < count; i++ )
    {
        struct operation *op = &first[i];

        slot->running = i;
        switch ( op->code )
        {
        case OP_REPEAT:
            if ( op->argument[0] <= i && op->value < op->argument[1] )
            {
                op->value++;
                i -= op->argument[0] + 1;
            }
            break;

        case OP_STOP:
            slot->done = slot->posted;
            stop(slot, SLOT_STOPPED);

        default:
            execute(op);
            break;
        }
    }
}
