"""xenverify: what does real Xen do with a change that it did not do without it?"""
