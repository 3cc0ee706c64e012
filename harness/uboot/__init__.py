"""U-Boot as a guest: source in, an image that boots on Xen out. Nothing of U-Boot is kept here."""
