/*
 * Hypercalls from dom0's userland, as the toolstack makes them: through Linux'
 * /dev/xen/privcmd, with arguments in memory from /dev/xen/hypercall.
 *
 * Each argument of the command line is one call, in hexadecimal digits; each
 * line of the output is its result and what its buffers hold afterwards.
 * harness/linux_dom0/privcmd.py writes and reads both.  No C library is needed,
 * so no package of one is either.
 */
typedef unsigned char u8;
typedef unsigned long u64;
typedef long s64;

#define SYS_IOCTL        29
#define SYS_OPENAT       56
#define SYS_WRITE        64
#define SYS_EXIT         93
#define SYS_MMAP         222

#define AT_FDCWD         (-100)
#define O_RDWR           2
#define O_CLOEXEC        02000000
#define PROT_READ_WRITE  3
#define MAP_SHARED       1
/* _IOC(_IOC_NONE, 'P', 0, sizeof(struct privcmd_hypercall)) */
#define PRIVCMD_HYPERCALL 0x00305000ul

#define ARENA_SIZE       (64 * 1024)
#define NR_ARGUMENTS     5

/* What the digits of one call spell; all little endian. */
struct call
{
    u64 number;
    u64 argument[NR_ARGUMENTS];
    u64 pointers;  /* bit n: argument n is an offset into the arena */
    u64 fixups;    /* how many words of the arena are such offsets */
    u64 size;      /* bytes of the arena, which follow where[] */
    u64 where[];   /* offsets of those words */
};

struct privcmd_hypercall
{
    u64 number, argument[NR_ARGUMENTS];
};

static union
{
    struct call call;
    u8 bytes[2 * ARENA_SIZE];
} input;
static char line[2 * (ARENA_SIZE + sizeof(u64)) + 1];

static s64 syscall(u64 number, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    register u64 x8 __asm__ ( "x8" ) = number;
    register u64 x0 __asm__ ( "x0" ) = a;
    register u64 x1 __asm__ ( "x1" ) = b;
    register u64 x2 __asm__ ( "x2" ) = c;
    register u64 x3 __asm__ ( "x3" ) = d;
    register u64 x4 __asm__ ( "x4" ) = e;
    register u64 x5 __asm__ ( "x5" ) = f;

    __asm__ volatile ( "svc #0" : "+r" (x0)
                       : "r" (x8), "r" (x1), "r" (x2), "r" (x3), "r" (x4), "r" (x5)
                       : "memory" );

    return x0;
}

static void __attribute__((noreturn)) leave(u64 status)
{
    for ( ; ; )
        syscall(SYS_EXIT, status, 0, 0, 0, 0, 0);
}

static void write_all(u64 fd, const char *text, u64 length)
{
    while ( length )
    {
        s64 done = syscall(SYS_WRITE, fd, (u64)text, length, 0, 0, 0);

        if ( done <= 0 )
            leave(4);
        text += done;
        length -= done;
    }
}

static void __attribute__((noreturn)) fail(u64 status, const char *text)
{
    u64 length = 0;

    while ( text[length] )
        length++;
    write_all(2, text, length);
    leave(status);
}

static s64 open_device(const char *path)
{
    return syscall(SYS_OPENAT, AT_FDCWD, (u64)path, O_RDWR | O_CLOEXEC, 0, 0, 0);
}

static int digit(char c)
{
    if ( c >= '0' && c <= '9' )
        return c - '0';
    if ( c >= 'a' && c <= 'f' )
        return c - 'a' + 10;
    return -1;
}

/* The number of bytes that the digits spell. */
static u64 read_digits(const char *text)
{
    u64 i;

    for ( i = 0; text[2 * i]; i++ )
    {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);

        if ( i == sizeof(input) || high < 0 || low < 0 )
            fail(2, "hypercall: not a call\n");
        input.bytes[i] = high << 4 | low;
    }

    return i;
}

static char *put_digits(char *to, const u8 *from, u64 length)
{
    while ( length-- )
    {
        *to++ = "0123456789abcdef"[*from >> 4];
        *to++ = "0123456789abcdef"[*from++ & 0xf];
    }

    return to;
}

static void make_call(s64 privcmd, u8 *arena, const char *text)
{
    const struct call *call = &input.call;
    struct privcmd_hypercall request;
    u64 length = read_digits(text), i;
    const u8 *data;
    char *end;
    s64 result;

    if ( length < sizeof(*call) || call->size > ARENA_SIZE ||
         call->fixups > call->size / sizeof(u64) ||
         length != sizeof(*call) + call->fixups * sizeof(u64) + call->size )
        fail(2, "hypercall: a call of a wrong length\n");

    data = (const u8 *)&call->where[call->fixups];
    for ( i = 0; i < call->size; i++ )
        arena[i] = data[i];
    for ( i = 0; i < call->fixups; i++ )
    {
        if ( call->where[i] > call->size - sizeof(u64) )
            fail(2, "hypercall: a pointer outside\n");
        *(u64 *)(arena + call->where[i]) += (u64)arena;
    }

    request.number = call->number;
    for ( i = 0; i < NR_ARGUMENTS; i++ )
        request.argument[i] = call->argument[i] +
                              (call->pointers >> i & 1 ? (u64)arena : 0);

    result = syscall(SYS_IOCTL, privcmd, PRIVCMD_HYPERCALL, (u64)&request, 0, 0, 0);

    end = put_digits(line, (u8 *)&result, sizeof(result));
    end = put_digits(end, arena, call->size);
    *end++ = '\n';
    write_all(1, line, end - line);
}

void __attribute__((noreturn, used)) run(u64 *stack)
{
    u64 count = stack[0], i;
    char **arguments = (char **)&stack[1];
    s64 privcmd = open_device("/dev/xen/privcmd");
    s64 memory = open_device("/dev/xen/hypercall");
    s64 arena;

    if ( privcmd < 0 || memory < 0 )
        fail(3, "hypercall: no /dev/xen/privcmd or /dev/xen/hypercall\n");
    arena = syscall(SYS_MMAP, 0, ARENA_SIZE, PROT_READ_WRITE, MAP_SHARED, memory, 0);
    if ( arena < 0 && arena > -4096 )
        fail(3, "hypercall: no memory for arguments\n");

    for ( i = 1; i < count; i++ )
        make_call(privcmd, (u8 *)arena, arguments[i]);
    leave(0);
}

__asm__ ( ".global _start\n"
          "_start: mov x0, sp\n"
          "        b run\n" );
