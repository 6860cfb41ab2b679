"""Stores in engines that others make, behind the contract of `ragkit.store.base`."""
