/*
 * The agent's own insides: what its C and its assembly agree upon.
 */
#ifndef AGENT_H
#define AGENT_H

#include "mailbox.h"

#define PAGE_SIZE        4096
#define STACK_SIZE       8192

/* Offsets into struct cpu. */
#define CPU_GUARD        0
#define CPU_VALUE        8
#define CPU_VECTOR       16
#define CPU_ESR          24
#define CPU_FAR          32
#define CPU_ELR          40
#define CPU_LR           48
#define CPU_NUMBER       56
#define CPU_SHIFT        6

#ifndef __ASSEMBLY__

/* What a vCPU knows of itself; TPIDR_EL1 points to it. */
struct cpu
{
    u64 guard;  /* stack pointer of guarded(), 0 when no fault is expected */
    u64 value;  /* what the guarded function returned */
    u64 vector; /* the last exception: 1 + its place in the vector table, */
    u64 esr;    /* and the registers that describe it */
    u64 far;
    u64 elr;
    u64 lr;
    u64 number;
};

extern struct mailbox mailbox;
extern u8 _start[], _end[];

/* start.S */
void secondary_start(void);

/* exceptions.S: run function(arguments); 0, or the vector of what it ran into. */
u64 guarded(u64 (*function)(const u64 *arguments), const u64 *arguments);
u64 do_hypercall(const u64 *arguments);
u64 do_firmware(const u64 *arguments);

/* mmu.c */
void mmu_build(void);
int mmu_reach(u64 address);

/* operations.c */
u64 counter(void);
u64 physical_counter(void);
u64 to_ns(u64 ticks);
void run(struct slot *slot, struct operation *first, u32 count);

/* agent.c */
struct cpu *this_cpu(void);
void __attribute__((noreturn)) agent_main(u64 number, u64 fdt);
void __attribute__((noreturn)) agent_died(struct cpu *cpu);
void __attribute__((noreturn)) stop(struct slot *slot, u32 state);

#endif /* !__ASSEMBLY__ */

#endif /* AGENT_H */
