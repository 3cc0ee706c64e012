/*
 * A QEMU TCG plugin that counts how often each instruction of one range of addresses runs.
 *
 * Arguments: low=ADDRESS,high=ADDRESS,counters=PATH.  PATH is a file of (high - low) * 2 bytes, one
 * 64-bit counter for each 4-byte instruction, which whoever maps it may read and zero while QEMU
 * runs.  ("file=" would be taken by QEMU itself.)
 *
 * The addition is compiled into the translated code, so a counted instruction costs one load, add
 * and store, and one that faults is counted before it does.  With several vCPUs, additions to one
 * counter may get lost, never its becoming non-zero.
 *
 * Debian ships no qemu-plugin.h.  The declarations below are the part of the interface's version 1
 * (QEMU 4.2 to 8.2) that is used here; where QEMU has no such interface, loading fails and the
 * harness goes on without.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define EXPORT __attribute__((visibility("default")))
#define INSTRUCTION_SHIFT 2

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct {
    const char *target_name;
    struct {
        int min;
        int cur;
    } version;
    bool system_emulation;
    struct {
        int smp_vcpus;
        int max_vcpus;
    } system;
} qemu_info_t;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
typedef void (*translation_callback)(qemu_plugin_id_t, struct qemu_plugin_tb *);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translation_callback);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, enum qemu_plugin_op,
                                                void *, uint64_t);

EXPORT int qemu_plugin_version = 1;

static uint64_t low, high;
static uint64_t *counters;

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    size_t number = qemu_plugin_tb_n_insns(block);

    (void)id;
    for (size_t i = 0; i < number; i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
        uint64_t address = qemu_plugin_insn_vaddr(instruction);

        if (address >= low && address < high)
            qemu_plugin_register_vcpu_insn_exec_inline(
                instruction, QEMU_PLUGIN_INLINE_ADD_U64,
                &counters[(address - low) >> INSTRUCTION_SHIFT], 1);
    }
}

/* The text behind "name=" if that is what `argument` begins with. */
static const char *value_of(const char *argument, const char *name)
{
    size_t length = strlen(name);

    if (strncmp(argument, name, length) || argument[length] != '=')
        return NULL;
    return argument + length + 1;
}

static int refuse(const char *what)
{
    perror(what);
    return -1;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    const char *path = NULL, *value;
    struct stat status;
    int file;

    (void)info;
    for (int i = 0; i < argc; i++) {
        if ((value = value_of(argv[i], "low")))
            low = strtoull(value, NULL, 0);
        else if ((value = value_of(argv[i], "high")))
            high = strtoull(value, NULL, 0);
        else if ((value = value_of(argv[i], "counters")))
            path = value;
    }
    if (!path || low >= high) {
        fprintf(stderr, "coverage plugin: low=ADDRESS,high=ADDRESS,counters=PATH\n");
        return -1;
    }
    file = open(path, O_RDWR);
    if (file < 0 || fstat(file, &status))
        return refuse(path);
    if ((uint64_t)status.st_size < (high - low) * 2) {
        fprintf(stderr, "coverage plugin: %s is too small\n", path);
        return -1;
    }
    counters = mmap(NULL, (high - low) * 2, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (counters == MAP_FAILED)
        return refuse(path);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
