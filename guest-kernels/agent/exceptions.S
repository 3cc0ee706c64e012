/*
 * Exceptions, and the few instructions that are expected to raise them.
 *
 * guarded() marks the place to return to.  A fault inside it abandons what
 * runs and returns there; any other exception ends the vCPU, with its
 * registers in the mailbox for the host to read.
 */
#include "agent.h"

#define ENTRY(name)  .global name; .balign 16; name
#define HVC_XEN          0xea1

        .text

/* u64 guarded(function, arguments) */
ENTRY(guarded):
        stp     x29, x30, [sp, #-96]!
        stp     x19, x20, [sp, #16]
        stp     x21, x22, [sp, #32]
        stp     x23, x24, [sp, #48]
        stp     x25, x26, [sp, #64]
        stp     x27, x28, [sp, #80]
        mrs     x9, tpidr_el1
        mov     x10, sp
        str     x10, [x9, #CPU_GUARD]
        mov     x10, x0
        mov     x0, x1
        blr     x10
        dsb     sy              /* an SError of this function's comes now */
        isb
        mrs     x9, tpidr_el1
        str     x0, [x9, #CPU_VALUE]
        mov     x0, #0
unguard:
        str     xzr, [x9, #CPU_GUARD]
        ldp     x19, x20, [sp, #16]
        ldp     x21, x22, [sp, #32]
        ldp     x23, x24, [sp, #48]
        ldp     x25, x26, [sp, #64]
        ldp     x27, x28, [sp, #80]
        ldp     x29, x30, [sp], #96
        ret

/* u64 do_hypercall(arguments): the number is the last of them */
ENTRY(do_hypercall):
        ldr     x16, [x0, #40]
        ldp     x1, x2, [x0, #8]
        ldp     x3, x4, [x0, #24]
        ldr     x0, [x0]
        hvc     #HVC_XEN
        ret

/* u64 do_firmware(arguments): PSCI and the like, by the SMC calling convention */
ENTRY(do_firmware):
        ldp     x2, x3, [x0, #16]
        ldp     x0, x1, [x0]
        hvc     #0
        ret

/*
 * No vector returns to where it came from, so none saves a register but x30,
 * which tells a post mortem who called into the void.
 */
.macro vector number
        .balign 128
        mrs     x9, tpidr_el1
        mov     x10, #\number + 1
        str     x10, [x9, #CPU_VECTOR]
        b       exception
.endm

        .balign 2048
ENTRY(vectors):
        .set    number, 0
        .rept   16
        vector  number
        .set    number, number + 1
        .endr

exception:
        mrs     x11, esr_el1
        mrs     x12, far_el1
        mrs     x13, elr_el1
        stp     x11, x12, [x9, #CPU_ESR]
        stp     x13, x30, [x9, #CPU_ELR]
        ldr     x14, [x9, #CPU_GUARD]
        cbz     x14, 1f

        mov     sp, x14
        mov     x0, x10
        adr     x13, unguard
        msr     elr_el1, x13
        eret

1:      mov     x0, x9          /* back to the top of this vCPU's stack */
        ldr     x1, [x9, #CPU_NUMBER]
        adrp    x2, stacks
        add     x2, x2, :lo12:stacks
        mov     x3, #STACK_SIZE
        add     x1, x1, #1
        madd    x2, x1, x3, x2
        mov     sp, x2
        b       agent_died
