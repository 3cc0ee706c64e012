/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What our edits to a copy of U-Boot call; harness/uboot/edits.py makes them.
 */
#ifndef XENVERIFY_H
#define XENVERIFY_H

#include <linux/types.h>

struct mm_region;
struct xen_add_to_physmap;

/* console.c */
void xenverify_map_console(struct mm_region *first);

/* domu.c */
void *xenverify_device_tree(void *tree);
bool xenverify_has_node(const char *compatible);
int xenverify_map_shared_info(struct xen_add_to_physmap *request);

#endif
