/*
 * The second stage: what a boot loader starts instead of an operating system.
 *
 * It does what the first lines of every operating system do on Xen, and looks
 * at what the boot loader left behind: it maps shared_info at a place of its
 * own, and searches all of its RAM for a page that is shared_info as well.
 * Such a page is found by letting Xen write to shared_info: an event is sent,
 * and the RAM page where the event shows up is no RAM.
 *
 * Afterwards it is the agent, and the host may ask it for more.
 */
#include "second-stage.h"

#define MEMORY_OP            12
#define ADD_TO_PHYSMAP       7
#define SPACE_SHARED_INFO    0
#define CONSOLE_IO           18
#define CONSOLE_WRITE        0
#define EVENT_CHANNEL_OP     32
#define BIND_INTERDOMAIN     0
#define CLOSE                3
#define SEND                 4
#define ALLOC_UNBOUND        6
#define DOMID_SELF           0x7ff0

/* A hole in every Xen since 4.12: half way through the grant table's window. */
#define MAPPED_AT            0x38800000ul

/* struct shared_info of arm64; a test compares these with Xen's own. */
#define UPCALL_PENDING       0   /* u8 */
#define PENDING_SELECTOR     8   /* u64 */
#define EVENT_PENDING        48  /* u64[64] */
#define EVENT_MASK           560 /* u64[64] */
#define UNUSED               4032 /* far behind its end, in the same page */

#define MAX_PAGES            (1ul << 18) /* 1 GiB */
#define PATTERN              0x5ead1f0a11a5edul
#define OS_DATA              (~0ul) /* what the "OS" puts into its RAM */

struct report report;

static u8 pending_before[MAX_PAGES / 8];

void __attribute__((noreturn)) __real_agent_main(u64 cpu, u64 fdt);
void __attribute__((noreturn)) __wrap_agent_main(u64 cpu, u64 fdt);


static s64 hypercall(u64 number, u64 first, u64 second, u64 third)
{
    const u64 arguments[NR_ARGUMENTS] = { first, second, third, 0, 0, number };

    return do_hypercall(arguments);
}

/* The console. */

static void say(const char *text)
{
    u64 length = 0;

    while ( text[length] )
        length++;
    hypercall(CONSOLE_IO, CONSOLE_WRITE, length, (u64)text);
}

static void say_number(u64 value)
{
    char text[] = "0x0000000000000000";
    unsigned int first = sizeof(text) - 1, i;

    for ( i = sizeof(text) - 2; i > 1; i--, value >>= 4 )
    {
        text[i] = "0123456789abcdef"[value & 0xf];
        if ( value )
            first = i;
    }
    if ( first == sizeof(text) - 1 )
        first--;
    text[first - 1] = 'x';
    text[first - 2] = '0';
    say(&text[first - 2]);
}

static void say_result(s64 value)
{
    char text[] = "-000";
    u64 rest = value < 0 ? -value : value;
    unsigned int i = sizeof(text) - 1;

    do {
        text[--i] = '0' + rest % 10;
        rest /= 10;
    } while ( rest && i > 1 );
    if ( value < 0 )
        text[--i] = '-';
    say(&text[i]);
}

/* Memory. */

static volatile u64 *word_at(u64 address)
{
    return (volatile u64 *)address;
}

static u64 do_read(const u64 *address)
{
    return *word_at(*address);
}

/* RAM may have holes: 0, and the word that is there, or something else. */
static u64 read_ram(u64 address, u64 *word)
{
    u64 fault = guarded(do_read, &address);

    *word = this_cpu()->value;

    return fault;
}

/* Event channels: two ends, both ours, so that no other domain is needed. */

static u32 open_channel(u32 *other_end)
{
    struct { u16 dom, remote_dom; u32 port; } alloc = {
        DOMID_SELF, DOMID_SELF, 0
    };
    struct { u16 remote_dom; u32 remote_port, local_port; } bind = {
        DOMID_SELF, 0, 0
    };

    if ( hypercall(EVENT_CHANNEL_OP, ALLOC_UNBOUND, (u64)&alloc, 0) )
        return 0;
    bind.remote_port = alloc.port;
    if ( hypercall(EVENT_CHANNEL_OP, BIND_INTERDOMAIN, (u64)&bind, 0) )
        return 0;
    *other_end = bind.local_port;

    return alloc.port;
}

static void send(u32 port)
{
    hypercall(EVENT_CHANNEL_OP, SEND, (u64)&port, 0);
}

static void close_channel(u32 port)
{
    hypercall(EVENT_CHANNEL_OP, CLOSE, (u64)&port, 0);
}

static volatile u64 *port_word(u64 page, u64 array, u32 port)
{
    return word_at(page + array) + port / 64;
}

static u64 port_bit(u32 port)
{
    return 1ul << port % 64;
}

/* Send an event to a channel that has none pending, and see what becomes of it. */
static u64 fate_of_event(u64 shared, u32 port, u32 other_end)
{
    volatile u64 *pending = port_word(shared, EVENT_PENDING, port);

    *pending &= ~port_bit(port);
    *word_at(shared + PENDING_SELECTOR) = 0;
    *(volatile u8 *)(shared + UPCALL_PENDING) = 0;
    send(other_end);

    if ( !(*pending & port_bit(port)) )
        return EVENT_NOWHERE;

    return *(volatile u8 *)(shared + UPCALL_PENDING) ? EVENT_DELIVERED : EVENT_LOST;
}

/* The search. */

static s64 map_shared_info(void)
{
    struct { u16 domid, size; u32 space; u64 idx, gpfn; } request = {
        DOMID_SELF, 0, SPACE_SHARED_INFO, 0, MAPPED_AT / PAGE_SIZE
    };

    return hypercall(MEMORY_OP, ADD_TO_PHYSMAP, (u64)&request, 0);
}

/* Between the two looks at a page, Xen has recorded an event in shared_info. */
static void find_aliases(u32 port, u32 other_end)
{
    u64 pages = report.ram_size / PAGE_SIZE, page, word;

    if ( pages > MAX_PAGES )
        pages = MAX_PAGES;

    for ( page = 0; page < pages; page++ )
    {
        u64 at = report.ram + page * PAGE_SIZE;

        if ( read_ram((u64)port_word(at, EVENT_PENDING, port), &word) )
            report.holes++;
        else if ( word & port_bit(port) )
            pending_before[page / 8] |= 1 << page % 8;
    }

    send(other_end);

    for ( page = 0; page < pages; page++ )
    {
        u64 at = report.ram + page * PAGE_SIZE;

        if ( !read_ram((u64)port_word(at, EVENT_PENDING, port), &word) &&
             (word & port_bit(port)) &&
             !(pending_before[page / 8] & (1 << page % 8)) )
        {
            report.aliases++;
            report.alias = at;
        }
    }
}

static u64 travels(u64 from, u64 to, u64 pattern)
{
    *word_at(from + UNUSED) = pattern;

    return *word_at(to + UNUSED) == pattern;
}

static void try_events(u64 shared, u32 port, u32 other_end)
{
    volatile u64 *mask = port_word(shared, EVENT_MASK, port);

    *mask &= ~port_bit(port);
    report.mask_before = *mask;
    report.event_before = fate_of_event(shared, port, other_end);
    if ( !report.aliases )
        return;

    /* All the OS does is use a page of its RAM. */
    *port_word(report.alias, EVENT_MASK, port) = OS_DATA;
    report.mask_after = *mask;
    report.event_after = fate_of_event(shared, port, other_end);
}

static void look(u64 fdt)
{
    u32 port, other_end = 0;

    report.mapped_at = MAPPED_AT;
    report.result = map_shared_info();
    port = open_channel(&other_end);
    if ( !port || !fdt_ram((const void *)fdt, &report.ram, &report.ram_size) )
        return;

    find_aliases(port, other_end);
    if ( report.aliases && !report.result )
    {
        report.shared_to_ram = travels(MAPPED_AT, report.alias, PATTERN);
        report.ram_to_shared = travels(report.alias, MAPPED_AT, ~PATTERN);
    }
    if ( !report.result )
        try_events(MAPPED_AT, port, other_end);
    else if ( report.aliases )
        try_events(report.alias, port, other_end);
    close_channel(other_end);
    close_channel(port);
    report.complete = 1;
}

static void say_event(const char *when, u64 event)
{
    say("second stage: an event sent ");
    say(when);
    say(event == EVENT_DELIVERED ? " is delivered\n" :
        event == EVENT_LOST ? " is lost: its channel is masked\n" :
        " is not recorded where it should be\n");
}

static void tell(void)
{
    say("second stage: shared_info at ");
    say_number(report.mapped_at);
    say(": ");
    say_result(report.result);
    say("\n");
    if ( !report.complete )
    {
        say("second stage: no RAM in the device tree, or no event channel\n");
        return;
    }
    say("second stage: ");
    say_number(report.ram_size / PAGE_SIZE);
    say(" pages of RAM, of them holes: ");
    say_number(report.holes);
    say(", shared_info: ");
    say_number(report.aliases);
    say("\n");
    if ( report.aliases )
    {
        say("second stage: RAM at ");
        say_number(report.alias);
        say(" is shared_info\n");
    }
    if ( report.event_before )
        say_event("before RAM is used", report.event_before);
    if ( report.event_after )
        say_event("after RAM is used", report.event_after);
}

void __wrap_agent_main(u64 cpu, u64 fdt)
{
    if ( !cpu )
    {
        look(fdt);
        tell();
    }
    __real_agent_main(cpu, fdt);
}
