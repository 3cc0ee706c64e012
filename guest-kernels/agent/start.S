/*
 * The arm64 Image header, and every vCPU's way from Xen to C.
 *
 * Xen enters with the MMU off: the first vCPU here with its device tree in x0,
 * the others at secondary_start, where PSCI CPU_ON sends them.
 */
#include "agent.h"

#define ENTRY(name)  .global name; .balign 16; name

/* SCTLR_EL1: the bits that are always one, and I, SA, C, M. */
#define SCTLR            (0x30d00800 | (1 << 12) | (1 << 3) | (1 << 2) | 1)
/* TCR_EL1: 48 bits below, nothing above; write-back, inner shareable, 4 KiB. */
#define TCR              ((1 << 23) | (3 << 12) | (1 << 10) | (1 << 8) | 16)
/* ID_AA64MMFR0_EL1.PARange and TCR_EL1.IPS: more than 48 bits need no asking. */
#define PARANGE_48       5
#define TCR_IPS_SHIFT    32

        .section .head, "ax"
ENTRY(_start):
        b       primary_start
        .long   0
        .quad   0               /* text_offset: anywhere, 2 MiB aligned */
        .quad   image_size
        .quad   0xa             /* little endian, 4 KiB pages, anywhere */
        .quad   0, 0, 0
        .ascii  "ARM\x64"
        .long   0

        /*
         * Work given before boot: this many operations lie in the file right
         * after image_size bytes.  The harness writes the number here.
         */
ENTRY(preloaded):
        .quad   0

        /* Where in the image the mailbox will be: the harness looks there first. */
        .quad   mailbox

        .text
primary_start:
        mov     x19, x0
        adrp    x1, bss_start
        add     x1, x1, :lo12:bss_start
        adrp    x2, bss_end
        add     x2, x2, :lo12:bss_end
1:      stp     xzr, xzr, [x1], #16
        cmp     x1, x2
        b.lo    1b

        mov     x20, #0
        bl      set_up_vcpu
        bl      mmu_build
        bl      mmu_on
        mov     x0, x20
        mov     x1, x19
        b       agent_main

        /*
         * The number is by MPIDR_EL1, 16 vCPUs to a cluster, and not what CPU_ON
         * was told for x0: a vCPU that is just turning itself off when another
         * turns it on again comes here with the result of CPU_OFF in x0
         * (do_vpsci_0_2_call() in xen/arch/arm/vpsci.c stores it last).
         */
ENTRY(secondary_start):
        mrs     x20, mpidr_el1
        ubfx    x0, x20, #8, #8
        and     x20, x20, #0xf
        orr     x20, x20, x0, lsl #4
        bl      set_up_vcpu
        bl      mmu_on
        mov     x0, x20
        mov     x1, #0
        b       agent_main

/* A stack, struct cpu, and vectors for vCPU x20. */
set_up_vcpu:
        adrp    x1, stacks
        add     x1, x1, :lo12:stacks
        mov     x2, #STACK_SIZE
        add     x3, x20, #1
        madd    x1, x3, x2, x1
        mov     sp, x1

        adrp    x1, cpus
        add     x1, x1, :lo12:cpus
        add     x1, x1, x20, lsl #CPU_SHIFT
        msr     tpidr_el1, x1

        adrp    x1, vectors
        add     x1, x1, :lo12:vectors
        msr     vbar_el1, x1
        isb
        msr     daifclr, #4     /* SErrors come when they happen */
        ret

/*
 * All memory is normal and cacheable here, like Xen's own view of it; where
 * Xen maps a device, its stage 2 attributes win.
 */
mmu_on:
        mov     x1, #0xff
        msr     mair_el1, x1
        mrs     x1, id_aa64mmfr0_el1
        and     x1, x1, #0xf
        mov     x2, #PARANGE_48
        cmp     x1, x2
        csel    x1, x1, x2, lo
        ldr     w2, =TCR
        orr     x2, x2, x1, lsl #TCR_IPS_SHIFT
        msr     tcr_el1, x2
        adrp    x1, table_root
        add     x1, x1, :lo12:table_root
        msr     ttbr0_el1, x1
        dsb     sy
        isb
        tlbi    vmalle1
        ic      iallu
        dsb     sy
        isb
        ldr     w1, =SCTLR
        msr     sctlr_el1, x1
        isb
        ret

        .ltorg
