/*
 * The agent: waits for batches of operations in its mailbox, and runs them.
 *
 * It knows nothing of what a case is about.  Every vCPU has a slot of its own
 * and does the same: wait until the host counts "posted" up, run the batch,
 * let "done" follow.
 */
#include "agent.h"

#define HYPERCALL_SCHED_OP  29
#define SCHEDOP_POLL        3
#define PSCI_CPU_OFF        0x84000002

/* Without work: look all the time for a while, then sleep longer and longer. */
#define NR_LOOKS            64
#define AWAKE_NS            200000
#define FIRST_NAP_NS        50000
#define LONGEST_NAP_NS      1000000

struct cpu cpus[MAX_VCPUS];
u8 stacks[MAX_VCPUS][STACK_SIZE] __attribute__((aligned(16)));
struct mailbox mailbox __attribute__((aligned(PAGE_SIZE), section(".pool")));

extern const u64 preloaded;

struct cpu *this_cpu(void)
{
    struct cpu *cpu;

    __asm__ ( "mrs %0, tpidr_el1" : "=r" (cpu) );

    return cpu;
}

static void memory_barrier(void)
{
    __asm__ volatile ( "dmb sy" ::: "memory" );
}

void stop(struct slot *slot, u32 state)
{
    memory_barrier();
    *(volatile u32 *)&slot->state = state;
    for ( ; ; )
        __asm__ volatile ( "wfi" ::: "memory" );
}

void agent_died(struct cpu *cpu)
{
    struct slot *slot = &mailbox.slot[cpu->number];

    slot->vector = cpu->vector;
    slot->esr = cpu->esr;
    slot->far = cpu->far;
    slot->elr = cpu->elr;
    slot->lr = cpu->lr;
    stop(slot, SLOT_DIED);
}

/*
 * Sleep in Xen, which lets other domains, and the host's other processes, run.
 *
 * SCHEDOP_poll takes a time on Xen's clock.  That one is behind the physical
 * counter, by at most what the counter showed when Xen made this domain, which
 * is where the virtual counter starts.  Waking too early says how much less.
 */
static void nap(u64 duration)
{
    static u64 behind;
    struct
    {
        u64 ports;
        u64 nr_ports;
        u64 timeout;
    } poll = { 0, 0, 0 };
    u64 arguments[NR_ARGUMENTS] = {
        SCHEDOP_POLL, (u64)&poll, 0, 0, 0, HYPERCALL_SCHED_OP
    };
    u64 start = to_ns(physical_counter()), slept;

    if ( !behind )
        behind = start - to_ns(counter());

    poll.timeout = start - behind + duration;
    do_hypercall(arguments);

    slept = to_ns(physical_counter()) - start;
    if ( slept < duration )
        behind -= behind < duration - slept ? behind : duration - slept;
}

static void wait_for_work(const volatile struct slot *slot)
{
    u64 start = counter(), duration = FIRST_NAP_NS;
    unsigned int looks = 0;

    while ( slot->posted == slot->done )
    {
        __asm__ volatile ( "yield" );
        if ( ++looks % NR_LOOKS == 0 &&
             *(volatile u32 *)&mailbox.idle == IDLE_NAP &&
             to_ns(counter() - start) > AWAKE_NS )
        {
            nap(duration);
            duration = duration * 2 < LONGEST_NAP_NS ? duration * 2 : LONGEST_NAP_NS;
        }
    }
}

/*
 * All vCPUs but the first turn themselves off when they have no work; the host
 * has them turned on again.  It posts first and looks at the state second, here
 * it is the other way round: one of the two sees what the other did.
 */
static void turn_off(volatile struct slot *slot)
{
    static const u64 arguments[NR_ARGUMENTS] = { PSCI_CPU_OFF };

    while ( slot->posted == slot->done )
    {
        slot->state = SLOT_OFF;
        memory_barrier();
        if ( slot->posted == slot->done )
            do_firmware(arguments);
        slot->state = SLOT_UP;
    }
}

static void __attribute__((noreturn)) serve(u64 number)
{
    struct slot *slot = &mailbox.slot[number];

    for ( ; ; )
    {
        u64 batch;

        if ( number )
            turn_off(slot);
        else
            wait_for_work(slot);

        memory_barrier();
        batch = *(volatile u64 *)&slot->posted;
        if ( slot->first < NR_OPERATIONS &&
             slot->count <= NR_OPERATIONS - slot->first )
            run(slot, &mailbox.operation[slot->first], slot->count);
        memory_barrier();
        *(volatile u64 *)&slot->done = batch;
    }
}

/*
 * What was given before boot becomes the first slot's first batch: the host
 * finds it posted, and done, when it first looks.
 */
static void take_preloaded(void)
{
    const u64 *from = (const u64 *)_end;
    u64 *to = (u64 *)mailbox.operation;
    u64 count = *(volatile const u64 *)&preloaded, i;

    if ( !count || count > NR_OPERATIONS )
        return;

    for ( i = 0; i < count * sizeof(struct operation) / sizeof(u64); i++ )
        to[i] = from[i];
    mailbox.slot[0].count = count;
    mailbox.slot[0].posted = 1;
}

/*
 * The host finds the magic, then every page of the mailbox by its number, as
 * a proof that the pages lie in the machine's memory as they do in the guest's.
 */
static void open_mailbox(u64 fdt)
{
    u64 part = 0x9d4c2f86a15be073ul;
    u64 *word = (u64 *)&mailbox, page, i;

    for ( i = 0; i < __builtin_offsetof(struct mailbox, operation) / sizeof(u64); i++ )
        word[i] = 0;
    for ( page = 1; page < sizeof(mailbox) / PAGE_SIZE; page++ )
        word[(page + 1) * PAGE_SIZE / sizeof(u64) - 1] = page;

    mailbox.version = MAILBOX_VERSION;
    mailbox.address = (u64)&mailbox;
    mailbox.size = sizeof(mailbox);
    mailbox.image = (u64)_start;
    mailbox.end = (u64)_end;
    mailbox.fdt = fdt;
    mailbox.secondary = (u64)secondary_start;
    __asm__ volatile ( "mrs %0, cntfrq_el0" : "=r" (mailbox.frequency) );
    mailbox.slot[0].state = SLOT_UP;
    take_preloaded();

    /* The compiler must not know the sum, or it would be in the image. */
    __asm__ volatile ( "" : "+r" (part) );
    memory_barrier();
    *(volatile u64 *)&mailbox.magic = part + 0x317a0e55c2d8946bul;
}

void agent_main(u64 number, u64 fdt)
{
    this_cpu()->number = number;
    if ( number )
        *(volatile u32 *)&mailbox.slot[number].state = SLOT_UP;
    else
        open_mailbox(fdt);
    serve(number);
}
