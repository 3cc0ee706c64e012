/*
 * Just enough of a device tree's flat form to find RAM in it.
 */
#include "second-stage.h"

#define FDT_MAGIC        0xd00dfeed
#define FDT_STRUCTURE    2 /* words of the header: where the nodes are, */
#define FDT_STRINGS      3 /* and the names of properties */

#define FDT_BEGIN_NODE   1
#define FDT_END_NODE     2
#define FDT_PROPERTY     3
#define FDT_NOP          4

#define DEFAULT_CELLS    2

struct walk
{
    u32 depth;
    u32 address_cells, size_cells; /* the root's */
    int is_memory;                 /* this node's device_type says so */
    const u32 *reg;                /* this node's */
};

static u32 be32(const u32 *word)
{
    return __builtin_bswap32(*word);
}

static u64 number(const u32 *word, u32 cells)
{
    u64 value = 0;

    while ( cells-- )
        value = (value << 32) | be32(word++);

    return value;
}

static int equal(const char *one, const char *other)
{
    while ( *one && *one == *other )
        one++, other++;

    return *one == *other;
}

static u32 words(u64 bytes)
{
    return (bytes + sizeof(u32) - 1) / sizeof(u32);
}

static u32 length(const char *string)
{
    u32 i = 0;

    while ( string[i] )
        i++;

    return i;
}

static void note(struct walk *walk, const char *name, const u32 *value)
{
    if ( walk->depth == 1 && equal(name, "#address-cells") )
        walk->address_cells = be32(value);
    else if ( walk->depth == 1 && equal(name, "#size-cells") )
        walk->size_cells = be32(value);
    else if ( walk->depth == 2 && equal(name, "device_type") )
        walk->is_memory = equal((const char *)value, "memory");
    else if ( walk->depth == 2 && equal(name, "reg") )
        walk->reg = value;
}

int fdt_ram(const void *fdt, u64 *base, u64 *size)
{
    const u32 *header = fdt, *word;
    const char *strings;
    struct walk walk = { 0, DEFAULT_CELLS, DEFAULT_CELLS, 0, 0 };

    if ( !fdt || be32(header) != FDT_MAGIC )
        return 0;

    word = (const u32 *)((const u8 *)fdt + be32(&header[FDT_STRUCTURE]));
    strings = (const char *)fdt + be32(&header[FDT_STRINGS]);

    for ( ; ; )
        switch ( be32(word++) )
        {
        case FDT_BEGIN_NODE:
            walk.depth++;
            walk.is_memory = 0;
            walk.reg = 0;
            word += words(length((const char *)word) + 1);
            break;

        case FDT_PROPERTY:
            note(&walk, strings + be32(&word[1]), &word[2]);
            word += 2 + words(be32(word));
            break;

        case FDT_END_NODE:
            if ( walk.depth == 2 && walk.is_memory && walk.reg )
            {
                *base = number(walk.reg, walk.address_cells);
                *size = number(walk.reg + walk.address_cells, walk.size_cells);
                return 1;
            }
            walk.depth--;
            break;

        case FDT_NOP:
            break;

        default: /* FDT_END, or nonsense */
            return 0;
        }
}
