// SPDX-License-Identifier: GPL-2.0
/*
 * What a toolstack would have given U-Boot, and a choice that is ours.
 */
#if __has_include(<common.h>)
#include <common.h>
#endif
#include <fdtdec.h>
#include <linux/string.h>

#include <asm/global_data.h>
#include <asm/xen/hypercall.h>
#include <asm/xen/system.h>

#include <linux/bug.h>
#include <linux/libfdt.h>

#include <xen/interface/memory.h>

#include <xenverify.h>

DECLARE_GLOBAL_DATA_PTR;

#define ROOM_FOR_NODE		512
/* A domU's window for its grant table, the same in Xen 4.12 to master. */
#define GRANT_TABLE_BASE	0x38000000
#define GRANT_TABLE_SIZE	(16 << 20)
/* A word of the domU's boot arguments, see xenverify_map_shared_info(). */
#define RELEASE_FIRST		"xenverify.release-first"

/* The interrupt of event channels: PPI 15, low level, for one CPU. */
#define EVENT_INTERRUPT		15
#define INTERRUPT_FLAGS		0xf08

/* Xen names it in each node that needs it, and not once for all. */
static fdt32_t interrupt_controller(const void *tree)
{
	int node = fdt_node_offset_by_prop_value(tree, -1,
						 "interrupt-controller", "", 0);

	return cpu_to_fdt32(node < 0 ? 0 : fdt_get_phandle(tree, node));
}

/*
 * Add the node that says where the grant table may go, and by which Linux
 * knows that it runs on Xen: Xen gives it to a domU of its own only since
 * 4.17, and only with "xen,enhanced".  The tree lies alone in 2 MiB of RAM,
 * there is room behind it.
 */
void *xenverify_device_tree(void *tree)
{
	/* Linux wants a version, and does not care which. */
	static const char compatible[] = "xen,xen-4\0xen,xen";
	const fdt32_t reg[] = { 0, cpu_to_fdt32(GRANT_TABLE_BASE),
				0, cpu_to_fdt32(GRANT_TABLE_SIZE) };
	const fdt32_t interrupts[] = { cpu_to_fdt32(1),
				       cpu_to_fdt32(EVENT_INTERRUPT),
				       cpu_to_fdt32(INTERRUPT_FLAGS) };
	const fdt32_t parent = interrupt_controller(tree);
	int node;

	if (fdt_node_offset_by_compatible(tree, -1, "xen,xen") >= 0 ||
	    fdt_open_into(tree, tree, fdt_totalsize(tree) + ROOM_FOR_NODE))
		return tree;

	node = fdt_add_subnode(tree, 0, "hypervisor");
	fdt_setprop(tree, node, "compatible", compatible, sizeof(compatible));
	fdt_setprop(tree, node, "reg", reg, sizeof(reg));
	fdt_setprop(tree, node, "interrupt-parent", &parent, sizeof(parent));
	fdt_setprop(tree, node, "interrupts", interrupts, sizeof(interrupts));

	return tree;
}

bool xenverify_has_node(const char *compatible)
{
	return fdt_node_offset_by_compatible(gd->fdt_blob, -1, compatible) >= 0;
}

static bool told_to_release_first(void)
{
	int chosen = fdt_path_offset(gd->fdt_blob, "/chosen");
	const char *arguments = fdt_getprop(gd->fdt_blob, chosen, "bootargs",
					    NULL);

	return arguments && strstr(arguments, RELEASE_FIRST);
}

/*
 * Mapping over a page of RAM does not free that page, it only loses it; a
 * domain that is at its maximum can then not populate the place again, as
 * U-Boot tries before it starts Linux.  The other way to make it right is to
 * give the page back first.  The domU's boot arguments choose, so that one
 * image shows both.
 */
int xenverify_map_shared_info(struct xen_add_to_physmap *request)
{
	xen_pfn_t page = request->gpfn;
	struct xen_memory_reservation reservation = {
		.nr_extents = 1,
		.domid = DOMID_SELF,
	};

	set_xen_guest_handle(reservation.extent_start, &page);
	if (told_to_release_first() &&
	    HYPERVISOR_memory_op(XENMEM_decrease_reservation, &reservation) != 1)
		BUG();

	return HYPERVISOR_memory_op(XENMEM_add_to_physmap, request);
}
