/*
 * Stage 1: every address means itself, in blocks of 1 GiB, as normal memory
 * that is cached and shared between vCPUs.  Whatever the guest sees or does
 * not see is therefore Xen's stage 2 alone.
 */
#include "agent.h"

#define NR_ENTRIES       512
#define TOP_SHIFT        39 /* what one entry of the root covers */
#define BLOCK_SHIFT      30
#define NR_TABLES        8

#define VALID            0x1ul
#define TABLE            0x2ul
#define INNER_SHAREABLE  (3ul << 8)
#define ACCESSED         (1ul << 10)

typedef u64 table_t[NR_ENTRIES];

table_t table_root __attribute__((aligned(PAGE_SIZE)));
static table_t tables[NR_TABLES] __attribute__((aligned(PAGE_SIZE)));
static unsigned int nr_used;

static int map_top(u64 top)
{
    u64 *table;
    unsigned int i;

    if ( nr_used == NR_TABLES )
        return 0;

    table = tables[nr_used++];
    for ( i = 0; i < NR_ENTRIES; i++ )
        table[i] = (top << TOP_SHIFT) | ((u64)i << BLOCK_SHIFT) |
                   ACCESSED | INNER_SHAREABLE | VALID;

    __asm__ volatile ( "dsb sy" ::: "memory" );
    table_root[top] = (u64)table | TABLE | VALID;
    __asm__ volatile ( "dsb sy; isb" ::: "memory" );

    return 1;
}

/* The first 512 GiB: all RAM and all devices of any machine of ours. */
void mmu_build(void)
{
    map_top(0);
}

/*
 * Map what lies around the address; 0 when it has more than 48 bits, or when
 * too many far away places were asked for.  Only the first vCPU may be sent
 * to places that none was before.
 */
int mmu_reach(u64 address)
{
    u64 top = address >> TOP_SHIFT;

    if ( top >= NR_ENTRIES )
        return 0;

    return table_root[top] || map_top(top);
}
