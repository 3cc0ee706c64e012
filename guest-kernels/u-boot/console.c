// SPDX-License-Identifier: GPL-2.0
/*
 * U-Boot's console in a domU that Xen itself started: there is no xenstore and
 * no console ring, so this stands in for U-Boot's PV console driver.
 *
 * Output goes to Xen by HYPERVISOR_console_io, which every such domU may call.
 * Where Xen emulates a PL011 for the domU ("vpl011" in its node), that is used
 * both ways instead, so that somebody can type.
 */
#if __has_include(<common.h>) /* until 2024.07 everything needs it first */
#include <common.h>
#endif
#include <dm.h>
#include <errno.h>
#include <serial.h>

#include <asm/armv8/mmu.h>
#include <asm/io.h>
#include <asm/xen/hypercall.h>

#include <xenverify.h>

#define CONSOLE_WRITE		0
#define GUEST_PL011_BASE	0x22000000UL /* the same in Xen 4.12 to master */
#define PL011_DATA		0x00
#define PL011_FLAGS		0x18
#define PL011_FLAGS_RX_EMPTY	(1 << 4)
#define PL011_FLAGS_TX_FULL	(1 << 5)
#define PL011_SIZE		0x1000
#define LINE_LENGTH		128

/* Other parts of U-Boot leave this event channel alone; 0 is none. */
u32 console_evtchn;

static bool has_pl011;

/*
 * The first region of the memory map is the PV console's page; Xen said that
 * it lies at 0, which means there is none. The emulated UART takes its place.
 */
void xenverify_map_console(struct mm_region *first)
{
	if (first->phys)
		return;

	first->virt = GUEST_PL011_BASE;
	first->phys = GUEST_PL011_BASE;
	first->size = PL011_SIZE;
	first->attrs = PTE_BLOCK_MEMTYPE(MT_DEVICE_NGNRNE) |
		       PTE_BLOCK_NON_SHARE;
}

static u32 pl011_read(unsigned long offset)
{
	return readl((void *)(GUEST_PL011_BASE + offset));
}

static int xenverify_console_probe(struct udevice *dev)
{
	has_pl011 = xenverify_has_node("arm,sbsa-uart");

	return 0;
}

static int xenverify_console_putc(struct udevice *dev, const char ch)
{
	static char line[LINE_LENGTH];
	static int length;

	if (has_pl011) {
		if (pl011_read(PL011_FLAGS) & PL011_FLAGS_TX_FULL)
			return -EAGAIN;
		writel(ch, (void *)(GUEST_PL011_BASE + PL011_DATA));
		return 0;
	}

	/* Xen shows whole lines only, so nothing is lost by collecting one. */
	line[length++] = ch;
	if (ch == '\n' || length == LINE_LENGTH) {
		HYPERVISOR_console_io(CONSOLE_WRITE, length, line);
		length = 0;
	}

	return 0;
}

static int xenverify_console_pending(struct udevice *dev, bool input)
{
	return input && has_pl011 &&
	       !(pl011_read(PL011_FLAGS) & PL011_FLAGS_RX_EMPTY);
}

static int xenverify_console_getc(struct udevice *dev)
{
	if (!xenverify_console_pending(dev, true))
		return -EAGAIN;

	return pl011_read(PL011_DATA) & 0xff;
}

static const struct dm_serial_ops xenverify_console_ops = {
	.putc = xenverify_console_putc,
	.getc = xenverify_console_getc,
	.pending = xenverify_console_pending,
};

static const struct udevice_id xenverify_console_ids[] = {
	{ .compatible = "xen,xen" },
	{ }
};

U_BOOT_DRIVER(serial_xen) = {
	.name		= "serial_xen",
	.id		= UCLASS_SERIAL,
	.of_match	= xenverify_console_ids,
	.probe		= xenverify_console_probe,
	.ops		= &xenverify_console_ops,
};
